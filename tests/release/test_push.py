"""Pushing: copies that are read back, never over other bytes, the rest at the next run."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from conftest import Lab, sha256
from recallfs.catalog import records
from recallfs.errors import (
    AccessError,
    ConflictError,
    IntegrityError,
    InvalidInputError,
    NotRecallableError,
)
from recallfs.release import push as push_module
from recallfs.release.copies import known_copies
from recallfs.release.push import Pushed, push, push_target
from recallfs.resolve.commit import add_existing
from recallfs.resolve.recall import recall
from recallfs.sources import upload as upload_module
from recallfs.sources.rereading import read_right
from recallfs.testing.http import Files
from recallfs.testing.misbehaviour import Fault
from recallfs.transfer.timing import Deadlines

CONTENT = b"a recording " * 4000


def table(name: str, url: str, **keys: Any) -> str:
    """Write a mirror's table."""
    lines = [f"{key} = {json.dumps(value)}" for key, value in keys.items()]
    return "\n".join([f'[[sources.mirror]]\nname = "{name}"\nurl = "{url}"', *lines, ""])


def folder_mirror(lab: Lab, **keys: Any) -> Path:
    """Give the lab a mirror that is a folder."""
    folder = lab.base / "mirror"
    folder.mkdir(exist_ok=True)
    lab.write_config(table("nas", f"file://{folder}", **{"layout": "sha256", **keys}))
    return folder


def added(lab: Lab, path: str = "a.bin", content: bytes = CONTENT) -> Path:
    """Write and catalog a file."""
    return lab.add(path, content)


def pushed(lab: Lab, path: str = "a.bin", to: str = "mirror:nas", **options: Any) -> Pushed:
    """Push one file."""
    return push(lab.stores, lab.store, lab.entry(path), push_target(lab.stores, to), **options)


def files(folder: Path) -> list[str]:
    """List a mirror's files, but for the records of derivations."""
    found = (str(place.relative_to(folder)) for place in folder.rglob("*") if place.is_file())
    return sorted(name for name in found if not name.startswith("derivations/"))


@pytest.mark.parametrize("layout", ["sha256", "path"])
@pytest.mark.parametrize("where", ["file", "memory"])
def test_pushed_file_is_there_and_on_record(lab: Lab, layout: str, where: str) -> None:
    """A copy is made under the mirror's layout, recorded once, and brings the file back."""
    name = "sub é/a #1 b%20c?.bin"
    place = added(lab, name)
    digest = sha256(place)
    folder_mirror(lab, layout=layout)
    if where == "memory":
        lab.write_config(table("nas", f"memory://{lab.base.name}/copies", layout=layout))
    told: list[int] = []
    first = pushed(lab, name, progress=told.append)
    assert (first.status, sum(told)) == ("copied", 2 * len(CONTENT))
    again = pushed(lab, name)
    assert (again.status, again.location) == ("there", first.location)
    expected = name if layout == "path" else f"sha256/{digest[:2]}/{digest[2:4]}/{digest}"
    assert first.location.endswith(f"/{expected}")
    (copy,) = records.load(lab.store, lab.entry(name).id).copies
    assert (copy.source, copy.location) == ("mirror:nas", first.location)
    assert copy.content_addressed == (layout == "sha256")
    place.unlink()
    found = recall(lab.stores, lab.store, name)
    assert found.source == "mirror:nas"
    assert found.method == ("by digest" if layout == "sha256" else "by path")
    assert sha256(place) == digest


def test_remembered_absence_ends_with_a_push(lab: Lab) -> None:
    """A mirror that had not the file a moment ago is asked again once it was pushed there."""
    place = added(lab)
    folder_mirror(lab)
    kept = place.read_bytes()
    place.unlink()
    with pytest.raises(NotRecallableError):
        recall(lab.stores, lab.store, "a.bin")
    place.write_bytes(kept)
    add_existing(lab.store, ["a.bin"])
    assert pushed(lab).status == "copied"
    place.unlink()
    assert recall(lab.stores, lab.store, "a.bin").source == "mirror:nas"


def test_renamed_file_is_found_where_it_was_pushed(lab: Lab) -> None:
    """A copy by path is found under the path that it was pushed under."""
    from recallfs.resolve.tree import move

    added(lab)
    folder_mirror(lab, layout="path")
    pushed(lab)
    move(lab.store, "a.bin", "sub/b.bin")
    (lab.root / "sub/b.bin").unlink()
    assert recall(lab.stores, lab.store, "sub/b.bin").method == "as recorded"


