"""Transactions: all of their files appear at the end, or none does."""

from __future__ import annotations

import pytest

from conftest import Lab
from recallfs.errors import ConflictError, InvalidInputError
from recallfs.filesystem import RecallFileSystem
from recallfs.release.pins import set_pin


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
    assert not lab.staged


def test_transaction_is_refused_as_a_whole(lab: Lab, fs: RecallFileSystem) -> None:
    """If one file of a transaction may not be written, none is."""
    fs.pipe({"lab/a": b"old", "lab/pinned": b"old"})

    def write_both() -> None:
        with fs.transaction:
            for name in ("a", "pinned", "z"):
                fs.pipe(f"lab/{name}", b"new")
            set_pin(lab.store, lab.entry("pinned"), True, "shown on a poster")

    with pytest.raises(ConflictError):
        write_both()
    assert fs.cat("lab", recursive=True, on_error="omit") == {
        "lab/a": b"old",
        "lab/pinned": b"old",
    }
    assert not lab.staged
    fs.pipe("lab/a", b"after")
    assert fs.cat("lab/a") == b"after"


def test_transaction_takes_in_every_way_of_writing(lab: Lab, fs: RecallFileSystem) -> None:
    """Files that are copied, touched or put in a transaction appear at its end, not before."""
    fs.pipe("lab/source", b"1")
    local = lab.base / "local"
    local.write_bytes(b"2")
    names = [f"lab/new/{name}" for name in ("copied", "opened", "put", "touched")]
    with fs.transaction:
        fs.cp("lab/source", names[0])
        with fs.open(names[1], "w") as file:
            file.write("3")
        fs.put_file(str(local), names[2])
        fs.touch(names[3])
        assert fs.find("lab/new") == []
    assert list(fs.cat(names).values()) == [b"1", b"3", b"2", b""]


def test_transaction_with_an_open_file_is_refused(lab: Lab, fs: RecallFileSystem) -> None:
    """A file that is still open at the end would be cut off: the transaction is refused."""
    kept = []

    def leave_open() -> None:
        with fs.transaction:
            fs.pipe("lab/a", b"whole")
            kept.append(fs.open("lab/b", "w"))
            kept[0].write("part")

    with pytest.raises(InvalidInputError, match="not closed"):
        leave_open()
    assert fs.find("lab") == []
    assert not lab.staged


def test_transaction_in_a_transaction_is_refused(fs: RecallFileSystem) -> None:
    """Fsspec would forget the files of the outer transaction; here it is an error."""

    def nest() -> None:
        with fs.transaction:
            fs.pipe("lab/a", b"1")
            with fs.transaction:
                fs.pipe("lab/b", b"2")

    with pytest.raises(InvalidInputError, match="under way"):
        nest()
    assert fs.find("lab") == []
    with fs.transaction:
        fs.pipe("lab/c", b"3")
    assert fs.find("lab") == ["lab/c"]
