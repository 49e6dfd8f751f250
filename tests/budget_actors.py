"""What other processes do in the tests of budgets."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from recallfs.config import Config, load_config
from recallfs.resolve.budget import hold_slot
from recallfs.sources.base import Need


def note(log: str, word: str) -> None:
    """Add a line to a log, whole, whoever else does."""
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    os.write(descriptor, f"{word} {os.getpid()} {os.getuid()} {time.monotonic()}\n".encode())
    os.close(descriptor)


def hold(log: str, place: str, seconds: float, *, kind: str = "recompute", size: int = 0) -> None:
    """Hold one slot for a while, and tell the log."""
    hold_with(load_config(), log, place, seconds, kind=kind, size=size)


def hold_with(
    config: Config, log: str, place: str, seconds: float, *, kind: str = "recompute", size: int = 0
) -> None:
    """Hold one slot under a configuration."""
    with hold_slot(config, Need(kind, size), Path(place)):
        note(log, "start")
        time.sleep(seconds)
        note(log, "end")


def hold_many(log: str, place: str, seconds: float, count: int) -> None:
    """Hold a slot in each of many threads."""
    config = load_config()
    in_threads(count, lambda _: hold_with(config, log, place, seconds))


def become(user: int) -> None:
    """Give up root's rights and be somebody else."""
    os.setgroups([])
    os.setgid(user)
    os.setuid(user)


def hold_many_as(user: int, log: str, place: str, seconds: float, count: int) -> None:
    """Be another user, say so, and hold a slot in each of many threads."""
    config = load_config()
    become(user)
    note(log, "asked")
    in_threads(count, lambda _: hold_with(config, log, place, seconds))


def hold_and_fork(log: str, place: str, child_file: str) -> None:
    """Hold a slot, fork a child that outlives this process, and wait to be killed."""
    with hold_slot(load_config(), Need("recompute", 0), Path(place)):
        child = os.fork()
        if child == 0:
            time.sleep(20)
            os._exit(0)
        Path(child_file).write_text(str(child))
        note(log, "start")
        time.sleep(60)


def open_all(urls: Sequence[str], report: str) -> None:
    """Open files, each in a thread of its own; write the digests down, one a line."""
    import fsspec

    found = [""] * len(urls)

    def read(number: int) -> None:
        try:
            with fsspec.open(urls[number], "rb") as file:
                found[number] = hashlib.sha256(file.read()).hexdigest()
        except Exception as error:  # noqa: BLE001 - the test shows it
            found[number] = f"{type(error).__name__}: {error}"

    in_threads(len(urls), read)
    Path(report).write_text("\n".join(found))


def in_threads(count: int, work: object) -> None:
    """Call a function with 0 to count - 1, all at once."""
    assert callable(work)
    threads = [threading.Thread(target=work, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
