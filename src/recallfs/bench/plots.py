"""Pictures of figures: latency by tier, requests and bytes by method, cost against size."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

from recallfs.atomic import write_record
from recallfs.bench.extras import require
from recallfs.bench.results import Results
from recallfs.bench.table import Row, format_seconds, rows_of

_OURS, _PEER, _GRID = "#0b6e99", "#b0b7bf", "#e3e6ea"
_LINES = ("#0b6e99", "#d1495b", "#66a182", "#8d6a9f", "#edae49", "#5c677d")


def draw_all(results: Results, folder: Path) -> dict[str, Path]:
    """Draw what the results have figures for.

    Parameters
    ----------
    folder : Path
        Gets a PNG file for each picture.

    Returns
    -------
    dict of str to Path
        Title, and where it is.

    Raises
    ------
    InvalidInputError
        If matplotlib is not installed.
    """
    require("matplotlib").use("Agg")
    rows = rows_of(results)
    pictures: dict[str, tuple[str, Callable[[list[Row]], Any]]] = {
        "Opening a far file": ("opening", lambda found: _times(found, "remote file reading")),
        "Reading slices of a far file": ("slicing", lambda found: _times(found, "remote slicing")),
        "Requests and bytes by method": ("requests", _requests),
        "Bringing a file back, by tier": ("tiers", lambda found: _times(found, "resolve by tier")),
        "Cost against size": ("sizes", _sizes),
    }
    made = {}
    for title, (name, draw) in pictures.items():
        figure = draw(rows)
        if figure is None:
            continue
        content = io.BytesIO()
        figure.savefig(content, format="png", dpi=150, bbox_inches="tight", facecolor="white")
        require("matplotlib.pyplot").close(figure)
        write_record(folder / f"{name}.png", content.getvalue(), mode=0o666)
        made[title] = folder / f"{name}.png"
    return made


def _plain(axes: Any) -> None:
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color=_GRID)
    axes.set_axisbelow(True)


def _bars(axes: Any, rows: list[Row], values: list[float], write: Callable[[float], str]) -> None:
    """Draw bars from the top down, each with its figure; ours stand out."""
    places = range(len(rows) - 1, -1, -1)
    colors = [_OURS if row.is_ours else _PEER for row in rows]
    axes.barh(list(places), values, color=colors, height=0.7)
    for place, value in zip(places, values, strict=True):
        axes.annotate(
            write(value), (value, place), (4, 0), textcoords="offset points", va="center", size=8
        )
    axes.set_yticks(list(places), [row.method.replace("_", " ") for row in rows], size=9)
    axes.margins(x=0.22)
    _plain(axes)


def _cases(rows: list[Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row.case, []).append(row)
    return found


def _times(rows: list[Row], group: str) -> Any:
    """Draw the times of a group, a panel for each case."""
    cases = _cases([row for row in rows if row.group == group and row.seconds])
    if not cases:
        return None
    pyplot = require("matplotlib.pyplot")
    most = max(len(each) for each in cases.values())
    figure, panels = pyplot.subplots(
        len(cases), 1, figsize=(8, (0.6 + 0.32 * most) * len(cases)), squeeze=False,
        layout="constrained",
    )  # fmt: skip
    for axes, (case, found) in zip(panels[:, 0], cases.items(), strict=True):
        each = sorted(found, key=lambda row: row.median_s or 0)
        _bars(axes, each, [row.median_s or 0 for row in each], format_seconds)
        slowest = max(row.median_s or 0 for row in each)
        quickest = min(row.median_s or 0 for row in each)
        if quickest and slowest / quickest > 50:
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter(lambda value, _place: format_seconds(value))
        else:
            axes.set_xlim(left=0)
            axes.xaxis.set_major_formatter(lambda value, _place: f"{value:g} s")
        axes.set_title(case, loc="left", size=10, weight="bold")
    panels[-1, 0].set_xlabel("median")
    return figure


def _requests(rows: list[Row]) -> Any:
    """Draw requests beside bytes, for each case that was tracked."""
    wanted = ("number_of_http_requests", "amount_downloaded_in_bytes")
    tracked = [row for row in rows if all(row.figure(name) is not None for name in wanted)]
    cases = _cases(tracked)
    groups = {(row.group, row.case): None for row in tracked}
    if not cases:
        return None
    # A picture of a page's length is read by nobody: the first case of each group.
    first = dict(reversed(list(groups)))
    shown = [(group, first[group]) for group in dict.fromkeys(group for group, _ in groups)]
    pyplot = require("matplotlib.pyplot")
    panels_rows = {key: [row for row in tracked if (row.group, row.case) == key] for key in shown}
    height = sum(0.7 + 0.32 * len(each) for each in panels_rows.values())
    figure, panels = pyplot.subplots(
        len(shown), 2, figsize=(11, height), squeeze=False, layout="constrained",
        gridspec_kw={"height_ratios": [0.7 + 0.32 * len(each) for each in panels_rows.values()]},
    )  # fmt: skip
    for number, ((group, case), each) in enumerate(panels_rows.items()):
        left, right = panels[number]
        _bars(left, each, [row.figure(wanted[0]) or 0 for row in each], lambda v: f"{v:,.0f}")
        _bars(right, each, [(row.figure(wanted[1]) or 0) / 1e6 for row in each], _megabytes)
        right.set_yticklabels([])
        for axes in (left, right):
            axes.set_xlim(left=0)
        left.set_title(f"{group}: {case}", loc="left", size=10, weight="bold")
    panels[-1][0].set_xlabel("HTTP requests")
    panels[-1][1].set_xlabel("MB downloaded")
    return figure


def _megabytes(value: float) -> str:
    return f"{value:.3g}"


def _sizes(rows: list[Row]) -> Any:
    """Draw the seconds of each method against the bytes of the file."""
    sized = [row for row in rows if row.seconds and row.about.get("size_bytes")]
    groups: dict[str, dict[str, list[Row]]] = {}
    for row in sized:
        groups.setdefault(row.group, {}).setdefault(row.method, []).append(row)
    groups = {
        group: methods
        for group, methods in groups.items()
        if any(len(each) > 1 for each in methods.values())
    }
    if not groups:
        return None
    pyplot = require("matplotlib.pyplot")
    across = min(2, len(groups))
    down = -(-len(groups) // across)
    figure, panels = pyplot.subplots(
        down, across, figsize=(5.5 * across, 3.8 * down), squeeze=False, layout="constrained"
    )
    for axes in list(panels.flat)[len(groups) :]:
        axes.set_visible(False)
    for axes, (group, methods) in zip(panels.flat, groups.items(), strict=False):
        for number, (method, found) in enumerate(methods.items()):
            each = sorted(found, key=lambda row: row.about["size_bytes"])
            axes.plot(
                [row.about["size_bytes"] / 1e6 for row in each],
                [row.median_s for row in each],
                marker="o",
                color=_LINES[number % len(_LINES)],
                linestyle="-" if each[0].is_ours else "--",
                label=method.replace("_", " "),
            )
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.xaxis.set_major_formatter(lambda value, _place: f"{value:g}")
        axes.yaxis.set_major_formatter(lambda value, _place: format_seconds(value))
        axes.grid(color=_GRID)
        axes.set_axisbelow(True)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        axes.set_title(group, loc="left", size=10, weight="bold")
        axes.set_xlabel("MB")
        axes.set_ylabel("median")
        axes.legend(fontsize=8, frameon=False)
    return figure
