"""Threads of one process that want the same file: one goes, the others wait and share its error."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from recallfs.errors import RecallError


@dataclass
class _Running:
    """A recall that a thread of this process is busy with."""

    done: threading.Event = field(default_factory=threading.Event)
    failure: RecallError | None = None


_running: dict[str, _Running] = {}
_running_lock = threading.Lock()


def _forget_parent_threads() -> None:
    """After a fork, what the parent's threads were doing is not being done here."""
    global _running_lock  # noqa: PLW0603 - the parent's lock may have been held at the fork
    _running.clear()
    _running_lock = threading.Lock()


os.register_at_fork(after_in_child=_forget_parent_threads)


@contextmanager
def first_in_process(key: str) -> Iterator[bool]:
    """Let one thread of this process through; the others wait for it, then get False.

    The catalog's lease alone would be enough, but hundreds of threads would poll it.
    """
    with _running_lock:
        theirs = _running.get(key)
        mine = _Running()
        if theirs is None:
            _running[key] = mine
    if theirs is not None:
        theirs.done.wait()
        if theirs.failure is not None:
            raise RecallError.from_json(theirs.failure.to_json())
        yield False
        return
    try:
        yield True
    except RecallError as error:
        mine.failure = error
        raise
    finally:
        with _running_lock:
            _running.pop(key, None)
        mine.done.set()
