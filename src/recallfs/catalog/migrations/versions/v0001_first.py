"""The first schema."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from recallfs.catalog import types
from recallfs.catalog.migrations import steps

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make all tables."""
    steps.create_table(
        "accesses",
        sa.Column("entry_id", sa.String(length=32), nullable=False),
        sa.Column("last_at", sa.String(length=32), nullable=False),
        sa.PrimaryKeyConstraint("entry_id"),
        **types.TABLE_OPTIONS,
    )
    steps.create_table(
        "derivations",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("recipe", sa.String(length=256), nullable=False),
        sa.Column("version", sa.String(length=64), nullable=False),
        sa.Column("source_digest", sa.String(length=64), nullable=False),
        sa.Column("parameters", types.LongText(), nullable=False),
        sa.Column("seed", sa.String(length=32), nullable=False),
        sa.Column("started_at", sa.String(length=32), nullable=False),
        sa.Column("threads", sa.Integer(), nullable=False),
        sa.Column("environment_id", sa.String(length=64), nullable=False),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        **types.TABLE_OPTIONS,
    )
    steps.create_index("ix_derivations_key", "derivations", ["key"])
    steps.create_table(
        "entries",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("store_id", sa.String(length=32), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("sha1", sa.String(length=40), nullable=False),
        sa.Column("mode", sa.Integer(), nullable=False),
        sa.Column("uid", sa.BigInteger(), nullable=False),
        sa.Column("gid", sa.BigInteger(), nullable=False),
        sa.Column("mtime_ns", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.String(length=32), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        **types.TABLE_OPTIONS,
    )
    steps.create_index("ix_entries_sha256", "entries", ["sha256"])
    steps.create_table(
        "environments",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("content", types.LongText(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        **types.TABLE_OPTIONS,
    )
    steps.create_table(
        "events",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("at", sa.String(length=32), nullable=False),
        sa.Column("who", sa.String(length=256), nullable=False),
        sa.Column("action", sa.String(length=32), nullable=False),
        sa.Column("entry_id", sa.String(length=32), nullable=False),
        sa.Column("path", types.Path(), nullable=False),
        sa.Column("details", types.LongText(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        **types.TABLE_OPTIONS,
    )
    steps.create_index("ix_events_entry_id", "events", ["entry_id"])
    steps.create_table(
        "intents",
        sa.Column("entry_id", sa.String(length=32), nullable=False),
        sa.Column("store_id", sa.String(length=32), nullable=False),
        sa.Column("action", sa.String(length=16), nullable=False),
        sa.Column("path", types.Path(), nullable=False),
        sa.Column("details", types.LongText(), nullable=False),
        sa.Column("holder", sa.String(length=256), nullable=False),
        sa.PrimaryKeyConstraint("entry_id"),
        **types.TABLE_OPTIONS,
    )
    steps.create_table(
        "leases",
        sa.Column("key", sa.String(length=128), nullable=False),
        sa.Column("fence", sa.BigInteger(), nullable=False),
        sa.Column("beat", sa.BigInteger(), nullable=False),
        sa.Column("holder", sa.String(length=256), nullable=True),
        sa.Column("failure", types.LongText(), nullable=True),
        sa.PrimaryKeyConstraint("key"),
        **types.TABLE_OPTIONS,
    )
    steps.create_table(
        "recalls",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("entry_id", sa.String(length=32), nullable=False),
        sa.Column("at", sa.String(length=32), nullable=False),
        sa.Column("who", sa.String(length=256), nullable=False),
        sa.Column("source", sa.String(length=128), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.Column("level", sa.String(length=16), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        **types.TABLE_OPTIONS,
    )
    steps.create_index("ix_recalls_entry_id", "recalls", ["entry_id"])
    steps.create_table(
        "revocations",
        sa.Column("proof_id", sa.String(length=32), nullable=False),
        sa.Column("reason", types.LongText(), nullable=False),
        sa.Column("made_by", sa.String(length=256), nullable=False),
        sa.Column("made_at", sa.String(length=32), nullable=False),
        sa.PrimaryKeyConstraint("proof_id"),
        **types.TABLE_OPTIONS,
    )
    steps.create_table(
        "copies",
        sa.Column("entry_id", sa.String(length=32), nullable=False),
        sa.Column("location", types.Path(), nullable=False),
        sa.Column("verified_at", sa.String(length=32), nullable=False),
        sa.Column("source", sa.String(length=128), nullable=False),
        sa.Column("failure_domain", sa.String(length=256), nullable=False),
        sa.Column("content_addressed", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(
            ["entry_id"],
            ["entries.id"],
        ),
        sa.PrimaryKeyConstraint("entry_id", "location", "verified_at"),
        **types.TABLE_OPTIONS,
    )
    steps.create_table(
        "derivation_inputs",
        sa.Column("derivation_id", sa.String(length=32), nullable=False),
        sa.Column("name", sa.String(length=256), nullable=False),
        sa.Column("entry_id", sa.String(length=32), nullable=False),
        sa.Column("path", types.Path(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(
            ["derivation_id"],
            ["derivations.id"],
        ),
        sa.PrimaryKeyConstraint("derivation_id", "name"),
        **types.TABLE_OPTIONS,
    )
    steps.create_index("ix_derivation_inputs_entry_id", "derivation_inputs", ["entry_id"])
    steps.create_table(
        "derivation_outputs",
        sa.Column("derivation_id", sa.String(length=32), nullable=False),
        sa.Column("name", sa.String(length=256), nullable=False),
        sa.Column("entry_id", sa.String(length=32), nullable=False),
        sa.ForeignKeyConstraint(
            ["derivation_id"],
            ["derivations.id"],
        ),
        sa.PrimaryKeyConstraint("derivation_id", "name"),
        **types.TABLE_OPTIONS,
    )
    steps.create_index("ix_derivation_outputs_entry_id", "derivation_outputs", ["entry_id"])
    steps.create_table(
        "incarnations",
        sa.Column("entry_id", sa.String(length=32), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("level", sa.String(length=16), nullable=False),
        sa.Column("recorded_at", sa.String(length=32), nullable=False),
        sa.ForeignKeyConstraint(
            ["entry_id"],
            ["entries.id"],
        ),
        sa.PrimaryKeyConstraint("entry_id", "sha256"),
        **types.TABLE_OPTIONS,
    )
    steps.create_table(
        "paths",
        sa.Column("store_id", sa.String(length=32), nullable=False),
        sa.Column("path", types.Path(), nullable=False),
        sa.Column("parent", types.Path(), nullable=False),
        sa.Column("entry_id", sa.String(length=32), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("device", types.Unsigned(), nullable=True),
        sa.Column("inode", types.Unsigned(), nullable=True),
        sa.Column("seen_size_bytes", sa.BigInteger(), nullable=True),
        sa.Column("seen_mtime_ns", sa.BigInteger(), nullable=True),
        sa.Column("seen_ctime_ns", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["entry_id"],
            ["entries.id"],
        ),
        sa.PrimaryKeyConstraint("store_id", "path"),
        sa.UniqueConstraint("entry_id"),
        **types.TABLE_OPTIONS,
    )
    # Servers cannot index two paths at once; only SQLite was ever used at this revision.
    is_sqlite = op.get_bind().dialect.name == "sqlite"
    ordered = ["path"] if is_sqlite else []
    steps.create_index("paths_by_parent", "paths", ["store_id", "parent", *ordered])
    steps.create_index("paths_by_state", "paths", ["store_id", "state"])
    steps.create_table(
        "pins",
        sa.Column("entry_id", sa.String(length=32), nullable=False),
        sa.Column("made_at", sa.String(length=32), nullable=False),
        sa.Column("is_pinned", sa.Boolean(), nullable=False),
        sa.Column("reason", types.LongText(), nullable=False),
        sa.Column("made_by", sa.String(length=256), nullable=False),
        sa.ForeignKeyConstraint(
            ["entry_id"],
            ["entries.id"],
        ),
        sa.PrimaryKeyConstraint("entry_id", "made_at"),
        **types.TABLE_OPTIONS,
    )
    steps.create_table(
        "proofs",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("entry_id", sa.String(length=32), nullable=False),
        sa.Column("derivation_id", sa.String(length=32), nullable=False),
        sa.Column("environment_id", sa.String(length=64), nullable=False),
        sa.Column("level", sa.String(length=16), nullable=False),
        sa.Column("method", sa.String(length=16), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("made_by", sa.String(length=256), nullable=False),
        sa.Column("made_at", sa.String(length=32), nullable=False),
        sa.Column("valid_until", sa.String(length=32), nullable=False),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.Column("hidden_by", sa.String(length=16), nullable=False),
        sa.ForeignKeyConstraint(
            ["entry_id"],
            ["entries.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        **types.TABLE_OPTIONS,
    )
    steps.create_index("ix_proofs_entry_id", "proofs", ["entry_id"])
    steps.create_table(
        "trash",
        sa.Column("entry_id", sa.String(length=32), nullable=False),
        sa.Column("trashed_at", sa.String(length=32), nullable=False),
        sa.Column("purge_after", sa.String(length=32), nullable=False),
        sa.ForeignKeyConstraint(
            ["entry_id"],
            ["entries.id"],
        ),
        sa.PrimaryKeyConstraint("entry_id"),
        **types.TABLE_OPTIONS,
    )
