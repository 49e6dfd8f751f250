"""NWB files in memory, for backends to be applied to."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from pynwb import NWBFile, TimeSeries

RATE = 1000.0


def new_file() -> NWBFile:
    return NWBFile(
        session_description="made up",
        identifier="backend",
        session_start_time=datetime(2026, 1, 1, tzinfo=timezone.utc),
    )


def add_series(nwbfile: NWBFile, name: str, data: Any, **options: Any) -> TimeSeries:
    options = options or {"rate": RATE}
    series = TimeSeries(name=name, data=data, unit="V", **options)
    nwbfile.add_acquisition(series)
    return series