@pytest.mark.parametrize("layout", ["sha256", "path"])
@pytest.mark.parametrize("wrong", [b"", b"X" + CONTENT[1:], CONTENT + b"x"])
def test_other_bytes_there_are_a_conflict(lab: Lab, layout: str, wrong: bytes) -> None:
    """What is at a file's place already is never replaced; nothing is recorded."""
    place = added(lab)
    folder = folder_mirror(lab, layout=layout)
    digest = sha256(place)
    by_digest = f"sha256/{digest[:2]}/{digest[2:4]}/{digest}"
    there = folder / ("a.bin" if layout == "path" else by_digest)
    there.parent.mkdir(parents=True, exist_ok=True)
    there.write_bytes(wrong)
    with pytest.raises(ConflictError, match="both were left"):
        pushed(lab)
    assert there.read_bytes() == wrong
    assert place.read_bytes() == CONTENT
    assert not records.load(lab.store, lab.entry("a.bin").id).copies
    assert len(files(folder)) == 1


def test_right_bytes_there_are_verified_and_recorded(lab: Lab) -> None:
    """A copy that somebody made by hand is read whole, then recorded, and not written again."""
    place = added(lab)
    folder = folder_mirror(lab, layout="path")
    (folder / "a.bin").write_bytes(place.read_bytes())
    before = (folder / "a.bin").stat()
    assert pushed(lab).status == "there"
    assert (folder / "a.bin").stat().st_ino == before.st_ino
    assert records.load(lab.store, lab.entry("a.bin").id).copies


