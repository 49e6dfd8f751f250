"""Release: only what can come back, only what nobody uses, and bytes are dropped last."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest

from actors import wait_for, write_without_locking
from conftest import Lab, sha256
from processes import start
from recallfs.atomic import set_fault_hook
from recallfs.catalog import records
from recallfs.errors import ConflictError, IntegrityError, NotRecallableError, SourceError
from recallfs.exclusive import watch
from recallfs.release.assessment import assess
from recallfs.release.pins import set_pin
from recallfs.release.policy import Decision, Wanted
from recallfs.release.release import purge, purge_expired, release, undo
from recallfs.resolve.commit import add_existing
from recallfs.resolve.presence import observe
from recallfs.resolve.tree import forget
from recallfs.values import State, parse_span

NOW = Wanted(hold=parse_span("0s"), max_skeleton=1.0)
HELD = Wanted(hold=parse_span("7d"), max_skeleton=1.0)


def judged(lab: Lab, path: str = "derived.h5", wanted: Wanted = NOW) -> Decision:
    """Assess a file."""
    return assess(lab.stores, lab.store, lab.entry(path), wanted)


def judged_fit(lab: Lab) -> Decision:
    """Make the decision that stood before something went wrong."""
    proof = records.load(lab.store, lab.entry("derived.h5").id).proofs[-1]
    return Decision(lab.store.url("derived.h5"), "release", "", "", f"proof:{proof.id}", 0)


def try_release(lab: Lab, path: str = "derived.h5", wanted: Wanted = NOW) -> None:
    """Assess a file and release it."""
    release(lab.stores, lab.store, lab.entry(path), judged(lab, path, wanted), wanted)


def test_released_file_comes_back_exact_by_recompute(lab: Lab) -> None:
    """An unseeded file is dropped, computed again and has the same sha256, mode and time."""
    place = lab.derive()
    place.chmod(0o640)
    os.utime(place, ns=(1, 1_700_000_000_123_456_789))
    from recallfs.resolve.commit import add_existing

    before = sha256(place)
    shutil.copy2(place, lab.base / "copy")
    assert records.load(lab.store, lab.entry("derived.h5").id).derivations
    lab.prove()
    try_release(lab)
    assert not place.exists()
    lab.cli("get", "--source", "recompute", "recall://lab/derived.h5")
    assert sha256(place) == before
    assert add_existing(lab.store, []) == []


def test_unproved_file_is_refused(lab: Lab) -> None:
    """A file with neither proof nor copies stays."""
    place = lab.derive()
    assert judged(lab).kind == "unproved"
    with pytest.raises(ConflictError):
        try_release(lab)
    assert place.exists()


def test_file_open_for_writing_without_locks_is_refused(lab: Lab) -> None:
    """A writer that took no lock is noticed all the same, and nothing is dropped."""
    place = lab.derive()
    lab.prove()
    ready = lab.base / "ready"
    writer = start(write_without_locking, str(place), str(ready))
    wait_for(ready, writer)
    decision = judged_fit(lab)
    with pytest.raises(ConflictError) as caught:
        release(lab.stores, lab.store, lab.entry("derived.h5"), decision, NOW)
    with pytest.raises(ConflictError, match="open in another process"), watch(place):
        pass
    writer.kill()
    writer.join()
    assert caught.value.kind in ("in-use", "dirty")
    assert place.exists()
    assert not lab.store.catalog.intents()


def test_file_open_for_reading_is_refused(lab: Lab) -> None:
    """A file that somebody reads is left alone."""
    place = lab.derive()
    lab.prove()
    with place.open("rb"), pytest.raises(ConflictError, match="open in another process"):
        try_release(lab)
    assert place.exists()


def test_hard_linked_file_is_refused(lab: Lab) -> None:
    """Dropping one of two names frees nothing and is refused."""
    place = lab.derive()
    lab.prove()
    os.link(place, lab.base / "second name")
    assert judged(lab).kind == "hard-linked"
    with pytest.raises(ConflictError):
        try_release(lab)
    assert place.exists()


def test_dirty_file_is_refused(lab: Lab) -> None:
    """A file that was changed after its proof stays, though size and time look the same."""
    place = lab.derive()
    lab.prove()
    status = place.stat()
    content = bytearray(place.read_bytes())
    content[-1] ^= 1
    place.write_bytes(content)
    os.utime(place, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert judged(lab).kind == "dirty"
    decision = judged_fit(lab)
    with pytest.raises(ConflictError, match="was changed"):
        release(lab.stores, lab.store, lab.entry("derived.h5"), decision, NOW)
    assert place.read_bytes() == bytes(content)


def test_pinned_file_is_refused_until_unpinned(lab: Lab) -> None:
    """A pin keeps a file, and its end lets it go."""
    lab.derive()
    lab.prove()
    set_pin(lab.store, lab.entry("derived.h5"), True, "poster")
    assert judged(lab).kind == "pinned"
    set_pin(lab.store, lab.entry("derived.h5"), False)
    try_release(lab)


def test_large_skeleton_is_refused_unless_asked(lab: Lab) -> None:
    """A file of which too much would have to be kept is refused, with the way to ask for it."""
    lab.derive(rows=40)
    lab.prove()
    decision = judged(lab, wanted=Wanted(max_skeleton=0.000001))
    assert decision.kind == "skeleton-too-large"
    assert "would have to be kept" in decision.reason


def test_input_of_a_released_file_is_refused(lab: Lab) -> None:
    """What a released file is made from is not released, unless a chain is asked for."""
    lab.released("first.h5")
    lab.cli("get", "recall://lab/first.h5")
    second = sha256(lab.derive("second.h5", raw="first.h5"))
    first = sha256(lab.root / "first.h5")
    lab.prove("second.h5")
    try_release(lab, "second.h5")
    assert judged(lab, "first.h5").kind == "relied-on"
    chained = Wanted(hold=parse_span("0s"), max_skeleton=1.0, allow_chain=True)
    try_release(lab, "first.h5", chained)
    assert not (lab.root / "first.h5").exists()
    lab.cli("get", "recall://lab/second.h5")
    assert sha256(lab.root / "second.h5") == second
    assert sha256(lab.root / "first.h5") == first


def test_filters_leave_files_alone(lab: Lab) -> None:
    """Age and size filters skip, they do not refuse."""
    lab.derive()
    lab.prove()
    assert judged(lab, wanted=Wanted(older_than=parse_span("1d"))).verdict == "skip"
    assert judged(lab, wanted=Wanted(min_size_bytes=10**9)).verdict == "skip"


def test_trash_is_held_and_undone(lab: Lab) -> None:
    """Held bytes are not freed, come back by undo as the same inode, and count as trash."""
    place = lab.derive()
    inode = place.stat().st_ino
    lab.prove()
    try_release(lab, wanted=HELD)
    assert not place.exists()
    assert len(lab.store.catalog.trashed()) == 1
    assert list(purge_expired(lab.store)) == []
    undo(lab.stores, lab.store, lab.entry("derived.h5"))
    assert place.stat().st_ino == inode
    assert lab.store.catalog.trashed() == []
    assert list((lab.store.control / "trash").iterdir()) == []


def test_undo_after_purge_says_where_to_turn(lab: Lab) -> None:
    """Once the trash is emptied, undo says so and names the other way."""
    lab.released()
    with pytest.raises(NotRecallableError, match="recall get"):
        undo(lab.stores, lab.store, lab.entry("derived.h5"))


def test_trashed_bytes_that_were_written_to_are_put_back(lab: Lab) -> None:
    """A writer that still had the file open loses nothing: its bytes return to the path."""
    place = lab.derive()
    lab.prove()
    try_release(lab, wanted=Wanted(hold=parse_span("0.2s"), max_skeleton=1.0))
    time.sleep(0.3)
    entry = lab.entry("derived.h5")
    trashed = lab.store.trash_path(entry.id)
    with trashed.open("r+b") as file:
        file.write(b"changed")
    with pytest.raises(ConflictError, match="written to after its release"):
        purge(lab.store, entry.id)
    assert place.read_bytes().startswith(b"changed")
    assert records.load(lab.store, entry.id).release is None
    assert judged(lab).kind == "dirty"


def test_vault_holds_the_evidence_before_anything_is_dropped(lab: Lab) -> None:
    """Sidecar, skeleton and environments are in the vault, and read as in the store."""
    lab.released()
    entry = lab.entry("derived.h5")
    vault = lab.store.vault / lab.store.id
    record = records.load(lab.store, entry.id)
    assert record.skeleton is not None
    kept = vault / "entries" / entry.id[:2] / f"{entry.id}.rsc1"
    from recallfs.catalog.sidecar import decode

    in_vault = decode(kept.read_bytes())
    assert (in_vault.proofs, in_vault.derivations) == (record.proofs, record.derivations)
    digest = record.skeleton.digest
    assert (vault / "skeletons" / digest[:2] / f"{digest}.rsk1").exists()
    assert list((vault / "environments").iterdir())


def test_unwritable_vault_stops_the_release(lab: Lab) -> None:
    """Without a vault nothing is dropped."""
    place = lab.derive()
    lab.prove()
    (lab.base / "vault").rmdir()
    (lab.base / "vault").write_text("a file, not a folder")
    with pytest.raises((ConflictError, OSError)):
        try_release(lab)
    assert place.exists()
    assert lab.entry("derived.h5").state is State.RESIDENT


def _mirror_tables(lab: Lab, *domains: str) -> str:
    tables = ""
    for number, domain in enumerate(domains):
        folder = lab.base / f"mirror{number}"
        tables += f'[[sources.mirror]]\nname = "m{number}"\nurl = "file://{folder}"\n'
        tables += f'failure_domain = "{domain}"\n' if domain else ""
    return tables


def _put_copy(lab: Lab, number: int, place: Path) -> Path:
    digest = sha256(place)
    copy = lab.base / f"mirror{number}" / "sha256" / digest[:2] / digest[2:4] / digest
    copy.parent.mkdir(parents=True)
    shutil.copyfile(place, copy)
    return copy


def test_two_copies_elsewhere_replace_a_proof(lab: Lab) -> None:
    """Copies by digest in two other failure domains are read whole, and then are enough."""
    lab.write_config(_mirror_tables(lab, "tape", "cloud"))
    place = lab.write_raw()
    before = sha256(place)
    _put_copy(lab, 0, place)
    assert judged(lab, "raw.h5").kind == "unproved"
    second = _put_copy(lab, 1, place)
    second.write_bytes(second.read_bytes()[:-1] + b"?")
    assert judged(lab, "raw.h5").kind == "unproved"
    shutil.copyfile(place, second)
    try_release(lab, "raw.h5")
    assert not place.exists()
    lab.cli("get", "recall://lab/raw.h5")
    assert sha256(place) == before


def test_copies_on_the_same_disk_or_in_disguise_do_not_count(lab: Lab) -> None:
    """A mirror on the store's disk, a hard link and a mirror inside the root are no copies."""
    place = lab.write_raw()
    lab.write_config(_mirror_tables(lab, "", ""))
    _put_copy(lab, 0, place)
    _put_copy(lab, 1, place)
    assert judged(lab, "raw.h5").kind == "unproved"
    lab.write_config(_mirror_tables(lab, "tape", "cloud"))
    for number in (0, 1):
        digest = sha256(place)
        copy = lab.base / f"mirror{number}/sha256/{digest[:2]}/{digest[2:4]}/{digest}"
        copy.unlink()
        copy.symlink_to(place)
    assert judged(lab, "raw.h5").kind == "unproved"
    inside = f'[[sources.mirror]]\nname = "in"\nurl = "file://{lab.root}"\nfailure_domain = "x"\n'
    lab.write_config(inside + "[release]\ncopies = 1\n")
    assert judged(lab, "raw.h5").kind == "unproved"


