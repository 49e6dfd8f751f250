"""Stores: making them is safe, and no path leads out of one."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from catalog_actors import open_to_all, read_as_nobody, use_store_as_nobody
from processes import start
from recallfs.catalog.store import Store, create_store, find_root, open_store
from recallfs.config import StoreSettings
from recallfs.errors import InvalidInputError
from recallfs.testing.records import hex_id, plain_record


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Give a new store."""
    store = create_store(tmp_path / "root", "lab", vault=tmp_path / "vault")
    store.catalog.close()
    return store


def refused(kind: str, action: object, *arguments: object, **options: object) -> str:
    """Call something that must be refused with this kind, and return the message."""
    assert callable(action)
    with pytest.raises(InvalidInputError) as caught:
        action(*arguments, **options)
    assert caught.value.kind == kind
    return str(caught.value)


def test_making_a_store_twice_is_making_it_once(store: Store, tmp_path: Path) -> None:
    """The same folder stays the same store, with its id, vault and entries."""
    store.catalog.put([plain_record("a", store_id=store.id)])
    before = (store.control / "store.toml").read_bytes()
    for vault in (None, tmp_path / "vault"):
        again = create_store(store.root, "lab", vault=vault)
        assert (again.id, again.vault, again.root) == (store.id, store.vault, store.root)
        assert again.catalog.entry_at("a") is not None
        again.catalog.close()
    assert (store.control / "store.toml").read_bytes() == before
    store.catalog.close()


def test_another_vault_is_taken_over(store: Store, tmp_path: Path) -> None:
    """Naming another vault changes it for good, and nothing else."""
    changed = create_store(store.root, "lab", vault=tmp_path / "better")
    changed.catalog.close()
    reopened = open_store(store.root)
    assert reopened.vault == tmp_path / "better"
    assert reopened.id == store.id
    reopened.catalog.close()


def test_files_that_are_there_stay(tmp_path: Path) -> None:
    """A folder full of files becomes a store without a change to any of them."""
    root = tmp_path / "full"
    (root / "sub").mkdir(parents=True)
    (root / "sub" / "ω b.nwb").write_bytes(b"bytes")
    (root / "link").symlink_to("sub")
    before = {path: path.lstat().st_mtime_ns for path in root.rglob("*")}
    create_store(root, "lab", vault=tmp_path / "vault").catalog.close()
    after = {
        path: path.lstat().st_mtime_ns
        for path in root.rglob("*")
        if ".recall" not in path.relative_to(root).parts
    }
    assert after == before
    assert (root / "sub" / "ω b.nwb").read_bytes() == b"bytes"


def test_nothing_of_ours_looks_like_data(store: Store) -> None:
    """No file in the control folder has a name that cleaning programs take for data."""
    names = [path.name for path in store.control.rglob("*")]
    assert "catalog.sqlite" in names
    assert not [name for name in names if name.endswith((".nwb", ".h5", ".hdf5"))]


def test_stores_are_not_nested(store: Store, tmp_path: Path) -> None:
    """A folder inside a store cannot be one, by whatever name it is reached."""
    (store.root / "inner").mkdir()
    (tmp_path / "alias").symlink_to(store.root)
    for inner in (store.root / "inner", store.root / "new" / "er", tmp_path / "alias" / "inner"):
        assert "nested" in refused("invalid-path", create_store, inner, "inner")
    assert list((store.root / "inner").iterdir()) == []
    assert not (store.root / "new").exists()


@pytest.mark.parametrize("vault", ["root", "root/vault", "root/.recall/vault", "alias/v", "."])
def test_a_vault_is_apart_from_its_store(tmp_path: Path, vault: str) -> None:
    """A vault in the store, or around it, would be lost with it; nothing is made then."""
    (tmp_path / "alias").symlink_to("root")
    message = refused(
        "invalid-path", create_store, tmp_path / "root", "lab", vault=tmp_path / vault
    )
    assert "vault" in message
    assert not (tmp_path / "root").exists()


def test_a_configured_vault_is_apart_from_its_store(store: Store) -> None:
    """The configuration cannot put the vault into the store either."""
    settings = StoreSettings(root=store.root, vault=store.root / "vault")
    refused("invalid-path", open_store, store.root, settings=settings)


def test_a_vault_has_a_place_by_default(tmp_path: Path) -> None:
    """Without a word on it the vault is beside the root."""
    store = create_store(tmp_path / "root", "lab")
    store.catalog.close()
    assert store.vault == tmp_path / "root.recall-vault"


