"""Column types that mean the same in SQLite, PostgreSQL and MariaDB."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from recallfs.values import PATH_BYTES

_MARIADB = ("mysql", "mariadb")


class Path(sa.types.TypeDecorator[str]):
    """Text that is compared and sorted byte by byte as UTF-8, and can be a key.

    Notes
    -----
    SQLite does so by itself, PostgreSQL with the collation "C", MariaDB only for bytes.
    `PATH_BYTES` is what the index of either server can hold.
    """

    impl = sa.String
    cache_ok = True

    def __init__(self) -> None:
        super().__init__(4096)

    def load_dialect_impl(self, dialect: sa.Dialect) -> sa.types.TypeEngine[Any]:
        """Return the type that a database gives such a column."""
        if dialect.name in _MARIADB:
            return dialect.type_descriptor(sa.VARBINARY(PATH_BYTES))
        if dialect.name == "postgresql":
            return dialect.type_descriptor(sa.String(PATH_BYTES, collation="C"))
        return dialect.type_descriptor(sa.String(4096))

    def process_bind_param(self, value: str | None, dialect: sa.Dialect) -> Any:
        """Encode text where the column holds bytes."""
        if value is not None and dialect.name in _MARIADB:
            return value.encode("utf-8")
        return value

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> str | None:
        """Decode what a column of bytes holds."""
        return bytes(value).decode("utf-8") if isinstance(value, (bytes, bytearray)) else value


class Unsigned(sa.types.TypeDecorator[int]):
    """A 64-bit number without a sign, such as an inode's, in a column that has one."""

    impl = sa.BigInteger
    cache_ok = True

    def process_bind_param(self, value: int | None, dialect: sa.Dialect) -> int | None:
        """Fold the upper half into the negative numbers."""
        return value - (1 << 64) if value is not None and value >= 1 << 63 else value

    def process_result_value(self, value: int | None, dialect: sa.Dialect) -> int | None:
        """Unfold the negative numbers."""
        return value + (1 << 64) if value is not None and value < 0 else value


class LongText(sa.types.TypeDecorator[str]):
    """Text of any length; MariaDB's own TEXT ends at 64 KiB."""

    impl = sa.Text
    cache_ok = True

    def load_dialect_impl(self, dialect: sa.Dialect) -> sa.types.TypeEngine[Any]:
        """Return the type that a database gives such a column."""
        if dialect.name in _MARIADB:
            from sqlalchemy.dialects.mysql import LONGTEXT  # each dialect takes long to load

            return dialect.type_descriptor(LONGTEXT())
        return dialect.type_descriptor(sa.Text())


TABLE_OPTIONS: dict[str, Any] = {
    f"{dialect}_{option}": value
    for dialect in _MARIADB
    for option, value in (
        ("engine", "InnoDB"),
        ("charset", "utf8mb4"),
        # Case and trailing spaces make names differ, as they do in a file system.
        ("collate", "utf8mb4_nopad_bin"),
    )
}
