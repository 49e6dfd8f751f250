"""What a sample that was tried says of all the files it was drawn from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from recallfs.release.drill import wilson
from recallfs.release.sample import OUTCOMES, Population, Sampled


@dataclass(frozen=True)
class Share:
    """How often an outcome came, with Wilson's interval of 95% for all files like these."""

    files: int
    size_bytes: int
    share: float
    low: float
    high: float


@dataclass(frozen=True)
class Group:
    """Files of the sample that have something in common.

    Parameters
    ----------
    by : {"all", "environment", "recipe"}
    """

    by: str
    name: str
    files: int
    size_bytes: int
    outcomes: Mapping[str, Share]


def groups(sampled: Sequence[Sampled]) -> list[Group]:
    """Add up over all, by environment and by recipe."""
    found = [_group("all", "", sampled)]
    for by in ("environment", "recipe"):
        names = sorted({getattr(item, by) for item in sampled})
        for name in names:
            found.append(_group(by, name, [i for i in sampled if getattr(i, by) == name]))
    return found


def _group(by: str, name: str, items: Sequence[Sampled]) -> Group:
    outcomes = {}
    for outcome in OUTCOMES:
        these = [item for item in items if item.outcome == outcome]
        low, high = wilson(len(these), len(items))
        size_bytes = sum(item.size_bytes for item in these)
        share = len(these) / len(items) if items else 0.0
        outcomes[outcome] = Share(len(these), size_bytes, share, low, high)
    return Group(by, name, len(items), sum(item.size_bytes for item in items), outcomes)


def reasons(sampled: Sequence[Sampled], most: int = 5) -> list[tuple[str, int, str]]:
    """Return the most frequent reasons of failure: the reason, how often, and one of the files."""
    counts = Counter(item.reason for item in sampled if item.error is not None)
    first = {item.reason: item.url for item in reversed(sampled) if item.error is not None}
    return [(reason, count, first[reason]) for reason, count in counts.most_common(most)]


def estimate(
    population: Population, sampled: Sequence[Sampled], elapsed_s: float
) -> dict[str, Any]:
    """Conclude from the sample on all files.

    Parameters
    ----------
    elapsed_s : float
        What the whole sample took.

    Returns
    -------
    dict
        ``files``, ``size_bytes``: of the population. ``frees_bytes``: by the lowest level that is
        allowed, what releases would free, with ``low`` and ``high`` (Wilson's interval of the share
        of files, times the mean per byte of those that came back). ``hours``: to prove all, as the
        sample went: so long for each run of a recipe, and so long for each byte that it gives.
    """
    total = sum(item.size_bytes for item in sampled)
    frees: dict[str, Any] = {}
    for number, level in enumerate(OUTCOMES[:3], 1):
        good = [item for item in sampled if item.outcome in OUTCOMES[:number]]
        size = sum(item.size_bytes for item in good)
        kept = sum(item.kept_bytes for item in good)
        net = max(0.0, 1 - kept / size) if size else 0.0
        low, high = wilson(len(good), len(sampled))
        expected = net * population.size_bytes * size / total if total else 0.0
        frees[level] = {
            "expected": round(expected),
            # By files, where the expected value is by bytes: some files are larger than others.
            "low": round(min(expected, net * population.size_bytes * low)),
            "high": round(max(expected, (net or 1.0) * population.size_bytes * high)),
        }
    return {
        "files": len(population.candidates),
        "size_bytes": population.size_bytes,
        "frees_bytes": frees,
        "hours": _hours(population, sampled, elapsed_s),
    }


def _hours(population: Population, sampled: Sequence[Sampled], elapsed_s: float) -> float:
    runs = population.runs
    sizes = [runs[item.derivation_id or item.url] for item in sampled]
    seconds = [item.seconds for item in sampled]
    if not sum(seconds):
        return 0.0
    each_s, byte_s = _line(sizes, seconds)
    alone_s = each_s * len(runs) + byte_s * sum(runs.values())
    at_once = sum(seconds) / elapsed_s if elapsed_s else 1.0
    return alone_s / at_once / 3600


def _line(sizes: Sequence[float], seconds: Sequence[float]) -> tuple[float, float]:
    """Fit seconds to sizes by least squares: those of size 0, and those of a unit; none below 0."""
    size, second = fmean(sizes), fmean(seconds)
    spread = sum((x - size) ** 2 for x in sizes)
    slope = sum((x - size) * y for x, y in zip(sizes, seconds, strict=True))
    slope = slope / spread if spread else 0.0
    if slope <= 0:
        return second, 0.0
    start = second - slope * size
    return (start, slope) if start >= 0 else (0.0, second / size)
