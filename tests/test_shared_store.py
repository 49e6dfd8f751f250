"""One store, several people: what they share, and what each keeps to themselves."""

from __future__ import annotations

import json
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import TESTS, Lab, sha256
from members import (
    ALICE,
    BEN,
    EVE,
    GROUP,
    Member,
    act,
    make_store,
    print_access,
    recall_as,
    run_killed,
    write_raw,
)
from recallfs.catalog import records
from recallfs.catalog.store import Store
from recallfs.ownership import metadata_of
from recallfs.permissions import Acl, may_read
from recallfs.resolve.commit import restore_ownership
from recallfs.resolve.stores import stores_in_reach

pytestmark = [
    pytest.mark.services,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else"),
]
ACL = "system.posix_acl_access"


@dataclass
class Shared:
    """A folder that Alice and Ben share, with the store ``lab`` in it."""

    base: Path

    @property
    def root(self) -> Path:
        """Folder of the store."""
        return self.base / "data" / "lab"

    @property
    def store(self) -> Store:
        """The store, opened by root."""
        return stores_in_reach().by_name("lab")

    def file(self, path: str, mode: int) -> Path:
        """Let a file's mode be what its owner would set, where the umask was too strict."""
        place = self.root / path
        place.chmod(mode)
        return place

    def kept(self) -> list[Path]:
        """List what recallfs keeps in the store and the vault, but for work in hand."""
        vault = self.root.with_name("lab.recall-vault")
        found = [self.root / ".recall", *self.root.glob(".recall/**/*"), vault, *vault.rglob("*")]
        return [path for path in found if not {"staging", "partial"} & set(path.parts)]


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[Shared]:
    """Give a store that Alice made in a folder of the group, by default closed to others."""
    mode = getattr(request, "param", 0o2770)
    base = Path(tempfile.mkdtemp(prefix="recallfs-shared-"))
    base.chmod(0o755)
    shared = Shared(base)
    for folder in (shared.root.parent, shared.root):
        folder.mkdir()
        os.chown(folder, ALICE.uid, GROUP)
        folder.chmod(mode)
    config = base / "config.toml"
    config.write_text(
        f'[stores.lab]\nroot = "{shared.root}"\n\n'
        f'[recipes]\nmodules = ["lab_recipes"]\npaths = ["{TESTS}"]\n'
    )
    monkeypatch.setenv("RECALLFS_CONFIG", str(config))
    budget = base / "budget"
    budget.mkdir()
    budget.chmod(0o1777)
    monkeypatch.setenv("RECALLFS_RECALL__BUDGET_FOLDER", str(budget))
    monkeypatch.setenv("HDF5_USE_FILE_LOCKING", "FALSE")  # locks need no rights that readers lack
    assert act(ALICE, make_store, str(shared.root)).returncode == 0
    yield shared
    shutil.rmtree(base)


def make_files(shared: Shared) -> str:
    """Let Alice bring a raw file and Ben derive another one from it."""
    assert act(ALICE, write_raw, str(shared.root / "raw.h5")).returncode == 0
    recall_as(ALICE, "add", str(shared.root / "raw.h5"))
    recall_as(BEN, "run", "double", "-o", "recall://lab/d.h5", "-i", "raw=recall://lab/raw.h5")
    return sha256(shared.root / "d.h5")


def release(member: Member, url: str = "recall://lab/d.h5", hold: str = "0s") -> None:
    """Release a file as a user."""
    recall_as(member, "release", url, "--yes", "--hold", hold, "--max-skeleton", "1")


