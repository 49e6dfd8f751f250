"""Adding, moving, copying and forgetting."""

from __future__ import annotations

import hashlib

import fsspec
import pytest

from conftest import Lab
from mirrored import CONTENT, released_file
from recallfs.catalog import changes
from recallfs.catalog.database import Intent
from recallfs.catalog.holder import Holder
from recallfs.errors import ConflictError, InvalidInputError
from recallfs.resolve import tree
from recallfs.resolve.commit import add_existing
from recallfs.resolve.presence import settle
from recallfs.values import State


def test_files_below_are_the_regular_ones(lab: Lab) -> None:
    """Regular files are listed in order; symlinks and our own folder are not."""
    for name in ("b/2", "a", "b/1", "c d/é"):
        (lab.root / name).parent.mkdir(exist_ok=True)
        (lab.root / name).write_text("x")
    (lab.root / "link").symlink_to(lab.root / "a")
    (lab.root / "loop").symlink_to(lab.root)
    assert list(tree.files_below(lab.store, "")) == ["a", "b/1", "b/2", "c d/é"]
    assert list(tree.files_below(lab.store, "b")) == ["b/1", "b/2"]
    assert list(tree.files_below(lab.store, "b/1")) == ["b/1"]
    assert list(tree.files_below(lab.store, "link")) == []


def test_move_never_replaces(lab: Lab) -> None:
    """A taken name is refused, whether its file is here, released or in no catalog."""
    released_file(lab, "far")
    for name in ("mine", "here", "plain"):
        (lab.root / name).write_text(name)
    add_existing(lab.store, ["mine", "here"])
    for taken in ("far", "here", "plain"):
        with pytest.raises(ConflictError):
            tree.move(lab.store, "mine", taken)
    assert (lab.root / "mine").read_text() == "mine"
    assert lab.entry("far").state is State.RELEASED


def test_move_takes_the_entry_along(lab: Lab) -> None:
    """A moved file is known by its new name only, with the same entry, and is not hashed again."""
    (lab.root / "a").write_text("1")
    (entry,) = add_existing(lab.store, ["a"])
    tree.move(lab.store, "a", "new folder/b")
    moved = lab.entry("new folder/b")
    assert moved.id == entry.id
    assert lab.store.catalog.entry_at("a") is None
    from recallfs.resolve.presence import observe

    assert observe(lab.store, moved) is State.RESIDENT


def test_forget_drops_everything_of_the_entry(lab: Lab) -> None:
    """Forgetting removes file, sidecar, trash and catalog row."""
    released_file(lab, "far", hold="7d")
    identifier = lab.entry("far").id
    tree.forget(lab.store, "far")
    assert lab.store.catalog.entry_at("far") is None
    assert not lab.store.sidecar_path(identifier).exists()
    assert not lab.store.trash_path(identifier).exists()
    with pytest.raises(InvalidInputError) as caught:
        tree.forget(lab.store, "far")
    assert caught.value.kind == "unknown-entry"


def test_forget_leaves_what_is_not_ours(lab: Lab) -> None:
    """A file that somebody made at a released path survives that its entry is forgotten."""
    released_file(lab, "far")
    (lab.root / "far").write_text("theirs")
    tree.forget(lab.store, "far")
    assert (lab.root / "far").read_text() == "theirs"


def test_add_does_not_give_up_a_released_file(lab: Lab) -> None:
    """A stranger at a released path is not cataloged over it, one by one or by folder."""
    digest = released_file(lab, "sub/far")
    (lab.root / "sub/far").write_text("theirs")
    (lab.root / "sub/new").write_text("new")
    alone = lab.cli("add", str(lab.root / "sub/far"), check=False)
    assert (alone.returncode, alone.stdout) == (70, "")
    among = lab.cli_json("add", str(lab.root / "sub"), check=False)
    assert [item["url"] for item in among["added"]] == ["recall://lab/sub/new"]
    assert [item["kind"] for item in among["failed"]] == ["conflict"]
    assert among["unchanged"] == 0
    assert (lab.root / "sub/far").read_text() == "theirs"
    entry = lab.entry("sub/far")
    assert (entry.state, entry.sha256) == (State.RELEASED, digest)
    assert hashlib.sha256(CONTENT).hexdigest() == digest


def test_dirty_file_is_accepted_by_add(lab: Lab) -> None:
    """`recall add` accepts a changed file as it is; its earlier record is put away, not dropped."""
    (lab.root / "a").write_text("before")
    (old,) = add_existing(lab.store, ["a"])
    (lab.root / "a").write_text("after!")
    assert lab.cli("get", "recall://lab/a", check=False).returncode == 71
    added = lab.cli_json("add", str(lab.root / "a"))["added"]
    assert [item["sha256"] for item in added] == [hashlib.sha256(b"after!").hexdigest()]
    lab.cli("get", "recall://lab/a")
    assert (lab.store.control / "superseded" / f"{old.id}.rsc1").exists()
    assert lab.cli_json("add", str(lab.root / "a")) == {
        "added": [],
        "unchanged": 1,
        "failed": [],
        "warnings": [],
    }


def test_folder_with_entries_or_files_is_not_removed(lab: Lab) -> None:
    """A folder of released files looks empty on the disk and is kept all the same."""
    released_file(lab, "sub/far")
    with pytest.raises(ConflictError, match="still holds entries"):
        tree.remove_folder(lab.store, "sub")
    tree.forget(lab.store, "sub/far")
    tree.remove_folder(lab.store, "sub")
    assert not (lab.root / "sub").exists()


def test_a_file_changed_in_place_is_still_dirty_after_a_move(lab: Lab) -> None:
    """Bytes that somebody wrote into a file do not pass for the recorded ones once it is moved."""
    lab.add("old", b"recorded")
    (lab.root / "old").write_text("scribbled over")
    tree.move(lab.store, "old", "new")
    assert settle(lab.store, lab.entry("new")) is State.DIRTY
    assert tree.needs_adding(lab.store, "new")


def test_a_file_that_is_about_to_be_an_entry_is_not_taken_for_a_plain_one(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What another process has just put at a path is neither removed nor moved from under it."""
    monkeypatch.setattr(changes, "PATIENCE_S", 0.1)
    filesystem = fsspec.filesystem("recall")
    claimed = Intent("0" * 32, "move", "old", {"old": "old", "new": "new"}, str(Holder.current()))
    changes.claim(lab.store, [claimed])
    (lab.root / "new").write_text("moved here")
    for method, paths in (("rm_file", ["new"]), ("mv", ["new", "newer"])):
        with pytest.raises(ConflictError) as caught:
            getattr(filesystem, method)(*(f"recall://lab/{path}" for path in paths))
        assert caught.value.kind == "in-use"
    assert (lab.root / "new").read_text() == "moved here"
    lab.store.catalog.drop_intent(claimed.entry_id)
    filesystem.rm_file("recall://lab/new")
    assert not (lab.root / "new").exists()
