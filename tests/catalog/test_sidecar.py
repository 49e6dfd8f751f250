"""The sidecar: what was written is read, and nothing else ever is."""

from __future__ import annotations

import json
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from recallfs.catalog.sidecar import (
    Incarnation,
    Pin,
    Record,
    Release,
    ResidualRef,
    Revocation,
    SkeletonRef,
    decode,
    encode,
)
from recallfs.errors import CatalogError, IntegrityError, RecallError
from recallfs.testing.records import MOMENT, plain_record, rich_record
from recallfs.values import (
    Copy,
    DeclaredInput,
    Derivation,
    Entry,
    InputRef,
    Level,
    Metadata,
    OutputRef,
    Proof,
    State,
    normalise_path,
)

GOLDEN = Path(__file__).parent / "data" / "rsc1-1.rsc1"
GOLDEN_ACL = GOLDEN.with_name("rsc1-2.rsc1")
GOLDEN_RESIDUAL = GOLDEN.with_name("rsc1-residual.rsc1")
GOLDEN_COSTS = GOLDEN.with_name("rsc1-costs.rsc1")


def sealed(body: Any, **outer: Any) -> bytes:
    """Write a document with a right digest, independently of `encode`."""
    text = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    digest = blake3(text.encode()).hexdigest()
    return json.dumps({"format": "rsc1", "digest": digest, "body": body, **outer}).encode()


def body_of(record: Record) -> dict[str, Any]:
    """Return the body of a record's sidecar."""
    return dict(json.loads(encode(record))["body"])


def assert_damaged(content: bytes) -> IntegrityError:
    """Check that bytes are refused as damaged, under their name."""
    with pytest.raises(IntegrityError) as caught:
        decode(content, name="the-name")
    assert caught.value.kind == "damaged-record"
    assert "the-name" in str(caught.value)
    return caught.value


def test_the_golden_file_is_read() -> None:
    """The first sidecar ever written still gives every value it was written with."""
    assert decode(GOLDEN.read_bytes()) == rich_record()


def test_the_golden_file_is_still_what_we_write() -> None:
    """The format has not drifted: the same record gives the same bytes."""
    assert encode(rich_record()) == GOLDEN.read_bytes()


def test_the_golden_file_with_an_acl_is_read_and_written() -> None:
    """An ACL is an optional part of the metadata: sidecars with it and without it are both read."""
    record = rich_record()
    metadata = replace(
        record.entry.metadata,
        mode=0o2660,
        acl="user::rw-,user:70001:r--,group::r--,group:80001:rw-,mask::rw-,other::---",
    )
    record = replace(record, entry=replace(record.entry, metadata=metadata))
    assert decode(GOLDEN_ACL.read_bytes()) == record
    assert encode(record) == GOLDEN_ACL.read_bytes()
    assert "acl" not in body_of(rich_record())["entry"]["metadata"]


def test_the_golden_file_with_a_residual_is_read_and_written() -> None:
    """A residual is an optional part: sidecars with it and without it are both read."""
    record = replace(rich_record(), residual=ResidualRef("9" * 64, 4_000_000))
    assert decode(GOLDEN_RESIDUAL.read_bytes()) == record
    assert encode(record) == GOLDEN_RESIDUAL.read_bytes()
    assert "residual" not in body_of(rich_record())


def with_costs(record: Record) -> Record:
    """Return a record whose derivation says what it used."""
    made = replace(record.derivations[0], cpu_seconds=40.25, peak_memory_bytes=6_000_000_000)
    return replace(record, derivations=(made,))


def test_the_golden_file_with_costs_is_read_and_written() -> None:
    """What a derivation used is optional: sidecars with it and without it are both read."""
    record = with_costs(rich_record())
    assert decode(GOLDEN_COSTS.read_bytes()) == record
    assert encode(record) == GOLDEN_COSTS.read_bytes()
    assert "cpu_seconds" not in body_of(rich_record())["derivations"][0]


@pytest.mark.parametrize("acl", ["rw", "user::rw-", "other::---,group::r--,user::rw-", 5])
def test_an_acl_that_cannot_be_is_damaged(acl: Any) -> None:
    """An ACL that could not be set, or is not in its one form, is not guessed at."""
    body = body_of(plain_record("a"))
    body["entry"]["metadata"]["acl"] = acl
    assert_damaged(sealed(body))


def test_the_golden_digest_is_as_the_page_says() -> None:
    """A reader written from the page, with nothing of ours, finds the digest right."""
    document = json.loads(GOLDEN.read_bytes())
    assert list(document) == ["format", "digest", "body"]
    canonical = json.dumps(
        document["body"], sort_keys=True, separators=(",", ":"), ensure_ascii=False
    )
    assert blake3(canonical.encode()).hexdigest() == document["digest"]


