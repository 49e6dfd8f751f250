"""Deciding at a glance about files that are nothing out of the ordinary; most are not."""

from __future__ import annotations

import math
import stat
from datetime import datetime, timedelta

from recallfs.catalog.evidence import Listed
from recallfs.config import ReleaseSettings
from recallfs.release.looks import Look, Status, look_of
from recallfs.release.policy import Decision, Wanted, proved
from recallfs.values import Level, State

_UNSIGNED = (1 << 64) - 1
"""What unfolds a 64-bit number; see `Listed`."""

_RESIDENT = State.RESIDENT.value


class Glance:
    """Decides about files that are nothing out of the ordinary, as `decide` does and quickly. Pure.

    Parameters
    ----------
    url : str
        Address of the store, to which paths are added.
    lowest : Level, optional
        As in `Candidate`.
    """

    def __init__(
        self, url: str, settings: ReleaseSettings, wanted: Wanted, lowest: Level | None
    ) -> None:
        self._url = url
        self._min_size = wanted.min_size_bytes
        self._older_s = _seconds(wanted.older_than)
        self._idle_s = _seconds(wanted.idle)
        self._kept = settings.max_skeleton if wanted.max_skeleton is None else wanted.max_skeleton
        self._levels = {level.value for level in Level if lowest is None or level.reaches(lowest)}
        self._reasons: dict[tuple[str, str, str], str] = {}

    def decide(self, item: Listed, status: Status, present: float) -> Decision | None:
        """Decide about a resident file that nothing rests on and that rests on resident ones.

        Parameters
        ----------
        status : Status
            Of the file now.
        present : float
            Seconds since the epoch.

        Returns
        -------
        Decision or None
            None if it takes a closer look.
        """
        # At once: of so many files each name that is looked up costs.
        (path, _, state, size, _, mtime_ns, device, inode, seen_size, seen_mtime, seen_ctime,
         is_pinned, kept, recalled_at, proof_id, _, level, method, made_at, seconds, _, _,
         others) = item  # fmt: skip
        (mode, now_device, now_inode, links, now_size, now_mtime, now_ctime, read_at,
         changed_at) = status if isinstance(status, Look) else look_of(status)  # fmt: skip
        if (
            # As `is_as_seen` says it.
            inode is None
            or device is None
            or inode & _UNSIGNED != now_inode
            or seen_ctime != now_ctime
            or seen_mtime != now_mtime
            or seen_size != now_size
            or device & _UNSIGNED != now_device
            or not stat.S_ISREG(mode)
            or state != _RESIDENT
            or made_at is None
            or proof_id is None
            or kept is None
            or method is None
            or level is None
            or level not in self._levels
            or others
            or is_pinned
            or links != 1
            or size < self._min_size
            or kept > self._kept * size
        ):
            return None
        # As `last_uses` says it.
        used = mtime_ns / 1e9
        looked = max(used, read_at, changed_at)
        if recalled_at:
            used, looked = last_uses(mtime_ns, recalled_at, status)
        if present - used < self._older_s or present - looked < self._idle_s:
            return None
        # Half of the proofs of a store were made in the same few nights.
        how = (level, made_at[:10], method)
        reason = self._reasons.get(how)
        if reason is None:
            reason = self._reasons[how] = proved(*how)
        # What `Decision` does, of which there is one call for each of so many files.
        fields = (self._url + path, "release", "", reason, "proof:" + proof_id, size - kept,
                  seconds, present - looked)  # fmt: skip
        return tuple.__new__(Decision, fields)


def is_as_seen(item: Listed, status: Status | None) -> bool:
    """Tell whether a file is the one of which the digests were last known to be right. Pure."""
    return (
        status is not None
        and item.inode is not None
        and item.device is not None
        and stat.S_ISREG(status.st_mode)
        and item.inode & _UNSIGNED == status.st_ino
        and item.seen_ctime_ns == status.st_ctime_ns
        and item.seen_mtime_ns == status.st_mtime_ns
        and item.seen_size_bytes == status.st_size
        and item.device & _UNSIGNED == status.st_dev
    )


def last_uses(mtime_ns: int, recalled_at: str | None, status: Status | None) -> tuple[float, float]:
    """Return when a file was last written or recalled, and last used in any way that shows."""
    used = mtime_ns / 1e9
    if recalled_at:
        used = max(used, datetime.fromisoformat(recalled_at).timestamp())
    if status is None:
        return used, used
    # The time of change: a catalog that was made again knows nothing of earlier recalls.
    return used, max(used, status.st_atime, status.st_ctime)


def _seconds(span: timedelta | None) -> float:
    return -math.inf if span is None else span.total_seconds()
