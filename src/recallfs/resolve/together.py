"""Files that one run of a recipe gives together: run it once, and put back what came along."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from recallfs.catalog import records
from recallfs.catalog.holder import user_name
from recallfs.catalog.sidecar import Record
from recallfs.catalog.store import Store
from recallfs.errors import RecallError, RecomputeError
from recallfs.recipes.outputs import gives_several
from recallfs.resolve.access import check_reader
from recallfs.resolve.commit import commit_recalled
from recallfs.resolve.lease import hold_lease
from recallfs.resolve.presence import has_bytes, settle
from recallfs.resolve.telling import tell_recall
from recallfs.sources.base import Fetched
from recallfs.sources.recompute import match_recorded
from recallfs.values import State, now_utc

CommitOther = Callable[[str, Fetched, Path, str], bool]
"""Given entry, what came, scratch folder, source; False if somebody is at the entry just now."""

_POLL_S = 0.01
_OTHERS_S = 2.0
"""How long what a run gave beside is offered, while others hold its leases."""


class RunElsewhereError(Exception):
    """Another process or thread runs the derivation that gives this file among others."""

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key


def shared_run(store: Store, record: Record) -> str:
    """Return the lease of the run that gives a file among others; empty if it gives only this."""
    derivation = record.derivation(now_utc())
    if derivation is None or not gives_several(derivation):
        return ""
    return f"run:{store.id}:{derivation.id}"


@contextlib.contextmanager
def run_alone(store: Store, run: str, runs: Sequence[str], chain: Sequence[str]) -> Iterator[None]:
    """Run a derivation of several outputs once at a time, whichever of them is asked for.

    Parameters
    ----------
    run : str
        Its lease, from `shared_run`.
    runs, chain : sequence of str
        Leases of the runs, and addresses of the files, that asked for it.

    Raises
    ------
    RecomputeError
        Kind ``cycle``.
    RunElsewhereError
        Somebody else runs it.
    """
    if run in runs:
        raise RecomputeError(
            "these files would be made from themselves: " + " → ".join(chain),
            kind="cycle",
            details={"chain": list(chain)},
        )
    with hold_lease(store.catalog, run, lambda: False, waits=False) as grant:
        if grant is None:
            raise RunElsewhereError(run)
        yield


def commit_others(brought: Fetched, scratch: Path, source: str, commit_other: CommitOther) -> None:
    """Put back what came along; those who just begin to want one of them are let out of the way."""
    give_up = time.monotonic() + _OTHERS_S
    waiting = list(brought.others)
    while waiting:
        for entry_id in list(waiting):
            is_done = True
            # It was not asked for; whoever asks for it hears what is wrong with it.
            with contextlib.suppress(RecallError, OSError):
                is_done = commit_other(entry_id, brought, scratch, source)
            if is_done:
                waiting.remove(entry_id)
        if not waiting or time.monotonic() > give_up:
            return
        time.sleep(_POLL_S)


def commit_other(store: Store, entry_id: str, brought: Fetched, scratch: Path, source: str) -> bool:
    """Put back a file that came along, if it is gone, is the original, and nobody is at it."""
    entry = store.catalog.entry(entry_id)
    if entry is None or settle(store, entry) not in (State.RELEASED, State.MISSING):
        return True
    check_reader(store, entry)
    target = store.root / entry.path
    key = f"entry:{entry.id}"
    with hold_lease(store.catalog, key, lambda: has_bytes(target), waits=False) as grant:
        if grant is None:
            return has_bytes(target)
        start = time.monotonic()
        record = records.load(store, entry_id)
        matched = match_recorded(
            store, record, brought.others[entry_id], scratch, python=brought.python
        )
        committed = commit_recalled(
            store, entry_id, matched.path, matched.digests, grant, level=matched.level
        )
    seconds = time.monotonic() - start
    store.catalog.add_recall(
        committed, who=user_name(), source=source, seconds=seconds, level=matched.level.value
    )
    tell_recall(store, entry, source, seconds)
    return True
