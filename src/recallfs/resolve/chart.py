"""The chart of a file: all that it was made from, and all that was made from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from recallfs.catalog import lineage
from recallfs.catalog.lineage import Made
from recallfs.catalog.store import Store
from recallfs.errors import AccessError
from recallfs.resolve.presence import observe
from recallfs.values import Entry


@dataclass(frozen=True)
class Place:
    """A file in the chart.

    Parameters
    ----------
    state : str
        As in `recallfs.values.State`; ``unverified`` if something is there that only hashing could
        tell, ``unreadable`` if the caller may not look, ``forgotten`` if its entry is gone.
    """

    entry_id: str
    url: str
    state: str
    size_bytes: int | None
    made: Made | None


@dataclass
class Chart:
    """Files by their entries' ids, and how they hang together.

    Parameters
    ----------
    above : dict of str to list of (str, str)
        Of each file the inputs that it was made from: name and id.
    below : dict of str to list of str
        Of each file those that were made from it.
    """

    root: str
    places: dict[str, Place] = field(default_factory=dict)
    above: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    below: dict[str, list[str]] = field(default_factory=dict)


def draw(store: Store, entry: Entry) -> Chart:
    """Follow a file's derivations up and down, as far as they go.

    Notes
    -----
    Files beside the chain, such as others that were made from its inputs, are left out. Each file
    is looked at once, and none is read.
    """
    chart = Chart(entry.id)
    chart.places[entry.id] = _place(store, entry.id, entry.path)

    def follow(step: Callable[[str], list[tuple[str, str]]]) -> None:
        waiting, seen = [entry.id], {entry.id}
        while waiting:
            for entry_id, path in step(waiting.pop()):
                if entry_id not in chart.places:
                    chart.places[entry_id] = _place(store, entry_id, path)
                if entry_id not in seen:
                    seen.add(entry_id)
                    waiting.append(entry_id)

    def up(entry_id: str) -> list[tuple[str, str]]:
        made = chart.places[entry_id].made
        inputs = {} if made is None else made.inputs
        chart.above[entry_id] = [(name, item[0]) for name, item in sorted(inputs.items())]
        return list(inputs.values())

    def down(entry_id: str) -> list[tuple[str, str]]:
        found = lineage.made_from(store.catalog, entry_id)
        chart.below[entry_id] = found
        return [(item, "") for item in found]

    follow(up)
    follow(down)
    return chart


def _place(store: Store, entry_id: str, path: str) -> Place:
    entry = store.catalog.entry(entry_id)
    if entry is None:
        return Place(entry_id, store.url(path), "forgotten", None, None)
    try:
        state = observe(store, entry)
        shown = "unverified" if state is None else state.value
    except AccessError:
        shown = "unreadable"
    made = lineage.maker(store.catalog, entry_id)
    return Place(entry_id, store.url(entry.path), shown, entry.size_bytes, made)
