"""What the errors of SQLite, PostgreSQL and MariaDB mean for us."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import DatabaseError, DBAPIError, InterfaceError, OperationalError

from recallfs.errors import (
    AccessError,
    CatalogError,
    InvalidInputError,
    LockedError,
    RecallError,
    SourceError,
)

# SQLSTATE of PostgreSQL, or the beginning of a class of them; error numbers of MariaDB.
_PASSING = ("40P01", "40001", 1213, 1020)
_MEANINGS: Mapping[str | int, str] = {
    **dict.fromkeys(("55P03", "57014", "40P01", "40001", 1205, 1213, 1020, 1969), "busy"),
    **dict.fromkeys(("53100", 1021, 1114), "full"),
    **dict.fromkeys(("28", "42501", "25006"), "refused"),
    **dict.fromkeys((1044, 1045, 1142, 1143, 1227, 1290, 1698, 1792, 1836), "refused"),
    **dict.fromkeys(("3D000", 1049), "missing"),
    **dict.fromkeys(("08", "53", "57P", 0, 1040, 1053, 1129, 1130, 1203, 1927), "unavailable"),
    **dict.fromkeys((2002, 2003, 2005, 2006, 2013, 2014, 2026, 2045, 2055, 4031), "unavailable"),
    **dict.fromkeys(("22", 1264, 1366, 1406), "impossible"),
}
# When a connection fails, psycopg gives nothing but the server's words.
_WORDS = {
    "authentication failed": "refused",
    "no password supplied": "refused",
    "pg_hba.conf": "refused",
    "permission denied": "refused",
    "not permitted": "refused",
    "lock wait timeout": "busy",
}


def is_passing(error: DBAPIError, backend: str) -> bool:
    """Tell whether a server's error is one that another attempt at once may not meet."""
    return error.connection_invalidated or _code(error, backend) in _PASSING


def translated(error: sa.exc.SQLAlchemyError, *, where: str, backend: str) -> RecallError:
    """Return the error of ours that a database's error is.

    Parameters
    ----------
    where : str
        Names the catalog in the message, without any password.
    backend : {"sqlite", "postgresql", "mysql"}
    """
    if not isinstance(error, DBAPIError):
        return CatalogError(f"{where} failed: {error}.")
    text = _text(error)
    meaning = _meaning_in_sqlite(error) if backend == "sqlite" else _meaning(error, backend)
    if meaning == "busy":
        return LockedError(f"{where} stayed busy ({text}); try again.")
    if meaning == "full":
        return SourceError(
            f"no space left for {where}; nothing was changed in it. Free some space and try again.",
            kind="no-space",
        )
    if meaning == "readonly":
        return AccessError(f"{where} cannot be written by you.")
    if meaning == "refused":
        return AccessError(
            f"{where} refuses you ({text}); check user, password and what the user was granted."
        )
    if meaning == "missing":
        return InvalidInputError(
            f"{where} is not there ({text}); create the database, or name another one.",
            kind="invalid-config",
        )
    if meaning == "unavailable":
        return CatalogError(
            f"{where} does not answer ({text}); try again when it does.",
            kind="catalog-unavailable",
        )
    if meaning == "impossible":
        return InvalidInputError(f"{where} cannot hold this ({text}); nothing was changed in it.")
    if meaning == "damaged":
        return CatalogError(
            f"{where} is damaged ({text}); "
            "move it away, then `recall catalog rebuild` makes it again from the sidecars.",
        )
    return CatalogError(f"{where} cannot be used: {text}.")


def _text(error: DBAPIError) -> str:
    arguments: tuple[Any, ...] = getattr(error.orig, "args", ())
    text = str(arguments[1] if len(arguments) > 1 else error.orig)
    return (text.strip().splitlines() or [""])[0].strip().removesuffix(".")


def _code(error: DBAPIError, backend: str) -> str | int | None:
    if backend == "postgresql":
        return getattr(error.orig, "sqlstate", None)
    number: Any = next(iter(getattr(error.orig, "args", ())), None)
    return number if isinstance(number, int) else None


def _meaning(error: DBAPIError, backend: str) -> str:
    code = _code(error, backend)
    known = [code] if isinstance(code, int) else [code[:n] for n in (5, 3, 2)] if code else []
    for key in known:
        if key in _MEANINGS:
            return _MEANINGS[key]
    if isinstance(error, sa.exc.DataError):
        return "impossible"
    text = str(error.orig).lower()
    for words, meaning in _WORDS.items():
        if words in text:
            return meaning
    if backend == "postgresql" and code is None and isinstance(error, OperationalError):
        is_missing = "database" in text and "does not exist" in text
        return "missing" if is_missing else "unavailable"
    return "unavailable" if error.connection_invalidated else ""


def _meaning_in_sqlite(error: DBAPIError) -> str:
    text = str(error.orig).lower()
    if not isinstance(error, (OperationalError, InterfaceError)):
        return "damaged" if isinstance(error, DatabaseError) else ""
    if "locked" in text or "busy" in text:
        return "busy"
    if "disk is full" in text:
        return "full"
    return "readonly" if "readonly" in text or "read-only" in text else ""
