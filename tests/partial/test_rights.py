"""Other users, and a full disk: what a reader gets of a file in parts."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import TESTS
from other_users import ANA, BEN, as_user
from partial_actors import read_part
from served import Served, write_hdf5
from test_readers_without_rights import open_up

pytestmark = pytest.mark.services


def released(served: Served, mode: int) -> bytes:
    """Release an HDF5 file with these permissions; return what was in it."""
    made = served.lab.base / "made.h5"
    write_hdf5(made)
    made.chmod(mode)
    return served.release("a.h5", made)


@pytest.fixture
def shared(served: Served, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Configure a folder for what users share of their caches."""
    folder = served.lab.base / "shared"
    folder.mkdir()
    monkeypatch.setenv("RECALLFS_CACHE__SHARED_FOLDER", str(folder))
    return folder


@pytest.mark.parametrize("mode", [0o644, 0o600])
def test_parts_are_for_those_who_could_read_the_file(served: Served, mode: int) -> None:
    """A reader gets parts into a cache of their own; who could not have read the file gets none."""
    content = released(served, mode)
    open_up(served.lab)
    told = as_user(served.lab, BEN, read_part, 100_000, 100_020)
    if mode == 0o644:
        assert told == content[100_000:100_020].hex()
    else:
        assert told["kind"] == "access-denied"
    assert served.asked() == [] or mode == 0o644


def test_parts_that_others_fetched_are_verified_anew(served: Served, shared: Path) -> None:
    """Where a cache is shared, what one user fetched serves all, if it is right; never if not."""
    content = released(served, 0o644)
    open_up(served.lab)
    shared.chmod(0o1777)
    right = content[100_000:100_020].hex()
    assert as_user(served.lab, BEN, read_part, 100_000, 100_020) == right
    assert len(served.asked()) == 1
    (data,) = shared.glob(f"{BEN}/blocks/*/*/data")
    modes = {path.name: path.stat().st_mode & 0o777 for path in data.parent.iterdir()}
    assert modes == {"data": 0o644, "map": 0o644, "index": 0o600}
    assert as_user(served.lab, ANA, read_part, 100_000, 100_020) == right
    assert served.asked() == []
    shutil.rmtree(shared / str(ANA))
    with data.open("r+b") as file:  # he means harm
        file.seek(100_000)
        file.write(bytes(20))
    assert as_user(served.lab, ANA, read_part, 100_000, 100_020) == right
    assert len(served.asked()) == 1
    shutil.rmtree(shared / str(ANA))
    data.unlink()
    data.symlink_to("/dev/zero")
    assert as_user(served.lab, ANA, read_part, 100_000, 100_020) == right
    assert len(served.asked()) == 1


def test_what_not_everybody_may_read_is_kept_in_private(served: Served, shared: Path) -> None:
    """Parts of a file that has other permissions do not go to the shared cache."""
    content = released(served, 0o600)
    with served.parts().open() as parts:
        assert parts.read_at(0, len(content)) == content
        assert parts.blocks is not None
        assert not parts.blocks.folder.is_relative_to(shared)
    assert list(shared.glob("**/data")) == []


def test_a_full_disk_does_not_stop_a_reader(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the disk of the cache full, parts are read all the same, and those kept are right."""
    write_hdf5(tmp_path / "made.h5")
    content = served.release("a.h5", tmp_path / "made.h5")
    cache, output = tmp_path / "small", tmp_path / "read"
    cache.mkdir()
    monkeypatch.setenv("RECALLFS_CACHE__FOLDER", str(cache))
    code = f"from partial_actors import read_all; [read_all({str(output)!r}) for _ in range(2)]"
    words = f"mount -t tmpfs -o size=400k tmpfs {cache} && {sys.executable} -c {shlex.quote(code)}"
    monkeypatch.setenv("PYTHONPATH", str(TESTS))
    subprocess.run(["unshare", "--mount", "sh", "-c", words], check=True)
    assert output.read_bytes() == content
    assert sum(exchange.sent_bytes for exchange in served.server.log) < 2 * len(content)
