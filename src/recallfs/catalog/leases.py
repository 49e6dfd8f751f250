"""Leases in the catalog: each change of hands is one statement, so that one caller wins."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import sqlalchemy as sa

from recallfs.catalog import schema
from recallfs.catalog.engine import insert_new
from recallfs.catalog.view import View


class Lease(NamedTuple):
    """What the catalog says of a lease."""

    fence: int
    beat: int
    holder: str | None
    failure: str | None


class Leases(View):
    """The part of the catalog that leases are in; see `recallfs.resolve.lease`."""

    def lease(self, key: str) -> Lease | None:
        """Return a lease as it is."""
        query = sa.select(schema.leases).where(schema.leases.c.key == key)
        row = self._database.query(lambda connection: connection.execute(query).one_or_none())
        return None if row is None else Lease(row.fence, row.beat, row.holder, row.failure)

    def take_lease(self, key: str, holder: str, *, instead_of: Lease | None) -> int | None:
        """Take a lease that is free, or exactly as `instead_of` describes.

        Parameters
        ----------
        holder : str
            Names this very attempt, and no other.

        Returns
        -------
        int or None
            The fencing number; None if somebody else was quicker.
        """
        columns = schema.leases.c
        is_free: sa.ColumnElement[bool] = columns.holder.is_(None)
        if instead_of is not None:
            same = (columns.fence == instead_of.fence) & (columns.beat == instead_of.beat)
            is_free = is_free | same
        take = (
            sa.update(schema.leases)
            .where(columns.key == key, is_free)
            .values(fence=columns.fence + 1, beat=0, holder=holder, failure=None)
        )
        found = sa.select(columns.fence, columns.holder).where(columns.key == key)

        def change(connection: sa.Connection) -> int | None:
            if not connection.execute(take).rowcount:
                new = {"key": key, "fence": 1, "beat": 0, "holder": holder, "failure": None}
                insert_new(connection, schema.leases, [new])
            row = connection.execute(found).one()
            return int(row.fence) if row.holder == holder else None

        return self._database.transact(change)

    def beat_lease(self, key: str, fence: int) -> bool:
        """Say that the holder is alive; False if the lease was taken over."""
        return self._update_lease(key, fence, beat=schema.leases.c.beat + 1)

    def beat_leases(self, fences: Mapping[str, int]) -> set[str]:
        """Beat for several leases, by key, in one transaction; return those taken over."""
        columns = schema.leases.c

        def change(connection: sa.Connection) -> set[str]:
            return {
                key
                for key, fence in sorted(fences.items())
                if not connection.execute(
                    sa.update(schema.leases)
                    .where(columns.key == key, columns.fence == fence, columns.holder.is_not(None))
                    .values(beat=columns.beat + 1)
                ).rowcount
            }

        return self._database.transact(change)

    def free_lease(self, key: str, fence: int, failure: str | None = None) -> bool:
        """Give a lease back, with the reason if the work failed; False if it was taken over."""
        return self._update_lease(key, fence, holder=None, failure=failure)

    def _update_lease(self, key: str, fence: int, **values: Any) -> bool:
        columns = schema.leases.c
        update = (
            sa.update(schema.leases)
            .where(columns.key == key, columns.fence == fence, columns.holder.is_not(None))
            .values(**values)
        )
        return self._database.transact(lambda connection: bool(connection.execute(update).rowcount))
