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
