"""A report as one HTML file that needs nothing beside it."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping, Sequence
from pathlib import Path

from recallfs.bench.results import Results
from recallfs.bench.table import HEAD, Row, cells, others, rows_of

_STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 76rem; padding: 0 1rem;
       color: #1f2933; background: #fff; }
h1 { font-size: 1.6rem; margin-bottom: .2rem; }
h2 { font-size: 1.15rem; margin: 2.2rem 0 .6rem; }
p.about { color: #52606d; margin-top: 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .8rem .25rem 0; text-align: left; white-space: nowrap; }
th { border-bottom: 2px solid #cbd2d9; font-weight: 600; }
td { border-bottom: 1px solid #eef0f2; }
td.number, th.number { text-align: right; }
tr.ours td { background: #eaf4f8; }
tr.case td { padding-top: .9rem; font-weight: 600; }
img { max-width: 100%; height: auto; }
.warning { background: #fff4d6; padding: .5rem .8rem; border-radius: .3rem; }
code { font-size: .9em; }
"""


def write_page(results: Results, pictures: Mapping[str, Path], command: str) -> str:
    """Write the page.

    Parameters
    ----------
    results : Results
        The figures.
    pictures : mapping of str to Path
        Titles and PNG files, which become part of the page.
    command : str
        What makes such results.
    """
    machine = results.machine
    memory = machine["psutil"]["total_virtual_memory"] / 2**30
    about = (
        f"{results.timestamp[:10]}, selection {results.selection}, commit "
        f"{results.commit_hash[:10]}; on {machine['name']}: "
        f"{machine['cpuinfo'].get('brand_raw', machine['platform']['machine'])}, "
        f"{machine['psutil']['number_of_threads']} threads, {memory:.0f} GiB of memory, "
        f"HDF5 {machine['builds']['hdf5']}."
    )
    parts = [
        "<!DOCTYPE html>\n<html lang='en'><head><meta charset='utf-8'>",
        "<meta name='viewport' content='width=device-width, initial-scale=1'>",
        f"<title>recallfs: benchmarks</title><style>{_STYLE}</style></head><body>",
        f"<h1>recallfs beside its peers</h1><p class='about'>{html.escape(about)}</p>",
        f"<p>Made by <code>{html.escape(command)}</code>. Ratios are medians over that of recallfs "
        "in the same case: above 1, it takes longer than recallfs does.</p>",
    ]
    if results.absent:
        names = ", ".join(sorted(results.absent))
        parts.append(
            f"<p class='warning'>Not measured, as not installed: {html.escape(names)}.</p>"
        )
    if results.failed:
        names = ", ".join(sorted(results.failed))
        parts.append(f"<p class='warning'>Failed: {html.escape(names)}.</p>")
    for title, path in pictures.items():
        data = base64.b64encode(path.read_bytes()).decode()
        parts.append(
            f"<h2>{html.escape(title)}</h2>"
            f"<img alt='{html.escape(title)}' src='data:image/png;base64,{data}'>"
        )
    groups: dict[str, list[Row]] = {}
    for row in rows_of(results):
        groups.setdefault(row.group, []).append(row)
    for group, rows in groups.items():
        parts.append(f"<h2>{html.escape(group.capitalize())}</h2>{_table(rows)}")
    return "\n".join([*parts, "</body></html>", ""])


def _table(rows: Sequence[Row]) -> str:
    more = list(dict.fromkeys(name for row in rows for name in others(row)))
    body = [
        (row, cells(row)[2:] + [_figure(others(row).get(name)) for name in more]) for row in rows
    ]
    head = [*HEAD[2:]] + [f"{name.replace('_', ' ')}>" for name in more]
    kept = [n for n in range(len(head)) if any(line[n] for _, line in body)]
    lines = ["<div class='scroll'><table><tr>"]
    lines += [_cell("th", head[n].rstrip(">"), n) for n in kept]
    lines.append("</tr>")
    case = None
    for row, line in body:
        if row.case != case:
            case = row.case
            lines.append(
                f"<tr class='case'><td colspan='{len(kept)}'>{html.escape(case)}</td></tr>"
            )
        lines.append(f"<tr{' class=ours' if row.is_ours else ''}>")
        lines += [_cell("td", line[n], n) for n in kept]
        lines.append("</tr>")
    return "".join([*lines, "</table></div>"])


def _cell(tag: str, text: str, number: int) -> str:
    kind = " class='number'" if number else ""
    return f"<{tag}{kind}>{html.escape(text)}</{tag}>"


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:,.6g}"
