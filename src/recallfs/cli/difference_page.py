"""A page that shows how two files differ; it needs nothing from anywhere else."""

from __future__ import annotations

import html

from recallfs.digest.difference import Difference, ObjectDifference
from recallfs.values import display_name

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 75rem; padding: 0 1rem;
       color: #1f2430; background: #fff; }
h1 { font-size: 1.3rem; } p.verdict { font-size: 1.1rem; font-weight: 600; }
p.same { color: #1a7f37; } p.different { color: #b3261e; }
table { border-collapse: collapse; width: 100%; } th { text-align: left; }
th, td { border-bottom: 1px solid #d9dde5; padding: .3rem .6rem; vertical-align: top;
         overflow-wrap: anywhere; }
td.object, td.value { font-family: ui-monospace, monospace; font-size: .9em; }
tr.tolerated { color: #6b7280; }
@media (prefers-color-scheme: dark) { body { color: #e6e8ee; background: #14171f; }
  th, td { border-color: #333a48; } p.same { color: #4ac26b; } p.different { color: #ff7b72; } }
"""


def difference_page(one: str, other: str, found: Difference, things: str = "object") -> str:
    """Write a difference as an HTML page.

    Parameters
    ----------
    one, other : str
        What the two are called.
    found : Difference
    things : str
        What is counted, in the singular.

    Returns
    -------
    str
    """
    word = "same" if found.is_same else "different"
    rows = "\n".join(_row(item) for item in found.differences)
    table = (
        f"<table><thead><tr><th>{things}</th><th>differs in</th><th>A</th><th>B</th>"
        f"<th>values</th></tr></thead><tbody>\n{rows}\n</tbody></table>"
        if rows
        else ""
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{_text(found.verdict)}</title><style>{_STYLE}</style></head><body>\n"
        f"<h1>A: {_text(one)}<br>B: {_text(other)}</h1>\n"
        f'<p class="verdict {word}">{_text(found.verdict)}</p>\n'
        f"<p>{found.differing:,} of {found.compared:,} {things}s differ. "
        f"Rules: {_text(found.rules)}.</p>\n{table}\n</body></html>\n"
    )


def _row(item: ObjectDifference) -> str:
    values, one, other = item.values, item.one, item.other
    told = ""
    if values is not None:
        parts = [f"{values.count:,} of {values.total:,}"]
        if values.largest_absolute is not None:
            parts.append(
                f"largest {values.largest_absolute:.6g}, relative {values.largest_relative:.6g}"
            )
        if values.beyond != values.count:
            parts.append(f"{values.beyond:,} beyond the tolerance")
        told = "<br>".join(map(_text, parts))
        for place, first, second in values.examples:
            told += f"<br>[{', '.join(map(str, place))}]: {_text(first)} → {_text(second)}"
    kind = ' class="tolerated"' if item.is_tolerated else ""
    return (
        f'<tr{kind}><td class="object">{_text(str(item))}</td><td>{_text(item.what)}</td>'
        f'<td class="value">{_text(one)}</td><td class="value">{_text(other)}</td>'
        f"<td>{told}</td></tr>"
    )


def _text(value: str) -> str:
    return html.escape(display_name(value))
