"""Making a run repeatable: UUIDs, random numbers and 'now' follow from a recorded seed.

Applied in a worker before the recipe's module is imported, so that ``from uuid import uuid4`` takes
the seeded function. A help only: exact recall never relies on it. Untouched are `secrets`,
`os.urandom`, ``random.Random()`` without a seed, clocks read by C code, and programs that the
recipe starts.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import os
import random
import sys
import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from recallfs.errors import EnvironmentMismatchError


class SeededEntropy:
    """A stream of bits that follows from a seed and a purpose.

    Parameters
    ----------
    seed : int
        128 bits.
    purpose : str
        Streams for different purposes are independent of each other.

    Notes
    -----
    Safe to use from several threads. After a fork the child has a stream of its own, which follows
    from the number of forks before it, so that parent and child give no UUID twice.
    """

    def __init__(self, seed: int, purpose: str) -> None:
        self._lineage = f"recallfs:{purpose}:{seed:032x}"
        self._children = 0
        self._lock = threading.Lock()
        self._generator = random.Random(self._lineage)  # noqa: S311 - repeatable on purpose
        os.register_at_fork(before=self._count_child, after_in_child=self._become_child)

    def bits(self, count: int) -> int:
        """Return the next `count` bits as a number."""
        with self._lock:
            return self._generator.getrandbits(count)

    def _count_child(self) -> None:
        self._children += 1

    def _become_child(self) -> None:
        self._lineage += f"/{self._children}"
        self._children = 0
        self._lock = threading.Lock()  # the parent's may be held by a thread that is not here
        self._generator = random.Random(self._lineage)  # noqa: S311 - repeatable on purpose


def apply_seed(seed: int, started_at: str) -> None:
    """Make what follows in this process repeatable.

    Parameters
    ----------
    seed : int
        128 bits, from the derivation.
    started_at : str
        ISO time that stays 'now' from here on, to the microsecond.

    Raises
    ------
    EnvironmentMismatchError
        If time-machine is not installed where it could be.

    Notes
    -----
    Replaces `uuid.uuid4`, `uuid.uuid1` and `uuid.getnode`, seeds `random`, and, once it is
    imported, NumPy's global generator and the entropy of generators without a seed. There is no
    way back: for a process that runs one recipe.
    """
    entropy = SeededEntropy(seed, "uuid")
    _seed_uuid(entropy)
    random.seed(SeededEntropy(seed, "random").bits(128))
    _seed_numpy(SeededEntropy(seed, "numpy"))
    _fix_now(started_at)


def _seed_uuid(entropy: SeededEntropy) -> None:
    node_bits = entropy.bits(48) | (1 << 40)  # RFC 4122: an invented node has the multicast bit
    clock_bits = entropy.bits(14)
    original = uuid.uuid1

    def uuid4() -> uuid.UUID:
        """Return the next UUID that follows from the seed."""
        return uuid.UUID(int=entropy.bits(128), version=4)

    def getnode() -> int:
        """Return a hardware address that follows from the seed."""
        return node_bits

    def uuid1(node: int | None = None, clock_seq: int | None = None) -> uuid.UUID:
        """Return the next time-based UUID that follows from the seed."""
        return original(
            node_bits if node is None else node, clock_bits if clock_seq is None else clock_seq
        )

    uuid.uuid4, uuid.uuid1, uuid.getnode = uuid4, uuid1, getnode


def _seed_numpy(entropy: SeededEntropy) -> None:
    loaded = sys.modules.get("numpy.random")
    if loaded is not None:
        _seed_numpy_module(loaded, entropy)
    else:
        sys.meta_path.insert(0, _NumpyFinder(entropy))


def _seed_numpy_module(module: ModuleType, entropy: SeededEntropy) -> None:
    # SeedSequence() asks `randbits` of its own module for entropy, and through it so do
    # default_rng(), PCG64() and RandomState().
    bit_generator: Any = sys.modules.get("numpy.random.bit_generator")
    if hasattr(bit_generator, "randbits"):
        bit_generator.randbits = entropy.bits
    module.seed(entropy.bits(32))


class _NumpyFinder(importlib.abc.MetaPathFinder):
    """Seeds ``numpy.random`` when it is imported, without importing it for recipes that do not."""

    def __init__(self, entropy: SeededEntropy) -> None:
        self._entropy = entropy

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        if fullname != "numpy.random":
            return None
        sys.meta_path.remove(self)
        spec = importlib.machinery.PathFinder.find_spec(fullname, path)
        if spec is not None and spec.loader is not None:
            _seed_after_loading(spec.loader, self._entropy)
        return spec


def _seed_after_loading(loader: Any, entropy: SeededEntropy) -> None:
    execute = loader.exec_module

    def exec_module(module: ModuleType) -> None:
        execute(module)
        _seed_numpy_module(module, entropy)

    loader.exec_module = exec_module


def _fix_now(started_at: str) -> None:
    moment = datetime.fromisoformat(started_at)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=timezone.utc)
    time_machine = _import_time_machine()
    if time_machine is not None:
        time_machine.travel(moment.astimezone(timezone.utc), tick=False).start()


def _import_time_machine() -> Any:
    """Import time-machine without its optional companions, which cost half a second.

    It takes pytest's fixtures and dateutil's parser along where they are installed; neither is of
    use here. Returns None where it has no build (PyPy): 'now' then goes on.
    """
    # Before its version 3 it cannot do without dateutil.
    for companions in (("pytest", "dateutil.parser"), ("pytest",)):
        with _held_back(companions), suppress(ModuleNotFoundError):
            import time_machine

            return time_machine
    if sys.implementation.name == "cpython":
        raise EnvironmentMismatchError(
            f"time-machine is not installed for {sys.executable}, so 'now' cannot be fixed; "
            "install it there."
        )
    return None


@contextmanager
def _held_back(names: Sequence[str]) -> Iterator[None]:
    """Make imports of modules that are not loaded yet fail as if they were not installed."""
    held_back = [name for name in names if name not in sys.modules]
    for name in held_back:
        sys.modules[name] = None  # type: ignore[assignment] # Python's own way to refuse an import
    try:
        yield
    finally:
        for name in held_back:
            del sys.modules[name]
