"""What sources answered lately: 'absent' is remembered for a while, an outage for seconds.

A source that is dead costs its deadline once; after that it is left alone for some seconds, at each
further failure for longer, then one caller tries it again. All processes of a user share what was
learnt, in a small SQLite file beside the user's cache. It is a convenience: where the file cannot
be used, each process learns for itself.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from recallfs.errors import (
    NotRecallableError,
    RecallError,
    SourceError,
    SourceRateLimitError,
)
from recallfs.sources.base import RemoteSource

FIRST_REST_S = 5.0
LONGEST_REST_S = 60.0
"""How long a source is left alone after its first failure, and at most."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS absent (
    source TEXT, key TEXT, at REAL NOT NULL, message TEXT NOT NULL, PRIMARY KEY (source, key)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS outages (
    source TEXT PRIMARY KEY, failures INTEGER NOT NULL, at REAL NOT NULL, until REAL NOT NULL,
    kind TEXT NOT NULL, message TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS speeds (
    source TEXT PRIMARY KEY, bytes_per_s REAL NOT NULL
) WITHOUT ROWID;
"""
_PATIENCE_S = 1.0
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Outage:
    """Why a source is left alone.

    Parameters
    ----------
    age_s, left_s : float
        Seconds since it failed, and until it is asked again.
    """

    kind: str
    message: str
    age_s: float
    left_s: float


class Memory:
    """What the sources of one user answered lately.

    Parameters
    ----------
    file : Path, optional
        Where processes share it; None for this process alone.
    absent_s : float
        How long 'absent' counts, in seconds.

    Notes
    -----
    Safe to use from several threads and processes at once. Times are by the wall clock, since
    processes share them; what lies in the future is not believed.
    """

    def __init__(self, file: Path | None, absent_s: float) -> None:
        self._file = file
        self._absent_s = absent_s
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._pid = 0

    def check(self, source: RemoteSource, key: str) -> None:
        """Raise what a source answered lately; return if it is to be asked now.

        Raises
        ------
        NotRecallableError
            It said 'absent' for this key a while ago.
        SourceError
            It could not be asked some seconds ago.
        """
        now = time.time()
        message = self._absent(source, key, now)
        if message is not None:
            raise NotRecallableError(message, details={"source": source.name, "remembered": True})
        outage = self._outage(source, now)
        if outage is not None:
            kind = SourceRateLimitError if outage.kind == "source-rate-limited" else SourceError
            raise kind(
                f"{outage.message.rstrip('.')} ({outage.age_s:.0f} s ago; it is asked again in "
                f"{outage.left_s:.0f} s, or now with --refresh).",
                kind=outage.kind,
                details={
                    "source": source.name,
                    "remembered": True,
                    "retry_after_s": round(outage.left_s, 3),
                },
            )

    def note(self, source: RemoteSource, key: str, error: RecallError | None) -> None:
        """Remember what a source answered.

        Parameters
        ----------
        error : RecallError or None
            None if it has the bytes.
        """
        now = time.time()
        if isinstance(error, NotRecallableError):
            self._write(
                "INSERT OR REPLACE INTO absent VALUES (?, ?, ?, ?)",
                (source.identity, key, now, error.message),
            )
        if isinstance(error, SourceError):
            self._note_outage(source, error, now)
        else:
            # It answered, be it that it has not the bytes: it is in reach.
            self._write("DELETE FROM outages WHERE source = ?", (source.identity,))

    def note_speed(self, source: RemoteSource, size_bytes: int, seconds: float) -> None:
        """Remember how fast bytes came; small files tell nothing."""
        if size_bytes < 1 << 20 or seconds <= 0:
            return
        speed = size_bytes / seconds
        known = self.speed(source)
        mean = speed if known is None else 0.7 * known + 0.3 * speed
        self._write("INSERT OR REPLACE INTO speeds VALUES (?, ?)", (source.identity, mean))

    def speed(self, source: RemoteSource) -> float | None:
        """Return how fast a source has been lately, in bytes per second."""
        rows = self._read("SELECT bytes_per_s FROM speeds WHERE source = ?", (source.identity,))
        return float(rows[0][0]) if rows else None

    def forget(self, source: RemoteSource | None = None, key: str | None = None) -> None:
        """Forget answers: of all sources, of one, or of one about one file."""
        if source is None:
            self._write("DELETE FROM absent", ())
            self._write("DELETE FROM outages", ())
            return
        if key is None:
            self._write("DELETE FROM absent WHERE source = ?", (source.identity,))
        else:
            self._write("DELETE FROM absent WHERE source = ? AND key = ?", (source.identity, key))
        self._write("DELETE FROM outages WHERE source = ?", (source.identity,))

    def _absent(self, source: RemoteSource, key: str, now: float) -> str | None:
        rows = self._read(
            "SELECT at, message FROM absent WHERE source = ? AND key = ?", (source.identity, key)
        )
        if not rows or not 0 <= now - rows[0][0] < self._absent_s:
            return None
        return str(rows[0][1])

    def _outage(self, source: RemoteSource, now: float) -> Outage | None:
        query = "SELECT at, until, kind, message FROM outages WHERE source = ?"
        rows = self._read(query, (source.identity,))
        if not rows:
            return None
        at, until, kind, message = rows[0]
        if not at <= now < until:
            # The one who finds the time run out tries; the others leave it alone meanwhile.
            trial = now + source.settings.answer_timeout.total_seconds()
            taken = self._write(
                "UPDATE outages SET at = ?, until = ? WHERE source = ? AND until = ?",
                (min(at, now), trial, source.identity, until),
            )
            if taken or not (rows := self._read(query, (source.identity,))):
                return None
            at, until, kind, message = rows[0]
        return Outage(kind, message, max(0.0, now - at), max(0.0, until - now))

    def _note_outage(self, source: RemoteSource, error: SourceError, now: float) -> None:
        rows = self._read("SELECT failures FROM outages WHERE source = ?", (source.identity,))
        failures = int(rows[0][0]) + 1 if rows else 1
        rest = min(LONGEST_REST_S, FIRST_REST_S * 2 ** min(failures - 1, 10))
        asked = error.details.get("retry_after_s")
        if isinstance(asked, (int, float)):
            rest = min(max(float(asked), 0.0), 3600.0)
        self._write(
            "INSERT OR REPLACE INTO outages VALUES (?, ?, ?, ?, ?, ?)",
            (source.identity, failures, now, now + rest, error.kind, error.message),
        )

    def _read(self, query: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        return self._run(lambda connection: connection.execute(query, values).fetchall()) or []

    def _write(self, query: str, values: Sequence[Any]) -> int:
        return self._run(lambda connection: connection.execute(query, values).rowcount) or 0

    def _run(self, work: Callable[[sqlite3.Connection], _Result]) -> _Result | None:
        """Use the connection; what goes wrong with the file is not the caller's trouble."""
        with self._lock:
            if self._connection is None or self._pid != os.getpid():
                self._connection, self._pid = self._connect(), os.getpid()
            try:
                return work(self._connection)
            except sqlite3.Error:
                with contextlib.suppress(sqlite3.Error):
                    self._connection.close()
                self._connection = _opened(":memory:")
                return None

    def _connect(self) -> sqlite3.Connection:
        if self._file is not None:
            try:
                self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                if not self._file.is_symlink():
                    opened = _opened(str(self._file))
                    # It grows by what is no longer true; here is where that ends.
                    old = time.time() - self._absent_s
                    opened.execute("DELETE FROM absent WHERE at < ?", (old,))
                    return opened
            except (OSError, sqlite3.Error):
                pass
        return _opened(":memory:")


def _opened(name: str) -> sqlite3.Connection:
    connection = sqlite3.connect(
        name, timeout=_PATIENCE_S, isolation_level=None, check_same_thread=False
    )
    connection.execute("PRAGMA synchronous = OFF")
    connection.executescript(_SCHEMA)
    return connection
