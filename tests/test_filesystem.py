"""`RecallFileSystem`: what code written for fsspec sees of a store."""

from __future__ import annotations

import gc
import hashlib
import io
import os
import pickle
import uuid
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.callbacks import Callback

from conftest import Lab, sha256
from mirrored import CONTENT, released_file
from recallfs.errors import ConflictError, InvalidInputError, SourceError
from recallfs.filesystem import RecallFileSystem
from recallfs.resolve.commit import add_existing
from recallfs.resolve.tree import needs_adding
from recallfs.values import State


@pytest.fixture
def fs(lab: Lab) -> RecallFileSystem:
    return RecallFileSystem()


class Counting(Callback):  # type: ignore[misc] # fsspec is untyped
    """Counts what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.counted = 0

    def relative_update(self, inc: int = 1) -> None:
        """Add what was done since the last call."""
        self.counted += inc


def staging(lab: Lab) -> list[Path]:
    """List what lies in staging."""
    return list((lab.store.control / "staging").iterdir())


# -- stores -------------------------------------------------------------------------------------


def test_folder_needs_no_configuration(tmp_path: Path) -> None:
    """A folder that was never initialised is a store by its own name, odd characters and all."""
    root = tmp_path / "mes données #1"
    fs = fsspec.filesystem("recall", root=str(root))
    with fs.open(f"{root.name}/sub 1/ä.txt", "w", encoding="utf-8") as file:
        file.write("größe")
    assert (root / "sub 1" / "ä.txt").read_bytes() == "größe".encode()
    assert fs.ls("", detail=False) == [root.name]
    assert fs.find(root.name) == [f"{root.name}/sub 1/ä.txt"]
    with pytest.raises(InvalidInputError, match="this filesystem's is") as caught:
        fs.ls("other")
    assert caught.value.kind == "unknown-store"


def test_url_and_root_show_the_same_store(lab: Lab) -> None:
    """A configured store and the same folder given as root share one catalog."""
    with fsspec.open("recall://lab/a.bin", "wb") as file:
        file.write(b"one")
    fs = fsspec.filesystem("recall", root=str(lab.root))
    assert fs.info("lab/a.bin")["sha256"] == hashlib.sha256(b"one").hexdigest()


def test_instances_are_cached_and_pickled(lab: Lab) -> None:
    """Instances are shared by their arguments, and a pickled one opens the same files."""
    one = fsspec.filesystem("recall", root=str(lab.root))
    assert fsspec.filesystem("recall", root=str(lab.root)) is one
    assert fsspec.filesystem("recall") is not one
    one.pipe("lab/a", b"1")
    again = pickle.loads(pickle.dumps(one))  # noqa: S301 - our own bytes
    assert again.root == one.root
    assert again.cat("lab/a") == b"1"
    rebuilt = fsspec.AbstractFileSystem.from_json(one.to_json())
    assert rebuilt.cat("lab/a") == b"1"


def test_unknown_store_is_named_not_found_only_by_exists(fs: RecallFileSystem) -> None:
    """An unknown store is an error that names the near one; `exists` says no."""
    assert not fs.exists("recall://lb/x")
    with pytest.raises(InvalidInputError, match="did you mean 'lab'") as caught:
        fs.info("recall://lb/x")
    assert caught.value.kind == "unknown-store"


# -- reading ------------------------------------------------------------------------------------


def test_released_file_is_listed_with_size_and_state(lab: Lab, fs: RecallFileSystem) -> None:
    """A file that is not here looks as if it were, and says that it is released."""
    digest = released_file(lab, "sub/far.bin")
    (listed,) = fs.ls("lab/sub")
    for info in (listed, fs.info("recall://lab/sub/far.bin")):
        assert (info["name"], info["size"], info["type"]) == (
            "lab/sub/far.bin",
            len(CONTENT),
            "file",
        )
        assert (info["state"], info["sha256"]) == ("released", digest)
    assert fs.exists("lab/sub/far.bin")
    assert fs.isfile("lab/sub/far.bin")
    assert fs.du("lab/sub") == len(CONTENT)
    assert not (lab.root / "sub/far.bin").exists()


def test_released_file_is_listed_where_its_folder_is_gone(lab: Lab, fs: RecallFileSystem) -> None:
    """Folders that exist on record only are listed, walked and globbed, and recalled into."""
    released_file(lab, "deep/er/far.bin")
    (lab.root / "deep/er").rmdir()
    (lab.root / "deep").rmdir()
    assert fs.isdir("lab/deep")
    assert fs.glob("lab/**/*.bin") == ["lab/deep/er/far.bin"]
    assert fs.cat("lab/deep/er/far.bin") == CONTENT


@pytest.mark.parametrize("way", ["open", "cat", "url", "local", "get", "head"])
def test_opening_brings_the_original_back(lab: Lab, fs: RecallFileSystem, way: str) -> None:
    """Each way of reading a released file recalls it byte for byte to its path."""
    digest = released_file(lab, "far.bin")
    target = lab.base / "out.bin"
    if way == "open":
        with fs.open("lab/far.bin") as file:
            assert file.read() == CONTENT
    elif way == "cat":
        assert fs.cat_file("lab/far.bin", 12, -12) == CONTENT[12:-12]
    elif way == "url":
        with fsspec.open("recall://lab/far.bin", "rb") as file:
            assert file.read() == CONTENT
    elif way == "local":
        assert fsspec.open_local("recall://lab/far.bin") == str(lab.root / "far.bin")
    elif way == "get":
        fs.get("lab/far.bin", str(target))
        assert target.read_bytes() == CONTENT
    else:
        assert fs.head("lab/far.bin", 5) == CONTENT[:5]
    assert sha256(lab.root / "far.bin") == digest
    assert fs.info("lab/far.bin")["state"] == "resident"


@pytest.mark.parametrize(
    ("start", "end"), [(0, 5), (3, None), (-4, None), (None, -3), (5, 2), (90, 99), (-99, 4)]
)
def test_ranges_are_those_of_slices(
    fs: RecallFileSystem, start: int | None, end: int | None
) -> None:
    """`cat_file` takes a range as a Python slice does."""
    fs.pipe("lab/ten", b"0123456789")
    assert fs.cat_file("lab/ten", start, end) == b"0123456789"[start:end]


def test_text_is_read_line_by_line(fs: RecallFileSystem) -> None:
    """Text mode decodes and splits lines."""
    fs.pipe("lab/t", "é1\né2\n".encode())
    with fs.open("lab/t", "r", encoding="utf-8") as file:
        assert list(file) == ["é1\n", "é2\n"]


def test_callbacks_count_every_byte(lab: Lab, fs: RecallFileSystem) -> None:
    """Copying in and out tells the size and each byte once."""
    source = lab.base / "in.bin"
    source.write_bytes(CONTENT)
    copies: list[tuple[Any, str, str]] = [
        (fs.put_file, str(source), "lab/x"),
        (fs.get_file, "lab/x", str(lab.base / "out")),
    ]
    for copy, old, new in copies:
        callback = Counting()
        copy(old, new, callback=callback)
        assert (callback.size, callback.counted) == (len(CONTENT), len(CONTENT))
    buffer = io.BytesIO()
    fs.get_file("lab/x", buffer)
    assert buffer.getvalue() == CONTENT


def test_outage_is_never_not_found(lab: Lab, fs: RecallFileSystem) -> None:
    """With its only mirror unreachable a file still exists, and reading it says 'unavailable'."""
    released_file(lab, "far.bin")
    lab.write_config(
        '[[sources.mirror]]\nname = "copies"\nurl = "nosuch://host/x"\nlayout = "sha256"\n'
    )
    assert fs.exists("lab/far.bin")
    with pytest.raises(SourceError) as caught:
        fs.cat("lab/far.bin")
    assert not isinstance(caught.value, FileNotFoundError)
    with pytest.raises(SourceError):
        fs.get("lab/far.bin", str(lab.base / "out"))
    assert not (lab.base / "out").exists()


# -- writing ------------------------------------------------------------------------------------


def test_written_bytes_are_recorded_with_true_digests(lab: Lab, fs: RecallFileSystem) -> None:
    """The digests on record are those that hashlib gives."""
    pieces = [os.urandom(n) for n in (1, 4 * 1024 * 1024 - 1, 70_000, 0, 13)]
    with fs.open("lab/sub/new.bin", "wb") as file:
        for piece in pieces:
            file.write(bytearray(piece))
        assert file.tell() == sum(map(len, pieces))
        assert not fs.exists("lab/sub/new.bin")
    content = b"".join(pieces)
    entry = lab.entry("sub/new.bin")
    assert (lab.root / "sub/new.bin").read_bytes() == content
    assert entry.sha256 == hashlib.sha256(content).hexdigest()
    assert entry.sha1 == hashlib.sha1(content, usedforsecurity=False).hexdigest()
    assert entry.size_bytes == len(content)
    assert fs.ukey("lab/sub/new.bin") == entry.sha256


def test_digests_are_of_what_was_written_not_of_what_the_buffer_became(
    lab: Lab, fs: RecallFileSystem
) -> None:
    """A caller that reuses its buffer does not change what was hashed."""
    buffer = bytearray(b"a" * 100_000)
    with fs.open("lab/x", "wb") as file:
        file.write(buffer)
        buffer[:] = b"b" * 100_000
        file.write(buffer)
    expected = b"a" * 100_000 + b"b" * 100_000
    assert (lab.root / "x").read_bytes() == expected
    assert lab.entry("x").sha256 == hashlib.sha256(expected).hexdigest()


def _write_with_filesystem(fs: RecallFileSystem, mode: str) -> None:
    with fs.open("lab/x", mode) as file:
        file.write("new" if mode == "w" else b"new")
        raise KeyError


def _write_with_url(fs: RecallFileSystem, mode: str) -> None:
    with fsspec.open("recall://lab/x", mode) as file:
        file.write("new" if mode == "w" else b"new")
        raise KeyError


def _write_compressed(fs: RecallFileSystem, mode: str) -> None:
    with fsspec.open("recall://lab/x", mode, compression="gzip") as file:
        file.write("new" if mode == "w" else b"new")
        raise KeyError


@pytest.mark.parametrize("before", [None, b"old"])
@pytest.mark.parametrize("mode", ["wb", "w"])
@pytest.mark.parametrize(
    "write", [_write_with_filesystem, _write_with_url, _write_compressed], ids=lambda f: f.__name__
)
def test_error_inside_with_leaves_what_was(
    lab: Lab, fs: RecallFileSystem, before: bytes | None, mode: str, write: Any
) -> None:
    """A block that is left by an exception writes nothing, however the file was opened."""
    if before is not None:
        fs.pipe("lab/x", before)
    with pytest.raises(KeyError):
        write(fs, mode)
    assert (fs.cat("lab/x") if before else fs.exists("lab/x")) == (before or False)
    assert not staging(lab)


@pytest.mark.parametrize("mode", ["wb", "w"])
def test_abandoned_writer_leaves_nothing(lab: Lab, fs: RecallFileSystem, mode: str) -> None:
    """A writer that is dropped without being closed does not appear as a file."""
    file = fs.open("lab/x", mode)
    file.write("half" if mode == "w" else b"half")
    del file
    gc.collect()
    assert not fs.exists("lab/x")
    assert not staging(lab)


def test_writing_while_an_error_is_handled_is_no_error(fs: RecallFileSystem) -> None:
    """A file may be written in an ``except`` clause, and closed in one."""
    file = fs.open("lab/closed", "wb")
    try:
        raise StopIteration
    except StopIteration:
        with fsspec.open("recall://lab/inside", "w") as inside:
            inside.write("whole")
        file.write(b"whole")
        file.close()
    assert fs.cat(["lab/closed", "lab/inside"]) == {
        "lab/closed": b"whole",
        "lab/inside": b"whole",
    }


def test_direct_compression_is_refused_and_through_url_works(fs: RecallFileSystem) -> None:
    """A compressor that would leave its file open is refused before anything is lost."""
    with pytest.raises(InvalidInputError, match=r"fsspec\.open"):
        fs.open("lab/x.gz", "wb", compression="gzip")
    with fsspec.open("recall://lab/x.gz", "wb", compression="gzip") as file:
        file.write(b"text")
    with fsspec.open("recall://lab/x.gz", "rb", compression="infer") as file:
        assert file.read() == b"text"


def test_transaction_commits_all(fs: RecallFileSystem) -> None:
    """Files of a transaction appear at its end."""
    with fs.transaction:
        for name in ("a", "b"):
            with fs.open(f"lab/{name}", "wb") as file:
                file.write(name.encode())
        assert fs.ls("lab") == []
    assert fs.cat(["lab/a", "lab/b"]) == {"lab/a": b"a", "lab/b": b"b"}


def test_transaction_rolls_back(lab: Lab, fs: RecallFileSystem) -> None:
    """Files of a transaction that fails never appear, and what they would replace stays."""
    fs.pipe("lab/a", b"old")

    def write_and_fail() -> None:
        with fs.transaction:
            with fs.open("lab/a", "wb") as file:
                file.write(b"new")
            with fs.open("lab/b", "w") as text:
                text.write("new")
            raise KeyError

    with pytest.raises(KeyError):
        write_and_fail()
    assert fs.cat("lab/a") == b"old"
    assert not fs.exists("lab/b")
    assert not staging(lab)


def test_append_and_exclusive(lab: Lab, fs: RecallFileSystem) -> None:
    """``ab`` adds to what was, recalled if need be; ``xb`` takes only a free path."""
    released_file(lab, "far.bin")
    with fs.open("lab/far.bin", "ab") as file:
        file.write(b"more")
    assert (lab.root / "far.bin").read_bytes() == CONTENT + b"more"
    assert lab.entry("far.bin").sha256 == hashlib.sha256(CONTENT + b"more").hexdigest()
    with fs.open("lab/new", "ab") as file:
        file.write(b"1")
    with pytest.raises(FileExistsError):
        fs.open("lab/new", "xb")
    with fs.open("lab/x", "xb") as file:
        file.write(b"mine")
        (lab.root / "x").write_bytes(b"theirs")
        with pytest.raises(ConflictError):
            file.close()
    assert (lab.root / "x").read_bytes() == b"theirs"
    assert lab.store.catalog.entry_at("x") is None


def test_exclusive_at_a_released_path_is_refused(lab: Lab, fs: RecallFileSystem) -> None:
    """A released file exists: nothing is made in its place."""
    released_file(lab, "far.bin")
    with pytest.raises(ConflictError):
        fs.open("lab/far.bin", "xb")


def test_writing_over_a_released_file_is_refused(lab: Lab, fs: RecallFileSystem) -> None:
    """What can come back is not given up by writing to its path; it still comes back."""
    before = released_file(lab, "far.bin", hold="7d")
    with pytest.raises(ConflictError, match="is released"):
        fs.pipe("lab/far.bin", b"new")
    assert list((lab.store.control / "trash").iterdir())
    assert hashlib.sha256(fs.cat("lab/far.bin")).hexdigest() == before


@pytest.mark.parametrize("mode", ["r+b", "q"])
def test_other_modes_are_refused(fs: RecallFileSystem, mode: str) -> None:
    """Modes that would change a file in place are refused and change nothing."""
    fs.pipe("lab/x", b"1")
    with pytest.raises(InvalidInputError):
        fs.open("lab/x", mode)
    assert fs.cat("lab/x") == b"1"


# -- paths --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["ünï/cödé 📈.bin", "a b/c  d", "100%/x%20y", "#a?b&c=[d]*", "'q\"uote\\s", "-rf", "日本"],
)
def test_odd_names_survive(lab: Lab, fs: RecallFileSystem, name: str) -> None:
    """Names with spaces, signs and other scripts are kept as they are, released ones too."""
    digest = released_file(lab, name)
    assert fs.info(f"recall://lab/{name}")["sha256"] == digest
    with fs.open(f"recall://lab/{name}") as file:
        assert file.read() == CONTENT
    assert sha256(lab.root / name) == digest


@pytest.mark.parametrize(
    "path", ["lab/../x", "lab/a/../../x", "lab/.recall/store.toml", "lab/a\0b"]
)
def test_paths_out_of_the_store_are_refused(fs: RecallFileSystem, path: str) -> None:
    """Paths that climb out, or into our own records, are neither read nor written."""
    assert not fs.exists(path)
    for mode in ("rb", "wb"):
        with pytest.raises(InvalidInputError) as caught:
            fs.open(path, mode)
        assert caught.value.kind == "invalid-path"


def test_symlinks_out_of_the_store_are_not_followed(lab: Lab, fs: RecallFileSystem) -> None:
    """What a symlink shows of the outside is neither listed nor read nor written."""
    outside = lab.base / "outside"
    outside.mkdir()
    (outside / "secret").write_text("secret")
    (lab.root / "out").symlink_to(outside)
    (lab.root / "file").symlink_to(outside / "secret")
    (lab.root / "dangling").symlink_to(outside / "nothing")
    fs.pipe("lab/mine", b"1")
    assert fs.find("lab") == ["lab/mine"]
    for path in ("lab/out/secret", "lab/file", "lab/out/new"):
        with pytest.raises(InvalidInputError):
            fs.open(path, "rb")
        with pytest.raises(InvalidInputError):
            fs.open(path, "wb")
    assert [item.name for item in outside.iterdir()] == ["secret"]


def test_control_folder_is_not_listed(fs: RecallFileSystem) -> None:
    """What recallfs writes for itself is no part of the store."""
    fs.pipe("lab/a", b"1")
    assert fs.ls("lab", detail=False) == ["lab/a"]
    assert fs.find("lab", withdirs=True) == ["lab", "lab/a"]


def test_folder_where_a_file_should_be(lab: Lab, fs: RecallFileSystem) -> None:
    """A folder at a released path is a conflict, and stays."""
    released_file(lab, "far.bin")
    (lab.root / "far.bin").mkdir()
    (lab.root / "far.bin" / "theirs").write_text("1")
    with pytest.raises(ConflictError):
        fs.open("lab/far.bin")
    with pytest.raises((ConflictError, IsADirectoryError)):
        fs.open("lab/far.bin", "wb")
    assert (lab.root / "far.bin" / "theirs").read_text() == "1"
    assert lab.entry("far.bin").state is State.RELEASED


def test_file_in_the_way_of_a_folder(fs: RecallFileSystem) -> None:
    """A path below a file does not exist, and cannot be made."""
    fs.pipe("lab/a", b"1")
    assert not fs.exists("lab/a/b")
    with pytest.raises(FileNotFoundError):
        fs.open("lab/a/b")
    with pytest.raises(OSError, match="a"):
        fs.pipe("lab/a/b", b"2")
    assert fs.cat("lab/a") == b"1"
    with pytest.raises(IsADirectoryError):
        fs.open("lab", "rb")


# -- changing -----------------------------------------------------------------------------------


def test_move_keeps_a_released_file_recallable(lab: Lab, fs: RecallFileSystem) -> None:
    """A released file moves without being brought back, and comes back under its new name."""
    digest = released_file(lab, "far.bin")
    fs.mv("lab/far.bin", "lab/sub/near.bin")
    assert not fs.exists("lab/far.bin")
    assert fs.info("lab/sub/near.bin")["state"] == "released"
    assert fs.cat("lab/sub/near.bin") == CONTENT
    assert sha256(lab.root / "sub/near.bin") == digest


def test_folder_moves_without_recalling(lab: Lab, fs: RecallFileSystem) -> None:
    """A folder moves with its released, resident and plain files; nothing is brought back."""
    released_file(lab, "old/deep/far.bin")
    fs.pipe("lab/old/here", b"1")
    (lab.root / "old/plain").write_bytes(b"2")
    identifier = lab.entry("old/deep/far.bin").id
    fs.mv("lab/old", "lab/new", recursive=True)
    assert fs.find("lab") == ["lab/new/deep/far.bin", "lab/new/here", "lab/new/plain"]
    assert fs.info("lab/new/deep/far.bin")["state"] == "released"
    assert lab.entry("new/deep/far.bin").id == identifier
    assert not (lab.root / "old").exists()
    assert fs.cat("lab/new/deep/far.bin") == CONTENT


def test_move_into_a_folder_and_over_a_file(lab: Lab, fs: RecallFileSystem) -> None:
    """Moving goes into a folder that is there, and over a file that is there, as `mv` does."""
    fs.pipe("lab/a", b"a")
    fs.mkdir("lab/folder")
    fs.mv("lab/a", "lab/folder")
    assert fs.cat("lab/folder/a") == b"a"
    fs.pipe("lab/b", b"b")
    fs.mv("lab/b", "lab/folder/a")
    assert fs.find("lab") == ["lab/folder/a"]
    assert fs.cat("lab/folder/a") == b"b"
    fs.mv("lab/folder/a", "lab/folder/a")
    assert fs.cat("lab/folder/a") == b"b"


def test_moving_nothing_onto_a_file_loses_nothing(lab: Lab, fs: RecallFileSystem) -> None:
    """A source that does not exist is an error before the target is touched."""
    fs.pipe("lab/keep", b"1")
    with pytest.raises(FileNotFoundError):
        fs.mv("lab/nothing", "lab/keep")
    assert fs.cat("lab/keep") == b"1"


def test_copy_of_a_released_file(lab: Lab, fs: RecallFileSystem) -> None:
    """A copy is a file of its own with the same bytes."""
    digest = released_file(lab, "far.bin")
    fs.cp("lab/far.bin", "lab/copy.bin")
    assert sha256(lab.root / "copy.bin") == digest
    assert lab.entry("copy.bin").id != lab.entry("far.bin").id


def test_remove_forgets_for_good(lab: Lab, fs: RecallFileSystem) -> None:
    """Removed files are gone from tree and catalog, released ones and whole folders too."""
    released_file(lab, "old/far.bin", hold="7d")
    fs.pipe("lab/old/here", b"1")
    (lab.root / "plain").write_bytes(b"2")
    fs.rm("lab/plain")
    fs.rm("lab/old", recursive=True)
    assert fs.ls("lab") == []
    assert not list((lab.store.control / "trash").iterdir())
    with pytest.raises(FileNotFoundError):
        fs.rm("lab/old/here")


def test_remove_of_a_folder_that_is_on_record_only(lab: Lab, fs: RecallFileSystem) -> None:
    """A folder that holds released files and is not on the disk can be removed."""
    released_file(lab, "old/far.bin")
    (lab.root / "old").rmdir()
    fs.rm("lab/old", recursive=True)
    assert not fs.exists("lab/old")


def test_full_folder_and_root_are_not_removed(fs: RecallFileSystem) -> None:
    """`rmdir` removes empty folders only, and never a store's root."""
    fs.pipe("lab/a/b", b"1")
    with pytest.raises(ConflictError):
        fs.rmdir("lab/a")
    with pytest.raises(InvalidInputError):
        fs.rmdir("lab")
    assert fs.cat("lab/a/b") == b"1"


