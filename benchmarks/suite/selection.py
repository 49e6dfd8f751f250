"""How much is measured: what `recall bench run` was told, by way of the environment."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

SELECTION = os.environ.get("BENCHMARK_SELECTION", "quick")
"""``quick``, ``usual`` or ``large``."""

ONLINE = os.environ.get("BENCHMARK_ONLINE", "")
"""Address of an asset of a real dandiset; empty: everything is on loopback."""

T = TypeVar("T")


def by_selection(quick: T, usual: T, large: T | None = None) -> T:
    """Choose what belongs to the selection."""
    if SELECTION == "quick":
        return quick
    return large if SELECTION == "large" and large is not None else usual


class Timed:
    """One sample for each fresh process; asv forks it from one that has imported the suite."""

    rounds = by_selection(2, 5)
    repeat = 1
    number = 1
    warmup_time = 0.0
    timeout = 600.0


def tracked(measured: dict[str, float | list[float]]) -> dict[str, Any]:
    """Return figures as nwb_benchmarks' trackers do: several to a benchmark, by name."""
    samples = {
        name: value if isinstance(value, list) else [value] for name, value in measured.items()
    }
    return {"samples": samples, "number": None}


def several(action: Callable[[], T]) -> list[T]:
    """Run something as often as the selection says."""
    return [action() for _ in range(Timed.rounds)]