def test_file_that_changes_meanwhile_is_not_recorded(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bytes that somebody writes to while they are copied stay out of the mirror."""
    place = added(lab)
    folder = folder_mirror(lab)
    copy = upload_module._copy

    def meddling(file: Path, staged: Path, progress: Any) -> None:
        file.write_bytes(b"Y" + CONTENT[1:])
        copy(file, staged, progress)

    monkeypatch.setattr(upload_module, "_copy", meddling)
    with pytest.raises(IntegrityError, match="read back other bytes"):
        pushed(lab)
    assert files(folder) == []
    assert not records.load(lab.store, lab.entry("a.bin").id).copies
    assert place.exists()


def test_changed_file_is_refused(lab: Lab) -> None:
    """A file that is not as it was recorded is not pushed under the recorded digest."""
    place = added(lab)
    folder = folder_mirror(lab)
    place.write_bytes(b"edited")
    with pytest.raises(ConflictError, match="was changed"):
        pushed(lab)
    assert files(folder) == []


def test_released_file_is_skipped_or_recalled_first(lab: Lab) -> None:
    """What is not resident is pushed only where that is asked for."""
    digest = lab.released()
    folder = folder_mirror(lab)
    skipped = pushed(lab, "derived.h5")
    assert (skipped.status, files(folder)) == ("skipped", [])
    assert "--recall" in skipped.reason
    assert pushed(lab, "derived.h5", recall_first=True).status == "copied"
    assert [sha256(folder / name) for name in files(folder)] == [digest]


def test_private_file_stays_private(lab: Lab) -> None:
    """A copy may be read by those who may read the file, at most."""
    place = added(lab)
    place.chmod(0o600)
    folder = folder_mirror(lab)
    pushed(lab)
    (name,) = files(folder)
    assert (folder / name).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://127.0.0.1:9/x", "over HTTP"),
        ("simplecache::file:///tmp", "chain"),
        ("file://{root}", "inside the store"),
        ("{root}/.recall/staging", "inside the store"),
        ("file://{vault}/deep", "inside the vault"),
        ("file://{link}", "inside the store"),
        ("file://{root}-missing", "mounted"),
    ],
)
def test_targets_that_cannot_be(lab: Lab, url: str, why: str) -> None:
    """A mirror that is read-only, in the store itself or not there is refused in one sentence."""
    added(lab)
    (lab.base / "link").symlink_to(lab.root)
    url = url.format(root=lab.root, vault=lab.base / "vault", link=lab.base / "link")
    lab.write_config(table("nas", url))
    done = lab.cli("push", "recall://lab/a.bin", "--to", "mirror:nas", check=False)
    assert done.returncode not in (0, 1)
    assert why in done.stderr
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("url", ["{root}", "{root}/.recall", "{vault}"])
def test_mirror_in_the_store_is_no_source(lab: Lab, url: str) -> None:
    """A mirror that leads into the store or its vault is not read from, and the doctor tells."""
    place = added(lab)
    lab.write_config(table("in", url.format(root=lab.root, vault=lab.base / "vault")))
    (lab.base / "vault").mkdir(exist_ok=True)
    place.rename(lab.base / "vault" / "a.bin")
    with pytest.raises(NotRecallableError, match="no copy of its own"):
        recall(lab.stores, lab.store, "a.bin")
    found = lab.cli_json("doctor", check=False)["findings"]
    assert [item["id"] for item in found if item["area"] == "sources"] == ["mirror-in-store"]


def test_unknown_target_is_named(lab: Lab) -> None:
    """A target that is misspelt brings the nearest known one."""
    folder_mirror(lab)
    with pytest.raises(InvalidInputError, match="did you mean 'mirror:nas'"):
        push_target(lab.stores, "mirror:nsa")
    with pytest.raises(InvalidInputError):
        push_target(lab.stores, "recompute")


def test_killed_push_is_finished_by_the_next(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """After kill -9 nothing partial stands under a final name; the next run does the rest only."""
    for number in range(6):
        added(lab, f"{number}.bin", bytes([number]) * 100_000)
    folder = folder_mirror(lab, layout="path")
    push_all = ("push", "recall://lab", "--to", "mirror:nas", "--jobs", "1")
    killed = lab.cli(*push_all, check=False, kill_at="place.linked:4")
    assert killed.returncode == -9
    there = files(folder)
    assert [n for n in there if n.endswith(".bin")] == [f"{n}.bin" for n in range(4)]
    # What was being written when a process was killed is in a folder of its own.
    partial = folder / upload_module.PARTIAL_FOLDER
    partial.mkdir(exist_ok=True)
    dead = partial / f"{_dead_token()}-{'0' * 32}"
    dead.write_bytes(b"half")
    before = {name: (folder / name).stat().st_ino for name in there}
    done = lab.cli_json(*push_all)
    assert [item["status"] for item in done["files"]] == ["there"] * 4 + ["copied"] * 2
    assert {name: (folder / name).stat().st_ino for name in before} == before
    assert files(folder) == [f"{n}.bin" for n in range(6)]
    assert not partial.exists()
    again = lab.cli_json(*push_all)
    assert {item["status"] for item in again["files"]} == {"there"}
    assert again["copied_bytes"] == 0


def _dead_token() -> str:
    """Return the token of a process of this computer that has ended."""
    from recallfs.catalog.holder import Holder

    now = Holder.current()
    return Holder(now.host, now.pid, "1").token()


def test_two_pushes_at_once(lab: Lab) -> None:
    """Both end well, and the mirror has each file once, whole."""
    contents = {f"{number}.bin": os.urandom(300_000) for number in range(8)}
    for name, content in contents.items():
        added(lab, name, content)
    folder = folder_mirror(lab, layout="path")
    ended: list[int] = []

    def run() -> None:
        done = lab.cli("push", "recall://lab", "--to", "mirror:nas", check=False)
        ended.append(done.returncode)

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ended == [0, 0, 0]
    assert {name: (folder / name).read_bytes() for name in files(folder)} == contents
    for name in contents:
        assert len(records.load(lab.store, lab.entry(name).id).copies) == 1


def test_read_only_mirror(lab: Lab) -> None:
    """A folder that may not be written to is said to be, and nothing is recorded."""
    added(lab)
    folder = folder_mirror(lab)
    if os.geteuid() == 0:
        # Root may write anywhere: a file stands where the folder is to be made.
        (folder / upload_module.PARTIAL_FOLDER).write_text("")
        expected: tuple[type[Exception], ...] = (OSError,)
    else:
        folder.chmod(0o500)
        expected = (AccessError,)
    with pytest.raises(expected, match="mirror:nas"):
        pushed(lab)
    assert not records.load(lab.store, lab.entry("a.bin").id).copies


def test_copies_are_shown_with_whether_they_count(lab: Lab) -> None:
    """Each known copy has its source, failure domain, address, time, and why it does not count."""
    added(lab)
    folder_mirror(lab, failure_domain="elsewhere")
    pushed(lab)
    (known,) = lab.cli_json("show", "recall://lab/a.bin")["copies"]
    assert (known["source"], known["failure_domain"]) == ("mirror:nas", "elsewhere")
    assert (known["counts"], known["why_not"]) == (True, "")
    text = lab.cli("show", "recall://lab/a.bin").stdout
    assert "elsewhere" in text
    assert "yes, when it is read again" in text
    record = records.load(lab.store, lab.entry("a.bin").id)
    for keys, why in (
        ({}, "own disk"),
        ({"enabled": False}, "turned off"),
        ({"failure_domain": "x", "layout": "path"}, ""),
    ):
        folder_mirror(lab, **keys)
        (found,) = known_copies(lab.stores, lab.store, record)
        assert why in found.why_not
        assert bool(why) == bool(found.why_not)
    folder_mirror(lab, layout="path", failure_domain="x")
    (lab.base / "second").mkdir()
    lab.write_config(
        table("nas", f"file://{lab.base / 'second'}", layout="path", failure_domain="x")
    )
    pushed(lab)
    record = records.load(lab.store, lab.entry("a.bin").id)
    assert [item.why_not.split(",")[0] for item in known_copies(lab.stores, lab.store, record)] == [
        "mirror:nas",
        "it lies under its path",
    ]


def test_remote_verification(lab: Lab) -> None:
    """Every copy is read again: right ones get a new time; others are told, with exit code 1."""
    for name in ("right", "wrong", "short", "gone"):
        added(lab, name, name.encode() * 1000)
    folder = folder_mirror(lab, layout="path")
    lab.cli("push", "recall://lab", "--to", "mirror:nas")
    before = records.load(lab.store, lab.entry("right").id).copies
    fine = lab.cli_json("verify", "recall://lab", "--remote")
    assert [item["verdict"] for item in fine["copies"]] == ["right"] * 4
    assert sum(item["read_bytes"] for item in fine["copies"]) == 19000
    after = records.load(lab.store, lab.entry("right").id).copies
    assert len(after) == 1
    assert after[0].verified_at > before[0].verified_at
    (folder / "wrong").write_bytes(b"WRONG" * 1000)
    (folder / "short").write_bytes(b"shor")
    (folder / "gone").unlink()
    done = lab.cli("verify", "recall://lab", "--remote", "--json", check=False)
    assert done.returncode == 1
    found = {item["url"][13:]: item["verdict"] for item in json.loads(done.stdout)["copies"]}
    assert found == {"right": "right", "wrong": "wrong", "short": "wrong", "gone": "missing"}
    folder.rename(lab.base / "unmounted")
    done = lab.cli("verify", "recall://lab", "--remote", "--json", check=False)
    assert {item["verdict"] for item in json.loads(done.stdout)["copies"]} == {"unavailable"}
    text = lab.cli("verify", "recall://lab", "--remote", check=False)
    assert text.returncode == 1
    assert "4 not as recorded" in text.stdout


def test_remote_verification_over_http_goes_on_after_a_break(lab: Lab) -> None:
    """A copy behind HTTP is read on from where the connection broke, and compared whole."""
    added(lab, "a.bin", os.urandom(3_000_000))
    folder = folder_mirror(lab)
    pushed(lab)
    with Files(folder) as served:
        lab.write_config(table("web", served.url, layout="sha256"))
        record = records.load(lab.store, lab.entry("a.bin").id)
        copy = record.copies[0]
        web = push_target(lab.stores, "mirror:web").copies(lab.store, record)
        assert web[0].content_addressed
        served.fail(Fault(reset_at=1_000_000, times=1))
        told: list[int] = []
        read_right(web[0].remote, record, deadlines=Deadlines(), progress=told.append)
        assert sum(told) == 3_000_000
        # What was on its way when the connection broke may be lost, and comes once more.
        assert sum(asked.sent_bytes for asked in served.log) < 4_000_001
        assert served.log[0].range == ""
        assert served.log[-1].range.startswith("bytes=")
        assert copy.source == "mirror:nas"


def test_no_secret_is_shown(lab: Lab) -> None:
    """User, password and options of a mirror are in no message, record or representation."""
    secret = "hunter2hunter2"  # noqa: S105 - nobody's
    added(lab)
    lab.write_config(
        table("nas", f"nosuch://me:{secret}@host/x")
        + f'options = {{ password = "{secret}", client_kwargs = {{ token = "{secret}" }} }}\n'
    )
    (lab.root / "a.bin").unlink()
    texts = [repr(lab.stores.config)]
    for words in (
        ("push", "recall://lab", "--to", "mirror:nas", "--recall"),
        ("get", "recall://lab/a.bin"),
        ("explain", "recall://lab/a.bin"),
        ("show", "recall://lab/a.bin"),
        ("verify", "recall://lab", "--remote"),
        ("doctor",),
    ):
        for form in ((), ("--json",)):
            done = lab.cli(*words, *form, check=False)
            texts += [done.stdout, done.stderr]
    for file in (*lab.store.control.rglob("*"), *(lab.base / "caches").rglob("*")):
        if file.is_file():
            texts.append(file.read_bytes().decode("latin-1"))
    assert not [text for text in texts if secret in text]


def test_everything_that_push_prints_fits_one_sentence(lab: Lab) -> None:
    """The table says what was copied, was there, was skipped and failed; the exit code is 1."""
    added(lab, "a.bin")
    added(lab, "b.bin", b"b" * 100)
    folder = folder_mirror(lab, layout="path")
    (folder / "b.bin").write_bytes(b"x")
    done = lab.cli("push", "recall://lab", "--to", "mirror:nas", check=False)
    assert done.returncode == 1
    assert "1 file copied to mirror:nas and read back (48.0 kB), 0 there already" in done.stdout
    assert "b.bin; both were left" in done.stderr
    assert push_module.__doc__
