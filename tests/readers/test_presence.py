"""`os.stat` and what rests on it: the truth about released files, at no cost to others."""

from __future__ import annotations

import os
import pathlib
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path

import h5py
import pytest

import recallfs
from conftest import Lab
from mirrored import CONTENT, released_file
from recallfs.errors import CatalogError
from recallfs.readers import presence
from recallfs.readers.availability import make_available
from recallfs.resolve.presence import has_bytes

MTIME_NS = 1_600_000_000_123_456_789


@pytest.fixture
def far(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give the path of a released file, with the readers wrapped."""
    place = lab.root / "far.h5"
    with monkeypatch.context() as patched:
        # The time is the file's own, as it is when it is cataloged.
        write = Path.write_bytes

        def write_of_old(self: Path, data: bytes) -> int:
            written = write(self, data)
            os.utime(self, ns=(MTIME_NS, MTIME_NS))
            return written

        patched.setattr(Path, "write_bytes", write_of_old)
        released_file(lab, "far.h5")
    recallfs.install()
    yield place
    recallfs.uninstall()


def test_a_released_file_is_there_as_recorded(far: Path) -> None:
    """Size, time and mode are those of the record; it takes no space and stays away."""
    status = os.stat(far)  # noqa: PTH116 - what is tested
    assert (status.st_size, status.st_mtime_ns, status.st_blocks) == (len(CONTENT), MTIME_NS, 0)
    assert status.st_mtime == pytest.approx(MTIME_NS / 1e9)
    assert status == far.stat()
    assert far.exists()
    assert far.is_file()
    assert not far.is_dir()
    for text in (str(far), os.fsencode(far), os.path.relpath(far)):
        assert os.path.exists(text)  # noqa: PTH110 - what is tested
        assert os.path.getsize(text) == len(CONTENT)  # noqa: PTH202 - what is tested
    assert not has_bytes(far)


def test_what_lies_on_the_disk_can_still_be_told(lab: Lab, far: Path) -> None:
    """`lstat`, listings and recallfs itself see that it is away."""
    assert not os.path.lexists(far)
    with pytest.raises(FileNotFoundError):
        far.lstat()
    assert far not in list(lab.root.iterdir())
    assert lab.entry("far.h5").state.value == "released"
    assert lab.cli_json("status")


def test_other_paths_are_told_as_ever(lab: Lab, far: Path, tmp_path: Path) -> None:
    """What was never there is not there, in a store or elsewhere; what is removed is gone."""
    for place in (lab.root / "none", lab.root / "no/folder", tmp_path / "none", far / "below"):
        assert not place.exists()
    with pytest.raises(FileNotFoundError, match="none"):
        os.stat("none")  # noqa: PTH116 - what is tested
    make_available(far)
    assert far.stat().st_ino == far.lstat().st_ino
    far.unlink()
    assert not far.exists()


def test_two_released_files_are_not_the_same(lab: Lab, far: Path) -> None:
    """No two released files pass for hard links of one another."""
    released_file(lab, "other.h5")
    assert not os.path.samefile(far, lab.root / "other.h5")  # noqa: PTH121 - what is tested
    assert os.path.samefile(far, far)  # noqa: PTH121 - what is tested


def test_configured_not_to(lab: Lab, far: Path) -> None:
    """With ``stat = false`` a released file is not there until it is opened."""
    lab.config.write_text(lab.config.read_text() + "\n[readers]\nstat = false\n")
    assert not far.exists()
    assert make_available(far) == str(far)
    assert far.exists()


def test_code_that_asks_what_stat_can_do(far: Path, tmp_path: Path) -> None:
    """`os.supports_fd` and the like know the function in place of `os.stat`, while it is there."""
    assert os.stat is presence.recorded_stat
    assert os.stat in os.supports_fd
    assert os.stat in os.supports_dir_fd
    assert os.stat in os.supports_follow_symlinks
    descriptor = os.open(tmp_path, os.O_RDONLY)
    assert os.stat(descriptor).st_ino == tmp_path.stat().st_ino  # noqa: PTH116 - what is tested
    (tmp_path / "a").mkdir()
    assert os.stat("a", dir_fd=descriptor).st_ino == (tmp_path / "a").stat().st_ino
    os.close(descriptor)
    shutil.rmtree(tmp_path / "a")
    recallfs.uninstall()
    assert os.stat is not presence.recorded_stat
    for names in (os.supports_fd, os.supports_dir_fd, os.supports_follow_symlinks):
        assert presence.recorded_stat not in names
    assert not far.exists()


def test_somebody_elses_patch_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was wrapped over ours since is not undone with ours."""
    recallfs.install()
    ours = h5py.File.__init__

    def theirs(self: h5py.File, *arguments: object) -> None:
        ours(self, *arguments)

    h5py.File.__init__ = theirs
    try:
        recallfs.uninstall()
        assert h5py.File.__init__ is theirs
    finally:
        h5py.File.__init__ = ours.__wrapped__


def test_catalog_that_does_not_answer(lab: Lab, far: Path) -> None:
    """Resident files open as ever and one warning is given; opening a released one says why not."""
    with h5py.File(lab.root / "here.h5", "w") as file:
        file["a"] = 1
    text = lab.config.read_text()
    broken = f'root = "{lab.root}"\ncatalog = "sqlite:////proc/none/catalog.sqlite"\n'
    lab.config.write_text(text.replace(f'root = "{lab.root}"\n', broken))
    presence._warned.clear()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for _ in range(3):
            assert not far.exists()
            with h5py.File(lab.root / "here.h5", "r") as file:
                assert file["a"][()] == 1
    assert len(told) == 1
    assert "far.h5" in str(told[0].message)
    with pytest.raises(CatalogError):
        h5py.File(far, "r")
    lab.config.write_text(text)
    assert far.exists()


def test_pathlib_of_python_3_10() -> None:
    """Where pathlib holds a function of its own, it is put back too."""
    accessor = getattr(pathlib, "_NormalAccessor", None)
    before = None if accessor is None else vars(accessor)["stat"]
    recallfs.install()
    recallfs.uninstall()
    assert (None if accessor is None else vars(accessor)["stat"]) is before
