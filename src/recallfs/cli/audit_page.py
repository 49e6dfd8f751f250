"""The audit trail as a table, as JSON Lines and as CSV, one event at a time."""

from __future__ import annotations

import contextlib
import csv
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from recallfs.atomic import is_full, new_name, no_space
from recallfs.catalog.store import Store
from recallfs.errors import AccessError, InvalidInputError
from recallfs.values import display_name

COLUMNS = ("at", "who", "action", "store", "url", "entry_id", "why", "evidence", "details")
"""Of a CSV file, and fields of a line of JSON."""

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
"""What a spreadsheet takes for the beginning of a formula, if a cell begins with it."""

_TABLE = (19, 16, 14, 40)


def event_row(store: Store, event: Mapping[str, Any]) -> dict[str, Any]:
    """Return an event with its address, reason and evidence where each is looked for."""
    details = {key: value for key, value in event["details"].items() if key != "event"}
    why = details.get("why") or details.get("reason") or details.get("message") or ""
    evidence = details.get("evidence") or ""
    if not evidence and isinstance(details.get("proofs"), list):
        evidence = ", ".join(f"proof:{each}" for each in details["proofs"])
    return {
        "at": event["at"],
        "who": event["who"],
        "action": event["action"],
        "store": store.name,
        "url": store.url(event["path"]),
        "entry_id": event["entry_id"],
        "why": str(why),
        "evidence": str(evidence),
        "details": details,
    }


def write_events(rows: Iterable[Mapping[str, Any]], form: str, file: IO[str]) -> int:
    """Write events as they come; return how many.

    Parameters
    ----------
    form : {"table", "jsonl", "csv"}
    """
    count = 0
    table = csv.writer(file, lineterminator="\r\n")
    if form == "csv":
        table.writerow(COLUMNS)
    for row in rows:
        count += 1
        if form == "jsonl":
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
        elif form == "csv":
            details = json.dumps(row["details"], ensure_ascii=False)
            table.writerow([_cell(str({**row, "details": details}[name])) for name in COLUMNS])
        else:
            file.write(_line(row) + "\n")
    return count


def _cell(text: str) -> str:
    """Keep a spreadsheet from running what somebody named a file."""
    return f"'{text}" if text.startswith(_FORMULA) else text


def _line(row: Mapping[str, Any]) -> str:
    what = "; ".join(filter(None, (row["why"], row["evidence"])))
    cells = (row["at"][:19], row["who"], row["action"], row["url"])
    start = "  ".join(
        display_name(cell).ljust(width) for cell, width in zip(cells, _TABLE, strict=True)
    )
    return f"{start}  {display_name(what)}".rstrip()


@contextlib.contextmanager
def replaced_text(path: Path) -> Iterator[IO[str]]:
    """Write a text file that stands at its path only when it is whole.

    Raises
    ------
    AccessError, InvalidInputError, SourceError
        It cannot be written; what was there before still is.
    """
    temporary = path.with_name(new_name(f".{path.name}."))
    try:
        with temporary.open("x", encoding="utf-8", newline="") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except PermissionError as error:
        raise AccessError(f"{path} cannot be written: {error.strerror}.") from error
    except OSError as error:
        if is_full(error):
            raise no_space(error, path.parent) from error
        raise InvalidInputError(
            f"{path} cannot be written: {error.strerror or error}.", kind="invalid-path"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)
