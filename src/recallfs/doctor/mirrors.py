"""Remote sources: whether each answers within a deadline, and mirrors lie outside the stores."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable, Iterator

from recallfs.catalog.store import Store
from recallfs.config import PUBLIC_KINDS, Config
from recallfs.doctor.faults import Finding
from recallfs.errors import RecallError
from recallfs.resolve.stores import Stores
from recallfs.sources.base import RemoteSource
from recallfs.sources.disks import store_around
from recallfs.sources.mirror import MirrorSource

DEADLINE_S = 5.0


def check_sources(
    stores: Stores, opened: Collection[Store], deadline_s: float = DEADLINE_S
) -> Iterator[Finding]:
    """Ask every remote source for something that it does not have; all at once.

    Parameters
    ----------
    opened : collection of Store
        If all of these are offline, public services are left alone.
    deadline_s : float
        How long to wait for all of them, in seconds.
    """
    answers: dict[str, str | None] = {}

    def ask(source: RemoteSource) -> None:
        try:
            source.probe()
            answers[source.name] = None
        except RecallError as error:
            answers[source.name] = error.message

    is_offline = bool(opened) and all(store.settings.offline for store in opened)
    sources = [s for s in stores.remotes() if not (is_offline and s.kind in PUBLIC_KINDS)]
    # Daemons: one that hangs in a system call must not keep the program from ending.
    threads = [threading.Thread(target=ask, args=(item,), daemon=True) for item in sources]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(deadline_s / len(threads))
    for source in sources:
        problem = answers.get(source.name, f"It did not answer within {deadline_s:.0f} s.")
        if problem is not None:
            is_mirror = isinstance(source, MirrorSource)
            fault = "mirror-unreachable" if is_mirror else "source-unreachable"
            yield Finding(fault, source.name, problem)


def check_places(config: Config, stores: Iterable[Store]) -> Iterator[Finding]:
    """Find mirrors that lead into a store itself, or into its vault."""
    for store in stores:
        for settings in config.mirrors:
            inside = store_around(settings.url, store)
            if inside is not None:
                name = MirrorSource(settings).name
                yield Finding("mirror-in-store", name, f"{inside}.", store.name)