@pytest.mark.parametrize("change", ["rm", "wb", "ab", "mv", "cp", "pipe", "touch"])
def test_pinned_file_is_not_replaced(lab: Lab, fs: RecallFileSystem, change: str) -> None:
    """Nothing that would drop or replace a pinned file is done."""
    from recallfs.release.pins import set_pin

    fs.pipe("lab/x", b"pinned")
    fs.pipe("lab/y", b"other")
    set_pin(lab.store, lab.entry("x"), True, "shown on a poster")
    changes: dict[str, tuple[Any, ...]] = {
        "wb": (fs.open, "lab/x", "wb"),
        "ab": (fs.open, "lab/x", "ab"),
        "pipe": (fs.pipe, "lab/x", b"new"),
        "rm": (fs.rm, "lab/x"),
        "touch": (fs.touch, "lab/x"),
        "mv": (fs.mv, "lab/y", "lab/x"),
        "cp": (fs.cp, "lab/y", "lab/x"),
    }
    action, *arguments = changes[change]
    with pytest.raises(ConflictError, match="shown on a poster") as caught:
        action(*arguments)
    assert caught.value.kind == "pinned"
    assert fs.cat(["lab/x", "lab/y"]) == {"lab/x": b"pinned", "lab/y": b"other"}
    assert not staging(lab)


