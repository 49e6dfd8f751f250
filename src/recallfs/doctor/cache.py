"""The caches: whether they can be used, and are within their limits."""

from __future__ import annotations

from collections.abc import Iterator

from recallfs.cache.cache import Cache
from recallfs.config import Config
from recallfs.doctor.faults import Finding
from recallfs.values import format_size


def check_cache(config: Config) -> Iterator[Finding]:
    """Check the caller's own cache and the one that this computer's users share."""
    settings = config.cache
    cache = Cache(settings)
    problem = cache.own_problem()
    if problem is not None:
        yield Finding("cache-unusable", str(cache.folder), problem)
    problem = cache.shared_problem()
    if problem is not None:
        yield Finding("cache-shared-unusable", str(settings.shared_folder), problem)

    def mend() -> str:
        cache.trim()
        return "what was not used for the longest time is gone, as far as it is yours"

    own, shared = cache.own_usage(), cache.shared_usage()
    for folder, use, limit in (
        (cache.folder, own, settings.limit),
        (settings.shared_folder, shared, settings.shared_limit),
    ):
        if use is not None and use.size_bytes > limit:
            problem = f"{format_size(use.size_bytes)} are there, above {format_size(limit)}."
            yield Finding("cache-over-limit", str(folder), problem, mend=mend)
