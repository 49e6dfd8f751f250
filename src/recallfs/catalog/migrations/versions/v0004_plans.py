"""What a release plan asks of many files: what is kept of each, and who is made from its bytes."""

from __future__ import annotations

import sqlalchemy as sa

from recallfs.catalog.migrations import steps

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add a column and an index; what is kept of files before this stands in their sidecars."""
    steps.add_column("paths", sa.Column("kept_bytes", sa.BigInteger(), nullable=True))
    steps.create_index("ix_derivation_inputs_sha256", "derivation_inputs", ["sha256"])
