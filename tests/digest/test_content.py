"""The content digest: equal for equal content, however it is laid out; different for any change."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from hdf5_files import Layout, everything, layouts, mutations
from recallfs.digest.hdf5 import content_digest

CONTENT = everything()
MUTATIONS = mutations(CONTENT)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("plain") / "plain.h5"
    return content_digest(CONTENT.write(path)).digest


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(layout=layouts)
def test_layout_is_no_content(layout: Layout, plain: str) -> None:
    """Chunks, filters, order of writing, times, byte order and library version do not count."""
    with tempfile.TemporaryDirectory() as folder:
        path = CONTENT.write(Path(folder) / "file.h5", layout)
        assert content_digest(path).digest == plain


@pytest.mark.parametrize("what", MUTATIONS)
def test_any_change_of_content_shows(tmp_path: Path, what: str, plain: str) -> None:
    """One bit of one value, a name, a type, a shape, a link: each gives another digest."""
    path = MUTATIONS[what].write(tmp_path / "file.h5", Layout(chunk=3, gzip=1))
    assert content_digest(path).digest != plain