@pytest.mark.parametrize("umasks", [(0o077, 0o022), (0o022, 0o077), (0o002, 0o077)])
def test_members_go_on_where_others_stopped(
    shared: Shared, umasks: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the umasks, each step of a file's life may be another member's; others see none."""
    alice, ben = (Member(m.uid, m.groups, u) for m, u in zip((ALICE, BEN), umasks, strict=True))
    digest = make_files(shared)
    assert act(ben, print_access, [str(shared.root / "raw.h5")]).stdout.strip() == "[true]"
    shared.file("d.h5", 0o660)
    recall_as(alice, "prove", "recall://lab/d.h5")
    release(ben)
    assert not (shared.root / "d.h5").exists()
    recall_as(alice, "get", "recall://lab/d.h5")
    assert sha256(shared.root / "d.h5") == digest
    # Alice may not give the file back to Ben; the group has what it had.
    status = (shared.root / "d.h5").stat()
    assert (status.st_uid, status.st_gid) == (ALICE.uid, GROUP)
    assert stat.S_IMODE(status.st_mode) == 0o660
    recall_as(ben, "prove", "recall://lab/d.h5")
    release(alice, hold="1d")
    recall_as(ben, "undo", "recall://lab/d.h5")
    assert sha256(shared.root / "d.h5") == digest
    recall_as(alice, "status", "lab")
    recall_as(ben, "pin", "recall://lab/d.h5")
    recall_as(alice, "unpin", "recall://lab/d.h5")
    recall_as(alice, "run", "text", "-o", "recall://lab/t.txt")
    recall_as(ben, "forget", "--yes", "recall://lab/t.txt", code=None)
    recall_as(EVE, "get", "recall://lab/d.h5", code=None)
    for place in shared.kept():
        status = place.lstat()
        assert status.st_gid == GROUP, place
        private = {"skeletons", "logs"} & set(place.parts) and place.is_file()
        if place.is_dir():
            assert stat.S_IMODE(status.st_mode) == 0o2770, place
        elif not private:
            assert stat.S_IMODE(status.st_mode) == 0o660, place
        else:
            # As private as the files that it tells of, which all members can read.
            assert status.st_mode & 0o047 == 0o040, (place, oct(status.st_mode))
    for name in ("staging", "partial"):  # each member's own, which no other may rename
        assert stat.S_IMODE((shared.root / ".recall" / name).stat().st_mode) == 0o3770, name


@pytest.mark.parametrize("shared", [0o2770, 0o2775], indirect=True)
def test_others_change_nothing(shared: Shared) -> None:
    """Who is not in the group cannot add, run, prove, release or forget; no traceback, no trace."""
    make_files(shared)
    shared.file("d.h5", 0o664)
    (shared.root / "new.txt").write_text("new")
    recall_as(ALICE, "prove", "recall://lab/d.h5")

    def state() -> dict[str, tuple[int, int]]:
        # SQLite's shared memory is nobody's data.
        return {
            str(path): (path.lstat().st_mode, path.lstat().st_mtime_ns)
            for path in shared.root.rglob("*")
            if not path.name.endswith(("-shm", "-wal"))
        }

    before = state()
    for arguments in (
        ("add", str(shared.root / "new.txt")),
        ("run", "text", "-o", "recall://lab/t.txt"),
        ("prove", "recall://lab/d.h5", "--again"),
        ("release", "recall://lab/d.h5", "--yes", "--hold", "0s", "--max-skeleton", "1"),
        ("forget", "recall://lab/d.h5", "--yes"),
        ("pin", "recall://lab/d.h5"),
    ):
        assert recall_as(EVE, *arguments, code=None).returncode != 0, arguments
    assert state() == before


def test_who_could_not_read_a_file_cannot_recall_it(shared: Shared) -> None:
    """A private file stays private when it is gone: so do its skeleton, its log and its trash."""
    digest = make_files(shared)
    os.chown(shared.root / "d.h5", ALICE.uid, GROUP)
    place = shared.file("d.h5", 0o600)
    recall_as(ALICE, "prove", "recall://lab/d.h5")
    release(ALICE, hold="1d")
    kept = [p for p in shared.kept() if p.is_file() and {"skeletons", "trash"} & set(p.parts)]
    assert len(kept) == 3  # one skeleton in the store, one in the vault
    kept += shared.root.glob(".recall/logs/*")
    assert len(kept) == 4
    asked = [str(path) for path in kept]
    assert json.loads(act(ALICE, print_access, asked).stdout) == [True] * 4
    assert json.loads(act(BEN, print_access, asked).stdout) == [False] * 4
    refused = recall_as(BEN, "get", "recall://lab/d.h5", code=None)
    assert refused.returncode != 0
    assert "you may not read recall://lab/d.h5" in refused.stderr
    assert not place.exists()
    recall_as(ALICE, "get", "recall://lab/d.h5")
    assert sha256(place) == digest
    assert stat.S_IMODE(place.stat().st_mode) == 0o600


def test_folders_on_the_way_keep_readers_out_too(shared: Shared) -> None:
    """A file in a folder that one may not enter is not recalled for one."""
    make_files(shared)
    folder = shared.root / "closed"
    folder.mkdir()
    os.chown(folder, ALICE.uid, GROUP)
    made = ("-o", "recall://lab/closed/d.h5", "-i", "raw=recall://lab/raw.h5", "-p", "factor=3.0")
    recall_as(ALICE, "run", "double", *made)
    shared.file("closed/d.h5", 0o664)
    recall_as(ALICE, "prove", "recall://lab/closed/d.h5")
    release(ALICE, "recall://lab/closed/d.h5")
    folder.chmod(0o700)
    refused = recall_as(BEN, "get", "recall://lab/closed/d.h5", code=None)
    assert refused.returncode != 0
    assert "may not read" in refused.stderr


def test_root_mends_what_a_member_could_not_restore(shared: Shared) -> None:
    """A recall by somebody else says what it left, and root gives owner and mode back."""
    make_files(shared)
    place = shared.file("d.h5", 0o4750)
    recall_as(ALICE, "prove", "recall://lab/d.h5")
    release(BEN)  # its owner, so that the kernel tells whether it is open, and it is purged at once
    recall_as(ALICE, "get", "recall://lab/d.h5")
    # Alice had what the group had: no more, and never by another's set-user-id.
    found = metadata_of(place)
    assert (found.uid, found.gid, found.mode) == (ALICE.uid, GROUP, 0o550)
    store = shared.store
    entry = store.catalog.entry_at("d.h5")
    assert entry is not None
    events = [e for e in store.catalog.events(entry.id) if e["action"] == "recall"]
    assert [event["details"] for event in events] == [{"not_restored": ["owner", "mode"]}]
    assert restore_ownership(store, records.load(store, entry.id))
    found = metadata_of(place)
    assert (found.uid, found.gid, found.mode) == (BEN.uid, GROUP, 0o4750)
    assert recall_as(BEN, "get", "recall://lab/d.h5", "--json").returncode == 0


def test_what_one_may_not_read_is_not_recovered_away(shared: Shared) -> None:
    """A member who opens the store after another's crash leaves what they cannot judge."""
    make_files(shared)  # so that the catalog is not simply made again
    url = "recall://lab/t.txt"
    killed = act(ALICE, run_killed, ("run", "text", "-o", url), "place.unstaged")
    assert killed.returncode == -9
    assert stat.S_IMODE((shared.root / "t.txt").stat().st_mode) == 0o600
    recall_as(BEN, "status", "lab")
    recall_as(BEN, "run", "text", "-o", "recall://lab/other.txt")
    recall_as(ALICE, "status", "lab")
    assert json.loads(recall_as(ALICE, "show", url, "--json").stdout)["state"] == "resident"


def test_what_root_makes_is_the_owners(shared: Shared, monkeypatch: pytest.MonkeyPatch) -> None:
    """After root worked in a store its people go on as before; root restores the owner at once."""
    make_files(shared)
    shared.file("d.h5", 0o640)
    root = Member(0, (), 0o077)
    recall_as(root, "prove", "recall://lab/d.h5")
    release(root)
    recall_as(root, "get", "recall://lab/d.h5")
    assert (shared.root / "d.h5").stat().st_uid == BEN.uid
    assert {path.lstat().st_uid for path in shared.kept()} <= {ALICE.uid, BEN.uid}
    release(BEN)
    recall_as(ALICE, "get", "recall://lab/d.h5")


def test_the_acl_of_the_root_is_handed_down(shared: Shared) -> None:
    """Named in the ACL of the root, a user has the same rights in what is made there."""
    make_files(shared)
    root = shared.root.parent / "named"
    root.mkdir()
    os.chown(root, ALICE.uid, ALICE.uid)
    root.chmod(0o700)
    acl = bytes(Acl.from_text(f"user::rwx,user:{BEN.uid}:rwx,group::---,mask::rwx,other::---"))
    os.setxattr(root, ACL, acl)
    assert act(ALICE, make_store, str(root)).returncode == 0
    config = Path(os.environ["RECALLFS_CONFIG"])
    config.write_text(config.read_text().replace(str(shared.root), str(root)))
    recall_as(BEN, "run", "text", "-o", "recall://lab/t.txt")
    recall_as(ALICE, "show", "recall://lab/t.txt")
    for place in root.glob(".recall/**/*"):
        if "staging" not in place.parts:
            found = metadata_of(place)
            assert f"user:{BEN.uid}:rw" in found.acl, place
            assert "group::---" in found.acl, place
            assert found.mode & 0o007 == 0


def test_an_acl_comes_back(lab: Lab) -> None:
    """A recall restores an access control list, with users it names."""
    place = lab.derive()
    acl = Acl.from_text(f"user::rw-,user:{BEN.uid}:r--,group::---,group:7:rw-,mask::rw-,other::---")
    os.setxattr(place, ACL, bytes(acl))
    lab.prove()
    skeleton = lab.store.skeleton_path(
        records.load(lab.store, lab.entry("derived.h5").id).skeleton.digest  # type: ignore[union-attr]
    )
    assert metadata_of(skeleton).acl == str(acl)
    lab.release()
    lab.cli("get", "recall://lab/derived.h5")
    assert os.getxattr(place, ACL) == bytes(acl)
    assert metadata_of(place).acl == str(acl)


_BITS = st.integers(0, 7)
_UIDS = st.sampled_from([0, ALICE.uid, BEN.uid, EVE.uid])
_GIDS = st.sampled_from([0, GROUP, ALICE.uid, 61101])


def _named(numbers: st.SearchStrategy[int]) -> st.SearchStrategy[tuple[tuple[int, int], ...]]:
    named = st.dictionaries(numbers, _BITS, max_size=2)
    return named.map(lambda bits: tuple(sorted(bits.items())))


_ACLS = st.builds(Acl, _BITS, _BITS, _BITS, _named(_UIDS), _named(_GIDS), _BITS)
_PLAIN = st.builds(Acl, _BITS, _BITS, _BITS)


@settings(max_examples=8, deadline=None)
@given(files=st.lists(st.tuples(_UIDS, _GIDS, _ACLS | _PLAIN), min_size=60, max_size=60))
def test_may_read_answers_as_the_kernel_does(files: list[tuple[int, int, Acl]]) -> None:
    """For any owner, group, mode and ACL, and several users, we say what the system says."""
    people = (ALICE, EVE, Member(61004, (GROUP, 61101)), Member(0, ()))
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        places = [Path(folder) / str(number) for number in range(len(files))]
        for place, (uid, gid, acl) in zip(places, files, strict=True):
            place.touch()
            os.chown(place, uid, gid)
            place.chmod(acl.mode)
            if not acl.is_plain:
                os.setxattr(place, ACL, bytes(acl))
        recorded = [metadata_of(place) for place in places]
        for person in people:
            said = json.loads(act(person, print_access, [str(place) for place in places]).stdout)
            groups = (person.uid, *person.groups)
            assert [may_read(item, person.uid, groups) for item in recorded] == said