def test_copies_by_path_do_not_count(lab: Lab) -> None:
    """A copy that is found by its path can be changed, and so is not counted."""
    lab.write_config(_mirror_tables(lab, "tape") + "[release]\ncopies = 1\n")
    place = lab.write_raw()
    (lab.base / "mirror0").mkdir()
    shutil.copyfile(place, lab.base / "mirror0" / "raw.h5")
    assert judged(lab, "raw.h5").kind == "unproved"


def test_symlink_at_the_path_is_not_released(lab: Lab) -> None:
    """A symlink that took the file's place is not followed and not dropped."""
    place = lab.derive()
    lab.prove()
    moved = lab.base / "moved.h5"
    place.rename(moved)
    place.symlink_to(moved)
    decision = judged_fit(lab)
    with pytest.raises((ConflictError, ValueError)):
        release(lab.stores, lab.store, lab.entry("derived.h5"), decision, NOW)
    assert place.is_symlink()
    assert moved.exists()


def test_occupied_path_is_a_conflict_and_both_are_kept(lab: Lab) -> None:
    """A file that somebody made at a released path stays, and the entry stays recallable."""
    before = lab.released()
    place = lab.root / "derived.h5"
    place.write_text("mine")
    done = lab.cli("get", "recall://lab/derived.h5", check=False)
    assert done.returncode == 70
    assert place.read_text() == "mine"
    place.rename(lab.root / "mine.txt")
    lab.cli("get", "recall://lab/derived.h5")
    assert sha256(place) == before


