"""Digests of files and streams against plain hashlib and blake3, and what must be refused."""

from __future__ import annotations

import functools
import gc
import hashlib
import itertools
import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from recallfs.digest.pipeline import THREAD_NAME, usable_cores
from recallfs.digest.stream import StreamDigester, digest_descriptor, digest_file
from recallfs.errors import (
    AccessError,
    ConflictError,
    IntegrityError,
    InvalidInputError,
    SourceError,
)
from recallfs.values import BLOCK_BYTES, Digests

EMPTY_SHA256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
ABC_SHA256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
ABC_BLAKE3 = "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85"


@functools.cache
def noise(length_bytes: int) -> bytes:
    return random.Random(7).randbytes(length_bytes)  # noqa: S311 - test data, not a secret


@functools.cache
def expected(content: bytes) -> Digests:
    """Compute the digests, each on its own and in the plainest way."""
    blocks = (content[i : i + BLOCK_BYTES] for i in range(0, len(content), BLOCK_BYTES))
    return Digests(
        size_bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        sha1=hashlib.sha1(content, usedforsecurity=False).hexdigest(),
        blocks=b"".join(blake3(block).digest() for block in blocks),
    )


def digester_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == THREAD_NAME]


def make_file(folder: Path, content: bytes) -> Path:
    """Write a file whose last write is long past, so that any new write shows in its time."""
    path = folder / "file.bin"
    path.write_bytes(content)
    os.utime(path, ns=(10**18, 10**18))
    return path


def test_empty_file(tmp_path: Path) -> None:
    """An empty file has the well-known digests and no block."""
    digests = digest_file(make_file(tmp_path, b""), dandi_etag=True)
    assert digests == Digests(
        0,
        EMPTY_SHA256,
        "da39a3ee5e6b4b0d3255bfef95601890afd80709",
        b"",
        "d41d8cd98f00b204e9800998ecf8427e-0",
    )


def test_abc(tmp_path: Path) -> None:
    """The standards' own test vector."""
    digests = digest_file(make_file(tmp_path, b"abc"), dandi_etag=True)
    assert digests == Digests(
        3,
        ABC_SHA256,
        "a9993e364706816aba3e25717850c26c9cd0d89d",
        bytes.fromhex(ABC_BLAKE3),
        "af5da9f45af7a300e3aded972f8ff687-1",
    )


def test_b3b1_vectors(tmp_path: Path) -> None:
    """The block digests are those that the format's page gives: full blocks, then a short one."""
    full = "04e52cd2da6a0e1f338b0078369130d96585c1de65057da5dd1283b12fb853e1"
    short = "2d3adedff11b61f14c886e35afa036736dcd87a74d27b5c1510225d0f592e213"
    path = make_file(tmp_path, bytes(BLOCK_BYTES))
    assert digest_file(path).blocks.hex() == full
    os.truncate(path, BLOCK_BYTES + 1)
    assert digest_file(path).blocks.hex() == full + short


@pytest.mark.parametrize(
    "size_bytes",
    [
        2047,
        512 * 1024,
        BLOCK_BYTES - 1,
        BLOCK_BYTES,
        BLOCK_BYTES + 1,
        3 * BLOCK_BYTES,
        5 * BLOCK_BYTES + 12_345,
    ],
)
def test_file_and_stream_equal_plain_hashes(tmp_path: Path, size_bytes: int) -> None:
    """Around every border of buffers and blocks the result is that of the plain hashes."""
    content = noise(size_bytes)
    assert digest_file(make_file(tmp_path, content)) == expected(content)
    with StreamDigester() as digester:
        digester.update(content)
        assert digester.finish() == expected(content)


@settings(max_examples=25, deadline=None)
@given(
    size_bytes=st.integers(0, 2 * BLOCK_BYTES + 99),
    cuts=st.lists(st.floats(0, 1), max_size=12),
)
def test_stream_does_not_depend_on_its_pieces(size_bytes: int, cuts: list[float]) -> None:
    """Wherever a stream is cut, its digests are those of the whole."""
    content = noise(2 * BLOCK_BYTES + 99)[:size_bytes]
    borders = sorted({0, size_bytes, *(int(cut * size_bytes) for cut in cuts)})
    with StreamDigester() as digester:
        for start, end in itertools.pairwise(borders):
            digester.update(content[start:end])
        assert digester.finish() == expected(content)


