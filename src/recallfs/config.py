"""The configuration: one TOML file, overridden by environment variables, checked whole.

``RECALLFS_CONFIG`` names the file; without it the platform's configuration folder is used
(``~/.config/recallfs/config.toml`` on Linux). Any value can be overridden by a variable
``RECALLFS_<SECTION>__<KEY>``, for example ``RECALLFS_RELEASE__HOLD=14d``.
"""

from __future__ import annotations

import difflib
import fcntl
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from recallfs.atomic import make_folder, write_record
from recallfs.errors import AccessError, ConflictError, InvalidInputError
from recallfs.log import FORMATS, LEVELS
from recallfs.values import parse_size, parse_span

SOURCE_KINDS = ("mirror", "recompute")
"""Kinds of sources, in the order in which they are asked unless a store says otherwise."""

_NOT_SETTINGS = {"RECALLFS_CONFIG", "RECALLFS_WORKER"}
_STORE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True)
class StoreSettings:
    """``[stores.NAME]``: where a store is and how its files are recalled.

    Parameters
    ----------
    root : Path
        The managed folder.
    catalog : str, optional
        SQLAlchemy URL; by default SQLite inside the store.
    vault : Path, optional
        Second failure domain; overrides what `recall init` recorded.
    recall_missing : bool
        Whether a file that vanished without a release is brought back too.
    order : tuple of str
        Kinds or names of sources, first asked first.
    """

    root: Path
    catalog: str | None = None
    vault: Path | None = None
    recall_missing: bool = True
    order: tuple[str, ...] = SOURCE_KINDS


@dataclass(frozen=True)
class RecipeSettings:
    """``[recipes]``: where recipes may come from and what a run may use.

    Parameters
    ----------
    modules : tuple of str
        Importable modules whose recipes are trusted, besides installed entry points.
    paths : tuple of Path
        Folders put on the import path for these modules.
    timeout_s : float, optional
        Wall-clock limit of one run, in seconds.
    memory_bytes : int, optional
        Limit of one run's data segment, in bytes.
    threads : int, optional
        Threads that numerical libraries may use; by default the number of CPUs.
    """

    modules: tuple[str, ...] = ()
    paths: tuple[Path, ...] = ()
    timeout_s: float | None = None
    memory_bytes: int | None = None
    threads: int | None = None


@dataclass(frozen=True)
class MirrorSettings:
    """``[[sources.mirror]]``: any fsspec URL prefix that holds copies.

    Parameters
    ----------
    layout : {"path", "sha256"}
        Whether files lie there by their path in the store or as ``sha256/aa/bb/<hex>``; a mirror
        is asked both ways, and this says how it is counted: only by digest is it immutable.
    failure_domain : str, optional
        What fails together with it; by default derived from the URL.
    """

    name: str
    url: str
    options: Mapping[str, Any] = field(default_factory=dict)
    layout: str = "path"
    failure_domain: str | None = None


@dataclass(frozen=True)
class ReleaseSettings:
    """``[release]``: what must hold before local bytes are dropped.

    Parameters
    ----------
    hold : timedelta
        How long released bytes stay in the trash.
    grace : timedelta
        The least stay in the trash where the system could not tell that nobody has the file open.
    proof_validity : timedelta
        How long a proof counts.
    copies : int
        How many verified copies replace a proof.
    max_skeleton : float
        Largest kept part of a file, as a fraction of its size.
    """

    hold: timedelta = timedelta(days=7)
    grace: timedelta = timedelta(days=1)
    proof_validity: timedelta = timedelta(days=365)
    copies: int = 2
    max_skeleton: float = 0.05


@dataclass(frozen=True)
class LogSettings:
    """``[log]``: where events are told; nowhere unless a level is given.

    Parameters
    ----------
    level : {"debug", "info", "warning", "error"}, optional
    form : {"text", "json"}
        ``format`` in the file.
    file : Path, optional
        Appended to; by default standard error.
    """

    level: str | None = None
    form: str = "text"
    file: Path | None = None


