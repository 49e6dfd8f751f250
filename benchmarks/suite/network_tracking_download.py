"""Bringing a whole far file here: requests, bytes and packets."""

from __future__ import annotations

from suite.downloading import downloaders

globals().update(downloaders("track_network"))
