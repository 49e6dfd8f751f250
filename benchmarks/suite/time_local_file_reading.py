"""Opening NWB files that are here: seconds until slices can be taken."""

from __future__ import annotations

from suite.reading import LOCAL_METHODS, Local, file_readers

globals().update(file_readers("time_read", Local, LOCAL_METHODS))