def test_stream_copies_what_it_is_given() -> None:
    """A buffer may be overwritten as soon as `update` returns."""
    content = noise(3 * BLOCK_BYTES)
    buffer = bytearray(100_000)
    with StreamDigester() as digester:
        for start in range(0, len(content), len(buffer)):
            piece = content[start : start + len(buffer)]
            buffer[: len(piece)] = piece
            digester.update(memoryview(buffer)[: len(piece)])
            buffer[:] = bytes(len(buffer))
        assert digester.finish() == expected(content)


def test_stream_counts_bytes_of_wider_elements() -> None:
    """A view of 8-byte elements counts by bytes, not by elements."""
    content = noise(8 * 1000)
    with StreamDigester() as digester:
        digester.update(memoryview(content).cast("d"))
        assert digester.finish() == expected(content)


def test_dandi_etag_only_when_asked(tmp_path: Path) -> None:
    """The etag is made for files and streams on request, in the same pass as the rest."""
    content = noise(3 * BLOCK_BYTES)
    part = hashlib.md5(content, usedforsecurity=False).digest()
    etag = f"{hashlib.md5(part, usedforsecurity=False).hexdigest()}-1"
    path = make_file(tmp_path, content)
    assert digest_file(path).dandi_etag is None
    assert digest_file(path, dandi_etag=True).dandi_etag == etag
    with StreamDigester(dandi_etag=True, size_bytes=len(content)) as digester:
        digester.update(content)
        assert digester.finish().dandi_etag == etag


def test_dandi_etag_of_a_stream_needs_its_size() -> None:
    """The etag's parts depend on the size, so a stream of unknown size is refused."""
    with pytest.raises(InvalidInputError):
        StreamDigester(dandi_etag=True)


def test_stream_of_another_length_is_refused() -> None:
    """A stream that breaks off short of the announced size gives no digests."""
    with StreamDigester(size_bytes=4) as digester:
        digester.update(b"abc")
        with pytest.raises(IntegrityError) as caught:
            digester.finish()
    assert caught.value.details == {"expected": 4, "actual": 3}


def test_progress_adds_up_to_the_size(tmp_path: Path) -> None:
    """Progress is told in steps whose sum is the file's length."""
    steps: list[int] = []
    digest_file(make_file(tmp_path, noise(BLOCK_BYTES + 1)), progress=steps.append)
    assert sum(steps) == BLOCK_BYTES + 1
    assert len(steps) > 1


def test_progress_may_give_up(tmp_path: Path) -> None:
    """What `progress` raises ends the digest as it is, and leaves no thread."""
    path = make_file(tmp_path, noise(3 * BLOCK_BYTES))
    total = 0

    def give_up(step: int) -> None:
        nonlocal total
        total += step
        if total > 2 * BLOCK_BYTES:
            raise TimeoutError("enough")

    with pytest.raises(TimeoutError, match="enough"):
        digest_file(path, progress=give_up)
    assert not digester_threads()


def test_descriptor_offset_neither_matters_nor_moves(tmp_path: Path) -> None:
    """An open file is digested from its start, and its reader goes on where it was."""
    content = noise(BLOCK_BYTES + 1)
    with make_file(tmp_path, content).open("rb", buffering=0) as file:
        file.seek(1234)
        assert digest_descriptor(file.fileno()) == expected(content)
        assert file.tell() == 1234


def test_descriptor_of_an_unlinked_file(tmp_path: Path) -> None:
    """An inode without a name can be digested: only a change of its bytes matters."""
    path = make_file(tmp_path, b"abc")
    with path.open("rb") as file:
        path.unlink()
        assert digest_descriptor(file.fileno()).sha256 == ABC_SHA256