def test_right_bytes_put_back_by_hand_end_the_release(lab: Lab) -> None:
    """Somebody who restores the file from a backup of their own is believed, after hashing."""
    place = lab.derive()
    shutil.copy2(place, lab.base / "backup")
    lab.prove()
    lab.release()
    shutil.copy2(lab.base / "backup", place)
    shown = lab.cli_json("explain", "recall://lab/derived.h5")
    assert shown["action"] == "open"
    assert lab.entry("derived.h5").state is State.RESIDENT
    assert records.load(lab.store, lab.entry("derived.h5").id).release is None


def test_pin_and_revocation_between_plan_and_release_count(lab: Lab) -> None:
    """What happened after the decision stops the release."""
    place = lab.derive()
    lab.prove()
    decision = judged(lab)
    set_pin(lab.store, lab.entry("derived.h5"), True)
    with pytest.raises(ConflictError, match="pinned"):
        release(lab.stores, lab.store, lab.entry("derived.h5"), decision, NOW)
    set_pin(lab.store, lab.entry("derived.h5"), False)
    stale = Decision(decision.url, "release", "", "", "proof:gone", 0)
    with pytest.raises(ConflictError, match="no longer counts"):
        release(lab.stores, lab.store, lab.entry("derived.h5"), stale, NOW)
    assert place.exists()


