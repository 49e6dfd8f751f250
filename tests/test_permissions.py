"""Who may read a file: ACLs as text and bytes, the algorithm of POSIX.1e, and limits."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recallfs.permissions import Acl, access_bits, limited, may_read, narrowed
from recallfs.values import Metadata

A, B, C = 1001, 1002, 1003
LAB, OTHERS = 50, 60

_BITS = st.integers(0, 7)
_NUMBERS = st.integers(0, 2**32 - 2)


def _named(numbers: st.SearchStrategy[int]) -> st.SearchStrategy[tuple[tuple[int, int], ...]]:
    named = st.dictionaries(numbers, _BITS, max_size=3)
    return named.map(lambda bits: tuple(sorted(bits.items())))


def acls(numbers: st.SearchStrategy[int]) -> st.SearchStrategy[Acl]:
    """Give ACLs, with named entries and without."""
    named = st.builds(Acl, _BITS, _BITS, _BITS, _named(numbers), _named(numbers), _BITS)
    return named | st.builds(Acl, _BITS, _BITS, _BITS)


def recorded(acl: Acl, uid: int = A, gid: int = LAB, special: int = 0) -> Metadata:
    """Make the metadata of a file with this ACL."""
    return Metadata(special | acl.mode, uid, gid, 0, acl.text)


@given(acls(_NUMBERS))
def test_text_and_bytes_say_all_of_an_acl(acl: Acl) -> None:
    """Whatever is in an ACL is read back from both forms."""
    assert Acl.from_text(str(acl)) == acl
    assert Acl.from_bytes(bytes(acl)) == acl


def test_bytes_are_those_of_the_system() -> None:
    """An attribute that Linux wrote is read as what setfacl had been told."""
    content = bytes.fromhex(
        "02000000" "01000600ffffffff" "02000400e9030000" "04000400ffffffff"
        "10000400ffffffff" "20000000ffffffff"
    )  # fmt: skip
    text = "user::rw-,user:1001:r--,group::r--,mask::r--,other::---"
    assert str(Acl.from_bytes(content)) == text
    assert bytes(Acl.from_text(text)) == content


@pytest.mark.parametrize(
    "text",
    [
        "",
        "user::rw-",
        "user::rw-,group::r--",
        "user::rw-,group::r--,other::r-",
        "user::rw-,group::r--,other::-r-",
        "user::rw-,group::r--,other::---,other::---",
        "user::rw-,user:5:r--,group::r--,other::---",  # no mask
        "user::rw-,user:-5:r--,group::r--,mask::rwx,other::---",
        "user::rw-,user:ana:r--,group::r--,mask::rwx,other::---",
        "user::rw-,user:4294967296:r--,group::r--,mask::rwx,other::---",
        "user::rw-,group::r--,mask:5:rwx,other::---",
        "owner::rw-,group::r--,other::---",
    ],
)
def test_text_that_is_no_acl_is_refused(text: str) -> None:
    """Nothing is guessed: a list that could not be set is an error."""
    with pytest.raises(ValueError):  # noqa: PT011 - int() and unpacking have words of their own
        Acl.from_text(text)


@given(st.binary(max_size=60))
def test_bytes_that_are_no_acl_are_refused(content: bytes) -> None:
    """Random bytes are an error or an ACL that is written back the same, never a crash."""
    try:
        acl = Acl.from_bytes(content)
    except ValueError:
        return
    assert Acl.from_bytes(bytes(acl)) == acl


@pytest.mark.parametrize(
    ("mode", "uid", "groups", "expected"),
    [
        (0o400, A, (), True),
        (0o044, A, (LAB,), False),  # the owner is the owner, even if others may more
        (0o040, B, (LAB,), True),
        (0o404, B, (LAB,), False),  # so is the group
        (0o404, B, (OTHERS,), True),
        (0o000, 0, (), True),  # root
        (0o222, B, (LAB,), False),
    ],
)
def test_plain_bits(mode: int, uid: int, groups: tuple[int, ...], expected: bool) -> None:
    """The first class that fits decides."""
    assert may_read(Metadata(mode, A, LAB, 0), uid, groups) is expected


@pytest.mark.parametrize(
    ("entries", "uid", "groups", "expected"),
    [
        ("user:1002:r--,group::---,mask::r--", B, (), True),
        ("user:1002:r--,group::---,mask::-w-", B, (), False),
        ("user:1002:---,group::r--,mask::r--", B, (LAB,), False),
        ("group::---,group:60:r--,mask::r--", B, (LAB, OTHERS), True),
        ("group::---,group:60:---,mask::r--", B, (OTHERS,), False),
        ("group::r--,mask::r--", B, (LAB,), True),
        ("group::r--,mask::-w-", B, (LAB,), False),
        ("user:1003:r--,group::---,mask::r--", B, (), True),  # by 'other'
    ],
)
def test_acl_entries(entries: str, uid: int, groups: tuple[int, ...], expected: bool) -> None:
    """Named user before groups; any group that grants; the mask limits; else the others."""
    acl = Acl.from_text(f"user::rw-,{entries},other::r--")
    assert may_read(recorded(acl), uid, groups) is expected


_PEOPLE = st.sampled_from([A, B, C])
_GROUPS = st.frozensets(st.sampled_from([LAB, OTHERS, A, B, C]))


@given(
    acls(st.sampled_from([A, B, C, LAB, OTHERS])),
    st.tuples(_PEOPLE, st.sampled_from([LAB, B]), _GROUPS),
    st.tuples(st.sampled_from([B, C]), _GROUPS),
)
def test_a_changed_owner_gives_nobody_more(
    acl: Acl, new: tuple[int, int, frozenset[int]], somebody: tuple[int, frozenset[int]]
) -> None:
    """Recalled by another: neither they nor anybody else may do what they could not before."""
    (owner, gid, owners), (other, others) = new, somebody
    before = recorded(acl, A, LAB, 0o6000)
    after = limited(before, owner, gid, owners)
    if (owner, gid) != (A, LAB):
        assert not after.mode & 0o6000
    assert not access_bits(after, owner, owners) & ~access_bits(before, owner, owners)
    if other != owner:
        assert not access_bits(after, other, others) & ~access_bits(before, other, others)


@given(acls(st.sampled_from([B, C, LAB, OTHERS])), st.sampled_from([B, C]), _GROUPS)
def test_plain_bits_in_place_of_an_acl_give_nobody_more(
    acl: Acl, person: int, groups: frozenset[int]
) -> None:
    """Where a file system keeps no ACL, those it named have no more than it said."""
    plain = recorded(acl.flattened())
    assert plain.acl == ""
    assert not access_bits(plain, person, groups) & ~access_bits(recorded(acl), person, groups)


@pytest.mark.parametrize(
    ("mode", "uid", "gid", "groups", "expected"),
    [
        (0o660, B, LAB, {LAB}, 0o660),
        (0o640, B, LAB, {LAB}, 0o440),
        (0o664, C, C, {C}, 0o444),
        (0o604, C, C, {C}, 0o400),  # what the group could not read, it cannot as others
        (0o4750, B, LAB, {LAB}, 0o550),
        (0o2750, A, A, {A}, 0o700),
    ],
)
def test_examples_of_limits(mode: int, uid: int, gid: int, groups: set[int], expected: int) -> None:
    """The cases that the documentation names."""
    assert limited(Metadata(mode, A, LAB, 7), uid, gid, groups).mode == expected


def test_a_log_is_as_private_as_all_it_tells_of() -> None:
    """Each file that is concerned may take a class of readers away."""
    public, private = Metadata(0o644, A, LAB, 0), Metadata(0o600, A, LAB, 0)
    group, elsewhere = Metadata(0o640, A, LAB, 0), Metadata(0o640, A, OTHERS, 0)
    assert narrowed(0o664, LAB, [public]) == 0o664
    assert narrowed(0o664, LAB, [public, group]) == 0o660
    assert narrowed(0o664, LAB, [public, elsewhere]) == 0o600
    assert narrowed(0o664, LAB, [public, private]) == 0o600


@given(acls(_NUMBERS), st.integers(0, 0o777))
def test_a_default_acl_is_cut_by_the_mode_of_the_call(acl: Acl, mode: int) -> None:
    """As for `open`: no class gets a bit that the call did not ask for."""
    assert acl.within(mode).mode == acl.mode & mode


@given(acls(st.sampled_from([A, B, C, LAB, OTHERS])), st.sampled_from([B, C]), _PEOPLE, _GROUPS)
def test_a_folders_acl_handed_down_means_the_same(
    acl: Acl, maker: int, person: int, groups: frozenset[int]
) -> None:
    """In what another makes below it, a folder's owner and those it names may do the same."""
    before = recorded(acl)
    below = recorded(acl.handed_down(A), maker)
    if person != maker and acl.mask != 0:
        assert access_bits(below, person, groups) == access_bits(before, person, groups)
