"""A report in a folder: pictures, and a page that holds them and all figures."""

from __future__ import annotations

from pathlib import Path

from recallfs.atomic import write_record
from recallfs.bench.page import write_page
from recallfs.bench.plots import draw_all
from recallfs.bench.results import Results


def write_report(results: Results, folder: Path) -> list[Path]:
    """Write pictures (PNG) and ``report.html``, in which they are, too.

    Parameters
    ----------
    folder : Path
        Made if need be.

    Returns
    -------
    list of Path
        What was written.

    Raises
    ------
    InvalidInputError
        If matplotlib is not installed.
    """
    pictures = draw_all(results, folder)
    command = f"recall bench run --selection {results.selection}"
    if results.online:
        command += f" --online {results.online}"
    page = folder / "report.html"
    write_record(page, write_page(results, pictures, command).encode(), mode=0o666)
    return [*pictures.values(), page]