@dataclass(frozen=True)
class Config:
    """The whole configuration, valid by construction."""

    path: Path | None = None
    stores: Mapping[str, StoreSettings] = field(default_factory=dict)
    recipes: RecipeSettings = field(default_factory=RecipeSettings)
    mirrors: tuple[MirrorSettings, ...] = ()
    release: ReleaseSettings = field(default_factory=ReleaseSettings)
    log: LogSettings = field(default_factory=LogSettings)

    def store_settings(self, name: str) -> StoreSettings:
        """Return the settings of a store.

        Raises
        ------
        InvalidInputError
            Kind ``unknown-store``, with the nearest configured name.
        """
        if name in self.stores:
            return self.stores[name]
        raise InvalidInputError(
            f"no store is named {name!r}{_nearest(name, self.stores)}; "
            "`recall init DIR --name NAME` makes one.",
            kind="unknown-store",
            details={"store": name, "known": sorted(self.stores)},
        )


def config_path() -> Path:
    """Return where the configuration file is or would be."""
    named = os.environ.get("RECALLFS_CONFIG")
    if named:
        return Path(named).expanduser().absolute()
    import platformdirs

    return Path(platformdirs.user_config_dir("recallfs")) / "config.toml"


def load_config(path: Path | None = None, environment: Mapping[str, str] | None = None) -> Config:
    """Read and check the configuration.

    Parameters
    ----------
    path : Path, optional
        TOML file; by default `config_path()`. A missing file is an empty configuration.
    environment : Mapping, optional
        Environment variables; by default the process's own.

    Raises
    ------
    InvalidInputError
        Kind ``invalid-config``: not TOML, an unknown key (the nearest known one is named), or a
        value of the wrong type. The message says which file or variable.
    AccessError
        If the file may not be read.
    """
    path = path or config_path()
    document = _read_toml(path)
    check = _Checker(path, _override(document, os.environ if environment is None else environment))
    check.known(document, "", ("stores", "recipes", "sources", "release", "log"))
    stores = {
        check.store_name(name): check.store(table, f"stores.{name}")
        for name, table in check.table(document, "stores").items()
    }
    sources = check.table(document, "sources")
    check.known(sources, "sources", ("mirror",))
    mirrors = sources.get("mirror", [])
    if not isinstance(mirrors, list):
        raise check.error("sources.mirror", "an array of tables ([[sources.mirror]])")
    parsed = tuple(check.mirror(table, f"sources.mirror[{i}]") for i, table in enumerate(mirrors))
    names = [mirror.name for mirror in parsed]
    if len(set(names)) != len(names):
        raise InvalidInputError(
            f"{path}: two mirrors have the same name ({', '.join(sorted(names))}).",
            kind="invalid-config",
        )
    sources_known = (*SOURCE_KINDS, *(f"mirror:{name}" for name in names))
    for name, store in stores.items():
        for source in store.order:
            if source not in sources_known:
                raise InvalidInputError(
                    f"{path}: stores.{name}.order names no source {source!r}"
                    f"{_nearest(source, sources_known)} (known: {', '.join(sources_known)}).",
                    kind="invalid-config",
                    details={"key": f"stores.{name}.order", "known": list(sources_known)},
                )
    return Config(
        path=path,
        stores=stores,
        recipes=check.recipes(check.table(document, "recipes")),
        mirrors=parsed,
        release=check.release(check.table(document, "release")),
        log=check.log(check.table(document, "log")),
    )


def register_store(name: str, root: Path, path: Path | None = None) -> bool:
    """Write ``[stores.NAME]`` into the configuration file, keeping what is there.

    Returns
    -------
    bool
        Whether the file was changed; False if the store was registered already.

    Raises
    ------
    ConflictError
        If the name belongs to another folder, or the folder has another name.
    """
    import tomlkit

    # A configuration kept elsewhere is often a symlink; the file behind it is the one to write.
    path = Path(os.path.realpath(path or config_path()))
    if not _STORE_NAME.fullmatch(name):
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
        stores[name] = table
        write_record(path, tomlkit.dumps(document).encode("utf-8"), mode=mode)
    return True


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


