"""Two runs held against each other: by how much the medians differ, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from recallfs.bench.results import Results, parse_case

LEAST_SAMPLES = 3
_RESAMPLES = 10_000


@dataclass(frozen=True)
class Change:
    """How one benchmark's time changed in one case.

    Parameters
    ----------
    benchmark, case : str
        Which.
    before_s, after_s : float
        Medians, seconds.
    ratio, low, high : float
        After over before, and the ends of its confidence interval.
    samples : tuple of int
        How many there were, before and after.
    verdict : str
        ``faster``, ``slower``, ``same`` (the interval holds 1) or ``too few samples``.
    """

    benchmark: str
    case: str
    before_s: float
    after_s: float
    ratio: float
    low: float
    high: float
    samples: tuple[int, int]
    verdict: str


def compare(before: Results, after: Results, *, confidence: float = 0.95) -> list[Change]:
    """Compare what both runs timed.

    Parameters
    ----------
    confidence : float
        Of the intervals, between 0 and 1. They are bootstrapped (percentiles of the ratio of
        medians of 10,000 resamples, the same each time), and of few samples they are too narrow:
        below three there is no verdict.
    """
    found = []
    for benchmark, cases in after.results.items():
        for case, samples in cases.items():
            earlier = before.results.get(benchmark, {}).get(case)
            if isinstance(samples, list) and isinstance(earlier, list):
                name = str(parse_case(case).get("name", case))
                found.append(_change(benchmark, name, earlier, samples, confidence))
    return sorted(found, key=lambda change: change.ratio, reverse=True)


def _change(
    benchmark: str, case: str, before: Sequence[float], after: Sequence[float], confidence: float
) -> Change:
    import numpy as np

    random = np.random.default_rng(0)

    def medians(samples: Sequence[float]) -> object:
        values = np.asarray(samples, dtype=float)
        return np.median(random.choice(values, (_RESAMPLES, len(values))), axis=1)

    old, new = float(np.median(before)), float(np.median(after))
    ratios = np.asarray(medians(after)) / np.asarray(medians(before))
    tail = (1 - confidence) / 2
    low, high = (float(value) for value in np.quantile(ratios, (tail, 1 - tail)))
    if min(len(before), len(after)) < LEAST_SAMPLES:
        verdict = "too few samples"
    elif low > 1:
        verdict = "slower"
    elif high < 1:
        verdict = "faster"
    else:
        verdict = "same"
    counts = (len(before), len(after))
    return Change(benchmark, case, old, new, new / old, low, high, counts, verdict)
