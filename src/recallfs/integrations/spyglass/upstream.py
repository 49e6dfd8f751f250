"""Declared inputs from DataJoint: the rows that a table's row was made from, traced upstream."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from recallfs.integrations.spyglass.database import load_table, told_plainly
from recallfs.values import canonical_json

RECORDING_V0 = "spyglass.spikesorting.v0.spikesorting_recording:SpikeSortingRecording"
RECORDING_V1 = "spyglass.spikesorting.v1.recording:SpikeSortingRecording"

_NOT_READ = ("common_lab", "common_nwbfile", "common_session", "common_subject", "common_user")
"""Schemas whose rows tell of people, animals and files, and make no difference to numbers."""

_FILES = ".`analysis_nwbfile`"


class Rows:
    """Reads all rows upstream of one row of a table; what `rows` gives to a recipe.

    Parameters
    ----------
    table : str
        ``package.module:Class``.
    """

    def __init__(self, table: str) -> None:
        self.table = table

    def __call__(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Read them for the row whose primary key is the parameter ``key``."""
        table = load_table(self.table)
        with told_plainly():
            return _upstream(table(), dict(parameters["key"]))


def rows(table: str) -> dict[str, Rows]:
    """Declare the rows that a table's row is made from, for `recallfs.recipe`.

    Parameters
    ----------
    table : str
        ``package.module:Class`` of a DataJoint table with ``-> AnalysisNwbfile``.

    Returns
    -------
    dict
        For the ``declares`` of a recipe with parameters ``key`` (the primary key) and ``file``
        (the name of the analysis file).

    Notes
    -----
    Foreign keys are followed from the row to all its ancestors, with their part tables. Left out
    are people, animals and sessions, columns that hold times of change, and the row itself. Of a
    raw file, size and checksum as DataJoint registered them stand for its content.
    """
    return {"rows": Rows(table)}


def nearest_files(table: Any, key: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the analysis files nearest upstream of a row: what its own file may be made from.

    Returns
    -------
    list of (str, str)
        Full name of the table of analysis files, and name of the file.
    """
    found: set[tuple[str, str]] = set()
    waiting = [(table.full_table_name, dict(key))]
    seen = set()
    while waiting:
        name, restriction = waiting.pop()
        for row in _fetched(table.connection, name, [restriction]):
            above = list(_references(table.connection, name, row))
            files = [item for item in above if item[0].endswith(_FILES)]
            if files and name != table.full_table_name:
                found.update((owner, str(key["analysis_file_name"])) for owner, key in files)
                continue
            for parent, parent_key in above:
                mark = (parent, canonical_json(_text(parent_key)))
                if _is_read(parent) and mark not in seen:
                    seen.add(mark)
                    waiting.append((parent, parent_key))
    return sorted(found)


def _upstream(table: Any, key: dict[str, Any]) -> dict[str, Any]:
    table.connection.dependencies.load(force=False)
    found: dict[str, dict[bytes, dict[str, Any]]] = {}
    waiting: dict[str, list[dict[str, Any]]] = {table.full_table_name: [key]}
    asked: set[tuple[str, bytes]] = set()
    while waiting:
        name, keys = waiting.popitem()
        for row in _fetched(table.connection, name, keys):
            for other, other_key in _neighbours(table.connection, name, row, table.full_table_name):
                mark = (other, canonical_json(_text(other_key)))
                if mark not in asked:
                    asked.add(mark)
                    waiting.setdefault(other, []).append(other_key)
            if name != table.full_table_name:
                kept = {column: value for column, value in row.items() if value is not None}
                found.setdefault(name, {})[canonical_json(_text(_primary(table, name, row)))] = kept
    named = {
        _readable(name): [row for _, row in sorted(held.items())] for name, held in found.items()
    }
    return {**named, "raw files": _raw_files(found)}


def _fetched(connection: Any, name: str, keys: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Fetch rows without files and without the moments at which rows were written."""
    import datajoint

    table = datajoint.FreeTable(connection, name)
    columns = [
        column
        for column, about in table.heading.attributes.items()
        if not (about.is_filepath or about.is_attachment or about.adapter)
        and not about.type.startswith("timestamp")
    ]
    fetched: list[dict[str, Any]] = (table & keys).fetch(*columns, as_dict=True)
    return fetched


def _neighbours(
    connection: Any, name: str, row: Mapping[str, Any], start: str
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Iterate over the rows that a row refers to, and those that are parts of it."""
    import datajoint

    for parent, key in _references(connection, name, row):
        if _is_read(parent):
            yield parent, key
    if name != start:
        table = datajoint.FreeTable(connection, name)
        for part in table.parts():
            yield part, {column: row[column] for column in table.primary_key}


def _references(
    connection: Any, name: str, row: Mapping[str, Any]
) -> Iterator[tuple[str, dict[str, Any]]]:
    import datajoint

    for parent, edge in datajoint.FreeTable(connection, name).parents(foreign_key_info=True):
        if all(row.get(column) is not None for column in edge["attr_map"]):
            yield parent, {to: row[column] for column, to in edge["attr_map"].items()}


def _is_read(name: str) -> bool:
    return name.partition(".")[0].strip("`") not in _NOT_READ and not name.endswith(_FILES)


def _primary(table: Any, name: str, row: Mapping[str, Any]) -> dict[str, Any]:
    import datajoint

    keys = datajoint.FreeTable(table.connection, name).primary_key
    return {column: row[column] for column in keys}


def _text(key: Mapping[str, Any]) -> dict[str, str]:
    return {column: str(value) for column, value in key.items()}


def _readable(name: str) -> str:
    """Turn ```schema`.`#table__part``` into the name that a person knows a table by."""
    import datajoint

    schema, _, table = name.replace("`", "").partition(".")
    parts = [datajoint.utils.to_camel_case(part) for part in table.lstrip("#_").split("__")]
    return f"{schema}.{'.'.join(parts)}"


def _raw_files(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return name, size and checksum, as registered, of each raw file that rows name."""
    from spyglass.common.common_nwbfile import schema

    names = {
        str(row["nwb_file_name"])
        for held in found.values()
        for row in held.values()
        if row.get("nwb_file_name")
    }
    raw = schema.external["raw"]
    columns = raw.fetch("filepath", "size", "contents_hash") if names else ()
    return [
        {"name": str(path), "size_bytes": int(size), "md5": digest.hex if digest else ""}
        for path, size, digest in sorted(zip(*columns, strict=True), key=lambda row: str(row[0]))
        if str(path).rpartition("/")[2] in names
    ]
