"""Waiting for threads while h5py's global lock is held, without a deadlock.

h5py holds one lock around all that it does, and asks a file object for bytes under it. A garbage
collection may begin in any thread, and where it finds objects of h5py, it waits for that lock: a
thread that the reader waits for, or that holds what the reader needs, would wait for the reader
(h5py issue 2019). So there is no collection as long as anybody fetches.
"""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_lock = threading.Lock()
_waiting = 0
_was_enabled = False


def holds_h5py() -> bool:
    """Tell whether the calling thread holds h5py's lock."""
    module = sys.modules.get("h5py._objects")
    return module is not None and bool(module.phil._is_owned())


@contextmanager
def no_collection() -> Iterator[None]:
    """Collect no garbage, in any thread; not for long."""
    global _waiting, _was_enabled  # noqa: PLW0603 - the collector is the process's
    was_enabled = gc.isenabled()
    gc.disable()
    with _lock:
        if not _waiting:
            _was_enabled = was_enabled
        _waiting += 1
        gc.disable()
    try:
        yield
    finally:
        with _lock:
            _waiting -= 1
            if not _waiting and _was_enabled:
                gc.enable()