def test_pin_set_while_writing_counts(lab: Lab, fs: RecallFileSystem) -> None:
    """A pin that is set between opening and closing still protects the file."""
    from recallfs.release.pins import set_pin

    fs.pipe("lab/x", b"pinned")
    file = fs.open("lab/x", "wb")
    file.write(b"new")
    set_pin(lab.store, lab.entry("x"), True, "")
    with pytest.raises(ConflictError):
        file.close()
    assert fs.cat("lab/x") == b"pinned"


def test_input_of_a_released_file_is_kept(lab: Lab, fs: RecallFileSystem) -> None:
    """What a released file is made from is neither removed nor replaced, and may be moved."""
    digest = lab.released()
    before = sha256(lab.root / "raw.h5")
    for change in (
        lambda: fs.rm("lab/raw.h5"),
        lambda: fs.pipe("lab/raw.h5", b"new"),
        lambda: fs.rm("lab", recursive=True),
    ):
        with pytest.raises(ConflictError) as caught:
            change()
        assert caught.value.kind == "relied-on"
    assert sha256(lab.root / "raw.h5") == before
    fs.mv("lab/raw.h5", "lab/raw/moved.h5")
    fs.mv("lab/derived.h5", "lab/moved.h5")
    with fs.open("lab/moved.h5") as file:
        assert hashlib.sha256(file.read()).hexdigest() == digest


