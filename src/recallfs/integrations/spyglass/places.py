"""Where else the bytes of a file may be, as Spyglass' tables of Kachery and DANDI have it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from glob import escape

from recallfs.catalog import changes, records
from recallfs.catalog.store import Store
from recallfs.errors import InvalidInputError, RecallError
from recallfs.integrations.spyglass.database import FileRow
from recallfs.integrations.spyglass.logged import Logged
from recallfs.ownership import usual_metadata
from recallfs.release.copies import record_copies
from recallfs.resolve.commit import new_record
from recallfs.resolve.stores import Stores
from recallfs.sources.dandi import DandiSource
from recallfs.sources.dandi_address import Instance
from recallfs.sources.dandi_archive import Listed
from recallfs.sources.kachery import KacherySource
from recallfs.sources.kachery_uri import KacheryURI
from recallfs.values import Copy, Digests, Entry, State


def register_missing(store: Store, path: str, row: FileRow) -> tuple[Entry, bool]:
    """Make an entry of a file that is gone, by the size and md5 that DataJoint has.

    Returns
    -------
    Entry, bool
        Whether it is new; one that is on record already stays as it is.

    Notes
    -----
    DANDI's etag of a file that is uploaded whole is its plain md5: so that is what a record can
    know bytes by before their sha256 is known.
    """
    standing = store.catalog.entry_at(path)
    if standing is not None:
        return standing, False
    metadata = usual_metadata(store.locate(path), 0)
    record = new_record(store, path, Digests(row.size_bytes, "", "", b""), metadata)
    record = replace(
        record,
        entry=replace(record.entry, state=State.MISSING),
        incarnations=(),
        dandi_etag=row.md5,
    )
    changes.create(store, [record])
    return record.entry, True


def note_copies(
    stores: Stores, store: Store, entry: Entry, logged: Logged, row: FileRow
) -> list[str]:
    """Put on record where Spyglass says that copies are; return what is to be said of them.

    None of them counts for a release before it was read whole: a URI may belong to a file that is
    only linked, and in DANDI may be another version.
    """
    known = {(copy.source, copy.location) for copy in records.load(store, entry.id).copies}
    copies: list[Copy] = []
    notes = []
    for source in stores.remotes():
        if isinstance(source, KacherySource):
            found, said = _in_kachery(source, entry, logged)
        elif isinstance(source, DandiSource) and not store.settings.offline:
            found, said = _in_dandi(source, entry, logged, row)
        else:
            continue
        copies += [copy for copy in found if (copy.source, copy.location) not in known]
        notes += said
    if copies:
        record_copies(store, entry.id, copies)
    return notes


def _in_kachery(
    source: KacherySource, entry: Entry, logged: Logged
) -> tuple[list[Copy], list[str]]:
    copies, notes = [], []
    for text in logged.kachery:
        try:
            uri = KacheryURI.parse(text)
        except RecallError as error:
            notes.append(f"its address in Kachery cannot be read: {error.message.rstrip('.')}")
            continue
        if entry.sha1 and uri.sha1 != entry.sha1:
            notes.append(f"Kachery has another file under its name, {uri}")
            continue
        copies.append(Copy(source.name, str(uri), source.failure_domain(), True, ""))
        notes.append(f"Kachery may have it ({uri}); a file that is only linked there is no copy")
    return copies, notes


def _in_dandi(
    source: DandiSource, entry: Entry, logged: Logged, row: FileRow
) -> tuple[list[Copy], list[str]]:
    copies, notes = [], []
    for place in logged.dandi:
        shown = f"dandiset {place['dandiset_id']}, {place['dandi_path']}"
        try:
            listed = _listed(source, place)
        except RecallError as error:
            notes.append(f"{shown} could not be asked for: {error.message.rstrip('.')}")
            continue
        if listed is None:
            notes.append(f"{shown} is not there")
        elif listed.size_bytes != row.size_bytes or (
            entry.sha256 and listed.sha256 and listed.sha256 != entry.sha256
        ):
            notes.append(f"{shown} is another file ({listed.size_bytes} bytes)")
        else:
            address = listed.address
            domain = source.failure_domain()
            copies.append(Copy(source.name, str(address), domain, address.is_immutable, ""))
            notes.append(f"DANDI has it: {address.shown}")
    return copies, notes


def _listed(source: DandiSource, place: Mapping[str, str]) -> Listed | None:
    """Ask the archive for an asset by its path, in the newest version that has it."""
    archive = source.archive()
    if Instance.of(place["dandi_instance"]).api != archive.instance.api:
        raise InvalidInputError(
            f"it is in {place['dandi_instance']}, but {archive.instance.host} is configured."
        )
    identifier, version = archive.resolve(place["dandiset_id"])
    for name in dict.fromkeys((version, "draft")):
        for page, _ in archive.files(identifier, name, escape(place["dandi_path"])):
            for listed in page:
                if listed.path == place["dandi_path"]:
                    return listed
    return None
