"""A lab's own table, of which Spyglass knows nothing: means of a raw recording."""

from __future__ import annotations

from typing import Any, ClassVar

import datajoint as dj
import numpy as np
import pynwb
from spyglass.common import AnalysisNwbfile, Raw
from spyglass.utils import SpyglassMixin
from spyglass.utils.dj_merge_tables import _Merge

schema = dj.schema("test_means")


@schema
class MeanParameters(SpyglassMixin, dj.Lookup):  # type: ignore[misc] # untyped
    """How long a bin is."""

    definition = """
    name: varchar(32)
    ---
    samples: int
    """
    contents = (("short", 4), ("long", 16))


@schema
class Mean(SpyglassMixin, dj.Computed):  # type: ignore[misc] # untyped
    """Means of bins."""

    definition = """
    -> Raw
    -> MeanParameters
    ---
    -> AnalysisNwbfile
    mean_object_id: varchar(40)
    """

    def make(self, key: dict[str, Any]) -> None:
        """Write the file and its rows, as any table of Spyglass does."""
        name = AnalysisNwbfile().create(key["nwb_file_name"])
        identifier = self.fill(key, AnalysisNwbfile.get_abs_path(name))
        AnalysisNwbfile().add(key["nwb_file_name"], name)
        self.insert1({**key, "analysis_file_name": name, "mean_object_id": identifier})

    def fill(self, key: dict[str, Any], path: str) -> str:
        """Add the means to an analysis file."""
        samples = (MeanParameters() & key).fetch1("samples")
        series = (Raw() & key).fetch_nwb()[0]["raw"]
        data = series.data[: len(series.data) // samples * samples].astype(float)
        with pynwb.NWBHDF5IO(path, "a", load_namespaces=True) as io:
            file = io.read()
            means = pynwb.TimeSeries(
                name="means",
                data=data.reshape(-1, samples, data.shape[1]).mean(axis=1),
                unit="V",
                rate=20_000.0 / samples,
            )
            file.add_acquisition(means)
            io.write(file)
        return str(means.object_id)


@schema
class Trend(SpyglassMixin, dj.Computed):  # type: ignore[misc] # untyped
    """Steps between means: made from another analysis file."""

    definition = """
    -> Mean
    ---
    -> AnalysisNwbfile
    trend_object_id: varchar(40)
    """

    asked_for: ClassVar[list[str]] = []
    trouble: ClassVar[str] = ""

    @classmethod
    def _make_file(cls, recompute_file_name: str = "") -> None:
        """Make nothing, as a table does whose own code cannot make a file anew."""
        cls.asked_for.append(recompute_file_name)
        if cls.trouble:
            raise ArithmeticError(cls.trouble)

    def make(self, key: dict[str, Any]) -> None:
        """Write the file and its rows."""
        name = AnalysisNwbfile().create(key["nwb_file_name"])
        identifier = self.fill(key, AnalysisNwbfile.get_abs_path(name))
        AnalysisNwbfile().add(key["nwb_file_name"], name)
        self.insert1({**key, "analysis_file_name": name, "trend_object_id": identifier})

    def fill(self, key: dict[str, Any], path: str) -> str:
        """Add the steps to an analysis file."""
        means = (Mean() & key).fetch_nwb()[0]["mean"]
        with pynwb.NWBHDF5IO(path, "a", load_namespaces=True) as io:
            file = io.read()
            steps = pynwb.TimeSeries(
                name="steps", data=np.diff(means.data[:], axis=0), unit="V", rate=means.rate
            )
            file.add_acquisition(steps)
            io.write(file)
        return str(steps.object_id)


MEAN = Mean


@schema
class MeanOutput(_Merge, SpyglassMixin):  # type: ignore[misc] # untyped
    """Means, whoever made them."""

    definition = """
    merge_id: uuid
    ---
    source: varchar(32)
    """

    class Mean(SpyglassMixin, dj.Part):  # type: ignore[misc] # untyped
        """Means of bins."""

        definition = """
        -> MeanOutput
        ---
        -> MEAN
        """
