"""Kachery: files known by their sha1, in a local cache, a zone's bucket or a lab's resource.

Look-ups need neither the client nor keys. Nothing that Kachery says is believed: a gateway takes
any bytes under any name, and the client's cache holds whatever a download left.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from recallfs.atomic import is_regular
from recallfs.catalog.sidecar import Record
from recallfs.catalog.store import Store
from recallfs.config import KacherySettings
from recallfs.errors import (
    AccessError,
    ConflictError,
    IntegrityError,
    InvalidInputError,
    NotRecallableError,
    RecallError,
    SourceError,
    SourceTimeoutError,
)
from recallfs.sources.base import Fetched, Found, Holding, Offer, Placed, Progress, Request
from recallfs.sources.kachery_upload import check_client, check_keys, send
from recallfs.sources.kachery_uri import KacheryURI
from recallfs.sources.remote import Candidate, DownloadingSource, Questions, client, deadlines_of
from recallfs.sources.rereading import read_right
from recallfs.transfer.addresses import shown
from recallfs.transfer.remote import FsspecRemote, HttpRemote, Location, Remote
from recallfs.values import Copy, format_size, now_utc

DEFAULT_GATEWAY = "https://kachery-gateway.figurl.org"
DEFAULT_ZONE = "default"
CLOCK_TOLERANCE_S = 30.0
"""How far a gateway lets a request's time be from its own."""

_RESOURCE_POLL_S = 0.5
_RESOURCE_WAIT_S = 2.0

_clocks: dict[str, float] = {}
"""How far the clocks of gateways are ahead of this computer's, in seconds."""


@dataclass(frozen=True)
class _Object:
    """What a gateway said of a file."""

    url: str = field(repr=False)
    size_bytes: int | None


@dataclass(frozen=True)
class _Handle:
    """What a look-up learnt.

    Parameters
    ----------
    uri : KacheryURI
        Under which the file was found.
    known : _Object, optional
        None if the gateway was not asked yet.
    is_uploading : bool
        Whether a lab's resource has to send it to the bucket first.
    liars : tuple of RecallError
        What is wrong in the local cache.
    """

    uri: KacheryURI
    known: _Object | None = field(default=None, repr=False)
    is_uploading: bool = False
    liars: tuple[RecallError, ...] = ()


