"""Alembic's environment for the catalog's schema."""
