"""Kachery: look-ups without client or keys; every byte is verified; the real client as witness."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from archives import CONTENT, corrupted, get, gone, in_client, kachery_of, link
from conftest import Lab
from recallfs.catalog import changes, records
from recallfs.config import KacherySettings
from recallfs.errors import (
    AccessError,
    IntegrityError,
    IntegrityWarning,
    InvalidInputError,
    NotRecallableError,
    SourceError,
    SourceTimeoutError,
)
from recallfs.sources.kachery import KacherySource
from recallfs.sources.kachery_uri import KacheryURI
from recallfs.testing.kachery import KacheryServer
from recallfs.testing.misbehaviour import Fault
from recallfs.values import Copy


@pytest.fixture
def kachery(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Iterator[KacheryServer]:
    """Serve a gateway that the lab uses."""
    with kachery_of(lab, monkeypatch) as server:
        yield server


def cached(lab: Lab, sha1: str) -> Path:
    """Return where the client keeps a file on this computer."""
    return lab.base / "kachery" / "sha1" / sha1[:2] / sha1[2:4] / sha1[4:6] / sha1


def assert_right(lab: Lab, path: str = "a.nwb") -> None:
    assert (lab.root / path).read_bytes() == CONTENT


def test_found_by_sha1(lab: Lab, kachery: KacheryServer) -> None:
    """A file is found by the sha1 of its entry; nothing is signed and nothing needs a client."""
    kachery.add_file(gone(lab))
    found = get(lab)
    assert (found.source, found.method) == ("kachery", "by sha1")
    assert_right(lab)


def test_what_the_client_stored_is_found(lab: Lab, kachery: KacheryServer) -> None:
    """A file that kachery_cloud stored comes back."""
    kept = gone(lab)
    code = """
import sys, kachery_cloud
kachery_cloud.get_client_id(generate_if_missing=True)
print(kachery_cloud.store_file(sys.argv[1], label="a b.nwb"))
"""
    uri = in_client(code, kept)
    assert KacheryURI.parse(uri) == KacheryURI(lab.entry("a.nwb").sha1, label="a b.nwb")
    assert get(lab).source == "kachery"
    assert_right(lab)


def test_the_client_s_cache_is_verified(lab: Lab, kachery: KacheryServer) -> None:
    """What the client left on this computer is used when it is right, and no server is asked."""
    kept = gone(lab)
    place = cached(lab, lab.entry("a.nwb").sha1)
    place.parent.mkdir(parents=True)
    place.write_bytes(kept.read_bytes())
    assert get(lab).method == "in the local cache"
    assert_right(lab)
    assert not kachery.log


@pytest.mark.parametrize("wrong", ["empty", "corrupt"])
def test_a_wrong_file_in_the_cache(lab: Lab, kachery: KacheryServer, wrong: str) -> None:
    """A wrong file in the client's cache is named, once, and passed over for the gateway's."""
    kept = gone(lab)
    kachery.add_file(kept)
    place = cached(lab, lab.entry("a.nwb").sha1)
    place.parent.mkdir(parents=True)
    place.write_bytes(b"" if wrong == "empty" else corrupted(kept).read_bytes())
    with pytest.warns(IntegrityWarning) as said:
        found = get(lab)
    assert (found.source, found.method) == ("kachery", "by sha1")
    assert len(said) == 1
    assert str(place) in str(said[0].message)
    assert_right(lab)


def test_corrupt_object(lab: Lab, kachery: KacheryServer) -> None:
    """Wrong bytes under a right name are refused; the error says where they are, nothing stays."""
    kept = gone(lab)
    kachery.add_file(corrupted(kept), sha1=lab.entry("a.nwb").sha1)
    with pytest.raises(IntegrityError, match=r"kachery.*127\.0\.0\.1"):
        get(lab)
    assert not (lab.root / "a.nwb").exists()


def test_size_that_lies(lab: Lab, kachery: KacheryServer) -> None:
    """A gateway that tells another size is not downloaded from."""
    kachery.add_file(gone(lab))
    kachery.fail(Fault(where="/api/gateway", edit={"size": 17}))
    with pytest.raises(IntegrityError, match="17 bytes"):
        get(lab)
    assert not kachery.bucket.log


def test_absent(lab: Lab, kachery: KacheryServer) -> None:
    """A gateway that has it not makes it 'absent', and says what was asked."""
    gone(lab)
    with pytest.raises(NotRecallableError, match=r"zone default .* has no sha1"):
        get(lab)


def test_deleted_object(lab: Lab, kachery: KacheryServer) -> None:
    """An object that is gone while the gateway still remembers its URL is absent."""
    sha1 = kachery.add_file(gone(lab))
    KacherySource(KacherySettings()).look_up(
        lab.store, records.load(lab.store, lab.entry("a.nwb").id)
    )
    kachery.remove(sha1)
    with pytest.raises(NotRecallableError):
        get(lab)


@pytest.mark.parametrize("offset_s", [3600.0, -3600.0])
def test_clock(lab: Lab, kachery: KacheryServer, offset_s: float) -> None:
    """A clock that is an hour off does not matter."""
    kachery.clock_offset_s = offset_s
    kachery.add_file(gone(lab))
    assert get(lab).source == "kachery"


def test_unknown_zone(lab: Lab, kachery: KacheryServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A zone that the gateway does not know is named."""
    gone(lab)
    monkeypatch.setenv("KACHERY_ZONE", "nowhere")
    with pytest.raises(SourceError, match="no zone 'nowhere'"):
        get(lab)


