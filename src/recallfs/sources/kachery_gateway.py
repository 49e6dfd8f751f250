"""What a Kachery gateway and a lab's resource are asked, and how they answer; nothing is signed."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

from recallfs.config import KacherySettings
from recallfs.errors import (
    AccessError,
    NotRecallableError,
    RecallError,
    SourceError,
    SourceTimeoutError,
)
from recallfs.sources.kachery_uri import KacheryURI
from recallfs.sources.remote import Questions, client, deadlines_of
from recallfs.transfer.addresses import shown
from recallfs.values import format_size

DEFAULT_GATEWAY = "https://kachery-gateway.figurl.org"
DEFAULT_ZONE = "default"
CLOCK_TOLERANCE_S = 30.0
"""How far a gateway lets a request's time be from its own."""

_NAME = "kachery"
_RESOURCE_POLL_S = 0.5
_RESOURCE_WAIT_S = 2.0

_clocks: dict[str, float] = {}
"""How far the clocks of gateways are ahead of this computer's, in seconds."""


@dataclass(frozen=True)
class StoredObject:
    """What a gateway said of a file."""

    url: str = field(repr=False)
    size_bytes: int | None


class Gateway:
    """A gateway, one of its zones, and a lab's resource beside it.

    Parameters
    ----------
    settings : KacherySettings
        What is not given is taken from the client's variables, then from its defaults.
    """

    def __init__(self, settings: KacherySettings) -> None:
        self.settings = settings
        url = settings.gateway_url or os.environ.get("KACHERY_GATEWAY_URL")
        self.url = (url or DEFAULT_GATEWAY).rstrip("/")
        self.zone = settings.zone or os.environ.get("KACHERY_ZONE") or DEFAULT_ZONE
        self.resource = settings.resource_url or os.environ.get("KACHERY_RESOURCE_URL") or ""

    @property
    def host(self) -> str:
        """Host of the gateway, for people."""
        return host_of(self.url)

    def questions(self) -> Questions:
        """Begin a look-up, which shares one deadline."""
        return Questions(self.settings, _NAME)

    def check_clock(self) -> None:
        """Raise if the gateway takes no signature of this computer because of its clock."""
        ahead_s = clock_of(self.url, self.questions())
        if ahead_s is not None and abs(ahead_s) > CLOCK_TOLERANCE_S:
            raise SourceError(
                f"this computer's clock and that of {self.host} are {abs(ahead_s):.0f} s "
                f"apart, and uploads are signed with a time that may be {CLOCK_TOLERANCE_S:.0f} s "
                "off; set the clock, then try again.",
                details={"source": _NAME, "ahead_s": round(ahead_s)},
            )

    def find(self, questions: Questions, uri: KacheryURI) -> StoredObject | None:
        """Ask the gateway for a file; None if it has it not."""
        zone = uri.zone or self.zone
        if not uri.is_second:
            payload = {"type": "findFile", "hashAlg": "sha1", "hash": uri.sha1, "zone": zone}
            answer = self._ask(questions, payload)
            if answer is not None:
                return self._object(answer)
        body = self._ask_second(questions, uri.sha1, zone)
        return self._object(body)

    def _ask(self, questions: Questions, payload: Mapping[str, Any]) -> Any:
        """Ask what kachery_cloud asks, unsigned; None if nothing there understands it."""
        url = f"{self.url}/api/gateway"
        for is_second in (False, True):
            now_ms = int((time.time() + _clocks.get(self.url, 0.0)) * 1000)
            question = {"payload": {**payload, "timestamp": now_ms}}
            try:
                reply = questions.json("POST", url, payload=question)
            except SourceError as error:
                if error.details.get("status") != 500 or is_second:
                    raise
                # It refuses a time that is not its own, and an unknown zone, in the same way.
                if not self._set_clock(questions):
                    self._check_zone(questions, payload["zone"])
                    raise
            else:
                return None if reply.status in (404, 410) else reply.body
        raise AssertionError("unreachable")

    def _set_clock(self, questions: Questions) -> bool:
        """Learn what time it is at the gateway; True if it is another than was thought."""
        ahead_s = clock_of(self.url, questions)
        if ahead_s is None or abs(ahead_s - _clocks.get(self.url, 0.0)) < CLOCK_TOLERANCE_S / 2:
            return False
        _clocks[self.url] = ahead_s
        return True

    def _check_zone(self, questions: Questions, zone: str) -> None:
        """Raise if the gateway says that there is no such zone."""
        now_ms = int((time.time() + _clocks.get(self.url, 0.0)) * 1000)
        payload = {"type": "getZoneInfo", "zoneName": zone, "timestamp": now_ms}
        try:
            url = f"{self.url}/api/gateway"
            reply = questions.json("POST", url, payload={"payload": payload})
        except RecallError:
            return
        if isinstance(reply.body, dict) and reply.body.get("found") is False:
            raise SourceError(
                f"{self.host} knows no zone {zone!r}; check KACHERY_ZONE, or zone in "
                "[sources.kachery].",
                details={"source": _NAME, "zone": zone},
            )

    def _ask_second(self, questions: Questions, sha1: str, zone: str) -> Any:
        """Ask what kachery 2 asks."""
        payload = {"type": "findFileRequest", "hashAlg": "sha1", "hash": sha1, "zoneName": zone}
        token = os.environ.get("KACHERY_API_KEY")
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        url = f"{self.url}/api/findFile"
        try:
            reply = questions.json("POST", url, payload=payload, headers=headers)
        except AccessError as error:
            why = "does not accept the key in" if token else "wants a key; set"
            raise AccessError(
                f"{self.host} {why} KACHERY_API_KEY, to read its zone {zone}.",
                details=error.details,
            ) from None
        except SourceError as error:
            if error.details.get("status") != 400:
                raise
            raise SourceError(
                f"{self.host} knows no zone {zone!r}; check KACHERY_ZONE, or zone in "
                "[sources.kachery].",
                details=error.details,
            ) from None
        if reply.status in (404, 410):
            raise SourceError(
                f"{shown(self.url)} is no Kachery gateway; check KACHERY_GATEWAY_URL, or "
                "gateway_url in [sources.kachery].",
                details={"source": _NAME, "url": shown(self.url)},
            )
        return reply.body

    def _object(self, body: Any) -> StoredObject | None:
        """Read what a gateway answered."""
        found = body.get("found") if isinstance(body, dict) else None
        if found is False:
            return None
        url = body.get("url") if found is True else None
        if not isinstance(url, str) or not url:
            raise SourceError(
                f"{self.host} answered something else than where a file is; is it a "
                "Kachery gateway?",
                details={"source": _NAME},
            )
        size = body.get("size")
        is_size = isinstance(size, int) and not isinstance(size, bool) and size >= 0
        # A URL from the gateway's own memory comes without a size: it did not look.
        is_told = is_size and not (size == 0 and body.get("cacheHit"))
        return StoredObject(url, size if is_told else None)

    def ask_resource(
        self, questions: Questions, uri: KacheryURI, wait_s: float
    ) -> Mapping[str, Any]:
        """Ask a lab's resource to send a file to the bucket; return how far it is."""
        url = self.resource
        message = {
            "type": "requestFromClient",
            "resourceName": url.rstrip("/").rpartition("/")[2],
            "zone": uri.zone or self.zone,
            "request": {
                "type": "fileUpload",
                "uri": f"sha1://{uri.sha1}",
                "timeoutMsec": int(wait_s * 1000),
            },
            "timeoutMsec": int((wait_s + 5) * 1000),
        }
        reply = questions.json("POST", url, payload=message)
        body = reply.body if isinstance(reply.body, dict) else {}
        response = body.get("response")
        status = response.get("status") if isinstance(response, dict) else None
        if reply.status >= 300 or not isinstance(status, dict) or "status" not in status:
            raise SourceError(
                f"the resource {shown(url)} answered something else than how an upload goes; check "
                "KACHERY_RESOURCE_URL, or resource_url in [sources.kachery].",
                details={"source": _NAME, "url": shown(url)},
            )
        if status["status"] == "error":
            raise SourceError(
                f"the resource {shown(url)} could not send the file.", details={"source": _NAME}
            )
        return status

    def await_resource(self, uri: KacheryURI, cancelled: threading.Event) -> None:
        """Wait until a resource has sent a file, as long as that gets on."""
        deadlines = deadlines_of(self.settings)
        start = moved = time.monotonic()
        sent = -1
        while True:
            questions = self.questions()
            status = self.ask_resource(
                questions, uri, min(_RESOURCE_WAIT_S, deadlines.answer_s / 2)
            )
            if status["status"] == "completed":
                return
            if status["status"] not in ("queued", "running"):
                raise NotRecallableError(
                    f"the resource {shown(self.resource)} has no sha1 {uri.sha1} any more.",
                    details={"source": _NAME},
                )
            now = time.monotonic()
            so_far = status.get("bytesUploaded")
            if isinstance(so_far, int) and so_far > sent:
                sent, moved = so_far, now
            total_s = deadlines.total_s
            if now - moved > deadlines.read_s or (total_s is not None and now - start > total_s):
                raise SourceTimeoutError(
                    f"the resource {shown(self.resource)} did not send the file within "
                    f"{now - start:.0f} s ({format_size(max(0, sent))} so far).",
                    details={"source": _NAME},
                )
            if cancelled.wait(_RESOURCE_POLL_S):
                raise SourceError("the download was cancelled.", details={"source": _NAME})


def clock_of(gateway: str, questions: Questions) -> float | None:
    """Return how far a gateway's clock is ahead of this computer's, in seconds, if it says so."""
    try:
        with client().open(gateway, deadlines=questions.deadlines, source="kachery") as body:
            there = parsedate_to_datetime(body.headers.get("date", ""))
    except (RecallError, TypeError, ValueError, IndexError):
        return None
    return (there - datetime.now(timezone.utc)).total_seconds()


def host_of(url: str) -> str:
    """Return the host of a URL, for people."""
    try:
        return urlsplit(url).hostname or shown(url)
    except ValueError:
        return shown(url)
