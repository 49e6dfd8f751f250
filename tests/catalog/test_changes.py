"""Changes made at once by several processes: the outcome is one of the two orders."""

from __future__ import annotations

import json
import time
from pathlib import Path

import fsspec
import pytest

import actors
from conftest import Lab, sha256
from processes import start
from recallfs.atomic import set_fault_hook
from recallfs.catalog import changes, records
from recallfs.catalog.database import Intent
from recallfs.catalog.holder import Holder
from recallfs.catalog.rebuild import rebuild
from recallfs.errors import ConflictError, NotRecallableError, RecallError
from recallfs.release import release as release_module
from recallfs.release.assessment import assess
from recallfs.release.policy import Wanted
from recallfs.resolve import tree
from recallfs.resolve.recall import recall
from recallfs.values import State, parse_span

pytestmark = pytest.mark.long


def sidecars_by_path(lab: Lab) -> dict[str, int]:
    """Count the sidecars that claim each path."""
    found: dict[str, int] = {}
    for path in records.sidecars(lab.store):
        entry = records.load(lab.store, path.stem).entry
        found[entry.path] = found.get(entry.path, 0) + 1
    return found


def test_adding_the_same_files_at_once_gives_one_entry_each(lab: Lab) -> None:
    """Six processes add the same folder; each file has one entry and one sidecar, none fails."""
    for number in range(60):
        (lab.root / f"{number:02}.bin").write_bytes(b"%d" % number * 1000)
    processes = [start(actors.run_main, ("add", str(lab.root))) for _ in range(6)]
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
    assert sidecars_by_path(lab) == {f"{number:02}.bin": 1 for number in range(60)}
    assert lab.store.catalog.totals() == {"resident": (60, 110_000)}
    assert lab.store.catalog.intents() == []


def test_of_several_moves_to_one_path_one_succeeds(lab: Lab) -> None:
    """Released files cannot be moved onto one another, however close in time."""
    for number in range(4):
        lab.derive(f"{number}.h5", factor=float(number + 2))
        lab.prove(f"{number}.h5")
        lab.release(f"{number}.h5")
    go = lab.base / "go"
    said = [lab.base / f"said-{number}" for number in range(4)]
    processes = [
        start(actors.move_when_told, f"{number}.h5", "c.h5", str(go), str(said[number]))
        for number in range(4)
    ]
    time.sleep(0.5)
    go.touch()
    for process in processes:
        process.join(60)
    outcomes = [place.read_text() for place in said]
    assert outcomes.count("moved") == 1, outcomes
    assert set(outcomes) <= {"moved", "conflict"}
    paths = {f"{n}.h5" for n in range(4) if outcomes[n] != "moved"} | {"c.h5"}
    assert sidecars_by_path(lab) == {**dict.fromkeys(paths, 1), "raw.h5": 1}
    assert {entry.path for entry in lab.store.catalog.entries_below("")} == paths | {"raw.h5"}


def test_an_input_cannot_be_forgotten_while_its_output_is_released(lab: Lab) -> None:
    """Between the claim of a release and its end, the input that it rests on stays."""
    lab.derive()
    digest = sha256(lab.root / "derived.h5")
    lab.prove()
    said = lab.base / "said"

    def forget_meanwhile(point: str) -> None:
        if point == "release.vaulted":
            other = start(actors.forget_and_report, "raw.h5", str(said))
            other.join(60)

    set_fault_hook(forget_meanwhile)
    try:
        lab.release()
    finally:
        set_fault_hook(None)
    assert said.read_text() == "relied-on"
    assert recall(lab.stores, lab.store, "derived.h5").sha256 == digest


def test_an_output_is_not_released_while_its_input_is_forgotten(lab: Lab) -> None:
    """A release that was decided before the input was claimed for forgetting is refused."""
    lab.derive()
    lab.prove()
    wanted = Wanted(hold=parse_span("0s"), max_skeleton=1.0)
    entry = lab.entry("derived.h5")
    decision = assess(lab.stores, lab.store, entry, wanted)
    raw = lab.entry("raw.h5")
    intent = Intent(raw.id, "forget", raw.path, {}, str(Holder.current()))
    with lab.store.lock(raw.id):
        changes.claim(lab.store, [intent], lambda: tree.refuse_if_needed(lab.store, raw))
        with pytest.raises(ConflictError) as caught:
            release_module.release(lab.stores, lab.store, entry, decision, wanted)
        assert caught.value.kind == "relied-on"
        lab.store.catalog.drop_intent(raw.id)
    assert (lab.root / "derived.h5").exists()


def test_nothing_is_purged_whose_evidence_has_gone(lab: Lab) -> None:
    """When the input vanished after the release, the trash keeps the bytes and `undo` works."""
    digest = sha256(lab.derive())
    lab.prove()
    lab.release(hold="1s")
    (lab.root / "raw.h5").unlink()
    time.sleep(1.1)
    ((_, outcome),) = release_module.purge_expired(lab.store)
    assert isinstance(outcome, ConflictError)
    assert outcome.kind == "unproved"
    release_module.undo(lab.stores, lab.store, lab.entry("derived.h5"))
    assert sha256(lab.root / "derived.h5") == digest


