"""The catalog's tables.

Entries, incarnations, copies, derivations, proofs, revocations and pins are append-only; `paths`
says which entry stands at a path now and what was last seen there; what readers cause (recalls,
accesses) is kept apart, and so is work in hand (intents, trash, leases).

`paths` repeats what selections and totals ask for, so that one index answers them without a join,
and what plans ask for, so that they read one table.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    false,
)

from recallfs.catalog.types import LongText, Path, Unsigned

REVISION = "0005"
"""Newest migration; a catalog at another revision is upgraded or, when newer, refused."""

metadata = MetaData()

VERSION_TABLE = Table(
    "schema_version",
    MetaData(),  # the migrations make it by themselves
    Column("version_num", String(32), nullable=False),
    PrimaryKeyConstraint("version_num", name="schema_version_pkc"),
)
"""Where Alembic keeps the revision."""

_ID = String(32)
_HEX = String(64)
_MOMENT = String(32)
_PATH = Path()


def _row_id() -> Column[int]:
    return Column("id", Integer, primary_key=True, autoincrement=True)


def _entry_id(*, primary_key: bool = False) -> Column[str]:
    return Column(
        "entry_id", _ID, ForeignKey("entries.id"), primary_key=primary_key, nullable=False
    )


stores = Table(
    "stores",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("writes", BigInteger, nullable=False),
)

entries = Table(
    "entries",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("store_id", _ID, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("sha256", _HEX, nullable=False, index=True),
    Column("sha1", String(40), nullable=False),
    Column("mode", Integer, nullable=False),
    Column("uid", BigInteger, nullable=False),
    Column("gid", BigInteger, nullable=False),
    Column("mtime_ns", BigInteger, nullable=False),
    Column("created_at", _MOMENT, nullable=False),
)

paths = Table(
    "paths",
    metadata,
    Column("store_id", _ID, primary_key=True),
    Column("path", _PATH, primary_key=True),
    Column("parent", _PATH, nullable=False),
    Column("entry_id", _ID, ForeignKey("entries.id"), nullable=False, unique=True),
    Column("state", String(16), nullable=False),
    Column("device", Unsigned),
    Column("inode", Unsigned),
    Column("seen_size_bytes", BigInteger),
    Column("seen_mtime_ns", BigInteger),
    Column("seen_ctime_ns", BigInteger),
    Column("size_bytes", BigInteger, nullable=False, server_default="0"),
    Column("mtime_ns", BigInteger, nullable=False, server_default="0"),
    Column("recipe", String(256)),
    Column("proved_until", _MOMENT),
    Column("is_pinned", Boolean, nullable=False, server_default=false()),
    Column("kept_bytes", BigInteger),
    # By what it can be released, and the inputs of that; see `recallfs.catalog.standing`.
    Column("standing", LongText()),
    Column("made_from", LongText()),
    Index("paths_by_parent", "store_id", "parent"),
    Index(
        "paths_summary",
        "store_id",
        "state",
        "recipe",
        "is_pinned",
        "proved_until",
        "mtime_ns",
        "size_bytes",
    ),
)

incarnations = Table(
    "incarnations",
    metadata,
    _entry_id(primary_key=True),
    Column("sha256", _HEX, primary_key=True),
    Column("size_bytes", BigInteger, nullable=False),
    Column("level", String(16), nullable=False),
    Column("recorded_at", _MOMENT, nullable=False),
)

copies = Table(
    "copies",
    metadata,
    _entry_id(primary_key=True),
    Column("location", _PATH, primary_key=True),
    Column("verified_at", _MOMENT, primary_key=True),
    Column("source", String(128), nullable=False),
    Column("failure_domain", String(256), nullable=False),
    Column("content_addressed", Boolean, nullable=False),
)

environments = Table(
    "environments",
    metadata,
    Column("id", _HEX, primary_key=True),
    Column("content", LongText(), nullable=False),
)

derivations = Table(
    "derivations",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("key", _HEX, nullable=False, index=True),
    Column("recipe", String(256), nullable=False),
    Column("version", String(64), nullable=False),
    Column("source_digest", _HEX, nullable=False),
    Column("parameters", LongText(), nullable=False),
    Column("seed", String(32), nullable=False),
    Column("started_at", _MOMENT, nullable=False),
    Column("threads", Integer, nullable=False),
    Column("environment_id", _HEX, nullable=False),
    Column("seconds", Double, nullable=False),
    Column("cpu_seconds", Double),
    Column("peak_memory_bytes", BigInteger),
)

derivation_inputs = Table(
    "derivation_inputs",
    metadata,
    Column("derivation_id", _ID, ForeignKey("derivations.id"), primary_key=True),
    Column("name", String(256), primary_key=True),
    Column("entry_id", _ID, nullable=False, index=True),
    Column("path", _PATH, nullable=False),
    Column("sha256", _HEX, nullable=False, index=True),
)

derivation_outputs = Table(
    "derivation_outputs",
    metadata,
    Column("derivation_id", _ID, ForeignKey("derivations.id"), primary_key=True),
    Column("name", String(256), primary_key=True),
    Column("entry_id", _ID, nullable=False, index=True),
)

proofs = Table(
    "proofs",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("entry_id", _ID, ForeignKey("entries.id"), nullable=False, index=True),
    Column("derivation_id", _ID, nullable=False),
    Column("environment_id", _HEX, nullable=False),
    Column("level", String(16), nullable=False),
    Column("method", String(16), nullable=False),
    Column("sha256", _HEX, nullable=False),
    Column("made_by", String(256), nullable=False),
    Column("made_at", _MOMENT, nullable=False),
    Column("valid_until", _MOMENT, nullable=False),
    Column("seconds", Double, nullable=False),
    Column("hidden_by", String(16), nullable=False),
)

revocations = Table(
    "revocations",
    metadata,
    Column("proof_id", _ID, primary_key=True),
    Column("reason", LongText(), nullable=False),
    Column("made_by", String(256), nullable=False),
    Column("made_at", _MOMENT, nullable=False),
)

pins = Table(
    "pins",
    metadata,
    _entry_id(primary_key=True),
    Column("made_at", _MOMENT, primary_key=True),
    Column("is_pinned", Boolean, nullable=False),
    Column("reason", LongText(), nullable=False),
    Column("made_by", String(256), nullable=False),
)

trash = Table(
    "trash",
    metadata,
    _entry_id(primary_key=True),
    Column("trashed_at", _MOMENT, nullable=False),
    Column("purge_after", _MOMENT, nullable=False),
)

recalls = Table(
    "recalls",
    metadata,
    _row_id(),
    Column("entry_id", _ID, nullable=False, index=True),
    Column("at", _MOMENT, nullable=False),
    Column("who", String(256), nullable=False),
    Column("source", String(128), nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("seconds", Double, nullable=False),
    Column("level", String(16), nullable=False),
)

accesses = Table(
    "accesses",
    metadata,
    Column("entry_id", _ID, primary_key=True),
    Column("last_at", _MOMENT, nullable=False),
)

events = Table(
    "events",
    metadata,
    _row_id(),
    Column("at", _MOMENT, nullable=False),
    Column("who", String(256), nullable=False),
    Column("action", String(32), nullable=False),
    Column("entry_id", _ID, nullable=False, index=True),
    Column("path", _PATH, nullable=False),
    Column("details", LongText(), nullable=False),
)

intents = Table(
    "intents",
    metadata,
    Column("entry_id", _ID, primary_key=True),
    Column("store_id", _ID, nullable=False),
    Column("action", String(16), nullable=False),
    Column("path", _PATH, nullable=False),
    Column("details", LongText(), nullable=False),
    Column("holder", String(256), nullable=False),
)

leases = Table(
    "leases",
    metadata,
    Column("key", String(128), primary_key=True),
    Column("fence", BigInteger, nullable=False),
    Column("beat", BigInteger, nullable=False),
    Column("holder", String(256)),
    Column("failure", LongText()),
)