def _read_toml(path: Path) -> dict[str, Any]:
    import tomlkit
    from tomlkit.exceptions import TOMLKitError

    try:
        text = path.read_text(encoding="utf-8")
        return dict(tomlkit.parse(text).unwrap())
    except FileNotFoundError:
        return {}
    except PermissionError as error:
        raise AccessError(f"you cannot read {path}: {error.strerror}.") from error
    except (TOMLKitError, UnicodeDecodeError, OSError) as error:
        raise InvalidInputError(
            f"{path} is not a readable TOML file: {error}.", kind="invalid-config"
        ) from error


def _override(document: dict[str, Any], environment: Mapping[str, str]) -> dict[str, str]:
    """Lay ``RECALLFS_A__B`` variables over the document; return which key each one set."""
    origins = {}
    for variable, text in sorted(environment.items()):
        if not variable.startswith("RECALLFS_") or variable in _NOT_SETTINGS:
            continue
        keys = variable.removeprefix("RECALLFS_").lower().split("__")
        table = document
        full = []
        for key in keys[:-1]:
            full.append(_same_key(table, key))
            table = table.setdefault(full[-1], {})
            if not isinstance(table, dict):
                raise InvalidInputError(
                    f"the variable {variable} names no setting.", kind="invalid-config"
                )
        full.append(_same_key(table, keys[-1]))
        table[full[-1]] = text
        origins[".".join(full)] = variable
    return origins


def _same_key(table: Mapping[str, Any], key: str) -> str:
    """Find a key whatever its case and punctuation: variables cannot write ``my-store``."""
    for known in table:
        if re.sub(r"[.-]", "_", known).lower() == key:
            return known
    return key


def _nearest(word: str, known: Sequence[str] | Mapping[str, Any]) -> str:
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