# -- what others did ----------------------------------------------------------------------------


def test_stranger_at_a_released_path(lab: Lab, fs: RecallFileSystem) -> None:
    """A file that somebody made at a released path is kept, and so is the way to the original."""
    digest = released_file(lab, "far.bin")
    (lab.root / "far.bin").write_bytes(b"somebody's")
    with pytest.raises(ConflictError) as caught:
        fs.open("lab/far.bin")
    assert caught.value.kind == "conflict"
    assert "sha256" not in fs.info("lab/far.bin")
    with pytest.raises(ConflictError):
        needs_adding(lab.store, "far.bin")
    assert (lab.root / "far.bin").read_bytes() == b"somebody's"
    (lab.root / "far.bin").rename(lab.root / "theirs.bin")
    assert hashlib.sha256(fs.cat("lab/far.bin")).hexdigest() == digest
    assert fs.cat("lab/theirs.bin") == b"somebody's"


def test_original_put_back_by_hand(lab: Lab, fs: RecallFileSystem) -> None:
    """The recorded bytes at a released path, wherever they came from, end the release."""
    released_file(lab, "far.bin")
    (lab.root / "far.bin").write_bytes(CONTENT)
    assert fs.cat("lab/far.bin") == CONTENT
    assert lab.entry("far.bin").state is State.RESIDENT


