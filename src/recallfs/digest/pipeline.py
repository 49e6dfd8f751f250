"""Several sinks over one stream of bytes, on as many cores as there are.

The caller fills a ring of buffers; each sink (a hash) passes over every buffer in order. A sink is
not bound to a thread: whoever is free, the caller too, takes the sink that is furthest behind.
So unequal sinks share the cores evenly, all end at the same moment, and no thread is ever needed
for progress: if none can be started, the caller does it all.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from typing import Protocol

from recallfs.errors import InvalidInputError

SLOT_BYTES = 512 * 1024
"""Length of one buffer of the ring: it fits a core's own cache, yet outweighs a lock's cost."""
SLOTS = 8
"""Buffers in the ring; they are allocated when first needed."""
START_SLOTS = 4
"""Threads start once so many buffers are full: for less, starting them costs more than it gives."""

THREAD_NAME = "recallfs-digest"


class Sink(Protocol):
    """What takes a stream of bytes, such as a hash; called by one thread at a time."""

    def update(self, data: memoryview, /) -> object:
        """Take the next bytes; the view is not valid after the call."""


def usable_cores() -> int:
    """Return how many cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Pipeline:
    """A bounded ring of buffers between one caller and several sinks.

    Parameters
    ----------
    sinks : sequence of Sink
        Each sees all bytes in order. The slowest should come first: it wins ties.
    slot_bytes, slots : int
        Length and number of the buffers: at most ``slot_bytes * slots`` bytes are held.
    start_slots : int
        Full buffers before which no thread is started.
    workers : int, optional
        Threads besides the caller; by default one a core less the caller's own, at most one a sink.

    Notes
    -----
    For one calling thread. Use it as a context manager: leaving it ends the threads, whatever
    happened. Threads belong to the pipeline, none outlives it, so there is no pool that a fork
    could break; a pipeline itself must not be carried over a fork.
    """

    def __init__(
        self,
        sinks: Sequence[Sink],
        *,
        slot_bytes: int = SLOT_BYTES,
        slots: int = SLOTS,
        start_slots: int = START_SLOTS,
        workers: int | None = None,
    ) -> None:
        self._sinks = tuple(sinks)
        self._slot_bytes = slot_bytes
        self._slots = slots
        self._start_slots = min(start_slots, slots)
        self._workers = min(usable_cores() - 1, len(sinks)) if workers is None else workers
        self._ring: list[memoryview] = []
        self._filled_bytes = 0  # of the slot that the caller is filling
        # A re-entrant lock (the default): `stop` may be called by the garbage collector inside.
        self._changed = threading.Condition()
        # All below is guarded by `_changed`.
        self._lengths = [0] * slots
        self._published = 0  # slots handed to the sinks, ever
        self._positions = [0] * len(sinks)  # slots that each sink has passed, ever
        self._held = [False] * len(sinks)  # sinks that a thread is running
        self._stopped = False
        self._error: BaseException | None = None
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def space(self) -> memoryview:
        """Return a writable view of the bytes to fill next; at least one.

        Waits for room, and runs sinks meanwhile.

        Raises
        ------
        InvalidInputError
            If the pipeline is closed.
        BaseException
            What a sink raised; the pipeline is of no more use.
        """
        self._help_until(lambda: self._published - min(self._positions) < self._slots)
        index = self._published % self._slots
        if index == len(self._ring):
            self._ring.append(memoryview(bytearray(self._slot_bytes)))
        return self._ring[index][self._filled_bytes :]

    def commit(self, length_bytes: int) -> None:
        """Say that so many bytes of `space` are filled; it must be called anew before the next."""
        self._filled_bytes += length_bytes
        if self._filled_bytes == self._slot_bytes:
            self._publish()

    def finish(self) -> None:
        """Wait until every sink has taken every byte, running them meanwhile; end the threads.

        Raises
        ------
        InvalidInputError
            If the pipeline is closed.
        BaseException
            What a sink raised.
        """
        if self._filled_bytes:
            self._publish()
        self._help_until(lambda: min(self._positions) == self._published)
        self.close()

    def stop(self) -> None:
        """Tell the threads to end after the buffer they are at, without waiting for them."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def close(self) -> None:
        """End the threads and wait for that; what the sinks have not taken is dropped."""
        self.stop()
        for thread in self._threads:
            thread.join()
        self._threads = []
        self._ring = []

    def _publish(self) -> None:
        with self._changed:
            self._lengths[self._published % self._slots] = self._filled_bytes
            self._published += 1
            self._filled_bytes = 0
            self._changed.notify()
        if self._published == self._start_slots:
            self._start_threads()

    def _start_threads(self) -> None:
        for _ in range(self._workers):
            # A daemon, so that one which was abandoned half-way does not keep the process alive.
            thread = threading.Thread(target=self._work, name=THREAD_NAME, daemon=True)
            try:
                thread.start()
            except RuntimeError:
                return  # no thread is to be had (a limit, or shutdown): the caller does the work
            self._threads.append(thread)

    def _work(self) -> None:
        """Run sinks until the pipeline stops."""
        with self._changed:
            while not self._stopped:
                if not self._run_one():
                    self._changed.wait()

    def _help_until(self, is_done: Callable[[], bool]) -> None:
        """Run sinks in the caller's thread until a condition on the ring holds."""
        with self._changed:
            while True:
                if self._error is not None:
                    raise self._error
                if self._stopped:
                    raise InvalidInputError("the digester is closed; nothing can be added to it.")
                if is_done():
                    return
                if not self._run_one():
                    self._changed.wait()

    def _run_one(self) -> bool:
        """Move the free sink that is furthest behind by one slot; False if there is none.

        Called with the lock held; it is let go while the sink runs.
        """
        sink = -1
        position = self._published
        for candidate, passed in enumerate(self._positions):
            if passed < position and not self._held[candidate]:
                sink, position = candidate, passed
        if sink < 0:
            return False
        index = position % self._slots
        self._held[sink] = True
        error: BaseException | None = None
        self._changed.release()
        try:
            self._sinks[sink].update(self._ring[index][: self._lengths[index]])
        except BaseException as raised:  # noqa: BLE001 - whatever it is, the caller must get it
            error = raised
        finally:
            self._changed.acquire()
        if error is not None:
            self._error = self._error or error
            self._stopped = True
        else:
            self._positions[sink] += 1
            self._held[sink] = False
        self._changed.notify_all()
        return True