class _Checker:
    """Turn TOML tables into settings, with errors that name the file and the key."""

    def __init__(self, path: Path, origins: Mapping[str, str]) -> None:
        self.path = path
        self.origins = origins

    def origin(self, where: str) -> str:
        """Name the variable that set a key (or first made its table), else the file."""
        for key, variable in self.origins.items():
            if key == where or key.startswith(f"{where}."):
                return f"the variable {variable}"
        return str(self.path)

    def error(self, where: str, expected: str) -> InvalidInputError:
        return InvalidInputError(
            f"{self.origin(where)}: {where} must be {expected}.",
            kind="invalid-config",
            details={"key": where},
        )

    def known(self, table: Mapping[str, Any], where: str, keys: Sequence[str]) -> None:
        for key in table:
            if key not in keys:
                full = f"{where}.{key}" if where else key
                raise InvalidInputError(
                    f"{self.origin(full)}: unknown key {full!r}{_nearest(key, keys)}"
                    f" (known here: {', '.join(keys)}).",
                    kind="invalid-config",
                    details={"key": full, "known": list(keys)},
                )

    def table(self, table: Mapping[str, Any], key: str) -> dict[str, Any]:
        value = table.get(key, {})
        if not isinstance(value, dict):
            raise self.error(key, "a table")
        return value

    def take(
        self, table: Mapping[str, Any], where: str, readers: Mapping[str, Callable[[Any], Any]]
    ) -> dict[str, Any]:
        """Read the keys that are there by their readers; refuse all others."""
        if not isinstance(table, dict):
            raise self.error(where, "a table")
        self.known(table, where, tuple(readers))
        result = {}
        for key, value in table.items():
            try:
                result[key] = readers[key](value)
            except (ValueError, TypeError) as error:
                why = str(error).removesuffix(".")
                raise InvalidInputError(
                    f"{self.origin(f'{where}.{key}')}: {where}.{key} cannot be {value!r}: {why}.",
                    kind="invalid-config",
                    details={"key": f"{where}.{key}"},
                ) from error
        return result

    def store_name(self, name: str) -> str:
        if not _STORE_NAME.fullmatch(name):
            raise self.error(f"stores.{name!r}", "named by letters, digits, '.', '_' and '-'")
        return name

    def store(self, table: Mapping[str, Any], where: str) -> StoreSettings:
        values = self.take(
            table,
            where,
            {
                "root": _path,
                "catalog": _text,
                "vault": _path,
                "recall_missing": _boolean,
                "order": _texts,
            },
        )
        if "root" not in values:
            raise self.error(f"{where}.root", "given (the folder that the store manages)")
        return StoreSettings(**values)

    def recipes(self, table: Mapping[str, Any]) -> RecipeSettings:
        return RecipeSettings(
            **self.take(
                table,
                "recipes",
                {
                    "modules": _texts,
                    "paths": lambda value: tuple(_path(item) for item in _texts(value)),
                    "timeout_s": _positive(float),
                    "memory_bytes": _size,
                    "threads": _positive(int),
                },
            )
        )

    def mirror(self, table: Mapping[str, Any], where: str) -> MirrorSettings:
        values = self.take(
            table,
            where,
            {
                "name": _text,
                "url": _mirror_url,
                "options": _mapping,
                "layout": _one_of("path", "sha256"),
                "failure_domain": _text,
            },
        )
        for key in ("name", "url"):
            if key not in values:
                raise self.error(f"{where}.{key}", "given")
        return MirrorSettings(**values)

    def release(self, table: Mapping[str, Any]) -> ReleaseSettings:
        return ReleaseSettings(
            **self.take(
                table,
                "release",
                {
                    "hold": _span,
                    "grace": _span,
                    "proof_validity": _span,
                    "copies": _positive(int),
                    "max_skeleton": _fraction,
                },
            )
        )

    def log(self, table: Mapping[str, Any]) -> LogSettings:
        readers = {"level": _one_of(*LEVELS), "format": _one_of(*FORMATS), "file": _path}
        values = self.take(table, "log", readers)
        return LogSettings(
            values.get("level"), values.get("format", FORMATS[0]), values.get("file")
        )


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise TypeError("a text is needed")
    return value


def _mirror_url(value: Any) -> str:
    url = _text(value)
    if "recall:" in url:
        raise ValueError("a mirror is somewhere else than a store")
    return url


def _texts(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        value = [item.strip() for item in value.split(",") if item.strip()]
    if not isinstance(value, list):
        raise TypeError("a list of texts is needed")
    return tuple(_text(item) for item in value)


def _path(value: Any) -> Path:
    path = Path(_text(value)).expanduser()
    if not path.is_absolute():
        raise ValueError("an absolute path is needed")
    return path


def _boolean(value: Any) -> bool:
    words = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if isinstance(value, str) and value.lower() in words:
        return words[value.lower()]
    if not isinstance(value, bool):
        raise TypeError("true or false is needed")
    return value


def _positive(kind: type[int] | type[float]) -> Callable[[Any], Any]:
    def read(value: Any) -> int | float:
        if isinstance(value, bool) or not isinstance(value, (int, float, str)):
            raise TypeError("a number is needed")
        number = kind(value) if isinstance(value, str) else value
        if not 0 < number < math.inf:
            raise ValueError("a number above 0 is needed")
        if kind is int and int(number) != number:
            raise ValueError("a whole number is needed")
        return kind(number)

    return read


def _size(value: Any) -> int:
    return int(_positive(int)(parse_size(value) if isinstance(value, str) else value))


def _span(value: Any) -> timedelta:
    return parse_span(_text(value))


def _fraction(value: Any) -> float:
    number = float(_positive(float)(value))
    if number > 1:
        raise ValueError("a fraction between 0 and 1 is needed")
    return number


def _mapping(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise TypeError("a table is needed")
    return value


def _one_of(*words: str) -> Callable[[Any], str]:
    def read(value: Any) -> str:
        if value not in words:
            raise ValueError(f"one of {', '.join(words)} is needed")
        return str(value)

    return read
