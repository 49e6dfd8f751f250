"""Reading slices of NWB files that are far away and open: seconds."""

from __future__ import annotations

from suite.reading import REMOTE_METHODS, RemoteSlices, slicers

globals().update(slicers("time_slice", RemoteSlices, REMOTE_METHODS))
