"""Releasing and rebuilding HDF5 files, with the original out of the way before anything returns."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import pytest

from recallfs.skeleton.build import build_skeleton
from recallfs.skeleton.format import Skeleton
from skeleton.released import Release, Released, Writing


@pytest.fixture
def release() -> Release:
    """Make a file's skeleton and delete the file."""

    def act(original: Path, **options: Any) -> Released:
        content = original.read_bytes()
        sha256 = hashlib.sha256(content).hexdigest()
        skeleton = build_skeleton(original, sha256=sha256, size_bytes=len(content), **options)
        original.unlink()
        return Released(Skeleton.from_bytes(skeleton.to_bytes()), sha256)

    return act


@pytest.fixture
def writing(tmp_path: Path) -> Writing:
    """Open a new HDF5 file in the test's folder for writing."""

    @contextmanager
    def opened(name: str, **options: Any) -> Iterator[h5py.File]:
        with h5py.File(tmp_path / name, "w", **options) as file:
            yield file

    return opened
