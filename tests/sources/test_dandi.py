"""DANDI: by the asset on record and by digest, with and without a token, and what may go wrong."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from archives import CONTENT, corrupted, dandi_of, get, gone, kachery_of, token_variable
from conftest import Lab
from mirrored import configure_mirror
from recallfs.catalog import changes, records
from recallfs.catalog.sidecar import Record
from recallfs.config import DandiSettings
from recallfs.errors import (
    AccessError,
    IntegrityError,
    IntegrityWarning,
    InvalidInputError,
    NotRecallableError,
    SourceError,
    SourceTimeoutError,
)
from recallfs.resolve.dandisets import catalog_dandiset
from recallfs.resolve.recall import recall
from recallfs.sources.dandi import DandiSource
from recallfs.sources.dandi_address import DandiAddress, Instance
from recallfs.testing.archive import dandi_etag
from recallfs.testing.dandi import DandiServer
from recallfs.testing.misbehaviour import Fault

ASSET = "sub-1/a ü.nwb"


@pytest.fixture
def dandi(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Iterator[DandiServer]:
    """Serve an archive that the lab uses."""
    with dandi_of(lab, monkeypatch) as server:
        yield server


def record_of(lab: Lab, path: str) -> Record:
    return records.load(lab.store, lab.entry(path).id)


def catalogued(
    lab: Lab, dandi: DandiServer, *, embargoed: bool = False, publish: bool = False
) -> str:
    """Put a file into a dandiset and catalog that; return the dandiset's identifier."""
    file = lab.base / "asset.bin"
    file.write_bytes(CONTENT)
    dandiset = dandi.add_dandiset(embargoed=embargoed)
    dandi.add_asset(dandiset, ASSET, file)
    if publish:
        dandi.publish(dandiset)
    report = catalog_dandiset(lab.store, DandiSource(DandiSettings()), dandiset)
    assert (report.added, report.failed) == (1, [])
    return dandiset


def test_by_sha256_alone(lab: Lab, dandi: DandiServer) -> None:
    """A file of which no asset is on record is found by its sha256, anonymously."""
    kept = gone(lab)
    dandi.add_asset(dandi.add_dandiset(), "sub-2/other-name.nwb", kept)
    assert (get(lab).source, get(lab).source) == ("dandi", "resident")
    assert (lab.root / "a.nwb").read_bytes() == CONTENT
    assert not any(request.authorization for request in (*dandi.log, *dandi.bucket.log))


def test_by_etag(lab: Lab, dandi: DandiServer) -> None:
    """While an archive does not know the sha256, the dandi-etag finds the bytes."""
    dandi.knows_sha256 = False
    kept = gone(lab)
    dandi.add_asset(dandi.add_dandiset(), ASSET, kept)
    with pytest.raises(NotRecallableError):
        get(lab)
    with changes.edit(lab.store, lab.entry("a.nwb").id, "copies") as draft:
        draft.record = replace(draft.record, dandi_etag=dandi_etag(kept))
    lab.stores.memory.forget()
    assert recall(lab.stores, lab.store, "a.nwb").source == "dandi"