def test_descriptor_that_cannot_be_read(tmp_path: Path) -> None:
    """A descriptor that is closed or open for writing only is the caller's mistake."""
    descriptor = os.open(make_file(tmp_path, b"abc"), os.O_WRONLY)
    with pytest.raises(InvalidInputError):
        digest_descriptor(descriptor)
    os.close(descriptor)
    with pytest.raises(InvalidInputError):
        digest_descriptor(10**6)


def append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def overwrite(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"other")


def truncate(path: Path) -> None:
    os.truncate(path, 5)


def replace(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(path.read_bytes())
    os.utime(other, ns=(10**18, 10**18))
    other.rename(path)


@pytest.mark.parametrize("size_bytes", [100, BLOCK_BYTES + 5])
@pytest.mark.parametrize("change", [append, overwrite, truncate, replace, Path.unlink])
def test_a_change_while_reading_is_refused(
    tmp_path: Path, size_bytes: int, change: Callable[[Path], None]
) -> None:
    """Bytes appended, overwritten, cut off or replaced after the first read give no digest."""
    path = make_file(tmp_path, noise(size_bytes))
    pending = [change]

    def interfere(_: int) -> None:
        if pending:
            pending.pop()(path)

    with pytest.raises(ConflictError) as caught:
        digest_file(path, progress=interfere)
    assert caught.value.kind == "in-use"
    assert not digester_threads()


def test_a_file_that_keeps_growing_is_given_up(tmp_path: Path) -> None:
    """A writer that always appends another buffer cannot keep the reader for ever."""
    path = make_file(tmp_path, noise(BLOCK_BYTES))
    total = 0

    def grow(step: int) -> None:
        nonlocal total
        total += step
        assert total < 3 * BLOCK_BYTES
        with path.open("ab") as file:
            file.write(bytes(step))

    with pytest.raises(ConflictError):
        digest_file(path, progress=grow)


@pytest.mark.parametrize("name", ["missing", "file.bin/under", "x" * 300, "nul\0", "loop"])
def test_no_file_at_the_path(tmp_path: Path, name: str) -> None:
    """Whatever makes a path lead nowhere, the answer is the same kind."""
    make_file(tmp_path, b"abc")
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(InvalidInputError) as caught:
        digest_file(tmp_path / name)
    assert caught.value.kind == "invalid-path"


def test_folder(tmp_path: Path) -> None:
    """A folder is named as such."""
    with pytest.raises(InvalidInputError) as caught:
        digest_file(tmp_path)
    assert caught.value.kind == "is-a-folder"


@pytest.mark.timeout(10)
def test_fifo_socket_and_device_are_refused_at_once(tmp_path: Path) -> None:
    """Nothing that could block or never end is waited for."""
    os.mkfifo(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as listener, pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)  # a socket's name must be short
        listener.bind("socket")
        for path in (tmp_path / "fifo", tmp_path / "socket", Path(os.devnull)):
            with pytest.raises(InvalidInputError) as caught:
                digest_file(path)
            assert caught.value.kind == "invalid-input"


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_a_disk_error_is_an_outage() -> None:
    """A read that fails below us is a source error, not a missing file."""
    # The first page of a process is never mapped, so reading its memory at 0 gives EIO.
    with pytest.raises(SourceError, match="Input/output error"):
        digest_file(Path("/proc/self/mem"))


def test_symbolic_link_is_followed(tmp_path: Path) -> None:
    """A link gives the digests of the file that it leads to."""
    make_file(tmp_path, b"abc")
    (tmp_path / "link").symlink_to("file.bin")
    assert digest_file(tmp_path / "link").sha256 == ABC_SHA256


def test_unreadable_file(tmp_path: Path) -> None:
    """A file without read permission gives an access error, to root's child as to anyone."""
    path = make_file(tmp_path, b"abc")
    path.chmod(0)
    if os.geteuid() != 0:
        with pytest.raises(AccessError):
            digest_file(path)
        return
    # Root may read everything: a child gives that up after its imports.
    script = """
import os, pathlib, sys
from recallfs.digest.stream import digest_file
from recallfs.errors import AccessError
os.chdir(sys.argv[1])
os.setuid(65534)
try:
    digest_file(pathlib.Path("file.bin"))
except AccessError as error:
    print(error.kind)
"""
    tmp_path.chmod(0o755)
    child = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert child.stdout == "access-denied\n", child.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="leases are Linux' own")
