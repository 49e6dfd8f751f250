"""The ring of buffers: order, sharing, errors, and threads that end."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recallfs.digest.pipeline import Pipeline, Sink
from recallfs.errors import InvalidInputError


class Recorder:
    """A sink that keeps what it is given, and notices two threads at once."""

    def __init__(self, delay_s: float = 0.0) -> None:
        self.taken = bytearray()
        self.threads: set[int] = set()
        self.has_collided = False
        self._delay_s = delay_s
        self._running = False

    def update(self, data: memoryview) -> None:
        """Keep the bytes."""
        self.has_collided |= self._running
        self._running = True
        if self._delay_s:
            time.sleep(self._delay_s)
        self.taken += data
        self.threads.add(threading.get_ident())
        self._running = False


class Failing:
    """A sink that raises at its n-th buffer."""

    def __init__(self, at: int) -> None:
        self._left = at

    def update(self, _data: memoryview) -> None:
        """Raise, when it is time."""
        self._left -= 1
        if self._left <= 0:
            raise MemoryError("no room for the hash")


def pour(pipeline: Pipeline, content: bytes, piece_bytes: int) -> None:
    """Feed bytes as a reader does whose reads are at most `piece_bytes` long."""
    while content:
        space = pipeline.space()
        length = min(len(space), piece_bytes, len(content))
        space[:length] = content[:length]
        pipeline.commit(length)
        content = content[length:]


def own_threads(before: set[threading.Thread]) -> set[threading.Thread]:
    return set(threading.enumerate()) - before


@given(
    content=st.binary(max_size=400),
    piece_bytes=st.integers(1, 50),
    slot_bytes=st.integers(1, 40),
    slots=st.integers(1, 5),
    workers=st.integers(0, 3),
    sinks=st.integers(1, 4),
)
def test_each_sink_sees_all_bytes_in_order(
    *, content: bytes, piece_bytes: int, slot_bytes: int, slots: int, workers: int, sinks: int
) -> None:
    """Whatever the buffers, reads, threads and sinks, each sink sees the stream as it is."""
    recorders = [Recorder() for _ in range(sinks)]
    options: dict[str, Any] = {"slot_bytes": slot_bytes, "slots": slots, "workers": workers}
    with Pipeline(recorders, start_slots=1, **options) as pipeline:
        pour(pipeline, content, piece_bytes)
        pipeline.finish()
    for recorder in recorders:
        assert bytes(recorder.taken) == content
        assert not recorder.has_collided


def test_work_is_shared_between_threads() -> None:
    """A slow sink and a fast one both run in more than one thread; neither is bound to one."""
    recorders = [Recorder(0.002), Recorder(0.001)]
    with Pipeline(recorders, slot_bytes=1, slots=4, start_slots=1, workers=1) as pipeline:
        pour(pipeline, bytes(60), 1)
        pipeline.finish()
    assert len(recorders[0].threads | recorders[1].threads) == 2


def test_no_thread_for_few_bytes() -> None:
    """A stream that ends before `start_slots` buffers are full starts no thread."""
    before = set(threading.enumerate())
    with Pipeline([Recorder()], slot_bytes=10, slots=8, start_slots=4, workers=2) as pipeline:
        pour(pipeline, bytes(39), 39)
        assert not own_threads(before)
        pour(pipeline, bytes(1), 1)
        assert len(own_threads(before)) == 2
        pipeline.finish()
        assert not own_threads(before)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("at", [1, 30])
def test_an_error_of_a_sink_reaches_the_caller(workers: int, at: int) -> None:
    """What a sink raises in any thread is raised to the caller, and threads end."""
    before = set(threading.enumerate())
    sinks: list[Sink] = [Recorder(), Failing(at)]

    def run() -> None:
        with Pipeline(sinks, slot_bytes=4, slots=3, start_slots=1, workers=workers) as pipeline:
            pour(pipeline, bytes(4 * 30), 4)
            pipeline.finish()

    with pytest.raises(MemoryError, match="no room"):
        run()
    assert not own_threads(before)


def test_an_error_in_the_last_buffer_is_not_lost() -> None:
    """`finish` raises an error that happened after the last byte was handed over."""
    with Pipeline([Failing(1)], slot_bytes=64, slots=2, start_slots=1, workers=1) as pipeline:
        pour(pipeline, b"x", 1)
        with pytest.raises(MemoryError):
            pipeline.finish()


def test_leaving_half_way_ends_the_threads() -> None:
    """A caller that raises in the middle leaves no thread behind."""
    before = set(threading.enumerate())
    slow = Recorder(0.001)

    def run() -> None:
        with Pipeline([slow], slot_bytes=1, slots=4, start_slots=1, workers=2) as pipeline:
            pour(pipeline, bytes(20), 1)
            assert len(own_threads(before)) == 2
            raise KeyError

    with pytest.raises(KeyError):
        run()
    assert not own_threads(before)


def test_a_closed_pipeline_takes_nothing() -> None:
    """After `close` there is no space and no finish, rather than digests of half a stream."""
    pipeline = Pipeline([Recorder()])
    pipeline.close()
    with pytest.raises(InvalidInputError):
        pipeline.space()
    with pytest.raises(InvalidInputError):
        pipeline.finish()


@pytest.mark.skipif(sys.platform != "linux", reason="macOS does not enforce RLIMIT_AS")
def test_no_thread_is_needed() -> None:
    """Where the system refuses threads, the caller does all the work."""
    script = """
import hashlib, resource, threading
from recallfs.digest.pipeline import Pipeline
threading.stack_size(16 << 30)
resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
try:
    threading.Thread(target=print).start()
except RuntimeError:
    sink = hashlib.sha256()
    with Pipeline([sink], slot_bytes=1000, slots=2, start_slots=1, workers=1) as pipeline:
        for _ in range(10):
            pipeline.space()[:] = bytes(1000)
            pipeline.commit(1000)
        pipeline.finish()
    assert sink.digest() == hashlib.sha256(bytes(10_000)).digest()
    print("done without threads")
"""
    child = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert child.stdout == "done without threads\n", child.stderr
