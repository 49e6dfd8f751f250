"""Large released files are read in parts through a mount, and each part is verified."""

from __future__ import annotations

import errno
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from integrations.mount.conftest import Mount, run
from mirrored import configure_mirror
from recallfs.testing.http import Files
from served import Served

pytestmark = pytest.mark.services


# In a process of its own: the server is in this one, and h5py lets none of its threads run.
_SLICE = """
import hashlib, h5py, sys
with h5py.File(sys.argv[1], "r") as file:
    print(hashlib.sha256(file["data"][160:168].tobytes()).hexdigest(), end="")
"""


_MAP = """
import mmap, sys
with open(sys.argv[1], "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
    print(mapped[-5000:].hex(), end="")
"""


def digest_of(array: np.ndarray) -> str:
    """Return the digest that `_SLICE` prints."""
    return hashlib.sha256(array.tobytes()).hexdigest()


def asked_bytes(served: Served) -> int:
    """Return how many bytes were asked for since this was last told."""
    spans = (span.removeprefix("bytes=").split("-") for span in served.asked())
    return sum(int(last) + 1 - int(first) for first, last in spans)


def test_only_what_is_read_is_fetched(
    mount: Mount, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """h5dump and a slice take few bytes; the whole has its digest; a wrong byte is never served."""
    lab, folder = mount.lab, tmp_path / "mirror"
    folder.mkdir()
    monkeypatch.setenv("RECALLFS_READERS__PARTIAL", "always")
    data = np.random.default_rng(0).integers(0, 2**15, (512, 4096), dtype="int16")
    with Files(folder) as server:
        configure_mirror(lab, server.url)
        served = Served(lab, server, folder)
        contents = []
        for name in ("a.h5", "b.h5"):
            with h5py.File(tmp_path / name, "w") as file:
                file.attrs["name"] = name
                file.create_dataset("data", data=data, chunks=(8, 4096))
                for number in range(200):  # metadata all over the file
                    file.create_group(f"group/{number}").attrs["about"] = "a" * 700
            contents.append(served.release(name, tmp_path / name))
        mount.start()
        shown = mount.place / "a.h5"
        assert shown.stat().st_size == len(contents[0])
        assert "512, 4096" in run("h5dump", "-H", shown)
        assert "{512, 4096}" in run("h5ls", "-r", shown)
        assert asked_bytes(served) == 0  # the skeleton has all that they look at
        assert run(sys.executable, "-c", _SLICE, shown) == digest_of(data[160:168])
        slice_bytes = data[160:168].nbytes
        assert slice_bytes <= asked_bytes(served) < 2 * slice_bytes
        # Mapped, it is read page by page.
        assert run(sys.executable, "-c", _MAP, shown) == contents[0][-5000:].hex()
        assert os.getxattr(shown, "user.recall.state") == b"released"
        assert hashlib.sha256(contents[0]).hexdigest() in run("sha256sum", shown)
        wrong = bytearray(contents[1])
        wrong[len(wrong) // 2] ^= 1
        served.copy_of("b.h5").write_bytes(wrong)
        assert run(sys.executable, "-c", _SLICE, mount.place / "b.h5") == digest_of(data[160:168])
        done = subprocess.run(
            ["sha256sum", mount.place / "b.h5"], capture_output=True, text=True, check=False
        )
        assert os.strerror(errno.EIO) in done.stderr
        assert done.stdout == ""
        assert 'operation="read_buf"' in mount.log
