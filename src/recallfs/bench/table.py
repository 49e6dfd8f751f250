"""Figures as rows: who took how long for what, and how that compares to recallfs."""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from recallfs.bench.results import Results, parse_case

_SHAPES = ("FileReadBenchmark", "ContinuousSliceBenchmark", "DownloadBenchmark")
"""Ends of the names of classes that nwb_benchmarks' database groups by."""


@dataclass(frozen=True)
class Name:
    """What the name of a benchmark says.

    Parameters
    ----------
    group : str
        What is done, in words: ``remote slicing``.
    method : str
        Who does it: ``recall_cold``, ``remfile_no_cache``.
    is_time : bool
        Whether seconds are measured; else other figures are tracked.
    """

    group: str
    method: str
    is_time: bool


@dataclass
class Row:
    """One method and one case.

    Parameters
    ----------
    group, case, method : str
        What was done, to what, by whom.
    about : dict
        The case in full.
    seconds : list of float
        Samples; may be empty.
    tracked : dict of str to list of float
        Other figures, by name.
    ratio : float or None
        Median of the seconds over that of recallfs in the same case; below 1 is quicker than it.
    """

    group: str
    case: str
    method: str
    about: dict[str, Any]
    seconds: list[float] = field(default_factory=list)
    tracked: dict[str, list[float]] = field(default_factory=dict)
    ratio: float | None = None

    @property
    def median_s(self) -> float | None:
        """Median of the samples, seconds."""
        return statistics.median(self.seconds) if self.seconds else None

    @property
    def is_ours(self) -> bool:
        """Whether it is recallfs that was measured."""
        return self.method.startswith("recall")

    def figure(self, name: str) -> float | None:
        """Return the median of a tracked figure."""
        found = self.tracked.get(name)
        return statistics.median(found) if found else None


def parse_name(benchmark: str) -> Name:
    """Tell what a benchmark's name says.

    Examples
    --------
    >>> parse_name("time_remote_slicing.RemfileNoCacheContinuousSliceBenchmark.time_slice")
    Name(group='remote slicing', method='remfile_no_cache', is_time=True)
    """
    module, klass, operation = benchmark.split(".")
    is_time = operation.startswith("time_")
    base = re.sub(r"^(time|network_tracking)_", "", module).replace("_", " ")
    shape = next((end for end in _SHAPES if klass.endswith(end)), "")
    plain = re.sub(r"^(time|track_network|track)_", "", operation)
    if shape == "ContinuousSliceBenchmark":
        return Name(base, _snake(klass.removesuffix(shape)), is_time)
    if shape:
        return Name(base, re.sub(r"^(read_hdf5_pynwb|download)_", "", plain), is_time)
    return Name(base, plain, is_time)


def _natural(text: str) -> list[tuple[int, str]]:
    """Return a key that sorts 2 before 10."""
    return [(int(digits or 0), rest) for digits, rest in re.findall(r"(\d*)(\D*)", text)]


def _snake(camel: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", camel).lower()


def rows_of(results: Results) -> list[Row]:
    """Return all rows, recallfs first in each case, and say how each compares with it."""
    found: dict[tuple[str, str, str], Row] = {}
    for benchmark, cases in results.results.items():
        name = parse_name(benchmark)
        for text, samples in cases.items():
            about = parse_case(text)
            case = str(about.get("name", ""))
            row = found.setdefault(
                (name.group, case, name.method), Row(name.group, case, name.method, about)
            )
            if name.is_time:
                row.seconds = list(samples)
            else:
                row.tracked |= samples
    rows = list(found.values())
    for row in rows:
        alike = [other for other in rows if (other.group, other.case) == (row.group, row.case)]
        if all(other.is_ours for other in alike):
            continue  # nobody else does it
        ours = baseline(alike)
        if ours is not None and ours.median_s and row.median_s:
            row.ratio = row.median_s / ours.median_s
    return sorted(
        rows, key=lambda row: (row.group, _natural(row.case), not row.is_ours, row.method)
    )


def baseline(rows: Iterable[Row]) -> Row | None:
    """Return the row of recallfs that the others of the case are held against."""
    ours = [row for row in rows if row.is_ours and row.seconds]
    # Of several the plain case counts: nothing cached, or the file in its place.
    plain = ("cold", "resident")
    return min(ours, key=lambda row: (not row.method.endswith(plain), row.method), default=None)


def format_seconds(value: float | None) -> str:
    """Write a length of time with three digits.

    Examples
    --------
    >>> format_seconds(0.01234)
    '12.3 ms'
    """
    if value is None:
        return ""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if value >= size:
            return (
                f"{value / size:.3g} {unit}" if value / size < 100 else f"{value / size:.0f} {unit}"
            )
    return f"{value * 1e9:.3g} ns"


def format_ratio(value: float | None) -> str:
    """Write a ratio."""
    if value is None:
        return ""
    return f"{value:.2f}x" if value < 10 else f"{value:.0f}x"


HEAD = ("what", "case", "method", "median>", "samples>", "against recall>", "requests>", "MB>",
        "packets>")  # fmt: skip


def cells(row: Row) -> list[str]:
    """Write a row for a table with `HEAD`."""
    size = row.figure("amount_downloaded_in_bytes")
    memory = row.figure("peak_memory_in_MB")

    def count(name: str) -> str:
        value = row.figure(name)
        return "" if value is None else f"{value:,.0f}"

    return [
        row.group,
        row.case,
        row.method.replace("_", " "),
        format_seconds(row.median_s) if memory is None else f"{memory:,.0f} MB",
        str(len(row.seconds) or ""),
        format_ratio(row.ratio),
        count("number_of_http_requests"),
        "" if size is None else f"{size / 1e6:,.2f}",
        count("total_transfer_in_number_of_packets"),
    ]


def others(row: Row) -> dict[str, float]:
    """Return the medians of the tracked figures that the table has no column for."""
    shown = ("number_of_http_requests", "amount_downloaded_in_bytes", "peak_memory_in_MB")
    return {
        name: statistics.median(values)
        for name, values in row.tracked.items()
        if values and name not in shown and "packets" not in name and "connections" not in name
    }
