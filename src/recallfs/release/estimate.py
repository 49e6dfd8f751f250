"""What a sample that was tried says of all the files it was drawn from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
        sample went, by bytes.
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
        "hours": elapsed_s / 3600 * population.size_bytes / total if total else 0.0,
    }
