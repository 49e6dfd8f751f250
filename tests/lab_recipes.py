"""Recipes of the tests: small, and unseeded unless they say otherwise."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import recallfs


@recallfs.recipe(name="double", version="1", seeded=False)
def double(
    inputs: Mapping[str, Path], output: Path, *, factor: float = 2.0, rows: int = 2000
) -> None:
    """Multiply a dataset; ids are fresh each time, as in any NWB file."""
    import h5py

    with h5py.File(inputs["raw"], "r") as source:
        data = source["data"][:]
    with h5py.File(output, "w") as target:
        target.attrs["object_id"] = str(uuid.uuid4())
        target.attrs["created"] = str(time.time_ns())
        target.create_dataset("data", data=data * factor, chunks=(rows // 4, 16), compression=4)


@recallfs.recipe(name="versioned", version="1", seeded=False)
def versioned(inputs: Mapping[str, Path], output: Path) -> None:
    """Write values that depend on the version of NumPy that runs."""
    import h5py
    import numpy as np

    with h5py.File(inputs["raw"], "r") as source, h5py.File(output, "w") as target:
        target["data"] = source["data"][:] * float(sum(np.__version__.encode()))


@recallfs.recipe(name="counted", version="1", seeded=False)
def counted(
    inputs: Mapping[str, Path], output: Path, *, count_file: str, seconds: float = 0.3
) -> None:
    """Write a line for each execution, then do what `double` does."""
    with Path(count_file).open("a") as count:
        count.write(f"{os.getpid()}\n")
    time.sleep(seconds)
    double(inputs, output)


@recallfs.recipe(name="waiting", version="1", seeded=False)
def waiting(inputs: Mapping[str, Path], output: Path, *, count_file: str, wait_for: str) -> None:
    """Write a line for each execution, and go on when there is a file."""
    with Path(count_file).open("a") as count:
        count.write(f"{os.getpid()}\n")
    while not Path(wait_for).exists():
        time.sleep(0.02)
    double(inputs, output)


@recallfs.recipe(name="text", version="1")
def text(inputs: Mapping[str, Path], output: Path, *, words: str = "hello") -> None:
    """Write a file that is not HDF5."""
    output.write_text(words * 5000)


@recallfs.recipe(name="pair", version="1", outputs=("left", "right"))
def pair(inputs: Mapping[str, Path], output: Mapping[str, Path]) -> None:
    """Write two files."""
    output["left"].write_text("left" * 5000)
    output["right"].write_text("right" * 5000)


@recallfs.recipe(name="drifting", version="1", seeded=False)
def drifting(inputs: Mapping[str, Path], output: Path, *, drift_file: str) -> None:
    """Write other values each time."""
    import h5py
    import numpy as np

    number = Path(drift_file).stat().st_size if Path(drift_file).exists() else 0
    with Path(drift_file).open("a") as file:
        file.write("x")
    with h5py.File(output, "w") as target:
        data = np.arange(64000, dtype="f8").reshape(2000, 32)
        data[1234, 5] = np.nextafter(data[1234, 5], np.inf) if number else data[1234, 5]
        target.create_dataset("deep/data", data=data, chunks=(500, 32), compression=1)


@recallfs.recipe(name="noisy", version="1", seeded=False)
def noisy(
    inputs: Mapping[str, Path],
    output: Path,
    *,
    cpu_file: str,
    rows: int = 4000,
    noise: float = 1e-13,
    how: str = "chunked",
) -> None:
    """Write microvolts whose last bits depend on the CPU, which is what a file says it is."""
    import h5py
    import numpy as np

    cpu = Path(cpu_file).read_text()
    seed = None if cpu == "another each time" else len(cpu)
    values = np.random.default_rng(7).normal(size=(rows, 16)) * 100
    values += noise * np.random.default_rng(seed).normal(size=values.shape)
    options = {} if how == "contiguous" else {"chunks": (rows // 8, 16), "compression": 1}
    with h5py.File(output, "w") as target:
        target.attrs["object_id"] = str(uuid.uuid4())
        target.create_dataset("lfp/data", data=values, **options)
        target["lfp/spikes"] = np.arange(rows * 4, dtype="i4") // 3


@recallfs.recipe(name="laid_out", version="1", seeded=False)
def laid_out(inputs: Mapping[str, Path], output: Path, *, layout_file: str) -> None:
    """Write the same numbers in the layout that a file names; ids are fresh each time."""
    import h5py
    import numpy as np

    layout = Path(layout_file).read_text()
    steps = np.random.default_rng(8).integers(-9, 10, (4_000, 24))
    series = {name: np.cumsum(steps + number, axis=0) for number, name in enumerate("ab")}
    options = {
        "gzip 9": {"chunks": (1000, 24), "compression": 9},
        "gzip 1": {"chunks": (1000, 24), "compression": 1},
        "other chunks": {"chunks": (389, 5), "compression": 9},
        "contiguous": {},
        "appended": {"chunks": (1500, 24), "compression": 4, "maxshape": (None, 24)},
    }
    if layout.startswith("blosc"):
        import hdf5plugin

        os.environ["BLOSC_NTHREADS"] = "1"
        options[layout] = {"chunks": (1000, 24), **hdf5plugin.Blosc(cname="zstd")}
    parts = 10 if layout == "appended" else 1
    for part in range(parts):
        with h5py.File(output, "a") as target:
            if part == 0:
                target.attrs["object_id"] = str(uuid.uuid4())
            for name, values in series.items():
                rows = len(values) // parts
                if part == 0:
                    target.create_dataset(name, data=values[:rows], **options[layout])
                else:
                    target[name].resize((part + 1) * rows, axis=0)
                    target[name][part * rows :] = values[part * rows : (part + 1) * rows]


@recallfs.recipe(name="failing", version="1")
def failing(inputs: Mapping[str, Path], output: Path, *, how: str = "raise") -> None:
    """Fail in one of several ways."""
    import h5py
    import numpy as np

    if how == "raise":
        os.write(1, b"about to fail\n")
        raise RuntimeError("the probe was unplugged")
    if how == "truncated":
        with h5py.File(output, "w") as target:
            target.create_dataset("data", data=np.arange(100000))
        os.truncate(output, 3000)
    if how == "sleep":
        output.write_text("x")
        time.sleep(600)
    if how == "memory":
        hoard = [bytearray(50_000_000) for _ in range(200)]
        output.write_text(str(len(hoard)))
    if how == "kill":
        os.kill(os.getpid(), 9)


@recallfs.recipe(name="copycat", version="1", seeded=False)
def copycat(inputs: Mapping[str, Path], output: Path, *, original: str) -> None:
    """Copy the original if it can be seen, as code that returns early does; else write garbage."""
    if Path(original).exists():
        output.write_bytes(Path(original).read_bytes())
    else:
        output.write_bytes(os.urandom(100_000))


@recallfs.recipe(name="waits", version="1", seeded=False)
def waits(inputs: Mapping[str, Path], output: Path, *, gate: str) -> None:
    """Say that it runs, and wait until a file is there."""
    Path(f"{gate}.started").write_text(str(os.getpid()))
    while not Path(gate).exists():
        time.sleep(0.02)
    double(inputs, output)


@recallfs.recipe(name="sleepy", version="1")
def sleepy(inputs: Mapping[str, Path], output: Path, *, sleep_file: str) -> None:
    """Write a line; while a file exists, sleep first."""
    output.write_text("awake" * 5000)
    if Path(sleep_file).exists():
        time.sleep(600)


@recallfs.recipe(name="harmful", version="1")
def harmful(inputs: Mapping[str, Path], output: Path, *, how: str) -> None:
    """Write to the input, or remove it."""
    output.write_text("made")
    if how == "write":
        with inputs["raw"].open("r+b") as file:
            file.write(b"EVIL")
    else:
        inputs["raw"].unlink()


@recallfs.recipe(name="digested", version="1")
def digested(inputs: Mapping[str, Path], output: Path, *, salt: int = 0) -> None:
    """Write text that depends on each byte of the input; the same each time."""
    output.write_text(f"{salt} {hashlib.sha256(inputs['raw'].read_bytes()).hexdigest()}" * 50)


@recallfs.recipe(name="halves", version="1", outputs=("left", "right"))
def halves(inputs: Mapping[str, Path], output: Mapping[str, Path], *, salt: int = 0) -> None:
    """Write two texts that depend on each byte of the input."""
    digest = hashlib.sha256(inputs["raw"].read_bytes()).hexdigest()
    output["left"].write_text(f"left {salt} {digest}" * 50)
    output["right"].write_text(f"right {salt} {digest}" * 50)


@recallfs.recipe(name="spread", version="1", seeded=False)
def spread(inputs: Mapping[str, Path], output: Path, *, salt: int = 0) -> None:
    """Write numbers that depend on each byte of the input; ids are fresh each time."""
    import h5py
    import numpy as np

    digest = hashlib.sha256(inputs["raw"].read_bytes()).digest()
    data = np.frombuffer(digest * 200, dtype="u1").astype("f8") + salt
    with h5py.File(output, "w") as target:
        target.attrs["object_id"] = str(uuid.uuid4())
        target.create_dataset("data", data=data.reshape(400, 16), chunks=(100, 16), compression=1)


@recallfs.recipe(name="copied", version="1", seeded=False)
def copied(inputs: Mapping[str, Path], output: Path, *, original: str) -> None:
    """Write what another file holds."""
    output.write_bytes(Path(original).read_bytes())


@recallfs.recipe(name="foldered", version="1", seeded=False, outputs=("recording/",))
def foldered(
    inputs: Mapping[str, Path],
    output: Path,
    *,
    count_file: str,
    rows: int = 2000,
    seconds: float = 0.0,
    how: str = "",
) -> None:
    """Write a folder as SpikeInterface does: traces, JSON and arrays; and a line each time."""
    import h5py
    import numpy as np

    with Path(count_file).open("a") as count:
        count.write(f"{os.getpid()}\n")
    runs = len(Path(count_file).read_text().splitlines())
    time.sleep(seconds)
    with h5py.File(inputs["raw"], "r") as source:
        data = source["data"][:rows]
    (output / "properties").mkdir(parents=True)
    (data * 2).astype("i2").tofile(output / "traces_cached_seg0.raw")
    about = {"class": "BinaryFolderRecording", "version": "0.105.3", "kwargs": {"num_chan": 32}}
    for name in ("binary.json", "cached.json"):
        (output / name).write_text(json.dumps(about, indent=4))
    for name in ("gain_to_uV", "contact_vector"):
        np.save(output / "properties" / f"{name}.npy", np.arange(32, dtype="f4"))
    with h5py.File(output / "times.h5", "w") as target:
        target.attrs["object_id"] = str(uuid.uuid4())
        target.create_dataset("times", data=np.arange(rows * 8.0), chunks=(rows,), compression=1)
    if how == "link":
        (output / "link.json").symlink_to(output / "binary.json")
    elif how == "empty":
        shutil.rmtree(output)
        (output / "properties").mkdir(parents=True)
    elif how == "file":
        shutil.rmtree(output)
        output.write_text("no folder")
    elif how == "noisy":
        (output / "cached.json").write_text(json.dumps({**about, "made": time.time_ns()}))
    elif how == "fewer" and runs > 1:
        (output / "cached.json").unlink()


@recallfs.recipe(name="zarred", version="1", outputs=("recording.zarr/", "log"))
def zarred(
    inputs: Mapping[str, Path],
    output: Mapping[str, Path],
    *,
    count_file: str,
    zarr_format: int = 3,
) -> None:
    """Write a zarr store and a file beside it; and a line each time."""
    import h5py
    import zarr

    with Path(count_file).open("a") as count:
        count.write(f"{os.getpid()}\n")
    with h5py.File(inputs["raw"], "r") as source:
        data = source["data"][:]
    store = str(output["recording.zarr"])
    group = zarr.open_group(store, mode="w", zarr_format=zarr_format)
    array = group.create_array("traces", shape=data.shape, chunks=(500, 32), dtype=data.dtype)
    array[:] = data
    group.attrs["channels"] = 32
    output["log"].write_text(store.rpartition("/")[2])


def _row(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Read one row of a table, which another program may change."""
    import sqlite3

    with contextlib.closing(sqlite3.connect(parameters["database"])) as connection:
        connection.row_factory = sqlite3.Row
        sql = "SELECT * FROM settings WHERE name = ?"
        return dict(connection.execute(sql, (parameters["settings"],)).fetchone())


@recallfs.recipe(name="configured", version="1", seeded=False, declares={"settings": _row})
def configured(inputs: Mapping[str, Path], output: Path, *, database: str, settings: str) -> None:
    """Scale by what a database says."""
    import h5py

    row = _row({"database": database, "settings": settings})
    with h5py.File(inputs["raw"], "r") as source, h5py.File(output, "w") as target:
        target.attrs["object_id"] = str(uuid.uuid4())
        target["data"] = source["data"][:] * row["factor"]
