"""Fixtures: a lab whose released files lie on a server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from conftest import Lab
from mirrored import configure_mirror
from recallfs.testing.http import Files
from served import Served


@pytest.fixture
def served(lab: Lab) -> Iterator[Served]:
    """Give a lab with a mirror over HTTP."""
    folder = lab.base / "mirror"
    folder.mkdir()
    with Files(folder) as server:
        configure_mirror(lab, server.url)
        yield Served(lab, server, folder)
