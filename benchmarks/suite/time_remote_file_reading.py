"""Opening NWB files that are far away: seconds until slices can be taken."""

from __future__ import annotations

from suite.reading import REMOTE_METHODS, Remote, file_readers

globals().update(file_readers("time_read", Remote, REMOTE_METHODS))
