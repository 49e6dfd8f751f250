"""Reading slices of NWB files that are far away and open: requests, bytes and packets."""

from __future__ import annotations

from suite.reading import REMOTE_METHODS, RemoteSlices, slicers

globals().update(slicers("track_network_activity_during_slice", RemoteSlices, REMOTE_METHODS))
