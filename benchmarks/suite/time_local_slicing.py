"""Reading slices of NWB files that are here and open: seconds."""

from __future__ import annotations

from suite.reading import LOCAL_METHODS, LocalSlices, slicers

globals().update(slicers("time_slice", LocalSlices, LOCAL_METHODS))