def test_by_asset(lab: Lab, dandi: DandiServer) -> None:
    """An asset on record comes from the bucket, by its own address, and the record is completed."""
    catalogued(lab, dandi, publish=True)
    before = record_of(lab, ASSET)
    assert (before.entry.sha1, before.blocks, before.copies[0].verified_at) == ("", b"", "")
    found = get(lab, ASSET)
    assert (found.source, found.method) == ("dandi", "by asset")
    assert (lab.root / ASSET).read_bytes() == CONTENT
    after = record_of(lab, ASSET)
    assert len(after.entry.sha1) == 40
    assert len(after.blocks) == 32 * -(-len(CONTENT) // 4194304)
    assert after.incarnations == before.incarnations


def test_first_recall_without_sha256(lab: Lab, dandi: DandiServer) -> None:
    """A file known by its etag alone is verified by that, and then has a sha256 like any other."""
    dandi.knows_sha256 = False
    catalogued(lab, dandi)
    before = record_of(lab, ASSET)
    assert (before.entry.sha256, before.incarnations) == ("", ())
    assert before.dandi_etag
    get(lab, ASSET)
    after = record_of(lab, ASSET)
    assert len(after.entry.sha256) == 64
    assert after.accepted == {after.entry.sha256}
    assert after.entry.sha256 == lab.entry(ASSET).sha256


def test_wrong_bytes_without_sha256(lab: Lab, dandi: DandiServer) -> None:
    """Bytes with another etag are refused though there is no sha256 to compare."""
    dandi.knows_sha256 = False
    catalogued(lab, dandi)
    (lab.base / "asset.bin").write_bytes(corrupted(lab.base / "asset.bin").read_bytes())
    with pytest.raises(IntegrityError, match="etag"):
        get(lab, ASSET)
    assert not (lab.root / ASSET).exists()


def test_killed_between_place_and_record(lab: Lab, dandi: DandiServer) -> None:
    """A process killed after the bytes got their name loses nothing: the record is completed."""
    dandi.knows_sha256 = False
    catalogued(lab, dandi)
    lab.cli("get", f"recall://lab/{ASSET}", kill_at="place.linked", check=False)
    assert (lab.root / ASSET).exists()
    lab.cli("get", f"recall://lab/{ASSET}")
    assert len(record_of(lab, ASSET).entry.sha256) == 64
    found = {item["id"] for item in lab.cli_json("doctor", check=False)["findings"]}
    assert found <= {"lease-dead", "vault-same-disk", "hdf5-version"}


def test_changed_draft_is_absent(lab: Lab, dandi: DandiServer) -> None:
    """A draft whose file was replaced does not give the new bytes: it says so, and is absent."""
    dandiset = catalogued(lab, dandi)
    other = corrupted(lab.base / "asset.bin")
    old = record_of(lab, ASSET)
    dandi.change_draft(dandiset, ASSET, other)
    # The old bytes are dropped as well, some time later.
    (lab.base / "asset.bin").unlink()
    unknown = replace(old, entry=replace(old.entry, sha256=""), incarnations=())
    with pytest.raises(NotRecallableError, match=r"the draft of dandiset .* has other bytes"):
        DandiSource(DandiSettings()).look_up(lab.store, unknown)


def test_replaced_asset_is_found_by_digest(lab: Lab, dandi: DandiServer) -> None:
    """The right bytes still come while the archive has them, whatever the draft holds now."""
    dandiset = catalogued(lab, dandi)
    dandi.change_draft(dandiset, ASSET, corrupted(lab.base / "asset.bin"))
    assert get(lab, ASSET).method == "by digest"
    assert (lab.root / ASSET).read_bytes() == CONTENT


def test_embargoed(lab: Lab, dandi: DandiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """An embargoed asset needs the token, which the API sees and the bucket never."""
    variable = token_variable(dandi)
    monkeypatch.setenv(variable, dandi.token)
    catalogued(lab, dandi, embargoed=True)
    monkeypatch.delenv(variable)
    with pytest.raises(AccessError, match=f"wants a token; set {variable}"):
        get(lab, ASSET)
    monkeypatch.setenv(variable, "a-wrong-token")
    with pytest.raises(AccessError, match=f"does not accept the token in {variable}") as caught:
        get(lab, ASSET)
    assert "a-wrong-token" not in repr(caught.value) + json.dumps(caught.value.to_json())
    monkeypatch.setenv(variable, dandi.add_user("stranger"))
    with pytest.raises(AccessError, match=f"the owner of the token in {variable}"):
        get(lab, ASSET)
    monkeypatch.setenv(variable, dandi.token)
    assert get(lab, ASSET).source == "dandi"
    assert any(request.authorization for request in dandi.log)
    assert not any(request.authorization for request in dandi.bucket.log)


def test_public_files_need_no_right_token(
    lab: Lab, dandi: DandiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stale token is no obstacle to what everybody may read: it is not even sent."""
    catalogued(lab, dandi)
    monkeypatch.setenv(token_variable(dandi), "stale")
    assert get(lab, ASSET).source == "dandi"
    assert not any(request.authorization for request in dandi.log)


def test_bare_address_refused(lab: Lab, dandi: DandiServer) -> None:
    """Where the bucket refuses the bare address, the presigned one is used, and found anew."""
    catalogued(lab, dandi)
    dandi.bucket.fail(Fault(status=403, times=1))
    dandi.bucket.url_max_uses = 1
    dandi.bucket.fail(Fault(skip=1, reset_at=1_000_000, times=1))
    assert get(lab, ASSET).source == "dandi"
    assert any(request.path.endswith("/download/") for request in dandi.log)


def test_corrupt_blob(lab: Lab, dandi: DandiServer) -> None:
    """Corrupt bytes are refused and not fetched a second time by another way to the same blob."""
    catalogued(lab, dandi, publish=True)
    (lab.base / "asset.bin").write_bytes(corrupted(lab.base / "asset.bin").read_bytes())
    with pytest.raises(IntegrityError, match="dandi holds other bytes"):
        get(lab, ASSET)
    assert not any(request.path.endswith("/download/") for request in dandi.log)


def test_fall_through(lab: Lab, dandi: DandiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Corrupt in Kachery, then in DANDI, right in a mirror: one warning, which names both liars."""
    kept = gone(lab)
    digest = lab.entry("a.nwb").sha256
    with kachery_of(lab, monkeypatch) as kachery:
        kachery.add_file(corrupted(kept), sha1=lab.entry("a.nwb").sha1)
        dandi.add_asset(dandi.add_dandiset(), ASSET, kept)
        with pytest.warns(IntegrityWarning) as said:
            assert get(lab).source == "dandi"
        assert len(said) == 1
        assert "kachery holds other bytes" in str(said[0].message)
        assert "dandi" not in str(said[0].message)

        copy = configure_mirror(lab) / "sha256" / digest[:2] / digest[2:4] / digest
        copy.parent.mkdir(parents=True)
        copy.write_bytes(CONTENT)
        lab.release("a.nwb")
        kept.write_bytes(corrupted(kept).read_bytes())
        with pytest.warns(IntegrityWarning) as said:
            assert get(lab).source == "mirror:copies"
        assert len(said) == 1
        assert "kachery" in str(said[0].message)
        assert "dandi holds" in str(said[0].message)
    assert (lab.root / "a.nwb").read_bytes() == CONTENT


def test_zarr_file(lab: Lab, dandi: DandiServer) -> None:
    """A file inside a zarr asset comes back, verified by its md5."""
    folder = lab.base / "z.zarr"
    (folder / "0").mkdir(parents=True)
    (folder / "0" / "0").write_bytes(CONTENT)
    (folder / ".zgroup").write_text("{}")
    dandiset = dandi.add_dandiset()
    dandi.add_zarr(dandiset, "sub-1/z.zarr", folder)
    report = catalog_dandiset(lab.store, DandiSource(DandiSettings()), dandiset)
    assert (report.added, report.failed) == (2, [])
    assert get(lab, "sub-1/z.zarr/0/0").source == "dandi"
    assert (lab.root / "sub-1/z.zarr/0/0").read_bytes() == CONTENT
    (folder / ".zgroup").write_text("[]")
    with pytest.raises(IntegrityError):
        get(lab, "sub-1/z.zarr/.zgroup")


def test_stalled(lab: Lab, dandi: DandiServer) -> None:
    """An archive that never answers costs its deadline, no more."""
    gone(lab)
    lab.write_config('[sources.dandi]\nanswer_timeout = "1s"\n')
    dandi.fail(Fault(stall=True))
    start = time.monotonic()
    with pytest.raises(SourceTimeoutError):
        get(lab)
    assert time.monotonic() - start < 6


@pytest.mark.parametrize(
    "fault",
    [Fault(html=True), Fault(status=500), Fault(redirect_to="."), Fault(edit={"blob_id": 7})],
)
def test_broken_archive(lab: Lab, dandi: DandiServer, fault: Fault) -> None:
    """HTML, an error, a circle or nonsense is an outage, never 'absent'."""
    dandi.add_asset(dandi.add_dandiset(), ASSET, gone(lab))
    dandi.fail(fault)
    with pytest.raises(SourceError):
        get(lab)


def test_blob_of_another_size(lab: Lab, dandi: DandiServer) -> None:
    """A blob that is told to have another size is not downloaded."""
    dandi.add_asset(dandi.add_dandiset(), ASSET, gone(lab))
    dandi.fail(Fault(where="*/blobs/digest/", edit={"size": 3}))
    with pytest.raises(IntegrityError, match="3 bytes"):
        get(lab)
    assert not dandi.bucket.log


def test_token_goes_to_no_other_host(
    lab: Lab, dandi: DandiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An API that redirects elsewhere does not take the token there."""
    variable = token_variable(dandi)
    monkeypatch.setenv(variable, dandi.token)
    catalogued(lab, dandi, embargoed=True)
    with DandiServer() as other:
        where = f"{other.url}/api/info/"
        dandi.fail(Fault(where="*/assets/*", redirect_to=where))
        with pytest.raises((SourceError, AccessError, IntegrityError, NotRecallableError)):
            get(lab, ASSET)
        assert other.log
        assert not any(request.authorization for request in other.log)


def test_instances(monkeypatch: pytest.MonkeyPatch) -> None:
    """Instances go by the names the client knows, or by URL; the token's variable follows."""
    sandbox = Instance.of("dandi-sandbox")
    assert sandbox.variables[0] == "DANDI_SANDBOX_API_KEY"
    assert Instance.of("https://sandbox.dandiarchive.org/") == sandbox
    assert Instance.of("https://api.sandbox.dandiarchive.org/api") == sandbox
    lab = Instance.of("https://dandi.lab.example")
    assert (lab.api, lab.variables[0]) == (
        "https://dandi.lab.example/api",
        "DANDI_LAB_EXAMPLE_API_KEY",
    )
    assert Instance.of("http://127.0.0.1:8000/api").api == "http://127.0.0.1:8000/api"
    monkeypatch.setenv("DANDI_API_KEY", "of-another")
    assert lab.token is None
    for wrong in (
        "dandy",
        "https://",
        "http://me:secret@example.org/api",
        "https://x.example/?a=b",
    ):
        with pytest.raises(InvalidInputError) as caught:
            Instance.of(wrong)
        assert "secret" not in caught.value.message


def test_unknown_instance(lab: Lab, dandi: DandiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """An instance that nobody knows makes the source unavailable, with the nearest known name."""
    gone(lab)
    monkeypatch.setenv("DANDI_INSTANCE", "dandi-sandbx")
    with pytest.raises(SourceError, match="did you mean 'dandi-sandbox'"):
        get(lab)


def test_addresses() -> None:
    """What is recorded of an asset is read as the same; what is none is refused."""
    address = DandiAddress(
        "https://api.example.org/api", "000123", "0.230101.1234",
        "01234567-89ab-cdef-0123-456789abcdef", "sub 1/ü?&.nwb",
    )  # fmt: skip
    assert DandiAddress.parse(str(address)) == address
    zarr = replace(address, zarr_id="01234567-89ab-cdef-0123-456789abcdee", key="0/0 #")
    assert DandiAddress.parse(str(zarr)) == zarr
    for wrong in ("", "https://x/api/dandisets/1/", str(address).partition("?")[0], "sha1://x"):
        with pytest.raises(InvalidInputError):
            DandiAddress.parse(wrong)
