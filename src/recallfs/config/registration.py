"""Adding stores to the configuration file, and taking them out, with all else left as it is."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from recallfs.atomic import make_folder, write_record
from recallfs.config.parsing import STORE_NAME, config_path, load_config
from recallfs.errors import ConflictError, InvalidInputError


def register_store(
    name: str, root: Path, path: Path | None = None, *, offline: bool = False
) -> bool:
    """Write ``[stores.NAME]`` into the configuration file, keeping what is there.

    Parameters
    ----------
    offline : bool
        Whether public services are never to be asked for the store's files.

    Returns
    -------
    bool
        Whether the store is new there; False if it was registered already.

    Raises
    ------
    ConflictError
        If the name belongs to another folder, or the folder has another name.
    """
    import tomlkit

    # A configuration kept elsewhere is often a symlink; the file behind it is the one to write.
    path = Path(os.path.realpath(path or config_path()))
    if not STORE_NAME.fullmatch(name):
        raise InvalidInputError(
            f"{name!r} cannot name a store; use letters, digits, '.', '_' and '-'.",
            kind="invalid-config",
        )
    make_folder(path.parent)
    # Two `recall init` at once must not lose each other's store.
    with open(path.with_name(f".{path.name}.lock"), "a", encoding="utf-8") as lock:  # noqa: PTH123 - not a path we keep
        fcntl.flock(lock, fcntl.LOCK_EX)
        stores_known = load_config(path, {}).stores
        known = stores_known.get(name)
        if known is not None:
            if os.path.realpath(known.root) == os.path.realpath(root):
                if offline and not known.offline:
                    _set_offline(path, name)
                return False
            raise ConflictError(
                f"the name {name!r} belongs to the store at {known.root} (in {path}); "
                "choose another name.",
                details={"store": name, "root": str(known.root)},
            )
        for other, settings in stores_known.items():
            if os.path.realpath(settings.root) == os.path.realpath(root):
                raise ConflictError(
                    f"{root} is the store {other!r} already (in {path}); to rename it, change "
                    f"[stores.{other}] there.",
                    details={"store": other, "root": str(root)},
                )
        try:
            text, mode = path.read_text(encoding="utf-8"), path.stat().st_mode & 0o666
        except FileNotFoundError:
            text, mode = "", 0o600
        document = tomlkit.parse(text)
        stores = document.setdefault("stores", tomlkit.table(is_super_table=True))
        # `stores = {…}` on one line can hold only tables of that sort.
        is_inline = isinstance(stores, tomlkit.items.InlineTable)
        table = tomlkit.inline_table() if is_inline else tomlkit.table()
        table["root"] = str(root)
        if offline:
            table["offline"] = True
        stores[name] = table
        write_record(path, tomlkit.dumps(document).encode("utf-8"), mode=mode)
    return True


def _set_offline(path: Path, name: str) -> None:
    import tomlkit

    document = tomlkit.parse(path.read_text(encoding="utf-8"))
    document["stores"][name]["offline"] = True
    write_record(path, tomlkit.dumps(document).encode("utf-8"), mode=path.stat().st_mode & 0o666)


def unregister_store(name: str, path: Path | None = None) -> None:
    """Take ``[stores.NAME]`` out of the configuration file again; nothing if it is not there."""
    import tomlkit

    path = Path(os.path.realpath(path or config_path()))
    with path.with_name(f".{path.name}.lock").open("a", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            document = tomlkit.parse(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return
        stores = document.get("stores", {})
        if name in stores:
            del stores[name]
            mode = path.stat().st_mode & 0o666
            write_record(path, tomlkit.dumps(document).encode("utf-8"), mode=mode)