def test_the_page_names_every_field() -> None:
    """The format's page has each key of the body, also of the objects inside."""
    page = Path(__file__).parents[2] / "docs" / "reference" / "formats" / "rsc1.md"
    text = page.read_text(encoding="utf-8")

    def keys(value: Any) -> set[str]:
        if isinstance(value, list):
            return set().union(*map(keys, value))
        if isinstance(value, dict):
            inner = (keys(v) for k, v in value.items() if k != "parameters")
            return set(value).union(*inner)
        return set()

    missing = {key for key in keys(body_of(rich_record())) if f"`{key}`" not in text}
    assert missing == set()


def test_the_golden_record_leaves_no_field_empty() -> None:
    """The golden file exercises every field, so that no value can be lost unnoticed."""

    def check(value: Any, name: str) -> None:
        if is_dataclass(value):
            for field in fields(value):
                optional = {(Entry, "identity"), (Record, "residual")}
                optional |= {(Derivation, "code"), (Derivation, "declared")}
                if (type(value), field.name) not in optional:
                    check(getattr(value, field.name), f"{name}.{field.name}")
        elif isinstance(value, tuple):
            assert value, name
            for item in value:
                check(item, name)
        else:
            assert value is not None, name

    check(with_costs(rich_record()), "record")


_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
_HEX = st.text("0123456789abcdef", min_size=32, max_size=32)
_SIZE = st.integers(0, 2**63 - 1)
_SECONDS = st.floats(0, 1e9)
_PATH = (
    st.lists(_TEXT.filter(lambda name: "\0" not in name and "/" not in name), min_size=1)
    .map("/".join)
    .filter(lambda path: ".." not in path.split("/") and not path.startswith(".recall"))
    .filter(lambda path: path.lstrip("./") != "" and ".recall" not in path.split("/"))
    .map(normalise_path)
)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | _TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
    max_leaves=5,
)  # fmt: skip
_COPIES = st.builds(Copy, _TEXT, _TEXT, _TEXT, st.booleans(), _TEXT)
_PROOFS = st.builds(
    Proof, *[_HEX] * 4, st.sampled_from(Level), _TEXT, _HEX, _TEXT, _TEXT, _TEXT, _SECONDS, _TEXT
)
_DERIVATIONS = st.builds(
    Derivation,
    id=_HEX,
    key=_HEX,
    recipe=_TEXT,
    version=_TEXT,
    source_digest=_HEX,
    parameters=st.dictionaries(_TEXT, _JSON, max_size=3),
    inputs=st.lists(st.builds(InputRef, _TEXT, _HEX, _TEXT, _HEX), max_size=2).map(tuple),
    outputs=st.lists(st.builds(OutputRef, _TEXT, _HEX), max_size=2).map(tuple),
    declared=st.lists(st.builds(DeclaredInput, _TEXT, _HEX, _JSON), max_size=2).map(tuple),
    seed=st.none() | st.integers(0, 2**128 - 1),
    started_at=_TEXT,
    threads=st.integers(1, 64),
    environment_id=_HEX,
    seconds=_SECONDS,
    timeout_s=st.none() | _SECONDS,
    memory_bytes=st.none() | _SIZE,
)
_ENTRIES = st.builds(
    Entry,
    id=_HEX,
    path=_PATH,
    size_bytes=_SIZE,
    sha256=_HEX,
    sha1=_HEX,
    metadata=st.builds(Metadata, *[st.integers(0, 2**40)] * 3, st.integers(-(2**62), 2**62)),
    created_at=_TEXT,
    state=st.sampled_from(State),
    identity=st.none(),
)
_RECORDS = st.builds(
    Record,
    store_id=_HEX,
    entry=_ENTRIES,
    blocks=st.binary(max_size=64),
    incarnations=st.lists(
        st.builds(Incarnation, _HEX, _SIZE, st.sampled_from(Level), _TEXT), max_size=2
    ).map(tuple),
    copies=st.lists(_COPIES, max_size=2).map(tuple),
    derivations=st.lists(_DERIVATIONS, max_size=2).map(tuple),
    proofs=st.lists(_PROOFS, max_size=2).map(tuple),
    revocations=st.lists(st.builds(Revocation, _HEX, _TEXT, _TEXT, _TEXT), max_size=2).map(tuple),
    pins=st.lists(st.builds(Pin, st.booleans(), _TEXT, _TEXT, _TEXT), max_size=2).map(tuple),
    release=st.none()
    | st.builds(
        Release, st.sampled_from(["intended", "trashed", "purged"]), *[_TEXT] * 4, st.booleans()
    ),
    skeleton=st.none() | st.builds(SkeletonRef, _HEX, _SIZE),
    residual=st.none() | st.builds(ResidualRef, _HEX, _SIZE),
)


@given(_RECORDS)
def test_any_record_comes_back(record: Record) -> None:
    """Whatever a record holds is read again as it was, and written again to the same bytes."""
    content = encode(record)
    again = decode(content)
    assert again == record
    assert encode(again) == content


def test_identity_is_not_evidence() -> None:
    """What one computer's file system says of a file is left out."""
    from recallfs.values import Identity

    record = plain_record("a")
    seen = replace(record, entry=replace(record.entry, identity=Identity(1, 2, 3, 4, 5)))
    assert decode(encode(seen)) == record


