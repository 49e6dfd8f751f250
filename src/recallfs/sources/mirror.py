"""Mirrors: any fsspec URL prefix that holds copies, by digest or by path."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from recallfs.catalog.sidecar import Record
from recallfs.catalog.store import Store
from recallfs.config import MirrorSettings
from recallfs.digest.stream import digest_file
from recallfs.errors import (
    ConflictError,
    IntegrityError,
    InvalidInputError,
    NotRecallableError,
    SourceError,
)
from recallfs.mounts import is_within
from recallfs.sources.base import (
    Fetched,
    Found,
    Holding,
    Offer,
    Placed,
    Progress,
    Request,
)
from recallfs.sources.disks import disk_of, given_path, innermost, local_path, store_around
from recallfs.sources.remote import Candidate, DownloadingSource, client, deadlines_of
from recallfs.sources.rereading import digest_remote, read_right
from recallfs.sources.upload import upload
from recallfs.transfer.addresses import shown
from recallfs.transfer.remote import FsspecRemote, HttpRemote, Location, Remote
from recallfs.transfer.timing import Deadlines
from recallfs.values import Copy, now_utc

_HTTP = ("http", "https")
"""Protocols that our own client speaks; their paths are percent-encoded."""

DERIVATION_BYTES = 16 * 1024 * 1024
"""Longest record of a derivation that is read."""


@dataclass(frozen=True)
class _Address:
    """Where an entry may lie below a mirror's URL.

    Parameters
    ----------
    suffix : str
        POSIX path, not encoded.
    sha256 : str
        What lies there, if the address says so; else empty.
    """

    suffix: str
    how: str
    sha256: str = ""


@dataclass(frozen=True)
class _Handle:
    """What a look-up learnt: what to fetch, and what is of the wrong size."""

    candidates: Sequence[Candidate]
    liars: tuple[str, ...]


class MirrorSource(DownloadingSource):
    """Copies under a URL prefix.

    Parameters
    ----------
    settings : MirrorSettings
        Name, URL and fsspec options.

    Notes
    -----
    ``http:`` and ``https:`` are read by recallfs' own client. It takes the options that fsspec
    hands to its own: ``headers``, and ``client_kwargs`` with ``headers`` in it; a user and password
    in the URL are sent as well.
    """

    kind = "mirror"

    settings: MirrorSettings

    def __init__(self, settings: MirrorSettings) -> None:
        super().__init__(settings)
        self.name = f"mirror:{settings.name}"

    @property
    def protocol(self) -> str:
        """Name of the URL's protocol, as fsspec has it."""
        return urlsplit(innermost(self.settings.url)).scheme or "file"

    @property
    def place(self) -> str:
        """URL and options."""
        return repr((self.settings.url, sorted(self.settings.options.items())))

    @property
    def shown(self) -> str:
        """The URL as it may be shown."""
        return shown(self._url)

    def failure_domain(self) -> str:
        """Return what fails together with this mirror."""
        if self.settings.failure_domain:
            return self.settings.failure_domain
        folder = local_path(self.settings.url)
        if folder is not None:
            return disk_of(folder)
        return f"{self.protocol}:{urlsplit(innermost(self.settings.url)).hostname or ''}"

    def offer(self, store: Store, record: Record) -> Offer | None:
        """Offer to look under both addresses."""
        return Offer(self.name, f"look under {self.shown} by digest, then by path")

    def look_up(self, store: Store, record: Record) -> Found:
        """Ask by digest, then by path, until something of the right size is there."""
        self._refuse_inside(store)
        end = time.monotonic() + self.settings.answer_timeout.total_seconds()
        addresses = self._addresses(record)
        wrong: IntegrityError | None = None
        for number, address in enumerate(addresses):
            remote = self._remote(address.suffix, self._within(end - time.monotonic()))
            try:
                size = remote.stat().size_bytes
            except NotRecallableError:
                continue
            if size is not None and size not in _sizes(record, address.sha256):
                wrong = wrong or self._mismatch(record, address, remote, f"{size} bytes")
                continue
            # Those before it are absent or wrong; should its bytes be, those after it are tried.
            left = tuple(self._candidate(item) for item in addresses[number:])
            handle = _Handle(left, () if wrong is None else (wrong.message,))
            return Found(f"{address.how}, {remote.describe}", size, handle=handle)
        if wrong is not None:
            raise wrong
        self._check_folder()
        raise self._absent()

    def candidates(self, request: Request) -> Sequence[Candidate]:
        """Return what may hold the bytes, in order."""
        if request.found is not None and request.found.handle is not None:
            handle: _Handle = request.found.handle
            return handle.candidates
        return [self._candidate(address) for address in self._addresses(request.record)]

    def fetch(self, request: Request) -> Fetched:
        """Download the first candidate whose bytes are right."""
        self._refuse_inside(request.store)
        try:
            fetched = super().fetch(request)
        except NotRecallableError:
            self._check_folder()
            raise self._absent() from None
        said = request.found.handle.liars if request.found and request.found.handle else ()
        return replace(fetched, liars=(*said, *fetched.liars))

    def probe(self) -> None:
        """Ask for something that the mirror does not have; it answers if it is in reach."""
        self._check_folder()
        end = self.settings.answer_timeout.total_seconds()
        try:
            self._remote(f"sha256/00/00/{'0' * 64}", self._within(end)).stat()
        except NotRecallableError:
            return

    def copies(self, store: Store, record: Record) -> Sequence[Holding]:
        """Return where it may hold the entry's bytes: by each digest, by path, as recorded."""
        doubt = ""
        if "::" in self.settings.url:
            doubt = "what a chained URL reads may come from a cache on this computer"
        elif (inside := store_around(self.settings.url, store)) is not None:
            doubt = inside
        elif (folder := local_path(self.settings.url)) and is_within(store.root, folder):
            doubt = f"the store is inside {folder}"
        return [
            Holding(
                self.location(address.suffix),
                self._remote(address.suffix, deadlines_of(self.settings)),
                content_addressed=bool(address.sha256),
                doubt=doubt or self._disguise(address, store, record),
            )
            for address in self._addresses(record)
        ]

    def location(self, suffix: str) -> str:
        """Return the address of something below the mirror's URL, as it is recorded and shown."""
        return f"{self.shown.rstrip('/')}/{suffix}"

    def refuse_push(self, store: Store) -> None:
        """Raise if nothing of this store can be pushed to it."""
        inside = store_around(self.settings.url, store)
        if inside is not None:
            raise InvalidInputError(
                f"{self.name} is no place to push to: {inside}. Give it a URL elsewhere."
            )
        if "::" in self.settings.url:
            raise InvalidInputError(
                f"{self.name} cannot be pushed to: its URL is a chain; push to a mirror with the "
                "URL at its end."
            )
        if self.protocol in _HTTP:
            raise InvalidInputError(
                f"{self.name} cannot be pushed to: it is read over HTTP, which is not written to. "
                "Configure the same place by a URL that can be (file, ssh, s3, …)."
            )
        self._check_folder()

    def put(
        self, store: Store, record: Record, file: Path, progress: Progress | None = None
    ) -> Placed:
        """Copy a file there under the mirror's layout, never over other bytes."""
        self.refuse_push(store)
        sha256 = record.entry.sha256
        if len(record.accepted) > 1:
            sha256 = digest_file(file).sha256
        suffix = self.suffix_for(record, sha256)
        remote = self._remote(suffix, deadlines_of(self.settings))
        by_digest = self.settings.layout == "sha256"
        location = self.location(suffix)

        def copy() -> Copy:
            return Copy(self.name, location, self.failure_domain(), by_digest, now_utc())

        for _ in range(2):
            known = [c for c in record.copies if (c.source, c.location) == (self.name, location)]
            try:
                if known and known[-1].verified_at and self._has_size(remote, record):
                    return Placed(known[-1], is_new=False)
                read_right(remote, record, deadlines=deadlines_of(self.settings), progress=progress)
                return Placed(copy(), is_new=False)
            except NotRecallableError:
                pass
            except IntegrityError as error:
                raise ConflictError(
                    f"{self.name} holds other bytes at {location}; both were left as they are. "
                    "Move them away, or push to another mirror.",
                    details={**error.details, "source": self.name, "url": location},
                ) from error
            try:
                upload(
                    self._url,
                    self.settings.options,
                    file,
                    suffix,
                    source=self.name,
                    progress=progress,
                    check=lambda name: self._check_written(name, record, progress),
                )
            except ConflictError:
                continue  # somebody else has put something there since it was looked at
            return Placed(copy(), is_new=True)
        raise ConflictError(
            f"another process is writing {location} of {self.name}; try again.", kind="in-use"
        )

    def suffix_for(self, record: Record, sha256: str) -> str:
        """Return where a file is put below the URL, by the mirror's layout."""
        return by_digest(sha256) if self.settings.layout == "sha256" else record.entry.path

    def derivation(self, key: str) -> bytes | None:
        """Return the record of a derivation that was made elsewhere; None if there is none.

        Raises
        ------
        SourceError, AccessError
            It could not be asked.
        IntegrityError
            It is too large to be one.
        """
        deadlines = self._within(self.settings.answer_timeout.total_seconds())
        remote = self._remote(derivation_suffix(key), deadlines)
        content = b""
        try:
            with remote.read(0, None) as stream:
                buffer = memoryview(bytearray(65536))
                while count := stream.readinto(buffer):
                    content += buffer[:count]
                    if len(content) > DERIVATION_BYTES:
                        raise IntegrityError(
                            f"{remote.describe} is too large for the record of a derivation.",
                            kind="damaged-record",
                        )
        except NotRecallableError:
            self._check_folder()
            return None
        return content

    def put_derivation(self, key: str, file: Path) -> bool:
        """Write the record of a derivation, unless there is one; tell whether it was written."""
        if self.derivation(key) is not None:
            return False

        def check(suffix: str) -> None:
            written = digest_remote(
                self._remote(suffix, deadlines_of(self.settings)),
                deadlines=deadlines_of(self.settings),
            )
            if written.sha256 != digest_file(file).sha256:
                raise IntegrityError(f"{self.name} reads back other bytes than were written.")

        try:
            upload(
                self._url,
                self.settings.options,
                file,
                derivation_suffix(key),
                source=self.name,
                check=check,
            )
        except ConflictError:
            return False
        return True

    @property
    def _url(self) -> str:
        """The URL, with the scheme that a plain path lacks."""
        url = self.settings.url
        path = given_path(url)
        if path is not None and "::" not in url:
            return f"file://{path}"
        return url.rstrip("/")

    def _remote(self, suffix: str, deadlines: Deadlines) -> Remote:
        if self.protocol in _HTTP and "::" not in self._url:
            here = Location(f"{self._url}/{quote(suffix)}", _headers(self.settings.options))
            return HttpRemote(client(), lambda _: here, deadlines=deadlines, source=self.name)
        if self.protocol in _HTTP:
            suffix = quote(suffix)
        url = f"{self._url}/{suffix}"
        return FsspecRemote(url, self.settings.options, deadlines=deadlines, source=self.name)

    def _within(self, seconds: float) -> Deadlines:
        """Return deadlines for a look-up that has so much time left."""
        usual = deadlines_of(self.settings)
        left = max(seconds, 0.001)
        return replace(
            usual,
            connect_s=min(usual.connect_s, left),
            answer_s=min(usual.answer_s, left),
            read_s=min(usual.read_s, left),
        )

    def _candidate(self, address: _Address) -> Candidate:
        remote = self._remote(address.suffix, deadlines_of(self.settings))
        return Candidate(remote, address.how, address.sha256)

    def _addresses(self, record: Record) -> list[_Address]:
        found = [
            _Address(by_digest(sha256), "by digest", sha256) for sha256 in sorted(record.accepted)
        ]
        found.append(_Address(record.entry.path, "by path"))
        # A file that was renamed since lies there under its earlier path.
        start = self.location("")
        for copy in record.copies:
            suffix = copy.location.removeprefix(start)
            if copy.source == self.name and suffix != copy.location and ".." not in suffix:
                found.append(_Address(suffix, "as recorded"))
        by_place: dict[str, _Address] = {}
        for address in found:
            by_place.setdefault(address.suffix, address)
        return list(by_place.values())

    def _disguise(self, address: _Address, store: Store, record: Record) -> str:
        """Say why what is at an address is the store's own file, if it is."""
        place = local_path(f"{self._url}/{address.suffix}")
        if place is None:
            return ""
        if (inside := store_around(f"file://{place}", store)) is not None:
            return inside
        try:
            is_same = place.samefile(store.root / record.entry.path)
        except OSError:
            return ""
        return f"{place} is the very file, by another name" if is_same else ""

    def _refuse_inside(self, store: Store) -> None:
        inside = store_around(self.settings.url, store)
        if inside is not None:
            raise NotRecallableError(
                f"{self.name} has no copy of its own: {inside}. Give it a URL elsewhere.",
                details={"source": self.name},
            )

    def _check_folder(self) -> None:
        """Tell a folder whose disk is not mounted from one that has not the file."""
        folder = local_path(self.settings.url)
        if folder is not None and not folder.is_dir():
            raise SourceError(
                f"{self.name} is unavailable: its folder {folder} is not there; is its disk "
                "mounted?",
                details={"source": self.name, "url": self.shown},
            )

    def _absent(self) -> NotRecallableError:
        return NotRecallableError(
            f"{self.name} has no copy under {self.shown}.", details={"source": self.name}
        )

    def _mismatch(
        self, record: Record, address: _Address, remote: Remote, actual: str
    ) -> IntegrityError:
        expected = f"{record.entry.size_bytes} bytes"
        return IntegrityError(
            f"{self.name} holds other bytes ({address.how}, {remote.describe}): {actual}, on "
            f"record are {expected}.",
            details={
                "expected": expected,
                "actual": actual,
                "url": remote.describe,
                "source": self.name,
            },
        )

    def _has_size(self, remote: Remote, record: Record) -> bool:
        return remote.stat().size_bytes in _sizes(record)

    def _check_written(self, suffix: str, record: Record, progress: Progress | None) -> None:
        remote = self._remote(suffix, deadlines_of(self.settings))
        try:
            read_right(remote, record, deadlines=deadlines_of(self.settings), progress=progress)
        except NotRecallableError as error:
            raise SourceError(f"{self.name} does not have what was just written to it.") from error
        except IntegrityError as error:
            raise IntegrityError(
                f"{self.name} read back other bytes than are on record ({error.message}); what was "
                "written is removed. Was the file changed meanwhile, or is the mirror's disk bad?",
                details=error.details,
            ) from error


def by_digest(sha256: str) -> str:
    """Return where bytes lie below a mirror's URL by their sha256."""
    return f"sha256/{sha256[:2]}/{sha256[2:4]}/{sha256}"


def derivation_suffix(key: str) -> str:
    """Return where the record of a derivation lies below a mirror's URL."""
    return f"derivations/{key[:2]}/{key}.json"


def _sizes(record: Record, sha256: str = "") -> set[int]:
    known = {item.size_bytes for item in record.incarnations if sha256 in ("", item.sha256)}
    return known or {record.entry.size_bytes}


def _headers(options: Mapping[str, Any]) -> dict[str, str]:
    """Return the headers that fsspec's HTTP file system would send for these options."""
    inner = options.get("client_kwargs", {}).get("headers", {})
    return {str(key): str(value) for key, value in {**inner, **options.get("headers", {})}.items()}
