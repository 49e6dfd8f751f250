"""The kernel lease: granted only when nobody else has the file, and broken by newcomers."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from recallfs.errors import ConflictError, InvalidInputError
from recallfs.exclusive import watch


def test_lease_is_had_on_a_file_of_ours(tmp_path: Path) -> None:
    """On a local disk the kernel confirms that nobody has the file open."""
    place = tmp_path / "a"
    place.write_text("x")
    with watch(place) as watched:
        assert watched.is_exclusive
        watched.check()


@pytest.mark.parametrize("mode", ["rb", "r+b"])
def test_open_file_is_noticed(tmp_path: Path, mode: str) -> None:
    """A descriptor anywhere, for reading or writing, is enough to refuse."""
    place = tmp_path / "a"
    place.write_text("x")
    refused = pytest.raises(ConflictError, match="open in another process")
    with place.open(mode), refused, watch(place):
        pass
    with watch(place):
        pass


def test_newcomer_is_noticed_and_let_in_afterwards(tmp_path: Path) -> None:
    """Somebody who opens the file meanwhile waits, is noticed, and gets it afterwards."""
    place = tmp_path / "a"
    place.write_text("x")
    content: list[str] = []
    with watch(place) as watched:
        reader = threading.Thread(target=lambda: content.append(place.read_text()))
        reader.start()
        reader.join(0.3)
        assert reader.is_alive()
        with pytest.raises(ConflictError, match="open in another process"):
            watched.check()
    reader.join(5)
    assert content == ["x"]


def test_fifo_and_symlink_are_refused_without_waiting(tmp_path: Path) -> None:
    """Neither a FIFO nor a symlink is taken for a file."""
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to(tmp_path / "fifo")
    with pytest.raises(InvalidInputError), watch(tmp_path / "link"):
        pass
    with watch(tmp_path / "fifo") as watched:
        assert not watched.is_exclusive
