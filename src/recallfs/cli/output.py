"""What commands print: tables and bars for people, JSON for programs."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from recallfs.errors import IntegrityWarning
from recallfs.values import display_name


def print_json(data: Any) -> None:
    """Print one JSON document."""
    sys.stdout.write(json.dumps(data, indent=2, ensure_ascii=False, default=str) + "\n")


_MOST_WARNINGS = 5

_bar_console: Console | None = None
"""That of the progress bar on the screen: what is printed meanwhile goes above the bar."""


def console(*, error: bool = False) -> Console:
    """Return a console that fits the terminal, or is wide where there is none."""
    if error and _bar_console is not None:
        return _bar_console
    stream = sys.stderr if error else sys.stdout
    width = None if stream.isatty() else 160
    return Console(file=stream, width=width, highlight=False, soft_wrap=False)


def count_files(count: int) -> str:
    """Write a number of files for people."""
    return "1 file" if count == 1 else f"{count:,} files"


def count_things(count: int, what: str) -> str:
    """Write a number of things, of whatever name."""
    return f"1 {what}" if count == 1 else f"{count:,} {what}s"


def say(line: str, *, style: str = "") -> None:
    """Print a line for a person; names cannot drive the terminal."""
    console().print(Text(display_name(line), style=style), soft_wrap=True)


def bar(part: float, whole: float, *, width: int = 20) -> str:
    """Draw a part of a whole as a bar, to an eighth of a character."""
    if "utf" not in (sys.stdout.encoding or "").lower():
        return "#" * round(width * part / whole) if whole else ""
    eighths = round(8 * width * part / whole) if whole else 0
    if part and not eighths:
        eighths = 1  # something is not nothing
    full, rest = divmod(eighths, 8)
    return "█" * full + (" ▏▎▍▌▋▊▉"[rest] if rest else "")


def warn(line: str) -> None:
    """Print a warning to standard error."""
    console(error=True).print(
        Text(f"warning: {display_name(line)}", style="yellow"), soft_wrap=True
    )


@contextmanager
def told_warnings() -> Iterator[None]:
    """Print what the code below warns of, when it is done: the first few, and how many more."""
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", IntegrityWarning)
            yield
    finally:
        said = [str(item.message) for item in caught if item.category is IntegrityWarning]
        for line in said[:_MOST_WARNINGS]:
            warn(line)
        if len(said) > _MOST_WARNINGS:
            warn(f"the same of {count_files(len(said) - _MOST_WARNINGS)} more.")
        for item in caught:
            if item.category is not IntegrityWarning:
                warnings.showwarning(item.message, item.category, item.filename, item.lineno)


def print_table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], *, title: str | None = None
) -> None:
    """Print a table; columns whose name ends in ``>`` are right-aligned."""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        right = column.endswith(">")
        table.add_column(
            column.rstrip(">"), justify="right" if right else "left", overflow="fold", no_wrap=right
        )
    for row in rows:
        table.add_row(*(Text(display_name(cell)) for cell in row))
    console().print(table)


@contextmanager
def byte_bar(
    title: str, total_bytes: int, *, quiet: bool = False
) -> Iterator[Callable[[int], None]]:
    """Show a progress bar of bytes on a terminal; elsewhere nothing.

    Yields
    ------
    callable
        To be called with the number of bytes done since the last call.
    """
    global _bar_console  # noqa: PLW0603 - there is one terminal
    screen = console(error=True)
    if quiet or not screen.is_terminal:
        yield lambda _size: None
        return
    from rich import progress as bars  # where there is no terminal, nothing needs it

    columns = (
        bars.SpinnerColumn(),  # while a recipe runs there are no bytes to count
        bars.TextColumn("{task.description}"),
        bars.BarColumn(),
        bars.DownloadColumn(),
        bars.TransferSpeedColumn(),
        bars.TimeElapsedColumn(),
        bars.TimeRemainingColumn(),
    )
    with bars.Progress(*columns, console=screen, transient=True) as progress:
        task = progress.add_task(display_name(title), total=total_bytes or None)
        _bar_console = screen
        try:
            yield lambda size: progress.update(task, advance=size)
        finally:
            _bar_console = None


@contextmanager
def count_bar(title: str, *, quiet: bool = False) -> Iterator[Callable[[str, int], None]]:
    """Show on a terminal what is being looked at and how many things were; elsewhere nothing.

    Yields
    ------
    callable
        To be called with what it is, and the number done since the last call.
    """
    screen = console(error=True)
    if quiet or not screen.is_terminal:
        yield lambda _what, _count: None
        return
    from rich import progress as bars

    columns = (
        bars.SpinnerColumn(),
        bars.TextColumn("{task.description}"),
        bars.TextColumn("{task.completed:,.0f}"),
        bars.TimeElapsedColumn(),
    )
    with bars.Progress(*columns, console=screen, transient=True) as progress:
        task = progress.add_task(title, total=None)

        def update(what: str, count: int) -> None:
            progress.update(task, description=display_name(f"{title}: {what}"), advance=count)

        yield update