class KacherySource(DownloadingSource):
    """Files in Kachery.

    Parameters
    ----------
    settings : KacherySettings
        What is not given is taken from the client's variables, then from its defaults.
    """

    kind = name = "kachery"

    settings: KacherySettings

    def __init__(self, settings: KacherySettings) -> None:
        super().__init__(settings)

    @property
    def gateway(self) -> str:
        """URL of the gateway."""
        url = self.settings.gateway_url or os.environ.get("KACHERY_GATEWAY_URL")
        return (url or DEFAULT_GATEWAY).rstrip("/")

    @property
    def zone(self) -> str:
        """Name of the zone."""
        return self.settings.zone or os.environ.get("KACHERY_ZONE") or DEFAULT_ZONE

    @property
    def resource(self) -> str | None:
        """URL of a lab's resource, if there is one."""
        return self.settings.resource_url or os.environ.get("KACHERY_RESOURCE_URL") or None

    @property
    def folder(self) -> Path:
        """Folder of the client: its keys and its cache."""
        if self.settings.folder is not None:
            return self.settings.folder
        sandbox = os.environ.get("KACHERY_CLOUD_SANDBOX_DIR")
        if os.environ.get("KACHERY_CLOUD_USE_SANDBOX") == "1" and sandbox:
            return Path(sandbox)
        named = os.environ.get("KACHERY_CLOUD_DIR")
        return Path(named) if named else Path.home() / ".kachery-cloud"

    @property
    def place(self) -> str:
        """Gateway, zone and resource."""
        return repr((self.gateway, self.zone, self.resource))

    def failure_domain(self) -> str:
        """Return what fails together with it: the gateway, unless it is configured."""
        return self.settings.failure_domain or f"kachery:{_host(self.gateway)}"

    def addresses(self, record: Record) -> list[KacheryURI]:
        """Return the addresses that an entry may have: recorded ones, then by its sha1."""
        uris = []
        for copy in record.copies:
            if copy.source == self.name:
                # One that cannot be read is none: it was written by something else.
                try:
                    uris.append(KacheryURI.parse(copy.location))
                except InvalidInputError:
                    continue
        if record.entry.sha1:
            uris.append(KacheryURI(record.entry.sha1))
        by_place = {(uri.sha1, uri.zone or self.zone, uri.is_second): uri for uri in uris}
        return list(by_place.values())

    def offer(self, store: Store, record: Record) -> Offer | None:
        """Offer to ask by sha1, if that is known."""
        uris = self.addresses(record)
        if not uris:
            return None
        is_recorded = any(copy.source == self.name for copy in record.copies)
        return Offer(
            self.name,
            f"ask {shown(self.gateway)} (zone {self.zone}) for sha1 {uris[0].sha1[:16]}…",
            is_sure=is_recorded,
        )

    def look_up(self, store: Store, record: Record) -> Found:
        """Look into the local cache, then ask the gateway, then a lab's resource."""
        liars = []
        for uri in self.addresses(record):
            for path in self._cached(uri):
                wrong = self._wrong_size(path, record)
                if wrong is None:
                    what = f"in the Kachery cache of this computer, {path}"
                    return Found(what, record.entry.size_bytes, handle=_Handle(uri))
                liars.append(wrong)
        return self._look_beyond(record, tuple(liars))

    def _look_beyond(self, record: Record, liars: tuple[RecallError, ...]) -> Found:
        """Ask others than this computer."""
        questions = Questions(self.settings, self.name)
        uris = self.addresses(record)
        asked = []
        for uri in uris:
            known = self._find(questions, uri)
            where = f"zone {uri.zone or self.zone} of {_host(self.gateway)}"
            if known is not None:
                _check_size(self.name, where, known, record)
                handle = _Handle(uri, known, liars=liars)
                return Found(f"{where}, by sha1", known.size_bytes, handle=handle)
            asked.append(f"{where} has no sha1 {uri.sha1}")
        for uri in uris if self.resource else ():
            status = self._ask_resource(questions, uri, wait_s=0.0)
            if status["status"] in ("queued", "running", "completed"):
                handle = _Handle(uri, is_uploading=True, liars=liars)
                return Found(f"a file that {_host(self.resource or '')} sends", handle=handle)
            asked.append(f"the resource {_host(self.resource or '')} has it not either")
        if liars:
            raise liars[0]
        raise NotRecallableError(
            f"kachery: {'; '.join(asked) or 'no sha1 is known to ask by'}.",
            details={"source": self.name},
        )

    def candidates(self, request: Request) -> Iterator[Candidate]:
        """Return the file in the local cache, then the object in the bucket."""
        record = request.record
        found = request.found or self.look_up(request.store, record)
        handle: _Handle = found.handle
        if handle.known is None and not handle.is_uploading:
            for uri in self.addresses(record):
                for path in self._cached(uri):
                    if self._wrong_size(path, record) is None:
                        yield Candidate(self._local(path), "in the local cache")
            # What is cached is wrong, or is gone: nobody else was asked yet.
            handle = self._look_beyond(record, handle.liars).handle
        if handle.is_uploading:
            self._await_resource(handle.uri, request.cancelled)
        yield Candidate(self.remote(handle.uri, record, handle.known), "by sha1")

    def fetch(self, request: Request) -> Fetched:
        """Download the first candidate whose bytes are right."""
        fetched = super().fetch(request)
        handle = request.found.handle if request.found is not None else None
        if handle is None or not handle.liars:
            return fetched
        said = tuple(error.message for error in handle.liars)
        return replace(fetched, liars=(*said, *fetched.liars))

    def remote(self, uri: KacheryURI, record: Record, known: _Object | None = None) -> Remote:
        """Return the object in the bucket; its URL is asked for again when it has expired.

        Parameters
        ----------
        known : object, optional
            What `look_up` was told of it.
        """

        def locate(is_expired: bool) -> Location:
            nonlocal known
            if known is None or is_expired:
                known = self._find(Questions(self.settings, self.name), uri)
            if known is None:
                raise NotRecallableError(
                    f"{_host(self.gateway)} has no sha1 {uri.sha1} any more.",
                    details={"source": self.name},
                )
            return Location(known.url)

        return HttpRemote(client(), locate, deadlines=deadlines_of(self.settings), source=self.name)

    def copies(self, store: Store, record: Record) -> Sequence[Holding]:
        """Return the objects in the bucket; what is cached here, or only linked, is no copy."""
        recorded = {copy.location for copy in record.copies if copy.source == self.name}
        holdings = []
        for uri in self.addresses(record):
            # As it is on record, which may be in other words than ours.
            same = (place for place in recorded if _is_uri(place, uri))
            location = next(same, str(uri))
            holdings.append(Holding(location, self.remote(uri, record), content_addressed=True))
        return holdings

    def refuse_push(self, store: Store) -> None:
        """Raise if the client is not installed, has no keys, or the store is offline."""
        if store.settings.offline:
            raise InvalidInputError(
                f"the store {store.name!r} is offline: Kachery is not used for its files."
            )
        check_client()
        check_keys(self.folder)

    def put(
        self, store: Store, record: Record, file: Path, progress: Progress | None = None
    ) -> Placed:
        """Send a file by the real client, and read it back whole."""
        self.refuse_push(store)
        sha1 = record.entry.sha1
        uri = KacheryURI(sha1, "" if self.zone == DEFAULT_ZONE else self.zone, file.name)
        remote = self.remote(uri, record)
        deadlines = deadlines_of(self.settings)

        def read_back() -> Copy:
            read_right(remote, record, deadlines=deadlines, progress=progress)
            return Copy(self.name, str(uri), self.failure_domain(), True, now_utc())

        try:
            return Placed(read_back(), is_new=False)
        except NotRecallableError:
            pass
        except IntegrityError as error:
            raise ConflictError(
                f"{_host(self.gateway)} holds other bytes under sha1 {sha1}; they were left as "
                "they are. Ask whoever runs the zone to delete them.",
                details=error.details,
            ) from error
        total = self.settings.total_timeout
        try:
            send(
                file,
                sha1,
                folder=self.folder,
                gateway=self.gateway,
                zone=self.zone,
                label=file.name,
                timeout_s=None if total is None else total.total_seconds(),
            )
        except SourceError as error:
            if error.details.get("is_unknown"):
                self._check_clock()
            raise
        if progress is not None:
            progress(record.entry.size_bytes)
        return Placed(read_back(), is_new=True)

    def _check_clock(self) -> None:
        """Raise if the gateway takes no signature of this computer because of its clock."""
        ahead_s = clock_of(self.gateway, Questions(self.settings, self.name))
        if ahead_s is not None and abs(ahead_s) > CLOCK_TOLERANCE_S:
            raise SourceError(
                f"this computer's clock and that of {_host(self.gateway)} are {abs(ahead_s):.0f} s "
                f"apart, and uploads are signed with a time that may be {CLOCK_TOLERANCE_S:.0f} s "
                "off; set the clock, then try again.",
                details={"source": self.name, "ahead_s": round(ahead_s)},
            )

    def probe(self) -> None:
        """Ask for a file that nobody has."""
        self._find(Questions(self.settings, self.name), KacheryURI("0" * 40))

    # --- the cache of the client on this computer

    def _cached(self, uri: KacheryURI) -> list[Path]:
        """Return the files that the client would take for this one."""
        sha1 = uri.sha1
        places = [self.folder / "sha1" / sha1[:2] / sha1[2:4] / sha1[4:6] / sha1]
        shared = os.environ.get("KACHERY_STORE_FILE_DIR")
        if shared:
            places.append(Path(shared) / "sha1" / sha1)
        # A linked file is the original itself, wherever it lies: no copy, so not looked for.
        return [place for place in places if _is_file(place)]

    def _wrong_size(self, path: Path, record: Record) -> IntegrityError | None:
        try:
            size = path.stat().st_size
        except OSError:
            size = -1
        if size == record.entry.size_bytes:
            return None
        return IntegrityError(
            f"kachery's cache holds other bytes (by sha1, {path}): {size} bytes, on record are "
            f"{record.entry.size_bytes}.",
            details={"expected": record.entry.size_bytes, "actual": size, "source": self.name},
        )

    def _local(self, path: Path) -> Remote:
        deadlines = deadlines_of(self.settings)
        return FsspecRemote(f"file:{path.absolute()}", {}, deadlines=deadlines, source=self.name)

    # --- the gateway

    def _find(self, questions: Questions, uri: KacheryURI) -> _Object | None:
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
        url = f"{self.gateway}/api/gateway"
        for is_second in (False, True):
            now_ms = int((time.time() + _clocks.get(self.gateway, 0.0)) * 1000)
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
        ahead_s = clock_of(self.gateway, questions)
        if ahead_s is None or abs(ahead_s - _clocks.get(self.gateway, 0.0)) < CLOCK_TOLERANCE_S / 2:
            return False
        _clocks[self.gateway] = ahead_s
        return True

    def _check_zone(self, questions: Questions, zone: str) -> None:
        """Raise if the gateway says that there is no such zone."""
        now_ms = int((time.time() + _clocks.get(self.gateway, 0.0)) * 1000)
        payload = {"type": "getZoneInfo", "zoneName": zone, "timestamp": now_ms}
        try:
            url = f"{self.gateway}/api/gateway"
            reply = questions.json("POST", url, payload={"payload": payload})
        except RecallError:
            return
        if isinstance(reply.body, dict) and reply.body.get("found") is False:
            raise SourceError(
                f"{_host(self.gateway)} knows no zone {zone!r}; check KACHERY_ZONE, or zone in "
                "[sources.kachery].",
                details={"source": self.name, "zone": zone},
            )

    def _ask_second(self, questions: Questions, sha1: str, zone: str) -> Any:
        """Ask what kachery 2 asks."""
        payload = {"type": "findFileRequest", "hashAlg": "sha1", "hash": sha1, "zoneName": zone}
        token = os.environ.get("KACHERY_API_KEY")
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        url = f"{self.gateway}/api/findFile"
        try:
            reply = questions.json("POST", url, payload=payload, headers=headers)
        except AccessError as error:
            why = "does not accept the key in" if token else "wants a key; set"
            raise AccessError(
                f"{_host(self.gateway)} {why} KACHERY_API_KEY, to read its zone {zone}.",
                details=error.details,
            ) from None
        except SourceError as error:
            if error.details.get("status") != 400:
                raise
            raise SourceError(
                f"{_host(self.gateway)} knows no zone {zone!r}; check KACHERY_ZONE, or zone in "
                "[sources.kachery].",
                details=error.details,
            ) from None
        if reply.status in (404, 410):
            raise SourceError(
                f"{shown(self.gateway)} is no Kachery gateway; check KACHERY_GATEWAY_URL, or "
                "gateway_url in [sources.kachery].",
                details={"source": self.name, "url": shown(self.gateway)},
            )
        return reply.body

    def _object(self, body: Any) -> _Object | None:
        """Read what a gateway answered."""
        found = body.get("found") if isinstance(body, dict) else None
        if found is False:
            return None
        url = body.get("url") if found is True else None
        if not isinstance(url, str) or not url:
            raise SourceError(
                f"{_host(self.gateway)} answered something else than where a file is; is it a "
                "Kachery gateway?",
                details={"source": self.name},
            )
        size = body.get("size")
        is_size = isinstance(size, int) and not isinstance(size, bool) and size >= 0
        # A URL from the gateway's own memory comes without a size: it did not look.
        is_told = is_size and not (size == 0 and body.get("cacheHit"))
        return _Object(url, size if is_told else None)

    # --- a lab's resource

    def _ask_resource(
        self, questions: Questions, uri: KacheryURI, wait_s: float
    ) -> Mapping[str, Any]:
        """Ask a lab's resource to send a file to the bucket; return how far it is."""
        url = self.resource or ""
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
                details={"source": self.name, "url": shown(url)},
            )
        if status["status"] == "error":
            raise SourceError(
                f"the resource {shown(url)} could not send the file.", details={"source": self.name}
            )
        return status

    def _await_resource(self, uri: KacheryURI, cancelled: threading.Event) -> None:
        """Wait until a resource has sent a file, as long as that gets on."""
        deadlines = deadlines_of(self.settings)
        start = moved = time.monotonic()
        sent = -1
        while True:
            questions = Questions(self.settings, self.name)
            status = self._ask_resource(
                questions, uri, min(_RESOURCE_WAIT_S, deadlines.answer_s / 2)
            )
            if status["status"] == "completed":
                return
            if status["status"] not in ("queued", "running"):
                raise NotRecallableError(
                    f"the resource {shown(self.resource or '')} has no sha1 {uri.sha1} any more.",
                    details={"source": self.name},
                )
            now = time.monotonic()
            so_far = status.get("bytesUploaded")
            if isinstance(so_far, int) and so_far > sent:
                sent, moved = so_far, now
            total_s = deadlines.total_s
            if now - moved > deadlines.read_s or (total_s is not None and now - start > total_s):
                raise SourceTimeoutError(
                    f"the resource {shown(self.resource or '')} did not send the file within "
                    f"{now - start:.0f} s ({format_size(max(0, sent))} so far).",
                    details={"source": self.name},
                )
            if cancelled.wait(_RESOURCE_POLL_S):
                raise SourceError("the download was cancelled.", details={"source": self.name})


def clock_of(gateway: str, questions: Questions) -> float | None:
    """Return how far a gateway's clock is ahead of this computer's, in seconds, if it says so."""
    try:
        with client().open(gateway, deadlines=questions.deadlines, source="kachery") as body:
            there = parsedate_to_datetime(body.headers.get("date", ""))
    except (RecallError, TypeError, ValueError, IndexError):
        return None
    return (there - datetime.now(timezone.utc)).total_seconds()


def _check_size(source: str, where: str, known: _Object, record: Record) -> None:
    if known.size_bytes in (None, record.entry.size_bytes):
        return
    raise IntegrityError(
        f"{source} holds other bytes (by sha1, {where}): {known.size_bytes} bytes, on record are "
        f"{record.entry.size_bytes}.",
        details={
            "expected": record.entry.size_bytes, "actual": known.size_bytes, "source": source,
        },
    )  # fmt: skip


def _is_file(path: Path) -> bool:
    try:
        return is_regular(path)
    except OSError:
        return False


def _is_uri(text: str, uri: KacheryURI) -> bool:
    try:
        return KacheryURI.parse(text) == uri
    except InvalidInputError:
        return False


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or shown(url)
    except ValueError:
        return shown(url)
