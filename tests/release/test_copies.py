"""Which copies count for a release: read whole, immutable, elsewhere, and not the file itself."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from archives import corrupted, dandi_of, kachery_of, link
from conftest import Lab
from recallfs.catalog import changes, records
from recallfs.release.copies import known_copies, newest, verified_copies
from recallfs.sources.dandi_address import DandiAddress
from recallfs.sources.mirror import by_digest
from recallfs.testing.dandi import DandiServer
from recallfs.testing.http import Files
from recallfs.testing.kachery import KacheryServer
from recallfs.testing.misbehaviour import Fault
from recallfs.values import Copy

CONTENT = os.urandom(1_000_000)


@pytest.fixture
def kachery(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Iterator[KacheryServer]:
    """Serve a gateway that the lab uses."""
    with kachery_of(lab, monkeypatch) as server:
        yield server


@pytest.fixture
def dandi(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Iterator[DandiServer]:
    """Serve an archive that the lab uses."""
    with dandi_of(lab, monkeypatch) as server:
        yield server


def mirrors(lab: Lab, *domains: str) -> list[Path]:
    """Configure folders as mirrors."""
    folders = [lab.base / f"mirror{number}" for number in range(len(domains))]
    text = ""
    for number, (folder, domain) in enumerate(zip(folders, domains, strict=True)):
        folder.mkdir(exist_ok=True)
        text += f'[[sources.mirror]]\nname = "m{number}"\nurl = "file://{folder}"\n'
        text += f'failure_domain = "{domain}"\n' if domain else ""
    lab.write_config(text)
    return folders


def added(lab: Lab, path: str = "a.nwb", content: bytes = CONTENT) -> Path:
    return lab.add(path, content)


def recorded(lab: Lab, *copies: Copy) -> None:
    with changes.edit(lab.store, lab.entry("a.nwb").id, "copies") as draft:
        draft.record = replace(draft.record, copies=(*draft.record.copies, *copies))


def counted(lab: Lab, path: str = "a.nwb") -> tuple[str, ...]:
    record = records.load(lab.store, lab.entry(path).id)
    return verified_copies(lab.stores, lab.store, record)


def put(lab: Lab, folder: Path, content: bytes = CONTENT) -> Path:
    """Put a copy into a mirror by digest."""
    place = folder / by_digest(lab.entry("a.nwb").sha256)
    place.parent.mkdir(parents=True)
    place.write_bytes(content)
    return place


def test_copies_in_one_failure_domain_count_once(lab: Lab) -> None:
    """Two mirrors that fail together are one copy; a third elsewhere is the second."""
    added(lab)
    for folder in mirrors(lab, "nas", "nas", "tape"):
        put(lab, folder)
    assert counted(lab) == ("mirror:m0", "mirror:m2")
    copies = records.load(lab.store, lab.entry("a.nwb").id).copies
    assert [copy.source for copy in copies] == ["mirror:m0", "mirror:m2"]
    # Checked once more they are the same two places, with a newer time.
    counted(lab)
    again = records.load(lab.store, lab.entry("a.nwb").id).copies
    assert [copy.location for copy in again] == [copy.location for copy in copies]
    assert again[0].verified_at > copies[0].verified_at


def test_second_mirror_of_a_domain_stands_in(lab: Lab) -> None:
    """Where the first mirror of a domain has it not, the next one of that domain counts."""
    added(lab)
    _, second = mirrors(lab, "nas", "nas")
    put(lab, second)
    assert counted(lab) == ("mirror:m1",)


def test_disguises_do_not_count(lab: Lab) -> None:
    """A hard link and a symlink to the file, and wrong bytes, are no copies."""
    place = added(lab)
    (folder,) = mirrors(lab, "elsewhere")
    copy = put(lab, folder)
    assert counted(lab) == ("mirror:m0",)
    copy.unlink()
    os.link(place, copy)
    assert counted(lab) == ()
    (known,) = known_copies(lab.stores, lab.store, records.load(lab.store, lab.entry("a.nwb").id))
    assert "the very file, by another name" in known.why_not
    copy.unlink()
    copy.symlink_to(place)
    assert counted(lab) == ()
    copy.unlink()
    copy.write_bytes(b"X" + CONTENT[1:])
    assert counted(lab) == ()


def test_chained_url_does_not_count(lab: Lab) -> None:
    """What may come out of a cache on this computer is no copy, however right."""
    added(lab)
    (folder,) = mirrors(lab, "elsewhere")
    put(lab, folder)
    lab.write_config(
        f'[[sources.mirror]]\nname = "m0"\nurl = "simplecache::file://{folder}"\n'
        'failure_domain = "elsewhere"\n'
    )
    assert counted(lab) == ()


def test_dead_mirror_costs_its_deadline_once(lab: Lab) -> None:
    """Of 30 files that are judged, only the first few ask a mirror that never answers."""
    names = [f"{number}.bin" for number in range(30)]
    for name in names:
        added(lab, name, name.encode())
    with Files(lab.base) as hole:
        hole.fail(Fault(stall=True))
        lab.write_config(
            f'[[sources.mirror]]\nname = "dead"\nurl = "{hole.url}"\nread_timeout = "0.3s"\n'
        )
        assert [counted(lab, name) for name in names] == [()] * 30
        assert 1 <= len(hole.log) <= 9


def test_kachery_counts_when_it_is_known_to_be_there(lab: Lab, kachery: KacheryServer) -> None:
    """A recorded object in the bucket is downloaded and counts; others are not asked for."""
    place = added(lab)
    sha1 = lab.entry("a.nwb").sha1
    kachery.add_file(place)
    assert counted(lab) == ()
    assert not kachery.log
    recorded(lab, Copy("kachery", f"sha1://{sha1}", "kachery:x", True, ""))
    assert counted(lab) == ("kachery",)
    (copy,) = newest(records.load(lab.store, lab.entry("a.nwb").id).copies)
    assert copy.verified_at
    kachery.add_file(corrupted(place), sha1=sha1)
    assert counted(lab) == ()


def test_linked_kachery_file_does_not_count(
    lab: Lab, kachery: KacheryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that a lab's computer would upload when asked is the lab's own, and no copy."""
    place = added(lab)
    sha1 = lab.entry("a.nwb").sha1
    client = lab.base / "client"
    link(client, place, sha1)
    monkeypatch.setenv("KACHERY_RESOURCE_URL", kachery.add_resource("lab", client))
    recorded(lab, Copy("kachery", f"sha1://{sha1}", "kachery:x", True, ""))
    assert counted(lab) == ()


@pytest.mark.parametrize("is_published", [True, False])
def test_dandi_counts_when_published(lab: Lab, dandi: DandiServer, is_published: bool) -> None:
    """An asset of a published version counts; one of a draft, which may change, does not."""
    place = added(lab)
    dandiset = dandi.add_dandiset()
    asset_id = dandi.add_asset(dandiset, "a.nwb", place)
    version = dandi.publish(dandiset) if is_published else "draft"
    address = DandiAddress(dandi.api_url, dandiset, version, path="a.nwb", asset_id=asset_id)
    recorded(lab, Copy("dandi", str(address), "dandi", address.is_immutable, ""))
    assert counted(lab) == (("dandi",) if is_published else ())
