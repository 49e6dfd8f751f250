"""Reading the configuration: TOML, variables laid over it, every key and value checked."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from recallfs.config.settings import (
    SOURCE_KINDS,
    CacheSettings,
    Config,
    DandiSettings,
    EnvironmentSettings,
    ExpectedFailure,
    Floor,
    KacherySettings,
    LogSettings,
    MirrorSettings,
    PolicySettings,
    ReaderSettings,
    RecallSettings,
    RecipeSettings,
    ReleaseSettings,
    StoreSettings,
    nearest,
)
from recallfs.errors import AccessError, InvalidInputError
from recallfs.log import FORMATS, LEVELS
from recallfs.values import Level, parse_size, parse_span

STORE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""What a store may be called."""

_MAY_BE_SECRET = ("options", "url")
"""Keys whose values may hold passwords, and are not shown."""

_PATTERN_LETTERS = 500

_NOT_SETTINGS = {"RECALLFS_CONFIG", "RECALLFS_WORKER"}


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
    tables = (
        "stores",
        "recipes",
        "sources",
        "release",
        "recall",
        "readers",
        "cache",
        "log",
        "environments",
        "expected_failures",
    )
    check.known(document, "", tables)
    stores = {
        check.store_name(name): check.store(table, f"stores.{name}")
        for name, table in check.table(document, "stores").items()
    }
    sources = check.table(document, "sources")
    check.known(sources, "sources", ("kachery", "dandi", "mirror"))
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
                    f"{nearest(source, sources_known)} (known: {', '.join(sources_known)}).",
                    kind="invalid-config",
                    details={"key": f"stores.{name}.order", "known": list(sources_known)},
                )
    return Config(
        path=path,
        stores=stores,
        recipes=check.recipes(check.table(document, "recipes")),
        kachery=check.kachery(check.table(sources, "kachery")),
        dandi=check.dandi(check.table(sources, "dandi")),
        mirrors=parsed,
        release=check.release(check.table(document, "release"), tuple(stores)),
        recall=check.recall(check.table(document, "recall")),
        readers=check.readers(check.table(document, "readers")),
        cache=check.cache(check.table(document, "cache")),
        log=check.log(check.table(document, "log")),
        environments=check.environments(check.table(document, "environments")),
        expected_failures=check.expected_failures(document.get("expected_failures", [])),
    )


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
                    f"{self.origin(full)}: unknown key {full!r}{nearest(key, keys)}"
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
                what = "what it is" if key in _MAY_BE_SECRET else repr(value)
                raise InvalidInputError(
                    f"{self.origin(f'{where}.{key}')}: {where}.{key} cannot be {what}: {why}.",
                    kind="invalid-config",
                    details={"key": f"{where}.{key}"},
                ) from error
        return result

    def store_name(self, name: str) -> str:
        if not STORE_NAME.fullmatch(name):
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
                "offline": _boolean,
                "level": _recall_level,
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
                    "reuse": _boolean,
                    "refuse_dirty": _boolean,
                },
            )
        )

    def kachery(self, table: Mapping[str, Any]) -> KacherySettings:
        own = {"gateway_url": _http_url, "zone": _text, "resource_url": _http_url, "folder": _path}
        return KacherySettings(**self.take(table, "sources.kachery", {**_REMOTE, **own}))

    def dandi(self, table: Mapping[str, Any]) -> DandiSettings:
        own = {"instance": _text}
        return DandiSettings(**self.take(table, "sources.dandi", {**_REMOTE, **own}))

    def mirror(self, table: Mapping[str, Any], where: str) -> MirrorSettings:
        own = {
            "name": _text,
            "url": _mirror_url,
            "options": _mapping,
            "layout": _one_of("path", "sha256"),
        }
        values = self.take(table, where, {**_REMOTE, **own})
        for key in ("name", "url"):
            if key not in values:
                raise self.error(f"{where}.{key}", "given")
        if values["url"].startswith(("http://", "https://")):
            self.http_options(values.get("options", {}), f"{where}.options")
        return MirrorSettings(**values)

    def http_options(self, options: Mapping[str, Any], where: str) -> None:
        """Refuse what our HTTP client, which takes the place of fsspec's, would not heed."""
        self.known(options, where, ("headers", "client_kwargs"))
        inner = options.get("client_kwargs", {})
        if not isinstance(inner, dict):
            raise self.error(f"{where}.client_kwargs", "a table")
        self.known(inner, f"{where}.client_kwargs", ("headers",))
        for key, headers in (
            ("headers", options.get("headers", {})),
            ("client_kwargs.headers", inner.get("headers", {})),
        ):
            is_table = isinstance(headers, dict)
            if not is_table or not all(isinstance(text, str) for text in headers.values()):
                raise self.error(f"{where}.{key}", "a table of texts")

    def expected_failures(self, tables: Any) -> tuple[ExpectedFailure, ...]:
        if not isinstance(tables, list):
            raise self.error("expected_failures", "an array of tables ([[expected_failures]])")
        found = []
        for number, table in enumerate(tables):
            where = f"expected_failures[{number}]"
            values = self.take(table, where, {"match": _pattern, "reason": _text})
            for key in ("match", "reason"):
                if key not in values:
                    raise self.error(f"{where}.{key}", "given")
            found.append(ExpectedFailure(**values))
        return tuple(found)

    def release(self, table: Mapping[str, Any], stores: Sequence[str]) -> ReleaseSettings:
        values = self.take(
            table,
            "release",
            {
                "hold": _span,
                "grace": _span,
                "proof_validity": _span,
                "copies": _positive(int),
                "max_skeleton": _fraction,
                "idle": _span,
                "max_residual": _fraction_or_none,
                "policy": _tables,
            },
        )
        tables = values.pop("policy", ())
        policies = tuple(
            self.policy(item, f"release.policy[{number}]", stores)
            for number, item in enumerate(tables)
        )
        names = [policy.name for policy in policies]
        if len(set(names)) != len(names):
            raise self.error("release.policy", "tables with a name of their own each")
        return ReleaseSettings(**values, policy=policies)

    def policy(self, table: Mapping[str, Any], where: str, stores: Sequence[str]) -> PolicySettings:
        values = self.take(
            table,
            where,
            {
                "name": _text,
                "stores": _texts,
                "pattern": _patterns,
                "older_than": _span,
                "idle": _span,
                "min_size": _size,
                "level": _recall_level,
                "copies": _positive(int),
                "hold": _span,
                "keep_free": _floor,
            },
        )
        if "name" not in values:
            raise self.error(f"{where}.name", "given")
        for name in values.get("stores", ()):
            if name not in stores:
                hint = nearest(name, stores)
                raise self.error(f"{where}.stores", f"names of stores; {name!r} is none{hint}")
        return PolicySettings(**values)

    def recall(self, table: Mapping[str, Any]) -> RecallSettings:
        return RecallSettings(
            **self.take(
                table,
                "recall",
                {
                    "recomputes": _positive(int),
                    "recomputes_per_user": _positive(int),
                    "fetches": _positive(int),
                    "fetches_per_user": _positive(int),
                    "keep_free": _floor,
                    "remember_absent": _span,
                    "budget_folder": _path,
                },
            )
        )

    def readers(self, table: Mapping[str, Any]) -> ReaderSettings:
        return ReaderSettings(
            **self.take(
                table,
                "readers",
                {
                    "stat": _boolean,
                    "deny": _texts,
                    "ask_above": _size,
                    "ask_after": _span,
                    "on_interrupt": _one_of("drop", "continue"),
                    "partial": _one_of("auto", "always", "never"),
                    "partial_above": _size,
                },
            )
        )

    def environments(self, table: Mapping[str, Any]) -> EnvironmentSettings:
        readers = {"folder": _path, "indexes": _indexes}
        return EnvironmentSettings(**self.take(table, "environments", readers))

    def log(self, table: Mapping[str, Any]) -> LogSettings:
        readers = {"level": _one_of(*LEVELS), "format": _one_of(*FORMATS), "file": _path}
        values = self.take(table, "log", readers)
        return LogSettings(
            values.get("level"), values.get("format", FORMATS[0]), values.get("file")
        )

    def cache(self, table: Mapping[str, Any]) -> CacheSettings:
        readers = {
            "folder": _path,
            "limit": _size,
            "shared_folder": _path,
            "shared_limit": _size,
            "share_all": _boolean,
        }
        settings = CacheSettings(**self.take(table, "cache", readers))
        own, shared = settings.folder, settings.shared_folder
        if own is not None and shared is not None:
            # One is closed to others, which would close the other.
            own, shared = Path(os.path.realpath(own)), Path(os.path.realpath(shared))
            if own.is_relative_to(shared) or shared.is_relative_to(own):
                raise self.error("cache.shared_folder", "neither in cache.folder nor around it")
        return settings


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise TypeError("a text is needed")
    return value


