"""Reading parts of files that are not here."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
import threading
import time
import tracemalloc
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from recallfs.cache.cache import Cache
from recallfs.errors import IntegrityError, SourceError
from recallfs.partial.index import BulkDataset, Index, of_skeleton
from recallfs.partial.prefetch import plan_requests
from recallfs.skeleton.vault import load_skeleton
from recallfs.testing.http import Files
from recallfs.testing.misbehaviour import Fault
from served import Served, write_hdf5


def test_a_released_file_is_read_in_parts(served: Served) -> None:
    """Metadata come without a request, a slice by one, and the file stays released."""
    values = write_hdf5(served.lab.base / "made.h5")
    served.release("a.h5", served.lab.base / "made.h5")
    assert served.has_skeleton("a.h5")
    with served.parts().open() as parts, h5py.File(parts, "r") as file:
        assert file["group"].attrs["about"] == "a test"
        assert file["group/gzip"].shape == (4000, 32)
        np.testing.assert_array_equal(file["group/small"][:], values["small"])
        assert served.asked() == []
        np.testing.assert_array_equal(file["group/gzip"][150:250], values["gzip"][150:250])
        assert len(served.asked()) == 1
        np.testing.assert_array_equal(file["group/plain"][50:950, 3], values["plain"][50:950, 3])
        assert len(served.asked()) == 1
        np.testing.assert_array_equal(file["group/contiguous"][:], values["contiguous"])
        assert len(served.asked()) == 1
        for name, expected in values.items():
            np.testing.assert_array_equal(file[f"group/{name}"][()], expected)
    assert not (served.lab.root / "a.h5").exists()


def released(served: Served, path: str = "a.h5") -> dict[str, Any]:
    """Release a file with a skeleton; return its values."""
    values = write_hdf5(served.lab.base / "made.h5")
    served.release(path, served.lab.base / "made.h5")
    return values


def test_what_was_read_is_here_for_the_next(served: Served) -> None:
    """Whoever opens the file after it was closed, in any process, needs no request for it."""
    values = released(served)
    with served.parts().open() as parts, h5py.File(parts, "r") as file:
        assert file["group/gzip"][:300].sum() == values["gzip"][:300].sum()
    served.asked()
    url = "recall://lab/a.h5"
    code = f"import recallfs; print(recallfs.open_h5({url!r}, True)['group/gzip'][:300].sum())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == str(values["gzip"][:300].sum()), done.stderr
    assert served.asked() == []


def test_bytes_and_ends(served: Served) -> None:
    """Ranges over kept and fetched bytes are the file's; past the end there is nothing."""
    made = served.lab.base / "made.h5"
    write_hdf5(made)
    content = served.release("a.h5", made)
    size = len(content)
    with served.parts().open() as parts:
        assert parts.is_verified
        assert parts.read_at(0, size) == content
        assert len(served.asked()) <= 2
        assert parts.read_at(size - 3, size + 50) == content[-3:]
        assert parts.read_at(size + 5, size + 50) == b""
        assert parts.seek(0, 2) == size
        assert parts.read(4) == b""
        parts.seek(-7, 2)
        assert parts.read() == content[-7:]
        ranges = [(5, 9), (size // 2, size // 2 + 40000), (3, 3)]
        assert parts.cat_ranges(ranges) == [content[a:b] for a, b in ranges]


def test_a_corrupt_byte_is_never_served(served: Served) -> None:
    """With a byte wrong at the server, wherever it is, a read gives the right bytes or an error."""
    made = served.lab.base / "made.h5"
    write_hdf5(made)
    content = served.release("a.h5", made)
    chance = random.Random(5)  # noqa: S311 - no secret
    failed = 0
    for _ in range(25):
        at = chance.randrange(len(content))
        served.server.heal()
        served.server.fail(Fault(flip_at=(at,)))
        shutil.rmtree(Cache(served.lab.stores.config.cache).blocks.folder, ignore_errors=True)
        with served.parts().open() as parts:
            begin = max(0, at - chance.randrange(5000))
            try:
                found = parts.read_at(begin, at + 5000)
            except IntegrityError as error:
                failed += 1
                assert "fails its digest" in error.message  # noqa: PT017
            else:
                assert found == content[begin : at + 5000]
    assert failed > 5


def test_a_chunk_that_is_wrong_is_named(served: Served) -> None:
    """The error of a slice says which chunk of which dataset is wrong; the others can be read."""
    values = released(served)
    skeleton = load_skeleton(served.lab.store, served.parts().record)
    assert skeleton is not None
    index = of_skeleton(skeleton)
    unit = index.units_in_box(index.by_path["/group/plain"], (200, 0), (201, 1))[0]
    served.server.fail(Fault(flip_at=(index.start_of(int(unit)) + 5,)))
    with served.parts().open() as parts, h5py.File(parts, "r") as file:
        with pytest.raises(IntegrityError, match=r"the chunk \(200, 0\) of /group/plain"):
            file["group/plain"][150:250]
        np.testing.assert_array_equal(file["group/plain"][400:900], values["plain"][400:900])
        # Without a slice to look at, the error comes through HDF5.
        with pytest.raises(OSError, match="200, 0"):
            file["group/plain"].id.read_direct_chunk((200, 0))


def test_a_byte_that_flips_in_the_cache_is_fetched_again(served: Served) -> None:
    """What the disk gives back wrong is not handed out by the process that finds it there."""
    made = served.lab.base / "made.h5"
    write_hdf5(made)
    content = served.release("a.h5", made)
    with served.parts().open() as parts:
        parts.complete()
        assert parts.blocks is not None
        place = parts.blocks.folder / "data"
    chance = random.Random(7)  # noqa: S311 - no secret
    for _ in range(10):
        at = chance.randrange(len(content))
        with place.open("r+b") as file:
            file.seek(at)
            file.write(bytes([content[at] ^ 1]))
        with served.parts().open() as parts:
            assert parts.read_at(0, len(content)) == content
        assert place.read_bytes() == content


def test_the_network_comes_back(served: Served) -> None:
    """A connection that breaks in mid-slice is taken up again; an outage is an error, no zeros."""
    values = released(served)
    with served.parts().open() as parts, h5py.File(parts, "r") as file:
        served.server.fail(Fault(reset_at=3000, times=2))
        np.testing.assert_array_equal(file["group/plain"][:500], values["plain"][:500])
        served.server.fail(Fault(status=503))
        with pytest.raises(SourceError):
            file["group/plain"][500:900]
        served.server.heal()
        np.testing.assert_array_equal(file["group/plain"][500:900], values["plain"][500:900])


def test_the_network_is_gone_for_a_while_in_mid_slice(served: Served) -> None:
    """A read that has begun waits for a server that comes back, and no outage is told of."""
    values = released(served)
    port, again = served.server.port, []

    def restart() -> None:
        while not any(exchange.sent_bytes for exchange in served.server.log):
            time.sleep(0.01)
        served.server.stop()
        time.sleep(0.5)
        again.append(Files(served.folder, port=port))
        again[0].start()

    served.server.fail(Fault(bytes_per_second=400_000))
    thread = threading.Thread(target=restart)
    thread.start()
    try:
        with served.parts().open() as parts, h5py.File(parts, "r") as file:
            np.testing.assert_array_equal(file["group/plain"][:], values["plain"])
        with served.parts().open() as parts, h5py.File(parts, "r") as file:
            np.testing.assert_array_equal(file["group/gzip"][:], values["gzip"])
    finally:
        thread.join()
        again[0].stop()
    assert again[0].log


def test_a_source_that_changes_is_found_out(served: Served) -> None:
    """Another file in the same place, of the same size or not, is never taken for this one."""
    made = served.lab.base / "made.h5"
    write_hdf5(made)
    content = served.release("a.h5", made)
    copy = served.copy_of("a.h5")
    with served.parts().open() as parts:
        at = parts.index.starts[parts.index.is_retained == 0][::20].tolist()
        assert parts.read_at(at[0], at[0] + 10) == content[at[0] : at[0] + 10]
        copy.write_bytes(bytes(len(content)))
        with pytest.raises(IntegrityError, match="fails its digest"):
            parts.read_at(at[1], at[1] + 10)
        copy.write_bytes(content + b"more")
        with pytest.raises(IntegrityError, match="bytes"):
            parts.read_at(at[2], at[2] + 10)
        copy.write_bytes(content)
        assert parts.read_at(at[3], at[3] + 10) == content[at[3] : at[3] + 10]


def test_another_source_is_read_where_one_lies(served: Served) -> None:
    """Of two mirrors, one that has a wrong byte or is dead is passed over."""
    values = released(served)
    with Files(served.folder) as other:
        served.lab.write_config(
            "".join(
                f'[[sources.mirror]]\nname = "{name}"\nurl = "{url}"\nlayout = "sha256"\n'
                for name, url in (("first", served.server.url), ("second", other.url))
            )
        )
        served.server.fail(Fault(flip_at=tuple(range(60000, 61000))))
        with served.parts().open() as parts, h5py.File(parts, "r") as file:
            np.testing.assert_array_equal(file["group/gzip"][()], values["gzip"])
            assert len(other.log) == 1
            served.server.stop()
            np.testing.assert_array_equal(file["group/plain"][()], values["plain"])


def test_a_dataset_of_very_many_chunks(tmp_path: Path) -> None:
    """A million chunks are looked up without being held, or walked through."""
    count = 1_000_000
    starts = np.arange(count, dtype=np.int64) * 4096
    places = np.zeros((2, count, 2), np.int64)
    places[0, :, 0] = np.arange(count) * 10
    places[1] = 10
    made = Index(
        size_bytes=count * 4096,
        kind="chunks",
        starts=starts,
        digests=np.zeros((count, 32), np.uint8),
        is_retained=np.zeros(count, np.uint8),
        begins=np.ones(count, np.uint8),
        datasets=(BulkDataset("/d", (count * 10, 10), 0, count, 0),),
        piece_units=np.arange(count),
        coordinates=places.ravel(),
    )
    with (tmp_path / "index").open("wb") as file:
        made.write(file)
    tracemalloc.start()
    begun = time.process_time()
    index = Index.read(tmp_path / "index")
    for number in range(100):
        units = index.units_in_box(index.datasets[0], (number * 5000, 0), (number * 5000 + 480, 10))
        spans = plan_requests(index, units.tolist(), 4096)
        assert [len(span.units) for span in spans] == [48]
        assert index.unit_at(number * 4096 + 5) == number
    assert time.process_time() - begun < 1
    assert tracemalloc.get_traced_memory()[1] < 2_000_000
    tracemalloc.stop()
    content = bytearray((tmp_path / "index").read_bytes())
    content[100] ^= 1
    (tmp_path / "index").write_bytes(content)
    with pytest.raises(IntegrityError, match="damaged"):
        Index.read(tmp_path / "index")
