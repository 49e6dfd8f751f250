"""fsspec's own suite for filesystems, run on ours."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest
from fsspec.tests import abstract

from recallfs.filesystem import RecallFileSystem


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all tests: to make a store of it takes longer than a test."""
    return tmp_path_factory.mktemp("conformance") / "lab"


class _Fixtures(abstract.AbstractFixtures):  # type: ignore[misc] # fsspec is untyped
    """A folder of its own for each test, in a store that nothing configures."""

    @pytest.fixture
    def fs(self, root: Path) -> RecallFileSystem:
        return RecallFileSystem(root=root)

    @pytest.fixture
    def fs_path(self, fs: RecallFileSystem) -> str:
        path = f"lab/{uuid.uuid4().hex}"
        fs.mkdir(path)
        return path

    @pytest.fixture
    def local_path(self, tmp_path: Path) -> Path:
        """Give a folder that is no part of the store."""
        return tmp_path / "local"


class TestCopy(abstract.AbstractCopyTests, _Fixtures):  # type: ignore[misc] # fsspec is untyped
    """Copying within a store."""


class TestGet(abstract.AbstractGetTests, _Fixtures):  # type: ignore[misc] # fsspec is untyped
    """Copying out of a store."""


class TestPut(abstract.AbstractPutTests, _Fixtures):  # type: ignore[misc] # fsspec is untyped
    """Copying into a store."""


# fsspec has these since 2024.10.
if hasattr(abstract, "AbstractPipeTests"):

    class TestPipe(abstract.AbstractPipeTests, _Fixtures):  # type: ignore[misc] # fsspec is untyped
        """Writing bytes."""


if hasattr(abstract, "AbstractOpenTests"):

    class TestOpen(abstract.AbstractOpenTests, _Fixtures):  # type: ignore[misc] # fsspec is untyped
        """Opening."""
