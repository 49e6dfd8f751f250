"""A source that somebody wrote: it answers what it is told to."""

from __future__ import annotations

import threading
import time
from datetime import timedelta

from recallfs.catalog.sidecar import Record
from recallfs.catalog.store import Store
from recallfs.config import RemoteSettings
from recallfs.errors import NotRecallableError, RecallError
from recallfs.sources.base import Fetched, Found, Offer, RemoteSource, Request

HAS = Found("under its digest", 100)
HAS_NOT = NotRecallableError("it has no such file.")


class Scripted(RemoteSource):
    """Answers the same to all, after a while; brings nothing."""

    kind = "scripted"

    def __init__(
        self,
        name: str = "here",
        answer: Found | RecallError = HAS_NOT,
        *,
        after_s: float = 0.0,
        deadline_s: float = 0.8,
    ) -> None:
        super().__init__(RemoteSettings(answer_timeout=timedelta(seconds=deadline_s)))
        self.name = name
        self.answer = answer
        self.after_s = after_s
        self.asked_at: list[float] = []

    @property
    def place(self) -> str:
        """Its name."""
        return self.name

    def failure_domain(self) -> str:
        """Fail alone."""
        return self.name

    def offer(self, store: Store, record: Record) -> Offer | None:
        """Offer to look."""
        return Offer(self.name, "look there")

    def look_up(self, store: Store, record: Record) -> Found:
        """Note when it was asked, wait, and answer."""
        self.asked_at.append(time.monotonic())
        threading.Event().wait(self.after_s)
        if isinstance(self.answer, RecallError):
            raise self.answer
        return self.answer

    def fetch(self, request: Request) -> Fetched:
        """Have nothing after all."""
        raise HAS_NOT
