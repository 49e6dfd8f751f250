"""What a release plan asks of a file beside its path, in one place: proof, recipe and inputs."""

from __future__ import annotations

import sqlalchemy as sa

from recallfs.catalog.migrations import steps
from recallfs.catalog.types import LongText

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add two columns; where they are empty, as of files before this, other tables are asked."""
    steps.add_column("paths", sa.Column("standing", LongText(), nullable=True))
    steps.add_column("paths", sa.Column("made_from", LongText(), nullable=True))
