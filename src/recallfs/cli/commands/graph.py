"""``recall graph``."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import click

from recallfs.catalog import records
from recallfs.catalog.lineage import Made
from recallfs.cli.completion import complete_address
from recallfs.cli.output import print_json, say
from recallfs.errors import InvalidInputError
from recallfs.resolve.chart import Chart, Place, draw
from recallfs.resolve.stores import stores_in_reach
from recallfs.values import display_name, format_size

_COLOURS = {"resident": "#d5e8d4", "released": "#dae8fc"}
_TROUBLE = "#f8cecc"
_LONGEST = 300


@click.command(name="graph")
@click.argument("address", metavar="URL", shell_complete=complete_address)
@click.option("--dot", "as_dot", is_flag=True, help="Print it for Graphviz.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(address: str, as_dot: bool, as_json: bool) -> None:
    """Show what a file was made from and what was made from it, as far as that goes.

    Of each file its state is told. No file is read: `unverified` is one that is not as it was last
    seen, which `recall show` looks at.

    Example: recall graph recall://analysis/s1_lfp.nwb
    """
    if as_dot and as_json:
        raise InvalidInputError("--dot and --json cannot both be had; leave one out.")
    store, path = stores_in_reach().resolve(address)
    chart = draw(store, records.known_entry(store, path))
    if as_json:
        print_json(_document(chart))
    elif as_dot:
        click.echo("\n".join(_dot(chart)))
    else:
        _print(chart)


def _document(chart: Chart) -> dict[str, object]:
    made = {place.made.id: place.made for place in chart.places.values() if place.made}
    return {
        "url": chart.places[chart.root].url,
        "files": [
            {
                "entry": place.entry_id,
                "url": place.url,
                "state": place.state,
                "size_bytes": place.size_bytes,
                "made_by": place.made and place.made.id,
            }
            for place in chart.places.values()
        ],
        "derivations": [
            {
                "id": item.id,
                "recipe": item.recipe,
                "version": item.version,
                "parameters": item.parameters,
                "inputs": {name: entry_id for name, (entry_id, _) in item.inputs.items()},
            }
            for item in made.values()
        ],
    }


def _print(chart: Chart) -> None:
    root = chart.places[chart.root]
    say(_label(root), style="bold")
    say("made from:" if chart.above[chart.root] else "made from nothing that is on record")
    for line in _tree(
        chart.root,
        lambda key: [(f"{name}: ", item) for name, item in chart.above.get(key, [])],
        lambda key: _label(chart.places[key]),
    ):
        say(line)
    say("made from it:" if chart.below[chart.root] else "nothing was made from it")
    for line in _tree(
        chart.root,
        lambda key: [("", item) for item in chart.below.get(key, [])],
        lambda key: _label(chart.places[key]),
    ):
        say(line)


def _label(place: Place) -> str:
    size = "" if place.size_bytes is None else f", {format_size(place.size_bytes)}"
    how = "" if place.made is None else f"  by {_recipe(place.made)}"
    return f"{place.url}  ({place.state}{size}){how}"


def _recipe(made: Made) -> str:
    shown = ", ".join(f"{name}={json.dumps(v)}" for name, v in made.parameters.items())
    shown = shown if len(shown) <= _LONGEST else f"{shown[:_LONGEST]}…"
    return f"{made.recipe} {made.version}" + (f" ({shown})" if shown else "")


def _tree(
    root: str,
    children: Callable[[str], list[tuple[str, str]]],
    label: Callable[[str], str],
) -> Iterator[str]:
    """Spell a graph as a tree; what hangs below a file is shown where it is met first."""
    seen: set[str] = set()

    def branches(key: str, indent: str) -> list[tuple[str, str, str, str]]:
        items = children(key)
        return [
            (item, name, indent, "└─ " if number == len(items) else "├─ ")
            for number, (name, item) in enumerate(items, 1)
        ][::-1]

    waiting = branches(root, "")
    while waiting:  # no recursion: a chain may be longer than Python's stack
        key, name, indent, knee = waiting.pop()
        again = key in seen and bool(children(key))
        yield f"{indent}{knee}{name}{label(key)}{'  (see above)' if again else ''}"
        if not again:
            waiting += branches(key, indent + ("   " if knee.startswith("└") else "│  "))
        seen.add(key)


def _dot(chart: Chart) -> Iterator[str]:
    yield "digraph recall {"
    yield "  rankdir=LR;"
    yield '  node [shape=box, style=filled, fillcolor="#ffffff", fontname="sans-serif"];'
    for key, place in chart.places.items():
        size = "" if place.size_bytes is None else f", {format_size(place.size_bytes)}"
        colour = _COLOURS.get(place.state, _TROUBLE)
        width = ", penwidth=3" if key == chart.root else ""
        label = _quoted(place.url, f"{place.state}{size}")
        yield f'  "{key}" [label={label}, fillcolor="{colour}"{width}];'
    drawn: set[str] = set()
    for key, place in chart.places.items():
        made = place.made
        if made is None:
            continue
        if made.id not in drawn:
            drawn.add(made.id)
            yield f'  "d{made.id}" [shape=ellipse, label={_quoted(_recipe(made))}];'
            for name, (entry_id, _) in sorted(made.inputs.items()):
                if entry_id in chart.places:
                    yield f'  "{entry_id}" -> "d{made.id}" [label={_quoted(name)}];'
        yield f'  "d{made.id}" -> "{key}";'
    yield "}"


def _quoted(*lines: str) -> str:
    """Quote lines of text for dot, where only backslashes and quotes mean something."""
    escaped = [
        display_name(line).replace("\\", "\\\\").replace('"', '\\"').encode("utf-8", "replace")
        for line in lines
    ]
    return '"' + "\\n".join(line.decode() for line in escaped) + '"'
