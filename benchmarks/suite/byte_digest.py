"""All digests of a file in one pass, beside sha256 alone."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from recallfs.digest.stream import StreamDigester, digest_file
from suite import peers
from suite.selection import Timed, by_selection

SIZES = by_selection((10_000_000, 200_000_000), (10_000_000, 100_000_000, 1_000_000_000))
CASES = [
    {"name": f"Random{size // 1_000_000}MB", "https_url": f"random-{size}", "size_bytes": size}
    for size in SIZES
]
READ_BYTES = 256 * 1024


def random_files() -> dict[str, str]:
    """Write random bytes."""
    base = Path.cwd() / "random"
    base.mkdir()
    for size in SIZES:
        with (base / f"random-{size}").open("wb") as file:
            for _ in range(size // 1_000_000):
                file.write(os.urandom(1_000_000))
    return {"base": str(base)}


class ByteDigestBenchmark(Timed):
    """The file's pages are in memory."""

    setup_cache = staticmethod(random_files)
    param_names = ("case",)
    params = (CASES,)

    def setup(self, world: dict[str, str], case: dict[str, Any]) -> None:
        """Read the file once."""
        self.path = Path(world["base"]) / case["https_url"]
        self.time_hashlib_sha256(world, case)

    def time_recall_all_digests(self, _world: dict[str, str], _case: dict[str, Any]) -> None:
        """Take sha256, sha1 and block digests."""
        digest_file(self.path)

    def time_recall_stream(self, _world: dict[str, str], _case: dict[str, Any]) -> None:
        """Take the same of a stream, as a download does."""
        with StreamDigester() as digester, self.path.open("rb", buffering=0) as file:
            buffer = memoryview(bytearray(READ_BYTES))
            while length := file.readinto(buffer):
                digester.update(buffer[:length])
            digester.finish()

    def time_hashlib_sha256(self, _world: dict[str, str], _case: dict[str, Any]) -> None:
        """Take sha256 by OpenSSL, in this process."""
        digest = hashlib.sha256()
        with self.path.open("rb", buffering=0) as file:
            buffer = memoryview(bytearray(READ_BYTES))
            while length := file.readinto(buffer):
                digest.update(buffer[:length])

    def time_openssl_program_sha256(self, _world: dict[str, str], _case: dict[str, Any]) -> None:
        """Take sha256 by OpenSSL's own program."""
        peers.require(shutil.which("openssl") is not None, "openssl")
        subprocess.run(["openssl", "dgst", "-sha256", self.path], check=True, capture_output=True)
