"""Derivations hold what they cost: processor time and memory."""

from __future__ import annotations

import sqlalchemy as sa

from recallfs.catalog.migrations import steps

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns; of runs before this nothing is known."""
    steps.add_column("derivations", sa.Column("cpu_seconds", sa.Double(), nullable=True))
    steps.add_column("derivations", sa.Column("peak_memory_bytes", sa.BigInteger(), nullable=True))
