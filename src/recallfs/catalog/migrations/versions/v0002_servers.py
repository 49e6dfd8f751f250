"""Stores have a row that writers lock, and paths hold what totals and selections ask for."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from recallfs.catalog import types
from recallfs.catalog.migrations import steps

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the table and the columns, and fill them from what is there."""
    steps.create_table(
        "stores",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("writes", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        **types.TABLE_OPTIONS,
    )
    op.execute(
        "INSERT INTO stores (id, writes) SELECT DISTINCT store_id, 0 FROM paths "
        "WHERE store_id NOT IN (SELECT id FROM stores)"
    )
    for column in (
        sa.Column("size_bytes", sa.BigInteger(), nullable=False, server_default="0"),
        sa.Column("mtime_ns", sa.BigInteger(), nullable=False, server_default="0"),
        sa.Column("recipe", sa.String(length=256), nullable=True),
        sa.Column("proved_until", sa.String(length=32), nullable=True),
        sa.Column("is_pinned", sa.Boolean(), nullable=False, server_default=sa.false()),
    ):
        steps.add_column("paths", column)
    op.execute(
        """
        UPDATE paths SET
          size_bytes = (SELECT size_bytes FROM entries WHERE entries.id = paths.entry_id),
          mtime_ns = (SELECT mtime_ns FROM entries WHERE entries.id = paths.entry_id),
          recipe = (
            SELECT MAX(derivations.recipe) FROM derivations
            JOIN derivation_outputs ON derivation_outputs.derivation_id = derivations.id
            WHERE derivation_outputs.entry_id = paths.entry_id
          ),
          proved_until = (
            SELECT MAX(valid_until) FROM proofs WHERE proofs.entry_id = paths.entry_id
            AND proofs.id NOT IN (SELECT proof_id FROM revocations)
          )
        """
    )
    pins = sa.table("pins", sa.column("entry_id"), sa.column("made_at"), sa.column("is_pinned"))
    paths = sa.table("paths", sa.column("entry_id"), sa.column("is_pinned", sa.Boolean()))
    later = pins.alias("later")
    pinned = sa.select(pins.c.entry_id).where(
        pins.c.is_pinned.is_(sa.true()),
        ~sa.exists().where(later.c.entry_id == pins.c.entry_id, later.c.made_at > pins.c.made_at),
    )
    op.execute(sa.update(paths).where(paths.c.entry_id.in_(pinned)).values(is_pinned=sa.true()))
    steps.drop_index("paths_by_parent", "paths")
    steps.create_index("paths_by_parent", "paths", ["store_id", "parent"])
    steps.drop_index("paths_by_state", "paths")
    steps.create_index(
        "paths_summary",
        "paths",
        ["store_id", "state", "recipe", "is_pinned", "proved_until", "mtime_ns", "size_bytes"],
    )
