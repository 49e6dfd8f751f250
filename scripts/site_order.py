"""Order of the documentation's sections: as one reads, not by the alphabet. Used by mkdocs.yml.

Pages and folders that are not named here come after those that are; a new one needs no line.
"""

from __future__ import annotations

from typing import Any

TITLES = {
    "index.md": "Start",
    "tutorial.md": "Tutorial",
    "how-to/": "How to",
    "reference/": "Reference",
    "explanation/": "Explanation",
    "glossary.md": "Glossary",
    "benchmarks": "Benchmarks",
    "decisions/": "Decisions",
}


def _place(item: Any) -> str:
    while getattr(item, "children", None):
        item = next((child for child in item.children if child.is_page), item.children[0])
        path = item.file.src_uri if item.is_page else ""
        if path:
            return str(path.split("/")[0] + "/")
    return str(item.file.src_uri)


def _rank(item: Any) -> int:
    place = _place(item)
    ranks = [rank for rank, start in enumerate(TITLES) if place.startswith(start)]
    return ranks[0] if ranks else len(TITLES)


def on_nav(nav: Any, **_: Any) -> Any:
    """Sort the first level, and give it short titles."""
    nav.items.sort(key=_rank)
    for item in nav.items:
        rank = _rank(item)
        if rank < len(TITLES):
            item.title = list(TITLES.values())[rank]
    return nav
