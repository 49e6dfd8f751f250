"""Releasing and rebuilding HDF5 files, with the original out of the way before anything returns."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import pytest

from recallfs.skeleton.build import build_skeleton
from recallfs.skeleton.format import Skeleton
from recallfs.skeleton.graft import graft
from recallfs.skeleton.report import GraftReport


@dataclass(frozen=True)
class Released:
    """A file that is gone: its skeleton went through its bytes, its sha256 was taken before."""

    skeleton: Skeleton
    sha256: str

    def restore(self, recomputed: Path) -> GraftReport:
        """Graft next to `recomputed` and compare with the original's sha256."""
        target = recomputed.with_name("restored.h5")
        report = graft(self.skeleton, recomputed, target)
        assert hashlib.sha256(target.read_bytes()).hexdigest() == self.sha256
        return report

    @property
    def bulk_paths(self) -> list[str]:
        """Paths of the datasets that are not in the skeleton."""
        return [one.path for one in self.skeleton.datasets]


@pytest.fixture
def release() -> Callable[..., Released]:
    """Make a file's skeleton and delete the file."""

    def act(original: Path, **options: Any) -> Released:
        content = original.read_bytes()
        sha256 = hashlib.sha256(content).hexdigest()
        skeleton = build_skeleton(original, sha256=sha256, size_bytes=len(content), **options)
        original.unlink()
        return Released(Skeleton.from_bytes(skeleton.to_bytes()), sha256)

    return act


@pytest.fixture
def writing(tmp_path: Path) -> Callable[..., AbstractContextManager[h5py.File]]:
    """Open a new HDF5 file in the test's folder for writing."""

    @contextmanager
    def opened(name: str, **options: Any) -> Iterator[h5py.File]:
        with h5py.File(tmp_path / name, "w", **options) as file:
            yield file

    return opened
