"""The contract of the catalog, on SQLite and, as services, on PostgreSQL and MariaDB."""

from __future__ import annotations

from pathlib import Path

import pytest

from recallfs.testing.catalog import CatalogContract


class TestSQLite(CatalogContract):
    """In a file of its own."""

    @pytest.fixture
    def url(self, tmp_path: Path) -> str:
        """Give the address of an empty database."""
        return f"sqlite:///{tmp_path / 'catalog.sqlite'}"


@pytest.mark.services
class TestPostgreSQL(CatalogContract):
    """In a server on loopback, as a user who owns nothing but the database."""

    @pytest.fixture
    def url(self, postgresql_url: str) -> str:
        """Give the address of an empty database."""
        return postgresql_url


@pytest.mark.services
class TestMariaDB(CatalogContract):
    """In a server on loopback, as a user who owns nothing but the database."""

    @pytest.fixture
    def url(self, mariadb_url: str) -> str:
        """Give the address of an empty database."""
        return mariadb_url
