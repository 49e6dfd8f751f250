"""HDF5 files that were released, and the kinds of the fixtures that write and release them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from recallfs.skeleton.format import Skeleton
from recallfs.skeleton.graft import graft
from recallfs.skeleton.report import GraftReport

WALK = np.cumsum(np.random.default_rng(1).integers(-9, 10, (700, 33)), axis=0).astype("<i2")
"""Numbers that wander, as those of recordings do: filters make something of them."""


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


Writing = Callable[..., AbstractContextManager[h5py.File]]
Release = Callable[..., Released]
