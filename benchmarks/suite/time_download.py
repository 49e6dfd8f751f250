"""Bringing a whole far file here: seconds."""

from __future__ import annotations

from suite.downloading import downloaders

globals().update(downloaders("time"))