def test_writing_over_a_purged_file_waits_for_the_purge(lab: Lab) -> None:
    """A file that is written during a purge of the same path ends up as the only entry there."""
    lab.derive()
    lab.prove()
    lab.release(hold="1s")
    first = lab.entry("derived.h5").id
    time.sleep(1.1)
    writers = []

    def write_meanwhile(point: str) -> None:
        if point == "purge.hashed":
            said = str(lab.base / "said")
            writers.append(start(actors.forget_and_write, "derived.h5", "new", said))
            time.sleep(1)

    set_fault_hook(write_meanwhile)
    try:
        list(release_module.purge_expired(lab.store))
    finally:
        set_fault_hook(None)
    writers[0].join(60)
    assert (lab.base / "said").read_text() == "written"
    entry = lab.entry("derived.h5")
    assert entry.id != first
    assert entry.state is State.RESIDENT
    assert (lab.root / "derived.h5").read_text() == "new"
    assert sidecars_by_path(lab) == {"derived.h5": 1, "raw.h5": 1}


def test_a_rebuild_beside_writers_loses_nothing(lab: Lab) -> None:
    """While two processes add, move, write over and forget, rebuilds leave a true index."""
    ends = [lab.base / f"end-{number}" for number in range(2)]
    processes = [
        start(actors.churn, f"w{number}", str(ends[number]), str(lab.base / f"has-{number}"))
        for number in range(2)
    ]
    end = time.monotonic() + 5
    rebuilds = 0
    while time.monotonic() < end:
        assert rebuild(lab.store).damaged == []
        rebuilds += 1
    for place in ends:
        place.touch()
    has: dict[str, str] = {}
    for number, process in enumerate(processes):
        process.join(60)
        assert process.exitcode == 0
        has.update(json.loads((lab.base / f"has-{number}").read_text()))
    assert rebuilds > 3
    found = {entry.path: entry.sha256 for entry in lab.store.catalog.entries_below("")}
    assert found == has
    assert sidecars_by_path(lab) == dict.fromkeys(has, 1)
    for path, digest in has.items():
        assert sha256(lab.root / path) == digest
    rebuild(lab.store)
    assert {e.path: e.sha256 for e in lab.store.catalog.entries_below("")} == has


def test_a_stopped_process_is_named(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits for a process that stands still in the middle of a change is told which it is."""
    import os
    import signal

    monkeypatch.setattr("recallfs.catalog.store._STOPPED_PATIENCE_S", 0.3)
    lab.write_raw()
    ready = lab.base / "ready"
    process = start(actors.hold_an_edit, "raw.h5", str(ready))
    actors.wait_for(ready, process)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGSTOP)
    try:
        with pytest.raises(Exception, match=rf"stopped process \({process.pid}\)") as caught:
            tree.move(lab.store, "raw.h5", "other.h5")
        assert getattr(caught.value, "kind", "") == "catalog-locked"
    finally:
        process.kill()
        process.join()
    tree.move(lab.store, "raw.h5", "other.h5")
    assert Path(lab.root / "other.h5").exists()


def test_a_rebuild_first_ends_what_the_dead_had_begun(lab: Lab) -> None:
    """A move that was killed half way is not forgotten by who has the store open and rebuilds."""
    place = lab.write_raw("old.h5")
    before = sha256(place)
    store = lab.store
    process = start(actors.kill_while_moving, "old.h5", "new.h5")
    process.join()
    assert not place.exists()
    rebuild(store)
    assert lab.entry("new.h5").sha256 == before == sha256(lab.root / "new.h5")
    assert sidecars_by_path(lab) == {"new.h5": 1}


def test_a_reader_beside_writers_gets_a_whole_file_or_none(lab: Lab) -> None:
    """While files are written over, moved and forgotten, nothing is called damaged or half read."""
    end, has = lab.base / "end", lab.base / "has"
    process = start(actors.churn, "w", str(end), str(has))
    outcomes: dict[str, int] = {}
    give_up = time.monotonic() + 3
    while time.monotonic() < give_up:
        for number in range(5):
            try:
                with fsspec.open(f"recall://lab/w/{number}", "rb") as file:
                    outcome = str(len(file.read()))
            except FileNotFoundError:
                outcome = "none"
            except RecallError as error:
                outcome = f"{type(error).__name__}: {error}"
            outcomes[outcome] = outcomes.get(outcome, 0) + 1
    end.touch()
    process.join(60)
    assert process.exitcode == 0
    assert set(outcomes) <= {"50", "none"}, outcomes
    assert outcomes["50"] > 10


def test_a_lost_file_is_not_moved_over_another(lab: Lab) -> None:
    """A file that nothing can bring back does not take the place of one that is here."""
    for name in ("lost.bin", "here.bin"):
        (lab.root / name).write_bytes(name.encode())
        lab.cli("add", str(lab.root / name))
    (lab.root / "lost.bin").unlink()
    fs = fsspec.filesystem("recall")
    with pytest.raises(NotRecallableError):
        fs.mv("recall://lab/lost.bin", "recall://lab/here.bin")
    assert (lab.root / "here.bin").read_bytes() == b"here.bin"
    assert {entry.path for entry in lab.store.catalog.entries_below("")} == {"lost.bin", "here.bin"}
