"""Run the catalog's migrations on the connection that the caller opened."""

from __future__ import annotations

from alembic import context

from recallfs.catalog.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table="schema_version",
)
with context.begin_transaction():
    context.run_migrations()
