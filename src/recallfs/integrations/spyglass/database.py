"""What the database says of analysis files, and its failures told as recallfs tells failures."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from recallfs.errors import AccessError, InvalidInputError, RecallError, SourceError
from recallfs.integrations.spyglass.lean import keep_packages_narrow

_DENIED = (1044, 1045, 1142, 1143, 1227)
_DOWN = (1040, 2002, 2003, 2006, 2013)
"""Error numbers of MySQL and MariaDB: rights are missing; the server cannot be talked to."""


@dataclass(frozen=True)
class FileRow:
    """An analysis file as the database has it.

    Parameters
    ----------
    name : str
        ``analysis_file_name``, unique in its table; of a folder its name.
    key : dict
        Primary key of the row that the file belongs to, as JSON.
    path : Path or None
        Where it is, or was; None if the file is not in the table of external files.
    size_bytes : int
    md5 : str
        Hexadecimal; empty where DataJoint made none.
    is_folder : bool
        Whether it is a folder of spikesorting v0, of which DataJoint registers no size.
    """

    name: str
    key: dict[str, Any]
    path: Path | None
    size_bytes: int = 0
    md5: str = ""
    is_folder: bool = False


@contextlib.contextmanager
def told_plainly() -> Iterator[None]:
    """Turn what Spyglass, DataJoint and the database's driver raise into errors of recallfs.

    Raises
    ------
    InvalidInputError
        Spyglass cannot be imported, or a query cannot be used.
    SourceError
        The database does not answer.
    AccessError
        The database's user may not do this.
    """
    try:
        yield
    except RecallError:
        raise
    except ImportError as error:
        raise InvalidInputError(
            f"Spyglass cannot be imported here ({_line(error)}); use the environment that it is "
            "installed in.",
            kind="invalid-config",
        ) from error
    except Exception as error:
        plain = _plain(error)
        if plain is None:
            raise
        raise plain from error


def _plain(error: Exception) -> RecallError | None:
    number = error.args[0] if error.args and isinstance(error.args[0], int) else 0
    name = type(error).__name__
    if number in _DENIED or name == "AccessError":
        return AccessError(f"the database denies this: {_line(error)}.")
    if number in _DOWN or name in ("LostConnectionError", "OperationalError", "InterfaceError"):
        return SourceError(
            f"the Spyglass database{_address()} does not answer ({_line(error)}); try again when "
            "it does, or mend ~/.datajoint_config.json."
        )
    if type(error).__module__.startswith(("datajoint", "pymysql")):
        return InvalidInputError(f"the database cannot answer this: {_line(error)}.")
    return None


def _address() -> str:
    import sys

    datajoint = sys.modules.get("datajoint")
    if datajoint is None:
        return ""
    return f" at {datajoint.config['database.host']}:{datajoint.config['database.port']}"


def _line(error: Exception) -> str:
    told = [str(part) for part in error.args if not isinstance(part, int)]
    lines = " ".join(told).strip().splitlines()
    return lines[0][:300].rstrip(".") if lines else type(error).__name__


def load_table(name: str) -> Any:
    """Import a table class by ``package.module:Class``.

    Raises
    ------
    InvalidInputError
        The name is malformed, or there is no such table.
    SourceError
        The database does not answer: importing a table asks it.
    """
    module, _, qualified = name.partition(":")
    if not qualified:
        raise InvalidInputError(f"{name!r} names no table; write it as 'package.module:Class'.")
    with told_plainly():
        keep_packages_narrow(module)
        value: Any = importlib.import_module(module)
        for part in qualified.split("."):
            value = getattr(value, part, None)
    if value is None or not hasattr(value, "full_table_name"):
        raise InvalidInputError(f"{module} has no table named {qualified}.")
    return value


def file_rows(query: Any, owner: Any = None) -> list[FileRow]:
    """Return the analysis files of a query's rows.

    Parameters
    ----------
    query : datajoint.Table
        A table with ``-> AnalysisNwbfile``, or v0's ``SpikeSortingRecording``; restricted or not.
    owner : datajoint.Table, optional
        The table of analysis files that it refers to, where that is known.

    Raises
    ------
    InvalidInputError
        The table has no files.
    SourceError, AccessError
        The database does not answer, or denies it.
    """
    with told_plainly():
        query = query() if isinstance(query, type) else query
        if "recording_path" in query.heading.names:
            return [_folder(row) for row in query.fetch("KEY", "recording_path", as_dict=True)]
        if "analysis_file_name" not in query.heading.names:
            raise InvalidInputError(
                f"{query.full_table_name} has no analysis_file_name; give a table with "
                "'-> AnalysisNwbfile'."
            )
        owner = owner or file_table(query)
        keys, names = query.fetch("KEY", "analysis_file_name")
        known = external_files(owner, names)
        return [
            FileRow(str(name), _as_json(key), *known.get(str(name), (None, 0, "")))
            for key, name in zip(keys, names, strict=True)
        ]


def _folder(row: dict[str, Any]) -> FileRow:
    place = Path(str(row.pop("recording_path")))
    files = [path.lstat() for path in place.rglob("*") if path.is_file()]
    size_bytes = sum(status.st_size for status in files)
    return FileRow(place.name, _as_json(row), place, size_bytes, is_folder=True)


def file_table(query: Any) -> Any:
    """Return the table of analysis files that a table refers to: the common or a custom one."""
    from spyglass.common.common_nwbfile import AnalysisNwbfile, AnalysisRegistry

    for parent in query.parents():
        if parent.endswith(".`analysis_nwbfile`"):
            if parent == AnalysisNwbfile().full_table_name:
                return AnalysisNwbfile
            return AnalysisRegistry().get_class(parent)
    return AnalysisNwbfile


def known_table(connection: Any, name: str) -> Any | None:
    """Return a table by its full name; None if the database has none such, or hides it."""
    import datajoint

    schema, _, table = name.replace("`", "").partition(".")
    sought = "SELECT 1 FROM information_schema.tables WHERE table_schema = %s AND table_name = %s"
    if connection.query(sought, args=(schema, table)).fetchone() is None:
        return None
    return datajoint.FreeTable(connection, name)


def external_files(owner: Any, names: Iterable[str]) -> dict[str, tuple[Path, int, str]]:
    """Return path, size and md5 by name. Nothing is downloaded or checked, as `fetch` would."""
    files = owner()
    wanted = {str(name) for name in names}
    found = {}
    rows = files._ext_tbl.fetch("filepath", "size", "contents_hash")
    for path, size, digest in zip(*rows, strict=True):
        name = PurePosixPath(str(path or "")).name
        if name in wanted:
            place = Path(files._analysis_dir) / str(path)
            found[name] = (place, int(size), digest.hex if digest is not None else "")
    return found


def _as_json(key: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value if isinstance(value, (int, float, str)) else str(value)
        for name, value in ((name, _unboxed(value)) for name, value in key.items())
    }


def _unboxed(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value
