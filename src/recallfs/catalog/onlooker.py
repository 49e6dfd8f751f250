"""Looking at a store from outside: nothing is made, upgraded, locked or written."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from pathlib import Path
from typing import NamedTuple

import sqlalchemy as sa

from recallfs.catalog import schema
from recallfs.catalog.engine import Database
from recallfs.catalog.store import CATALOG_FILE
from recallfs.catalog.store_file import read_store_file
from recallfs.errors import CatalogError
from recallfs.values import CONTROL_FOLDER

_ATTEMPTS = 5


class Known(NamedTuple):
    """What a catalog says of one file."""

    recipe: str | None
    proved_until: str | None


class Onlooker:
    """Asks a store's catalog and changes nothing, whatever the caller may do.

    Parameters
    ----------
    root : Path
        Real path of the store's folder.
    catalog : str, optional
        URL of the catalog, where that is on a server.

    Raises
    ------
    InvalidInputError
        Kind ``not-a-store``.
    CatalogError
        There is no catalog, or one that cannot be read.
    """

    def __init__(self, root: Path, catalog: str | None = None) -> None:
        values = read_store_file(root)
        self.name = str(values["name"])
        self._store_id = str(values["id"])
        file = root / CONTROL_FOLDER / CATALOG_FILE
        if catalog is None and not file.is_file():
            raise CatalogError(f"the store at {root} has no catalog; `recall doctor` mends that.")
        self._file = None if catalog else file
        self._database = Database(catalog or file, looks_only=True)
        self.files_in("")

    def files_in(self, folder: str) -> dict[str, Known]:
        """Return what is known of the files of one folder, by their names."""
        try:
            folder.encode()
        except UnicodeEncodeError:
            return {}  # no catalog has a path that is no text
        paths = schema.paths.c
        query = sa.select(paths.path, paths.recipe, paths.proved_until).where(
            paths.store_id == self._store_id, paths.parent == folder
        )
        if self._file is not None and self._log.exists():
            self._copy(self._file)
        rows = self._database.query(lambda connection: list(connection.execute(query)))
        return {row.path.rpartition("/")[2]: Known(row.recipe, row.proved_until) for row in rows}

    @property
    def _log(self) -> Path:
        return Path(f"{self._file}-wal")

    def _copy(self, file: Path) -> None:
        """Go on with a copy: beside a log SQLite opens files for writing, even to read."""
        folder = Path(tempfile.mkdtemp(prefix="recallfs-"))
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        for _ in range(_ATTEMPTS):
            before = _stamps(file, self._log)
            try:
                for source in (file, self._log):
                    shutil.copyfile(source, folder / source.name)
            except FileNotFoundError:
                continue
            if _stamps(file, self._log) == before:
                break
        else:
            raise CatalogError(
                f"the catalog {file} is being written all the time; try again later.",
                kind="catalog-locked",
            )
        self._database.close()
        self._database = Database(folder / file.name)
        self._file = None

    def close(self) -> None:
        """Close the connections."""
        self._database.close()


def _stamps(*files: Path) -> list[tuple[int, int] | None]:
    """Return what shows whether files were changed."""
    found: list[tuple[int, int] | None] = []
    for file in files:
        try:
            status = file.stat()
        except FileNotFoundError:
            found.append(None)
        else:
            found.append((status.st_mtime_ns, status.st_size))
    return found
