"""A store's own file: its name, its id and where its vault is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from recallfs.atomic import read_record, write_record
from recallfs.errors import AccessError, InvalidInputError
from recallfs.values import CONTROL_FOLDER

STORE_FILE = "store.toml"
"""Name, id and vault of a store, in its control folder."""


def write_store_file(root: Path, values: dict[str, Any]) -> None:
    """Write the file of the store at a folder."""
    import tomlkit

    content = tomlkit.dumps(values).encode("utf-8")
    write_record(root / CONTROL_FOLDER / STORE_FILE, content)


def read_store_file(root: Path) -> dict[str, Any]:
    """Read name, id and vault of the store at a folder, and nothing else."""
    return read_store_file_at(root / CONTROL_FOLDER / STORE_FILE)


def read_store_file_at(path: Path) -> dict[str, Any]:
    """Read name, id and vault of a store from its file, which the vault has a copy of."""
    import tomlkit
    from tomlkit.exceptions import TOMLKitError

    root = path.parent.parent
    try:
        values = dict(tomlkit.parse(read_record(path).decode("utf-8")).unwrap())
    except (FileNotFoundError, NotADirectoryError):
        raise InvalidInputError(
            f"{root} is not a store; `recall init {root} --name NAME` makes it one.",
            kind="not-a-store",
            details={"root": str(root)},
        ) from None
    except PermissionError as error:
        raise AccessError(f"you cannot read {path}: {error.strerror}.") from error
    except (TOMLKitError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"{path} is damaged: {error}.", kind="not-a-store") from error
    if values.get("format") != 1 or not all(
        isinstance(values.get(key), str) for key in ("id", "name", "vault")
    ):
        raise InvalidInputError(
            f"{path} is not a store file of a version that this recallfs reads.", kind="not-a-store"
        )
    return values
