"""Reading slices of NWB files that are here and open: requests, bytes and packets."""

from __future__ import annotations

from suite.reading import LOCAL_METHODS, LocalSlices, slicers

globals().update(slicers("track_network_activity_during_slice", LocalSlices, LOCAL_METHODS))