def test_a_file_is_no_root(tmp_path: Path) -> None:
    """A file cannot become a store, and stays."""
    (tmp_path / "file").write_text("mine")
    refused("invalid-path", create_store, tmp_path / "file", "lab")
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize(
    "content",
    ["", "[", "format = 2\nid = 'a'\nname = 'b'\nvault = '/c'", "format = 1", "\udcff"],
)
def test_what_is_no_store_is_not_opened(tmp_path: Path, content: str) -> None:
    """A folder without a store file of our version is refused, and nothing is written."""
    refused("not-a-store", open_store, tmp_path)
    refused("not-a-store", open_store, tmp_path / "gone")
    control = tmp_path / ".recall"
    control.mkdir()
    (control / "store.toml").write_text(content, errors="surrogateescape")
    refused("not-a-store", open_store, tmp_path)
    assert [path.name for path in control.iterdir()] == ["store.toml"]


@pytest.mark.parametrize("name", ["with space", "Größe ω", "quote'\"", "per%cent", "hash#?&"])
def test_roots_may_have_any_name(tmp_path: Path, name: str) -> None:
    """Spaces, quotes, other alphabets and what means something in a URL work as root and path."""
    store = create_store(tmp_path / name, "lab", vault=tmp_path / f"{name} vault")
    store.catalog.put([plain_record(f"{name}/{name}.nwb", store_id=store.id)])
    store.catalog.close()
    again = open_store(tmp_path / name)
    assert again.catalog.entry_at(f"{name}/{name}.nwb") is not None
    assert (tmp_path / name / ".recall" / "catalog.sqlite").is_file()
    assert again.locate(f"{name}/x") == tmp_path / name / name / "x"
    assert again.vault == tmp_path / f"{name} vault"
    again.catalog.close()


def test_the_store_around_a_path_is_found(store: Store, tmp_path: Path) -> None:
    """The root is found from any depth, also where nothing exists yet."""
    assert find_root(store.root) == store.root
    assert find_root(store.root / "a" / "b") == store.root
    assert find_root(tmp_path) is None


@pytest.mark.parametrize(
    ("path", "expected"),
    [("a/b.nwb", "a/b.nwb"), ("/a//b/", "a/b"), ("", ""), ("ω z", "ω z"), ("a/.re", "a/.re")],
)
def test_paths_are_located(store: Store, path: str, expected: str | None) -> None:
    """A path of the store is below its root, whether or not something is there."""
    located = store.locate(path)
    assert located == store.root / (path if expected is None else expected)


@pytest.mark.parametrize(
    ("link", "target", "path"),
    [
        ("out", "/etc", "out/passwd"),
        ("out", "/etc/passwd", "out"),
        ("out", "..", "out/secret"),
        ("out", "../secret", "out"),
        ("out", "../nowhere", "out"),  # dangling
        ("out", ".recall", "out/store.toml"),
        ("out", ".recall/trash", "out/x"),
        ("out", "../root-2", "out/x"),  # a name that begins like the root's
        ("a/out", "../../secret", "a/out"),
        ("out", "hop", "out"),
    ],
)
def test_symlinks_do_not_lead_out(store: Store, link: str, target: str, path: str) -> None:
    """No path is followed out of the root or into our own folder."""
    (store.root.parent / "secret").write_text("secret")
    (store.root.parent / "root-2").mkdir()
    (store.root / "hop").symlink_to("../secret")
    (store.root / link).parent.mkdir(exist_ok=True)
    (store.root / link).symlink_to(target)
    assert "symlink" in refused("invalid-path", store.locate, path)


def test_symlinks_inside_are_fine(store: Store) -> None:
    """A link that stays in the root is located under its own name; so is a circle of links."""
    (store.root / "real").mkdir()
    (store.root / "link").symlink_to("real")
    (store.root / "circle").symlink_to("circle")
    assert store.locate("link/a") == store.root / "link" / "a"
    assert store.locate("circle") == store.root / "circle"


@pytest.mark.parametrize("path", ["../x", "a/../../x", ".recall/store.toml", "a\0b", "x" * 300])
def test_malformed_paths_are_not_located(store: Store, path: str) -> None:
    """What is malformed is refused before the disk is asked."""
    refused("invalid-path", store.locate, path)


