"""Reading all of a resident file by h5py: through recall://, and by its path."""

from __future__ import annotations

from typing import Any

from suite.open_overhead import Resident


class ReadBenchmark(Resident):
    """Opening, and reading the one dataset; each sample is the mean of 3."""

    number = 3

    def time_h5py_path(self, _world: dict[str, Any], _case: dict[str, Any]) -> None:
        """Read by path."""
        self.read(str(self.place))

    def time_recall_h5py(self, _world: dict[str, Any], _case: dict[str, Any]) -> None:
        """Read by URL."""
        self.read(self.files.open_local(self.url))