def _pattern(value: Any) -> re.Pattern[str]:
    """Read a regular expression; one that is long is not for matching the end of a log."""
    text = _text(value)
    try:
        if len(text) > _PATTERN_LETTERS:
            raise ValueError(f"it has more than {_PATTERN_LETTERS} letters")
        return re.compile(text, re.MULTILINE)
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(f"it is no regular expression ({error})") from error


def _mirror_url(value: Any) -> str:
    url = _text(value)
    if "recall:" in url:
        raise ValueError("a mirror is somewhere else than a store")
    return url


def _http_url(value: Any) -> str:
    url = _text(value)
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("a URL that begins with http:// or https:// is needed")
    if parts.username or parts.password:
        raise ValueError("a URL must hold no user name and no password")
    return url.rstrip("/")


def _texts(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        value = [item.strip() for item in value.split(",") if item.strip()]
    if not isinstance(value, list):
        raise TypeError("a list of texts is needed")
    return tuple(_text(item) for item in value)


def _tables(value: Any) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise TypeError("an array of tables is needed ([[release.policy]])")
    return tuple(value)


def _patterns(value: Any) -> tuple[str, ...]:
    # A comma is part of a name, unlike in other lists.
    return (_text(value),) if isinstance(value, str) else _texts(value)


def _indexes(value: Any) -> tuple[str, ...]:
    return tuple(_http_url(item) for item in _texts(value))


def _path(value: Any) -> Path:
    path = Path(_text(value)).expanduser()
    if not path.is_absolute():
        raise ValueError("an absolute path is needed")
    return path


def _recall_level(value: Any) -> Level:
    try:
        return Level(value)
    except ValueError:
        raise TypeError(f"one of {', '.join(Level)} is needed") from None


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


def _floor(value: Any) -> Floor:
    """Read a size, which may be 0, or a part of the disk such as ``5%``."""
    if isinstance(value, str) and value.strip().endswith("%"):
        number = float(value.strip().removesuffix("%"))
        if not 0 <= number < 100:
            raise ValueError("a part of the disk from 0% to below 100% is needed")
        return Floor(fraction=number / 100)
    if not isinstance(value, bool) and value in (0, "0"):
        return Floor(0)
    return Floor(_size(value))


def _span(value: Any) -> timedelta:
    return parse_span(_text(value))


def _wait(value: Any) -> timedelta:
    span = _span(value)
    if not timedelta(0) < span <= timedelta(days=30):
        raise ValueError("a time above 0 and of at most 30 days is needed")
    return span


def _fraction(value: Any) -> float:
    number = float(_positive(float)(value))
    if number > 1:
        raise ValueError("a fraction between 0 and 1 is needed")
    return number


def _fraction_or_none(value: Any) -> float:
    if not isinstance(value, bool) and value in (0, "0"):
        return 0.0
    return _fraction(value)


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


_REMOTE: Mapping[str, Callable[[Any], Any]] = {
    "enabled": _boolean,
    "failure_domain": _text,
    "connect_timeout": _wait,
    "answer_timeout": _wait,
    "read_timeout": _wait,
    "total_timeout": _wait,
    "bandwidth": _size,
    "streams": _positive(int),
}
"""Readers of the keys that the table of every remote source may have."""