def test_every_truncation_is_damaged() -> None:
    """No beginning of a sidecar is taken for one; only its last line end may be missing."""
    content = encode(rich_record())
    for length in range(len(content) - 1):
        assert_damaged(content[:length])
    assert decode(content[:-1]) == rich_record()


@pytest.mark.parametrize("mask", [0x01, 0x10, 0x20, 0x80])
def test_every_flipped_byte_is_noticed(mask: int) -> None:
    """With any byte altered a sidecar is refused, or it is spaces and the record is the same."""
    content, record = encode(rich_record()), rich_record()
    format_value = range(content.index(b"rsc1"), content.index(b"rsc1") + 4)
    for i in range(len(content)):
        altered = content[:i] + bytes([content[i] ^ mask]) + content[i + 1 :]
        try:
            found = decode(altered)
        except RecallError as error:
            newer = error.kind == "schema-version" and i in format_value
            if not newer and error.kind != "damaged-record":
                raise
        else:
            assert content[i : i + 1].isspace()
            assert found == record


@given(st.binary(max_size=200) | st.text().map(str.encode))
def test_noise_is_damaged(content: bytes) -> None:
    """No bytes make the reader fail with anything but an error of ours."""
    assert_damaged(content)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"null",
        b"3",
        b"[]",
        b"{}",
        b'"rsc1"',
        b'{"format": "rsc1", "digest": "0", "body": {}}',
        b'{"format": "rsc1", "digest": null, "body": NaN}',
        b"[" * 100_000,
        b'{"format": "rsc1", "digest": "", "body": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        sealed({}),
        sealed([]),
        sealed(None),
    ],
    ids=range(13),
)
def test_what_is_no_sidecar_is_damaged(content: bytes) -> None:
    """JSON of another shape, too deep or with a right digest over nonsense is refused."""
    assert_damaged(content)


@pytest.mark.parametrize("key", sorted(body_of(rich_record())))
def test_a_missing_part_is_damaged(key: str) -> None:
    """A body that lacks a part is refused even if its digest is right."""
    body = body_of(rich_record())
    del body[key]
    assert_damaged(sealed(body))


def test_an_unknown_part_is_damaged() -> None:
    """A part that a reader does not know is not dropped silently when it writes."""
    assert_damaged(sealed({**body_of(rich_record()), "surprise": 1}))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("path", "../outside"),
        ("path", "/etc/passwd"),
        ("path", "a//b"),
        ("path", ".recall/store.toml"),
        ("path", ""),
        ("path", 3),
        ("state", "gone"),
        ("metadata", None),
        ("surprise", 1),
    ],
)
def test_an_entry_that_cannot_be_is_damaged(key: str, value: Any) -> None:
    """Above all, a path that leads out of the store never gets past the reader."""
    body = body_of(plain_record("a"))
    body["entry"][key] = value
    assert_damaged(sealed(body))


@pytest.mark.parametrize("found", ["rsc2", "rsc10", "", None, 1])
def test_another_format_is_not_called_damaged(found: Any) -> None:
    """A newer format says that recallfs must be updated, whatever the rest looks like."""
    with pytest.raises(CatalogError, match="Update recallfs") as caught:
        decode(sealed({"new": "shape"}, format=found))
    assert caught.value.kind == "schema-version"


def test_accepted_bytes_are_those_of_all_incarnations() -> None:
    """The original and every later form count."""
    assert rich_record().accepted == {"a" * 64, "7" * 64}


def test_the_last_word_on_pinning_counts() -> None:
    """Pinned, then unpinned is not pinned; and without any word nothing is."""
    record = rich_record()
    assert not record.is_pinned
    assert replace(record, pins=record.pins[:1]).is_pinned
    assert not plain_record("a").is_pinned


def test_proofs_count_between_their_times() -> None:
    """A proof counts from its making until it expires, unless revoked; the newest is first."""
    record = rich_record()
    (proof,) = record.proofs
    newer = replace(proof, id="f" * 32, made_at="2024-06-01T00:00:00.000000+00:00")
    record = replace(record, proofs=(proof, newer))
    assert record.valid_proofs("2024-05-06T23:59:59.999999+00:00") == []
    assert record.valid_proofs(proof.made_at) == [proof]
    assert record.valid_proofs("2025-01-01T00:00:00.000000+00:00") == [newer, proof]
    assert record.valid_proofs(proof.valid_until) == []
    revoked = replace(record, revocations=(Revocation(newer.id, "wrong", "ana", MOMENT),))
    assert revoked.valid_proofs("2025-01-01T00:00:00.000000+00:00") == [proof]


def test_the_derivation_to_run_is_the_proved_one() -> None:
    """The newest proved derivation is run; without a proof that counts, the last recorded."""
    record = rich_record()
    (proved,) = record.derivations
    later = replace(proved, id="e" * 32)
    record = replace(record, derivations=(proved, later))
    assert record.derivation("2025-01-01T00:00:00.000000+00:00") == proved
    assert record.derivation("2030-01-01T00:00:00.000000+00:00") == later
    assert plain_record("a").derivation(MOMENT) is None