def test_settings_before_variables(
    lab: Lab, kachery: KacheryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The configuration wins over the client's variables."""
    kachery.add_zone("lab")
    kachery.add_file(gone(lab), zone="lab")
    monkeypatch.setenv("KACHERY_GATEWAY_URL", "http://127.0.0.1:1")
    lab.write_config(f'[sources.kachery]\ngateway_url = "{kachery.url}"\nzone = "lab"\n')
    assert get(lab).source == "kachery"


def test_second_protocol(lab: Lab, kachery: KacheryServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kachery 2 URI that is on record is asked for in its zone, with the key where one is set."""
    kachery.add_zone("closed", token="the-zone-key")  # noqa: S106 - of a test
    kept = gone(lab)
    sha1 = kachery.add_file(kept, zone="closed")
    with changes.edit(lab.store, lab.entry("a.nwb").id, "copies") as draft:
        uri = f"kachery:closed:sha1:{sha1}:a.nwb"
        entry = replace(draft.record.entry, sha1="")
        copy = Copy("kachery", uri, "kachery:x", True, "")
        draft.record = replace(draft.record, entry=entry, copies=(copy,))
    with pytest.raises(AccessError, match="set KACHERY_API_KEY"):
        get(lab)
    monkeypatch.setenv("KACHERY_API_KEY", "another-key")
    with pytest.raises(AccessError, match="does not accept the key in KACHERY_API_KEY") as caught:
        get(lab)
    assert "another-key" not in repr(caught.value.details) + str(caught.value)
    monkeypatch.setenv("KACHERY_API_KEY", "the-zone-key")
    assert get(lab).source == "kachery"
    assert not any(request.authorization for request in kachery.bucket.log)


def test_linked_file_of_a_lab(
    lab: Lab, kachery: KacheryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that was only linked is sent by the lab's resource when it is asked for."""
    kept = gone(lab)
    sha1 = lab.entry("a.nwb").sha1
    there = lab.base / "there"
    link(there, kept, sha1)
    with pytest.raises(NotRecallableError):
        get(lab)
    url = kachery.add_resource("lab", there, upload_s=1.0)
    monkeypatch.setenv("KACHERY_RESOURCE_URL", url)
    assert get(lab).source == "kachery"
    assert_right(lab)


def test_linked_here_is_no_copy(lab: Lab, kachery: KacheryServer) -> None:
    """A link in the client's own cache is the file itself, and is not taken for a copy."""
    kept = gone(lab)
    in_client("import sys, kachery_cloud; kachery_cloud.link_file(sys.argv[1])", kept)
    with pytest.raises(NotRecallableError):
        get(lab)


def test_url_expires_mid_download(lab: Lab, kachery: KacheryServer) -> None:
    """A presigned URL that expires while bytes flow is asked for again; the rest comes."""
    kachery.bucket.url_max_uses = 1
    kachery.add_file(gone(lab))
    kachery.bucket.fail(Fault(reset_at=1_000_000, times=1))
    assert get(lab).source == "kachery"
    assert_right(lab)
    assert sum(request.path == "/api/gateway" for request in kachery.log) >= 2


@pytest.mark.parametrize("fault", [Fault(stall=True), Fault(delay_s=30)])
def test_stalled_gateway(lab: Lab, kachery: KacheryServer, fault: Fault) -> None:
    """A gateway that never answers costs its deadline, no more, and is said to be out of reach."""
    gone(lab)
    lab.write_config('[sources.kachery]\nanswer_timeout = "1s"\n')
    kachery.fail(fault)
    start = time.monotonic()
    with pytest.raises(SourceTimeoutError):
        get(lab)
    assert time.monotonic() - start < 6


def test_stalled_bucket(lab: Lab, kachery: KacheryServer) -> None:
    """A bucket that falls silent is given up after the configured silence."""
    kachery.add_file(gone(lab))
    lab.write_config('[sources.kachery]\nread_timeout = "1s"\ntotal_timeout = "3s"\n')
    kachery.bucket.fail(Fault(stall_at=1_000_000))
    start = time.monotonic()
    with pytest.raises(SourceTimeoutError):
        get(lab)
    assert time.monotonic() - start < 15


@pytest.mark.parametrize(
    "fault", [Fault(html=True), Fault(status=500), Fault(redirect_to="."), Fault(status=404)]
)
def test_broken_gateway(lab: Lab, kachery: KacheryServer, fault: Fault) -> None:
    """HTML, an error, a circle of redirects or no gateway at all is an outage, never 'absent'."""
    gone(lab)
    kachery.fail(fault)
    with pytest.raises(SourceError) as caught:
        get(lab)
    assert caught.value.kind != "not-recallable"


def test_html_instead_of_bytes(lab: Lab, kachery: KacheryServer) -> None:
    """A login page instead of the file is refused."""
    kachery.add_file(gone(lab))
    kachery.bucket.fail(Fault(html=True))
    with pytest.raises((IntegrityError, SourceError)):
        get(lab)
    assert not (lab.root / "a.nwb").exists()


def test_nothing_to_ask_by(lab: Lab) -> None:
    """Without a sha1 nothing is offered."""
    gone(lab)
    record = records.load(lab.store, lab.entry("a.nwb").id)
    source = KacherySource(KacherySettings())
    offer = source.offer(lab.store, record)
    assert offer is not None
    assert not offer.is_sure
    unknown = replace(record, entry=replace(record.entry, sha1=""))
    assert source.offer(lab.store, unknown) is None


def test_no_secret_in_any_error(lab: Lab, kachery: KacheryServer) -> None:
    """Nothing of a presigned URL's query is in an error or a warning."""
    kachery.add_file(gone(lab))
    for fault in (Fault(status=500), Fault(reset_at=10), Fault(status=403), Fault(html=True)):
        kachery.bucket.heal()
        kachery.bucket.fail(fault)
        lab.stores.memory.forget()
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            with pytest.raises((SourceError, IntegrityError, AccessError)) as caught:
                get(lab)
        text = str(caught.value) + json.dumps(caught.value.to_json()) + "".join(map(str, said))
        assert "ignature" not in text
        assert "?" not in text.replace("mounted?", "")


SHA1 = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("text", "uri"),
    [
        (f"sha1://{SHA1}", KacheryURI(SHA1)),
        (f"sha1://{SHA1}?label=a%20b.nwb", KacheryURI(SHA1, label="a b.nwb")),
        (f"sha1://{SHA1}?label=x&location=/data/x", KacheryURI(SHA1, label="x")),
        (f"kachery:lab:sha1:{SHA1}", KacheryURI(SHA1, "lab", is_second=True)),
        (f"kachery:lab:sha1:{SHA1}:a.nwb", KacheryURI(SHA1, "lab", "a.nwb", is_second=True)),
    ],
)
def test_uris(text: str, uri: KacheryURI) -> None:
    """Both forms are read, and what is written is read as the same."""
    assert KacheryURI.parse(text) == uri
    assert KacheryURI.parse(str(uri)) == uri


@pytest.mark.parametrize(
    "text",
    [
        "", "sha1:", f"sha1:{SHA1}", "sha1://", "sha1://abc", f"sha1://{SHA1.upper()}",
        f"sha1://{SHA1}/../x", f"md5://{SHA1}", f"kachery:lab:md5:{SHA1}", "kachery:lab:sha1:abc",
        f"kachery::sha1:{SHA1}", f"kachery:a/b:sha1:{SHA1}", "sha1://[", f"sha1://{SHA1}?zone=a b",
    ],
)  # fmt: skip
def test_malformed_uris(text: str) -> None:
    """What is no URI is refused in one sentence."""
    with pytest.raises(InvalidInputError, match="is no Kachery URI") as caught:
        KacheryURI.parse(text)
    assert "\n" not in caught.value.message
