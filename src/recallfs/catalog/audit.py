"""The audit trail: who dropped, proved or forgot what. It survives the loss of the catalog.

Each event is a row of the catalog and a line of ``.recall/audit.jsonl``; `restore` reads the lines
back when the catalog is made again.
"""

from __future__ import annotations

import heapq
import json
import os
import uuid
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from recallfs import log
from recallfs.atomic import make_shared_file
from recallfs.catalog import schema
from recallfs.catalog.shadow import Shadow
from recallfs.catalog.store import Store
from recallfs.values import Entry, now_utc


def note(store: Store, action: str, entry: Entry, who: str, details: Mapping[str, Any]) -> None:
    """Add an event to the trail, and tell of it; of a shadow of a store nothing is told.

    Parameters
    ----------
    action : str
        ``release``, ``purge``, ``forget``, ``prove``, ``prove-failed``, ``recall-failed``...
    """
    if isinstance(store, Shadow):
        return  # nothing of what happens there is so
    identified = {**details, "event": uuid.uuid4().hex}
    store.catalog.add_event(action, entry, who, identified)
    facts = {key: details[key] for key in ("kind", "message", "evidence") if key in details}
    log.event(
        action,
        is_failure=action.endswith("-failed"),
        store=store.name,
        path=entry.path,
        entry=entry.id,
        bytes=entry.size_bytes,
        **facts,
    )
    line = {
        "at": now_utc(),
        "who": who,
        "action": action,
        "entry_id": entry.id,
        "path": entry.path,
        "details": identified,
    }
    try:
        _append(audit_path(store), line)
    except OSError as error:
        # What was done is done, and the catalog has it.
        log.event("audit-failed", is_failure=True, store=store.name, message=str(error))


def audit_path(store: Store) -> Path:
    """Return where a store's audit trail is."""
    return store.control / "audit.jsonl"


def trail(
    store: Store, since: str = "", until: str = "", *, actions: Collection[str] = ()
) -> Iterator[dict[str, Any]]:
    """Iterate over all that happened, by time: what the catalog has, and what only the file has.

    Parameters
    ----------
    since, until : str
        ISO times; from the first, and before the second.
    actions : collection of str
        Only these; by default all.

    Yields
    ------
    dict
        ``at``, ``who``, ``action``, ``entry_id``, ``path`` and ``details``.

    Notes
    -----
    Each event is in both, at nearly the same time, so that little has to be remembered of a long
    trail.
    """
    waiting: set[str] = set()
    both = heapq.merge(
        store.catalog.trail(since, until),
        (e for e in _lines(store) if since <= e["at"] and (not until or e["at"] < until)),
        key=lambda event: str(event["at"]),
    )
    for event in both:
        identifier = str(event["details"].get("event", ""))
        if identifier in waiting:
            waiting.discard(identifier)
            continue
        if identifier:
            waiting.add(identifier)
        if not actions or event["action"] in actions:
            yield event


def _lines(store: Store) -> Iterator[dict[str, Any]]:
    """Iterate over the file's events; torn and malformed lines are passed over."""
    try:
        file = audit_path(store).open(encoding="utf-8", errors="replace")
    except OSError:
        return
    with file:
        yield from filter(None, map(_read, file))


def restore(store: Store) -> int:
    """Put the events that only the file has back into the catalog; return how many.

    Notes
    -----
    Lines that are torn or malformed are passed over.
    """
    found = list(_lines(store))
    known = {
        json.loads(row.details).get("event")
        for row in store.catalog.rows(sa.select(schema.events.c.details))
    }
    lost = [event for event in found if event["details"]["event"] not in known]
    store.catalog.restore_events(lost)
    return len(lost)


def _append(path: Path, line: Mapping[str, Any]) -> None:
    """Append a line by a single write, so that those of several processes do not mix."""
    content = json.dumps(line, ensure_ascii=False, default=str).encode() + b"\n"
    make_shared_file(path)
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.write(descriptor, content)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read(line: str) -> dict[str, Any] | None:
    try:
        event = json.loads(line)
        keys = ("at", "who", "action", "entry_id", "path")
        if all(isinstance(event[key], str) for key in keys) and event["details"]["event"]:
            return {key: event[key] for key in (*keys, "details")}
    except (ValueError, KeyError, TypeError):
        pass
    return None
