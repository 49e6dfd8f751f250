"""Processes that share what was fetched: at once, killed at any moment, with the cache gone."""

from __future__ import annotations

import os
import random
import shutil
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from partial_actors import read_all, read_amid_garbage, read_units
from processes import start
from recallfs.cache.cache import Cache
from recallfs.cli.app import main
from recallfs.partial.blocks import find_blocks
from recallfs.testing.misbehaviour import Fault
from served import Served, write_hdf5

KILLS = int(os.environ.get("RECALLFS_TEST_KILLS", "12"))


def test_two_processes_fetch_a_chunk_once(served: Served) -> None:
    """Of processes that want the same chunks at the same moment, one asks and all read."""
    write_hdf5(served.lab.base / "made.h5")
    content = served.release("a.h5", served.lab.base / "made.h5")
    served.parts().open().close()  # so that they all begin with the same
    served.server.fail(Fault(delay_s=0.3))
    outputs = [served.lab.base / f"read-{number}" for number in range(4)]
    workers = [start(read_all, str(output)) for output in outputs]
    for worker in workers:
        worker.join()
    assert [output.read_bytes() == content for output in outputs] == [True] * 4
    fetched = sum(exchange.sent_bytes for exchange in served.server.log)
    assert fetched < 1.5 * len(content)


def test_a_kill_at_any_moment_leaves_nothing_wrong(served: Served) -> None:
    """What killed readers leave is right or not marked; the next reads on from there."""
    write_hdf5(served.lab.base / "made.h5")
    content = served.release("a.h5", served.lab.base / "made.h5")
    chance = random.Random(3)  # noqa: S311 - no secret
    for number in range(KILLS):
        output = served.lab.base / f"read-{number}"
        worker = start(read_units, str(output), number)
        begun = time.monotonic()
        while not output.exists() and worker.is_alive() and time.monotonic() < begun + 30:
            time.sleep(0.001)
        time.sleep(chance.uniform(0, 0.06))
        worker.kill()
        worker.join()
        blocks = find_blocks(served.parts().cache, served.parts().key)
        if blocks is not None:
            here = np.flatnonzero(blocks.marks)
            assert all(blocks.load(unit) is not None for unit in here.tolist())
            blocks.close()
    assert main(["verify", "--deep"]) == 0
    middle = len(content) // 2
    for _ in range(2):
        # The first may find what a killed reader wrote and did not live to make durable. What is
        # wrong in there is fetched anew, and is durable when that reader has closed it.
        with served.parts().open() as parts:
            assert parts.read_at(0, len(content)) == content
            assert parts.blocks is not None
            data = parts.blocks.folder / "data"
        with data.open("r+b") as file:
            file.seek(middle)
            file.write(bytes([content[middle] ^ 1]))
    assert main(["verify", "--deep"]) == 1
    assert main(["verify", "--deep"]) == 0  # what was wrong is not there any more


@pytest.mark.parametrize("point", ["made", "written", "synced", "marked"])
def test_a_kill_at_each_step_leaves_nothing_wrong(served: Served, point: str) -> None:
    """Killed between two steps of keeping what came, a reader leaves nothing that is wrong."""
    write_hdf5(served.lab.base / "made.h5")
    content = served.release("a.h5", served.lab.base / "made.h5")
    worker = start(read_units, str(served.lab.base / "read"), 1, f"blocks.{point}")
    worker.join()
    assert worker.exitcode == -9
    blocks = find_blocks(served.parts().cache, served.parts().key)
    assert (blocks is None) == (point == "made")
    if blocks is not None:
        here = np.flatnonzero(blocks.marks)
        assert all(blocks.load(unit) is not None for unit in here.tolist())
        blocks.close()
    with served.parts().open() as parts:
        assert parts.read_at(0, len(content)) == content


def test_a_mark_may_outlive_its_bytes(served: Served) -> None:
    """What was not synced when the power went is fetched anew; `verify` takes it for no damage."""
    write_hdf5(served.lab.base / "made.h5")
    content = served.release("a.h5", served.lab.base / "made.h5")
    with served.parts().open() as parts:
        blocks = parts.blocks
        assert blocks is not None
        unit = int(np.flatnonzero(parts.index.is_retained == 0)[9])
        begin, end = parts.index.start_of(unit), parts.index.stop_of(unit)
        assert parts.read_at(begin, end) == content[begin:end]
        assert blocks.marks[unit]
        assert not blocks.is_durable(unit)
        with (blocks.folder / "data").open("r+b") as file:  # as a disk may have it afterwards
            file.seek(begin)
            file.write(bytes(end - begin))
        assert main(["verify", "--deep"]) == 0
        with served.parts().open() as others:
            assert others.read_at(begin, end) == content[begin:end]
    blocks = find_blocks(served.parts().cache, served.parts().key)
    assert blocks is not None
    assert blocks.is_durable(unit)
    blocks.close()


def test_garbage_of_h5py_does_not_stop_a_reader(served: Served) -> None:
    """A collection in a thread that fetches does not wait for the lock of who waits for it."""
    with h5py.File(served.lab.base / "made.h5", "w") as file:
        file["big"] = np.ones(36_000_000, np.uint8)  # more than one request fetches
    served.release("a.h5", served.lab.base / "made.h5")
    served.parts().open().close()
    served.server.fail(Fault(delay_s=0.4))
    output = served.lab.base / "read"
    worker = start(read_amid_garbage, str(output))
    worker.join(40)
    is_stuck = worker.is_alive()
    worker.kill()
    worker.join()
    assert not is_stuck
    assert output.read_text() == "0 36000000"
    assert len({exchange.connection for exchange in served.server.log}) > 1


def test_the_cache_may_go_while_a_file_is_open(served: Served) -> None:
    """With the cache's folder deleted under it, a file reads on, and can be opened again."""
    write_hdf5(served.lab.base / "made.h5")
    content = served.release("a.h5", served.lab.base / "made.h5")
    half = len(content) // 2
    with served.parts().open() as parts:
        assert parts.read_at(0, half) == content[:half]
        shutil.rmtree(Cache(served.lab.stores.config.cache).folder)
        assert parts.read_at(0, len(content)) == content
        with served.parts().open() as others:
            assert others.read_at(half, half + 9) == content[half : half + 9]


def test_a_full_cache_does_not_stop_a_reader(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a file that is larger than the cache's limit, all is read, and the limit is kept."""
    write_hdf5(served.lab.base / "made.h5")
    content = served.release("a.h5", served.lab.base / "made.h5")
    monkeypatch.setenv("RECALLFS_CACHE__LIMIT", "200kB")
    with served.parts().open() as parts:
        assert b"".join(parts.cat_ranges([(0, 300_000), (300_000, len(content))])) == content
        assert parts.read_at(0, len(content)) == content
    assert Cache(served.lab.stores.config.cache).blocks.usage().size_bytes < 150_000


def test_a_cache_that_cannot_be_written_does_not_stop_a_reader(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nothing can be kept, a file is read all the same."""
    write_hdf5(served.lab.base / "made.h5")
    content = served.release("a.h5", served.lab.base / "made.h5")
    (tmp_path / "no-folder").write_bytes(b"")
    monkeypatch.setenv("RECALLFS_CACHE__FOLDER", str(tmp_path / "no-folder"))
    with served.parts().open() as parts:
        assert parts.blocks is None
        assert parts.read_at(0, len(content)) == content
