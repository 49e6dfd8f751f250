"""Opening NWB files that are far away: requests, bytes and packets."""

from __future__ import annotations

from suite.reading import REMOTE_METHODS, Remote, file_readers

globals().update(file_readers("track_network_read", Remote, REMOTE_METHODS))
