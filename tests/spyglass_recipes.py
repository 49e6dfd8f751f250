"""Recipes of the tests: of a lab's own table, and some that go wrong on purpose."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import h5py

import recallfs
from recallfs.integrations import spyglass

ROWS = spyglass.rows("spyglass_tables:Mean")


@recallfs.recipe(name="mean", version="1", seeded=False, declares=ROWS)
def mean(inputs: Any, output: Path, *, key: dict[str, Any], file: str) -> None:
    """Make the file of a row of Mean anew."""
    _table().fill(key, spyglass.create(output, file))


@recallfs.recipe(
    name="trend", version="1", seeded=False, declares=spyglass.rows("spyglass_tables:Trend")
)
def trend(inputs: Any, output: Path, *, key: dict[str, Any], file: str) -> None:
    """Make the file of a row of Trend anew, where Spyglass' own code asks for its path."""
    from spyglass.common import AnalysisNwbfile

    from spyglass_tables import Trend

    with spyglass.writing_to(output, file):
        AnalysisNwbfile().create(key["nwb_file_name"], recompute_file_name=file)
        Trend().fill(key, AnalysisNwbfile.get_abs_path(file))


@recallfs.recipe(name="mean-troubled", version="1", seeded=False)
def mean_troubled(inputs: Any, output: Path, *, key: dict[str, Any], file: str) -> None:
    """Do what `mean` does, but for what the environment says."""
    how = os.environ.get("MEAN_TROUBLE", "")
    if how == "raises":
        raise RuntimeError("the filter has no coefficients")
    if how in ("dies", "kills its reader"):
        output.write_bytes(b"half a file")
        os.kill(os.getpid() if how == "dies" else int(os.environ["MEAN_READER"]), signal.SIGKILL)
        time.sleep(60)
    path = spyglass.create(output, file)
    if how == "extended":
        _load_another_extension(output.parent)
    _table().fill(key, path)
    if how == "other values":
        with h5py.File(path, "r+") as opened:
            opened["acquisition/means/data"][17, 2] += 0.25
    if how == "extended":
        with h5py.File(path, "r") as opened:
            Path(os.environ["MEAN_TOLD"]).write_text(" ".join(opened["specifications"]))


def _table() -> Any:
    from spyglass_tables import Mean

    return Mean()


def _load_another_extension(folder: Path) -> None:
    """Load an NWB extension that the process that made the original had not loaded."""
    import pynwb
    from pynwb.spec import NWBGroupSpec, NWBNamespaceBuilder

    builder = NWBNamespaceBuilder("of a test", "ndx-test", version="0.1.0", author="a", contact="c")
    builder.include_type("TimeSeries", namespace="core")
    kind = NWBGroupSpec("x", neurodata_type_def="TestSeries", neurodata_type_inc="TimeSeries")
    builder.add_spec("ndx-test.extensions.yaml", kind)
    builder.export("ndx-test.namespace.yaml", outdir=str(folder))
    pynwb.load_namespaces(str(folder / "ndx-test.namespace.yaml"))
