"""Opening NWB files that are here: requests, bytes and packets."""

from __future__ import annotations

from suite.reading import LOCAL_METHODS, Local, file_readers

globals().update(file_readers("track_network_read", Local, LOCAL_METHODS))