def test_changed_file_is_dirty_until_added(lab: Lab, fs: RecallFileSystem) -> None:
    """A file that was changed behind our back is refused until it is accepted as it is."""
    fs.pipe("lab/x", b"recorded")
    (lab.root / "x").write_bytes(b"changed!")
    with pytest.raises(ConflictError, match="recall add") as caught:
        fs.open("lab/x")
    assert caught.value.kind == "dirty"
    assert (lab.root / "x").read_bytes() == b"changed!"
    assert needs_adding(lab.store, "x")
    add_existing(lab.store, ["x"])
    assert fs.cat("lab/x") == b"changed!"
    assert fs.info("lab/x")["sha256"] == hashlib.sha256(b"changed!").hexdigest()


def test_touched_file_is_not_dirty(lab: Lab, fs: RecallFileSystem) -> None:
    """A file whose time was changed but not its bytes is read as before."""
    fs.pipe("lab/x", b"recorded")
    os.utime(lab.root / "x", (1, 1))
    assert fs.cat("lab/x") == b"recorded"
    assert not needs_adding(lab.store, "x")


def test_plain_files_are_read_and_replaced(lab: Lab, fs: RecallFileSystem) -> None:
    """Files of the tree that are in no catalog behave as files do."""
    (lab.root / "plain").write_bytes(b"1")
    assert fs.cat("lab/plain") == b"1"
    assert "sha256" not in fs.info("lab/plain")
    assert fs.created("lab/plain").tzinfo is not None
    fs.pipe("lab/plain", b"22")
    assert fs.info("lab/plain")["size"] == 2
    assert fs.modified("lab/plain").timestamp() == pytest.approx(
        (lab.root / "plain").stat().st_mtime, abs=1e-3
    )


def test_recall_restores_mode_and_time(lab: Lab, fs: RecallFileSystem) -> None:
    """A file comes back with the permission bits and the time that it had."""
    place = lab.root / "far.bin"
    place.write_bytes(CONTENT)
    place.chmod(0o640)
    os.utime(place, ns=(10**18, 10**18 + 7))
    add_existing(lab.store, ["far.bin"])
    identifier = lab.entry("far.bin").id
    from mirrored import configure_mirror

    copy = configure_mirror(lab) / "far.bin"
    copy.write_bytes(CONTENT)
    place.unlink()
    assert fs.cat("lab/far.bin") == CONTENT
    status = place.stat()
    assert (status.st_mode & 0o7777, status.st_mtime_ns) == (0o640, 10**18 + 7)
    assert lab.entry("far.bin").id == identifier


def test_checksum_follows_the_bytes(fs: RecallFileSystem) -> None:
    """`checksum` and `ukey` are equal for equal bytes and differ for others."""
    name = uuid.uuid4().hex
    fs.pipe({f"lab/{name}": b"1", "lab/b": b"1", "lab/c": b"2"})
    assert fs.checksum(f"lab/{name}") == fs.checksum("lab/b") != fs.checksum("lab/c")