def test_leased_file_is_in_use(tmp_path: Path) -> None:
    """A file under another process' write lease is reported at once, not waited for."""
    path = make_file(tmp_path, b"abc")
    script = """
import fcntl, os, signal, sys
signal.signal(signal.SIGIO, signal.SIG_IGN)  # the kernel's note that somebody wants the file
descriptor = os.open(sys.argv[1], os.O_RDWR)
fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_WRLCK)
print("leased", flush=True)
sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", script, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"leased\n"
        with pytest.raises(ConflictError) as caught:
            digest_file(path)
        assert caught.value.kind == "in-use"
        holder.communicate(b"")
    assert digest_file(path).sha256 == ABC_SHA256


def test_closed_digester_is_of_no_use() -> None:
    """After `close` or `finish` neither bytes nor digests are to be had."""
    closed = StreamDigester()
    closed.close()
    finished = StreamDigester()
    finished.finish()
    for digester in (closed, finished):
        with pytest.raises(InvalidInputError):
            digester.update(b"abc")
        with pytest.raises(InvalidInputError):
            digester.finish()
        digester.close()


def test_abandoned_digesters_leave_no_threads() -> None:
    """Closed half-way, left by an exception or merely dropped: the threads end."""
    content = noise(3 * BLOCK_BYTES)
    closed = StreamDigester()
    closed.update(content)
    closed.close()

    def leave() -> None:
        with StreamDigester() as left:
            left.update(content)
            assert digester_threads() or usable_cores() == 1
            raise KeyError

    with pytest.raises(KeyError):
        leave()
    assert not digester_threads()
    dropped = StreamDigester()
    dropped.update(content)
    del dropped
    gc.collect()
    deadline = time.monotonic() + 10
    while digester_threads() and time.monotonic() < deadline:
        time.sleep(0.001)
    assert not digester_threads()


def test_small_streams_start_no_threads() -> None:
    """Below 2 MiB no thread is started, so thousands of small files stay cheap."""
    with StreamDigester() as digester:
        digester.update(noise(BLOCK_BYTES)[: 2 * 1024**2 - 1])
        assert not digester_threads()


def test_a_forked_child_can_digest(tmp_path: Path) -> None:
    """After a digest in the parent, a forked child digests too: no pool is carried over."""
    script = """
import hashlib, os, pathlib, sys
from recallfs.digest.stream import digest_file
path = pathlib.Path(sys.argv[1])
first = digest_file(path)
child = os.fork()
if child == 0:
    os._exit(0 if digest_file(path) == first else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    path = make_file(tmp_path, noise(3 * BLOCK_BYTES))
    subprocess.run([sys.executable, "-W", "error", "-c", script, str(path)], check=True, timeout=60)


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc/self/status")
def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    """A 400 MB file is digested with less than 32 MiB above the process' own size."""
    path = tmp_path / "sparse.bin"
    path.touch()
    os.truncate(path, 400_000_000)
    # VmHWM and not ru_maxrss: a child inherits the latter from its parent.
    script = """
import pathlib, sys
from recallfs.digest.stream import digest_file
def peak_kib():
    status = pathlib.Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0])
before = peak_kib()
digests = digest_file(pathlib.Path(sys.argv[1]))
assert len(digests.blocks) == 32 * 96
print(peak_kib() - before)
"""
    child = subprocess.run(
        [sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True
    )
    assert int(child.stdout) < 32 * 1024


def test_taking_saves_a_copy_and_gives_the_same(tmp_path: Path) -> None:
    """Bytes put straight where they are digested give the digests of the plain way."""
    content = os.urandom(3 * BLOCK_BYTES + 5)
    path = tmp_path / "a"
    path.write_bytes(content)
    whole = digest_file(path)
    for blocks in (None, whole.blocks):
        with path.open("rb", buffering=0) as file, StreamDigester(blocks=blocks) as digester:
            while digester.take(lambda space, file=file: file.readinto(space) or 0):  # type: ignore[misc]
                pass
            assert digester.finish() == whole
