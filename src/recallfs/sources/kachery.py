"""Kachery: files known by their sha1, in a local cache, a zone's bucket or a lab's resource.

Look-ups need neither the client nor keys. Nothing that Kachery says is believed: a gateway takes
any bytes under any name, and the client's cache holds whatever a download left.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from recallfs.atomic import is_regular
from recallfs.catalog.sidecar import Record
from recallfs.catalog.store import Store
from recallfs.config import KacherySettings
from recallfs.errors import (
    ConflictError,
    IntegrityError,
    InvalidInputError,
    NotRecallableError,
    RecallError,
    SourceError,
)
from recallfs.sources.base import Fetched, Found, Holding, Offer, Placed, Progress, Request
from recallfs.sources.kachery_gateway import DEFAULT_ZONE, Gateway, StoredObject, host_of
from recallfs.sources.kachery_upload import check_client, check_keys, send
from recallfs.sources.kachery_uri import KacheryURI
from recallfs.sources.remote import Candidate, DownloadingSource, client, deadlines_of
from recallfs.sources.rereading import read_right
from recallfs.transfer.addresses import shown
from recallfs.transfer.remote import FsspecRemote, HttpRemote, Location, Remote
from recallfs.values import Copy, now_utc


@dataclass(frozen=True)
class _Handle:
    """What a look-up learnt.

    Parameters
    ----------
    uri : KacheryURI
        Under which the file was found.
    known : StoredObject, optional
        None if the gateway was not asked yet.
    is_uploading : bool
        Whether a lab's resource has to send it to the bucket first.
    liars : tuple of RecallError
        What is wrong in the local cache.
    """

    uri: KacheryURI
    known: StoredObject | None = field(default=None, repr=False)
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
    def gateway(self) -> Gateway:
        """Who is asked."""
        return Gateway(self.settings)

    @property
    def folder(self) -> Path:
        """Folder of the client: its keys and its cache."""
        if self.settings.folder is not None:
            return self.settings.folder
        named = os.environ.get("KACHERY_CLOUD_DIR")
        return Path(named) if named else Path.home() / ".kachery-cloud"

    @property
    def place(self) -> str:
        """Gateway, zone and resource."""
        gateway = self.gateway
        return repr((gateway.url, gateway.zone, gateway.resource))

    def failure_domain(self) -> str:
        """Return what fails together with it: the gateway, unless it is configured."""
        return self.settings.failure_domain or f"kachery:{self.gateway.host}"

    def addresses(self, record: Record) -> list[KacheryURI]:
        """Return the addresses that an entry may have: recorded ones, then by its sha1."""
        uris, zone = [], self.gateway.zone
        for copy in record.copies:
            if copy.source == self.name:
                # One that cannot be read is none: it was written by something else.
                try:
                    uris.append(KacheryURI.parse(copy.location))
                except InvalidInputError:
                    continue
        if record.entry.sha1:
            uris.append(KacheryURI(record.entry.sha1))
        by_place = {(uri.sha1, uri.zone or zone, uri.is_second): uri for uri in uris}
        return list(by_place.values())

    def offer(self, store: Store, record: Record) -> Offer | None:
        """Offer to ask by sha1, if that is known."""
        uris = self.addresses(record)
        if not uris:
            return None
        is_recorded = any(copy.source == self.name for copy in record.copies)
        gateway = self.gateway
        return Offer(
            self.name,
            f"ask {shown(gateway.url)} (zone {gateway.zone}) for sha1 {uris[0].sha1[:16]}…",
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
        gateway = self.gateway
        questions = gateway.questions()
        uris = self.addresses(record)
        asked = []
        for uri in uris:
            known = gateway.find(questions, uri)
            where = f"zone {uri.zone or gateway.zone} of {gateway.host}"
            if known is not None:
                _check_size(self.name, where, known, record)
                handle = _Handle(uri, known, liars=liars)
                return Found(f"{where}, by sha1", known.size_bytes, handle=handle)
            asked.append(f"{where} has no sha1 {uri.sha1}")
        for uri in uris if gateway.resource else ():
            status = gateway.ask_resource(questions, uri, wait_s=0.0)
            where = host_of(gateway.resource)
            if status["status"] in ("queued", "running", "completed"):
                handle = _Handle(uri, is_uploading=True, liars=liars)
                return Found(f"a file that {where} sends", handle=handle)
            asked.append(f"the resource {where} has it not either")
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
            self.gateway.await_resource(handle.uri, request.cancelled)
        yield Candidate(self.remote(handle.uri, record, handle.known), "by sha1")

    def fetch(self, request: Request) -> Fetched:
        """Download the first candidate whose bytes are right."""
        fetched = super().fetch(request)
        handle = request.found.handle if request.found is not None else None
        if handle is None or not handle.liars:
            return fetched
        said = tuple(error.message for error in handle.liars)
        return replace(fetched, liars=(*said, *fetched.liars))

    def remote(self, uri: KacheryURI, record: Record, known: StoredObject | None = None) -> Remote:
        """Return the object in the bucket; its URL is asked for again when it has expired.

        Parameters
        ----------
        known : StoredObject, optional
            What `look_up` was told of it.
        """
        gateway = self.gateway

        def locate(is_expired: bool) -> Location:
            nonlocal known
            if known is None or is_expired:
                known = gateway.find(gateway.questions(), uri)
            if known is None:
                raise NotRecallableError(
                    f"{gateway.host} has no sha1 {uri.sha1} any more.",
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
        sha1, gateway = record.entry.sha1, self.gateway
        zone = "" if gateway.zone == DEFAULT_ZONE else gateway.zone
        uri = KacheryURI(sha1, zone, file.name)
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
                f"{gateway.host} holds other bytes under sha1 {sha1}; they were left as "
                "they are. Ask whoever runs the zone to delete them.",
                details=error.details,
            ) from error
        total = self.settings.total_timeout
        try:
            send(
                file,
                sha1,
                folder=self.folder,
                gateway=gateway.url,
                zone=gateway.zone,
                label=file.name,
                timeout_s=None if total is None else total.total_seconds(),
            )
        except SourceError as error:
            if error.details.get("is_unknown"):
                gateway.check_clock()
            raise
        if progress is not None:
            progress(record.entry.size_bytes)
        return Placed(read_back(), is_new=True)

    def probe(self) -> None:
        """Ask for a file that nobody has."""
        self.gateway.find(self.gateway.questions(), KacheryURI("0" * 40))

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


def _check_size(source: str, where: str, known: StoredObject, record: Record) -> None:
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
