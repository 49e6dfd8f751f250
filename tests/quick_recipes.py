"""Recipes that start quickly, for tests that run hundreds; each tells a log when it runs."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path

import recallfs


def content(number: int, size: int = 1000) -> bytes:
    """Return what `logged` writes."""
    return (f"file {number}\n" * size)[:size].encode()


def _log(log: str, word: str) -> None:
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    os.write(descriptor, f"{word} {os.getpid()} {os.getuid()} {time.monotonic()}\n".encode())
    os.close(descriptor)


@recallfs.recipe(name="logged", version="1", seeded=False)
def logged(
    inputs: Mapping[str, Path],
    output: Path,
    *,
    number: int,
    log: str,
    seconds: float = 0.0,
    size: int = 1000,
) -> None:
    """Write a small file, and when that began and ended; the inputs must be there."""
    _log(log, "start")
    for place in inputs.values():
        place.read_bytes()
    time.sleep(seconds)
    output.write_bytes(content(number, size))
    _log(log, "end")


@recallfs.recipe(name="reaches", version="1", seeded=False)
def reaches(inputs: Mapping[str, Path], output: Path, *, url: str) -> None:
    """Open a file that is not declared as an input."""
    import fsspec

    with fsspec.open(url) as file:
        output.write_bytes(file.read())


@recallfs.recipe(name="peeks", version="1", seeded=False)
def peeks(inputs: Mapping[str, Path], output: Path, *, number: int, other: str) -> None:
    """Open a plain path of the store by h5py, with the readers' patches asked for."""
    import h5py

    recallfs.install()
    try:
        with h5py.File(other, "r"):
            pass
    except FileNotFoundError:
        output.write_bytes(content(number))
        return
    output.write_text("it was brought back")


@recallfs.recipe(name="moody", version="1", seeded=False)
def moody(
    inputs: Mapping[str, Path], output: Path, *, number: int, mood: str, size: int = 1000
) -> None:
    """Write a small file; or do what a file says, if it is there."""
    order = Path(mood).read_text() if Path(mood).exists() else ""
    if order == "full":
        raise OSError(28, os.strerror(28))
    if order == "random":
        output.write_bytes(os.urandom(size))
    elif order == "wrong":
        output.write_bytes(b"wrong" * 10)
    elif order:
        os.write(1, b"the probe was unplugged\n")
        raise RuntimeError(order)
    else:
        output.write_bytes(content(number, size))


@recallfs.recipe(name="crowded", version="1", seeded=False)
def crowded(inputs: Mapping[str, Path], output: Path, *, number: int, folder: str) -> None:
    """Write a small file, unless another run is at it in the same folder."""
    own = Path(folder) / str(number)
    own.touch()
    try:
        give_up = time.monotonic() + 1.0
        while time.monotonic() < give_up:
            if len(list(Path(folder).iterdir())) > 1:
                time.sleep(0.5)  # for the other one to see this one, too
                raise RuntimeError("somebody else uses the temporary file")
            time.sleep(0.01)
    finally:
        own.unlink()
    output.write_bytes(content(number))


@recallfs.recipe(name="gated", version="1", seeded=False)
def gated(inputs: Mapping[str, Path], output: Path, *, number: int, gate: str) -> None:
    """Say where it writes, wait until a file is there, and write a small file."""
    Path(f"{gate}.started").write_text(str(output))
    while not Path(gate).exists():
        time.sleep(0.02)
    output.write_bytes(content(number))
