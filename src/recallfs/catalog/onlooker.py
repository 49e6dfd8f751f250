"""Looking at a store from outside: nothing is made, upgraded, locked or written."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import sqlalchemy as sa

from recallfs.catalog import schema
from recallfs.catalog.engine import Database
from recallfs.catalog.store import CATALOG_FILE, read_store_file
from recallfs.errors import CatalogError
from recallfs.values import CONTROL_FOLDER


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
        rows = self._database.query(lambda connection: list(connection.execute(query)))
        return {row.path.rpartition("/")[2]: Known(row.recipe, row.proved_until) for row in rows}

    def close(self) -> None:
        """Close the connections."""
        self._database.close()