def test_changing_evidence_does_not_forget_the_identity(lab: Lab) -> None:
    """A pin or a proof does not make the next open hash the whole file again."""
    lab.derive()
    set_pin(lab.store, lab.entry("derived.h5"), True)
    assert observe(lab.store, lab.entry("derived.h5")) is State.RESIDENT
    lab.prove()
    assert observe(lab.store, lab.entry("derived.h5")) is State.RESIDENT


def test_purge_respects_a_later_hold(lab: Lab) -> None:
    """What is still held is not purged, though somebody had it on a list of what is due."""
    lab.derive()
    lab.prove()
    try_release(lab, wanted=HELD)
    assert purge(lab.store, lab.entry("derived.h5").id) == 0
    assert lab.store.trash_path(lab.entry("derived.h5").id).exists()


def test_damaged_skeleton_is_mended_from_the_vault_or_stops_the_release(lab: Lab) -> None:
    """A rotten skeleton never reaches the vault; with no whole one left nothing is dropped."""
    place = lab.derive()
    before = sha256(place)
    lab.prove()
    try_release(lab, wanted=HELD)
    undo(lab.stores, lab.store, lab.entry("derived.h5"))
    (local,) = (lab.store.control / "skeletons").glob("*/*.rsk1")
    (vaulted,) = lab.store.vault.rglob("*.rsk1")
    whole = local.read_bytes()
    rotten = bytearray(whole)
    rotten[len(rotten) // 2] ^= 1
    local.write_bytes(rotten)
    try_release(lab)
    assert (local.read_bytes(), vaulted.read_bytes()) == (whole, whole)
    lab.cli("get", "recall://lab/derived.h5")
    assert sha256(place) == before
    for path in (local, vaulted):
        path.write_bytes(rotten)
    with pytest.raises(IntegrityError, match="whole neither"):
        try_release(lab)
    assert sha256(place) == before


def test_vanished_vault_stops_the_release(lab: Lab) -> None:
    """A vault that was used and is gone, as when its disk is not mounted, is not made anew."""
    lab.released()
    lab.cli("get", "recall://lab/derived.h5")
    (lab.base / "vault").rename(lab.base / "unmounted")
    with pytest.raises(SourceError, match="mount its disk"):
        try_release(lab)
    assert (lab.root / "derived.h5").exists()
    (lab.base / "unmounted").rename(lab.base / "vault")
    try_release(lab)


@pytest.mark.parametrize("failure", [KeyboardInterrupt(), OSError(5, "input/output error")])
def test_failure_on_the_way_into_the_trash_puts_the_file_back(
    lab: Lab, failure: BaseException
) -> None:
    """An interrupt or a disk error between two steps leaves the file where it was."""
    place = lab.derive()
    lab.prove()

    def fail(point: str) -> None:
        if point == "release.trashed":
            raise failure

    set_fault_hook(fail)
    try:
        with pytest.raises(type(failure)):
            try_release(lab, wanted=HELD)
    finally:
        set_fault_hook(None)
    assert place.exists()
    assert not lab.store.catalog.intents()
    assert judged(lab).verdict == "release"


def test_file_saved_in_the_last_moment_survives(lab: Lab) -> None:
    """What somebody saves at the path while it is being released is not lost."""
    place = lab.derive()
    lab.prove()

    def save(point: str) -> None:
        if point == "place.linked":
            set_fault_hook(None)
            (lab.base / "new").write_text("the only copy")
            (lab.base / "new").replace(place)

    set_fault_hook(save)
    try:
        try_release(lab, wanted=HELD)
    finally:
        set_fault_hook(None)
    assert place.read_text() == "the only copy"


def test_input_is_kept_whatever_entry_holds_its_bytes(lab: Lab) -> None:
    """The last copy of an input of a released file is not forgotten, under whatever entry it is."""
    lab.derive()
    lab.prove()
    shutil.copy2(lab.root / "raw.h5", lab.root / "copy.h5")
    add_existing(lab.store, ["copy.h5"])
    forget(lab.store, "raw.h5")
    try_release(lab)
    with pytest.raises(ConflictError) as caught:
        forget(lab.store, "copy.h5")
    assert caught.value.kind == "relied-on"


def test_symlinked_folder_gives_no_second_address(lab: Lab) -> None:
    """A pinned file cannot be removed by way of a symlink to its folder."""
    import fsspec

    lab.write_raw("dir/raw.h5")
    (lab.root / "alias").symlink_to("dir")
    set_pin(lab.store, lab.entry("dir/raw.h5"), True)
    fs = fsspec.filesystem("recall")
    with pytest.raises(ConflictError):
        fs.rm_file("recall://lab/alias/raw.h5")
    fs.mv("recall://lab/alias/raw.h5", "recall://lab/dir/raw.h5")
    assert (lab.root / "dir/raw.h5").exists()