def test_absolute_paths_become_store_paths(store: Store, tmp_path: Path) -> None:
    """A path is known by the root's other names; the root itself and the outside are not in it."""
    (tmp_path / "alias").symlink_to(store.root)
    assert store.relative(store.root / "a" / "b") == "a/b"
    assert store.relative(tmp_path / "alias" / "a") == "a"
    assert store.relative(store.root) is None
    assert store.relative(tmp_path / "else") is None
    assert store.relative(Path(f"{store.root}-2") / "a") is None


def test_staging_is_private_and_temporary(store: Store) -> None:
    """A staging folder can be read by its owner only and is gone afterwards, after an error too."""
    with store.staging() as folder:
        (folder / "part").write_bytes(b"x")
        assert folder.stat().st_mode & 0o777 == 0o700
        assert store.sweep_staging() == 0
    assert not folder.exists()
    with pytest.raises(KeyError), store.staging() as folder:
        raise KeyError
    assert not folder.exists()


def test_only_what_dead_processes_left_is_swept(store: Store) -> None:
    """Folders of other hosts and unknown ones stay; one of an earlier boot goes."""
    from dataclasses import replace

    from recallfs.catalog.holder import Holder

    me = Holder.current()
    staging = store.control / "staging"
    dead = replace(me, started=str(int(me.started) - 1)).token()
    foreign = replace(me, host="elsewhere/boot").token()
    for name in (f"{dead}-x", f"{foreign}-x", "unknown", f"{me.token()}-x"):
        (staging / name).mkdir()
        (staging / name / "part").write_text("x")
    assert store.sweep_staging() == 1
    assert {path.name for path in staging.iterdir()} == {
        f"{foreign}-x",
        "unknown",
        f"{me.token()}-x",
    }


def test_one_writer_at_a_time(store: Store) -> None:
    """Threads that hold an entry's lock never overlap, and an error gives it back."""
    inside, most = [0], [0]

    def work() -> None:
        for _ in range(20):
            with store.lock("a" * 32):
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                inside[0] -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most[0] == 1
    with pytest.raises(KeyError), store.lock("a" * 32):
        raise KeyError
    with store.lock("a" * 32):
        pass


def test_each_kind_of_evidence_has_its_place(store: Store) -> None:
    """The places named in the formats' pages are where things are."""
    identifier = hex_id("a")
    assert store.sidecar_path(identifier) == (
        store.root / ".recall" / "entries" / identifier[:2] / f"{identifier}.rsc1"
    )
    assert store.skeleton_path("ab12") == store.root / ".recall/skeletons/ab/ab12.rsk1"
    assert store.environment_path("cd") == store.root / ".recall/environments/cd.json"
    assert store.url("a b") == "recall://lab/a b"


def test_a_reader_without_rights_is_told_so(store: Store, tmp_path: Path) -> None:
    """Who may not write the store gets an access error, never a raw one or a word of damage."""
    store.catalog.put([plain_record("a", store_id=store.id)])
    store.catalog.close()
    for place in (store.root, *store.root.rglob("*")):
        place.chmod(0o555 if place.is_dir() else 0o444)
    said = tmp_path / "said"
    said.touch()
    said.chmod(0o666)
    open_to_all(tmp_path)
    process = start(use_store_as_nobody, os.fspath(store.root), os.fspath(said))
    process.join(60)
    for place in (store.root, *store.root.rglob("*")):
        place.chmod(0o755 if place.is_dir() else 0o644)
    assert said.read_text().splitlines() == [
        "open allowed",
        "staging access-denied",
        "lock access-denied",
    ]


@pytest.mark.services
def test_a_reader_without_rights_reads_what_is_being_written(store: Store, tmp_path: Path) -> None:
    """While another user's process writes, opens and closes the catalog, each answer is whole."""
    store.catalog.put([plain_record(path, store_id=store.id) for path in ("a", "b")])
    said, end = tmp_path / "said", tmp_path / "end"
    said.touch()
    said.chmod(0o666)
    open_to_all(tmp_path)
    reader = start(read_as_nobody, os.fspath(store.root), os.fspath(said), os.fspath(end))
    give_up = time.monotonic() + 4
    count = 2
    while time.monotonic() < give_up:
        new = [plain_record(str(count + extra), store_id=store.id) for extra in range(2)]
        store.catalog.put(new)
        count += 2
        if count % 20 == 0:
            store.catalog.close()  # the last one to close it takes the log away
    end.touch()
    reader.join(60)
    lines = [line.split(" ", 1) for line in said.read_text().splitlines()]
    answers = {answer: number for number, answer in lines}
    assert set(answers) == {"whole", "drop access-denied"}, answers
    assert int(answers["whole"]) > 20
