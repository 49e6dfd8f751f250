"""DANDI: files by the asset that is on record, and by digest alone."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from recallfs.catalog.sidecar import Record
from recallfs.catalog.store import Store
from recallfs.config import DandiSettings
from recallfs.errors import (
    AccessError,
    IntegrityError,
    InvalidInputError,
    NotRecallableError,
    SourceError,
)
from recallfs.sources.base import Fetched, Found, Holding, Offer, Request
from recallfs.sources.dandi_address import DandiAddress, Instance, configured
from recallfs.sources.dandi_archive import Archive, Described
from recallfs.sources.remote import Candidate, DownloadingSource, Questions, client, deadlines_of
from recallfs.transfer.remote import HttpRemote, Location, Remote


@dataclass(frozen=True)
class _Handle:
    """Where a look-up found the bytes: an asset, or a blob by its key in the bucket."""

    archive: Archive
    described: Described
    address: DandiAddress | None = None


class DandiSource(DownloadingSource):
    """Files of a DANDI archive.

    Parameters
    ----------
    settings : DandiSettings
    """

    kind = name = "dandi"

    settings: DandiSettings

    def __init__(self, settings: DandiSettings) -> None:
        super().__init__(settings)

    @property
    def place(self) -> str:
        """Instance, and a digest of the token: embargoed files are there for some only."""
        try:
            instance = configured(self.settings)
        except InvalidInputError as error:
            return error.message
        token = hashlib.sha256((instance.token or "").encode()).hexdigest()
        return repr((instance.api, token))

    def failure_domain(self) -> str:
        """Return what fails together with it: the archive, unless it is configured."""
        if self.settings.failure_domain:
            return self.settings.failure_domain
        return domain_of(self.archive().instance)

    def addresses(self, record: Record) -> list[DandiAddress]:
        """Return the assets that are on record for an entry."""
        addresses = []
        for copy in record.copies:
            if copy.source == self.name:
                # One that cannot be read is none: it was written by something else.
                try:
                    addresses.append(DandiAddress.parse(copy.location))
                except InvalidInputError:
                    continue
        return list(dict.fromkeys(addresses))

    def offer(self, store: Store, record: Record) -> Offer | None:
        """Offer to ask for the asset on record, else by digest."""
        addresses = self.addresses(record)
        if addresses:
            return Offer(self.name, f"ask for {addresses[0].shown}")
        digest = record.entry.sha256 or record.dandi_etag
        if not digest:
            return None
        where = self.settings.instance or "the archive"
        return Offer(self.name, f"ask {where} for a blob with {digest[:16]}…", is_sure=False)

    def look_up(self, store: Store, record: Record) -> Found:
        """Ask for the assets on record, then for a blob with the digests on record."""
        asked: list[str] = []
        questions = Questions(self.settings, self.name)
        for address in self.addresses(record):
            archive = Archive(Instance.of(address.api), self.settings)
            try:
                described = archive.describe(questions, address)
                self._check(address.shown, described, record, is_fixed=address.is_immutable)
            except NotRecallableError as error:
                asked.append(error.message.rstrip("."))
                continue
            handle = _Handle(archive, described, address)
            return Found(address.shown, record.entry.size_bytes, handle=handle)
        archive = self.archive()
        described_blob = self._by_digest(archive, questions, record)
        if described_blob is not None:
            what = f"a blob of {archive.instance.host}, by digest"
            return Found(what, record.entry.size_bytes, handle=_Handle(archive, described_blob))
        asked.append(f"{archive.instance.host} has no blob with these bytes")
        raise NotRecallableError(f"dandi: {'; '.join(asked)}.", details={"source": self.name})

    def _by_digest(
        self, archive: Archive, questions: Questions, record: Record
    ) -> Described | None:
        digests = [("dandi:sha2-256", digest) for digest in sorted(record.accepted)]
        if "-" in record.dandi_etag:
            digests.append(("dandi:dandi-etag", record.dandi_etag))
        for algorithm, digest in digests:
            blob = archive.find_blob(questions, algorithm, digest)
            if blob is not None:
                # Nothing but the size can differ: that is what was asked for.
                self._check(f"a blob of {archive.instance.host}", blob, record, is_fixed=True)
                return blob
        return None

    def _check(self, where: str, told: Described, record: Record, *, is_fixed: bool) -> None:
        """Compare what is said of a file with what is on record.

        Raises
        ------
        NotRecallableError
            A draft has become something else: that is its right.
        IntegrityError
            The same of what can never change.
        """
        entry = record.entry
        differing = None
        if told.sha256 and record.accepted and told.sha256 not in record.accepted:
            differing = (f"sha256 {told.sha256}", f"sha256 {entry.sha256}")
        elif _differ(told.etag, record.dandi_etag):
            differing = (f"etag {told.etag}", f"etag {record.dandi_etag}")
        elif told.size_bytes not in (None, *(i.size_bytes for i in record.incarnations)) and (
            told.size_bytes != entry.size_bytes
        ):
            differing = (f"{told.size_bytes} bytes", f"{entry.size_bytes} bytes")
        if differing is None:
            return
        actual, expected = differing
        if not is_fixed:
            raise NotRecallableError(
                f"{where} has other bytes now ({actual}, on record is {expected}).",
                details={"source": self.name},
            )
        raise IntegrityError(
            f"dandi holds other bytes ({where}): {actual}, on record is {expected}.",
            details={"expected": expected, "actual": actual, "source": self.name},
        )

    def candidates(self, request: Request) -> Iterator[Candidate]:
        """Return the object in the bucket, then what the API redirects to, which is presigned."""
        found = request.found or self.look_up(request.store, request.record)
        handle: _Handle = found.handle
        address, told = handle.address, handle.described
        if address is None:
            url = f"{handle.archive.bucket()}/{told.bare_url}"
            yield Candidate(self._bare(url), "by digest")
            return
        if told.bare_url and not told.needs_token:
            yield Candidate(self._bare(told.bare_url), "by asset")
        remote = self.remote(handle.archive, address, needs_token=told.needs_token)
        yield Candidate(remote, "by asset", is_same_object=bool(told.bare_url))

    def fetch(self, request: Request) -> Fetched:
        """Download the first candidate whose bytes are right."""
        try:
            return super().fetch(request)
        except AccessError as error:
            handle = request.found.handle if request.found is not None else None
            if not isinstance(handle, _Handle):
                raise
            if handle.address is not None:
                raise handle.archive.refused(error) from None
            raise AccessError(
                f"{handle.archive.instance.host} has the bytes, but they are embargoed and the "
                "asset they belong to is not on record; `recall add --from-dandi` records it.",
                details=error.details,
            ) from None

    def copies(self, store: Store, record: Record) -> Sequence[Holding]:
        """Return the assets on record; of a blob that was found by digest nothing is recorded."""
        return [
            Holding(
                str(address),
                self.remote(
                    Archive(Instance.of(address.api), self.settings), address, needs_token=False
                ),
                content_addressed=address.is_immutable,
            )
            for address in self.addresses(record)
        ]

    def _bare(self, url: str) -> Remote:
        deadlines = deadlines_of(self.settings)
        return HttpRemote(client(), lambda _: Location(url), deadlines=deadlines, source=self.name)

    def remote(self, archive: Archive, address: DandiAddress, *, needs_token: bool) -> Remote:
        """Return a file behind the API, which presigns anew each time it is asked.

        Parameters
        ----------
        needs_token : bool
            Whether to send the token at once; else only when it is refused without.
        """
        sends_token = needs_token

        def locate(is_refused: bool) -> Location:
            nonlocal sends_token
            sends_token = sends_token or is_refused
            return Location(address.download_url, archive.headers() if sends_token else {})

        deadlines = deadlines_of(self.settings)
        return HttpRemote(client(), locate, deadlines=deadlines, source=self.name)

    def probe(self) -> None:
        """Ask the archive what it is."""
        archive = self.archive()
        archive.ask(archive.questions(), "GET", f"{archive.instance.api}/info/")

    def archive(self) -> Archive:
        """Return the archive of the settings.

        Raises
        ------
        SourceError
            There is none of that name.
        """
        try:
            return Archive(configured(self.settings), self.settings)
        except InvalidInputError as error:
            raise SourceError(error.message, details={"source": self.name}) from error


def _differ(one: str, other: str) -> bool:
    """Tell whether etags are of other bytes; those of another form cannot be compared."""
    return bool(one and other) and ("-" in one) == ("-" in other) and one != other


def domain_of(instance: Instance) -> str:
    """Return what fails together with an archive."""
    return f"dandi:{instance.host}"
