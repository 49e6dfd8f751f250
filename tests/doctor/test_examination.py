"""Every fault is really caused, found, and where it can be, mended with the bytes as they were."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import time_machine

from actors import hold_intent, hold_lease_and_staging, wait_for
from conftest import Lab, sha256
from mirrored import CONTENT, configure_mirror, released_file
from processes import start
from recallfs.atomic import write_record
from recallfs.cache.cache import Cache
from recallfs.catalog import records
from recallfs.catalog.database import Intent
from recallfs.catalog.sidecar import encode
from recallfs.catalog.store import open_store
from recallfs.config import CacheSettings
from recallfs.doctor.examination import Outcome, Report, examine
from recallfs.doctor.faults import FAULTS
from recallfs.errors import InvalidInputError
from recallfs.release.pins import set_pin
from recallfs.resolve.commit import add_existing
from recallfs.resolve.presence import settle
from recallfs.resolve.tree import forget
from recallfs.skeleton.vault import vault_place
from recallfs.values import State

EXPECTED = {"vault-same-disk", "hdf5-version"}
"""What is wrong with every store of the tests, all below one folder, or with an old HDF5."""


def found(report: Report) -> set[str]:
    return {outcome.finding.id for outcome in report.outcomes} - EXPECTED


def outcome_of(report: Report, fault: str) -> Outcome:
    outcomes = [outcome for outcome in report.outcomes if outcome.finding.id == fault]
    assert outcomes, found(report)
    return outcomes[0]


def write_file(lab: Lab, path: str = "a.bin", content: bytes = CONTENT) -> Path:
    place = lab.root / path
    place.write_bytes(content)
    add_existing(lab.store, [path])
    return place


def control_files(lab: Lab) -> dict[str, bytes]:
    """Read all evidence of the store."""
    control = lab.root / ".recall"
    return {
        str(path.relative_to(control)): path.read_bytes()
        for name in ("entries", "skeletons", "environments", "trash", "aside")
        for path in (control / name).rglob("*")
        if path.is_file()
    }


# -- causes -------------------------------------------------------------------------------------
# Each makes a fault in a lab. All return the file of the tree whose bytes must be right in the end.

Cause = Callable[[Lab], Path | None]


def catalog_damaged(lab: Lab) -> Path:
    place = write_file(lab)
    lab.store.catalog.close()
    catalog = lab.root / ".recall/catalog.sqlite"
    catalog.write_bytes(b"no database at all" * 500)
    for suffix in ("-wal", "-shm"):
        Path(f"{catalog}{suffix}").unlink(missing_ok=True)
    return place


def catalog_empty(lab: Lab) -> Path:
    place = write_file(lab)
    lab.store.catalog.close()
    for path in (lab.root / ".recall").glob("catalog.sqlite*"):
        path.unlink()
    return place


def row_missing(lab: Lab) -> Path:
    place = write_file(lab)
    write_file(lab, "b.bin", b"other")
    lab.store.catalog.drop(lab.entry("a.bin").id)
    return place


def row_differs(lab: Lab) -> Path:
    place = write_file(lab)
    record = records.load(lab.store, lab.entry("a.bin").id)
    lab.store.catalog.put([replace(record, entry=replace(record.entry, path="elsewhere.bin"))])
    return place


def sidecar_missing(lab: Lab) -> Path:
    released_file(lab, "a.bin")
    lab.cli("get", "recall://lab/a.bin")
    lab.store.sidecar_path(lab.entry("a.bin").id).unlink()
    return lab.root / "a.bin"


def sidecar_damaged(lab: Lab) -> Path:
    released_file(lab, "a.bin")
    path = lab.store.sidecar_path(lab.entry("a.bin").id)
    path.write_bytes(path.read_bytes()[:-100])
    return lab.root / "a.bin"


def sidecar_superseded(lab: Lab) -> Path:
    place = write_file(lab)
    old = records.load(lab.store, lab.entry("a.bin").id)
    place.write_bytes(b"written over")
    add_existing(lab.store, ["a.bin"])
    write_record(lab.store.sidecar_path(old.entry.id), encode(old))
    return place


def sidecar_only_in_vault(lab: Lab) -> Path:
    write_file(lab, "b.bin", b"other")
    released_file(lab, "a.bin")
    entry = lab.entry("a.bin")
    lab.store.sidecar_path(entry.id).unlink()
    lab.store.catalog.drop(entry.id)
    return lab.root / "a.bin"


def write_leftover(lab: Lab) -> None:
    write_file(lab)
    folder = lab.store.sidecar_path(lab.entry("a.bin").id).parent
    (folder / ".new-1").write_text("{")
    os.utime(folder / ".new-1", (1, 1))


def file_touched(lab: Lab) -> Path:
    place = write_file(lab)
    os.utime(place)
    return place


def trash_stray(lab: Lab) -> Path:
    place = write_file(lab)
    place.rename(lab.store.trash_path(lab.entry("a.bin").id))
    return place


def trash_gone(lab: Lab) -> Path:
    released_file(lab, "a.bin", hold="7d")
    lab.store.trash_path(lab.entry("a.bin").id).unlink()
    return lab.root / "a.bin"


def vault_copy_missing(lab: Lab) -> Path:
    released_file(lab, "a.bin")
    vault_place(lab.store, lab.store.sidecar_path(lab.entry("a.bin").id)).unlink()
    return lab.root / "a.bin"


def vault_copy_damaged(lab: Lab) -> Path:
    released_file(lab, "a.bin")
    flip(vault_place(lab.store, lab.store.sidecar_path(lab.entry("a.bin").id)))
    return lab.root / "a.bin"


def evidence_missing(lab: Lab) -> Path:
    lab.released()
    skeleton(lab).unlink()
    return lab.root / "derived.h5"


def evidence_damaged(lab: Lab) -> Path:
    lab.released()
    flip(skeleton(lab))
    return lab.root / "derived.h5"


def staging_leftover(lab: Lab) -> None:
    kill(lab, "staging")


def lease_dead(lab: Lab) -> None:
    write_file(lab)
    kill(lab, "lease")


def intent_dead(lab: Lab) -> Path:
    place = write_file(lab)
    ready = lab.base / "ready"
    process = start(hold_intent, "a.bin", str(ready))
    process.join(30)
    assert process.exitcode == -signal.SIGKILL
    return place


def not_restored(lab: Lab) -> Path:
    place = write_file(lab)
    entry = lab.entry("a.bin")
    lab.store.catalog.add_event("recall", entry, "ben@host", {"not_restored": ["mode"]})
    place.chmod(0o400)
    assert settle(lab.store, entry) is State.RESIDENT
    return place


def aside_dead(lab: Lab) -> Path:
    place = write_file(lab)
    kill(lab, "aside")
    assert not place.exists()
    return place


def cache_over_limit(lab: Lab) -> None:
    cache = Cache(CacheSettings(lab.base / "own"))
    entry = lab.entry(write_file(lab).name)
    with cache.staging(entry.size_bytes) as scratch:
        (scratch / "data").write_bytes(CONTENT)
        path = cache.keep(entry, scratch / "data", entry.sha256)
    os.utime(cache.notes.of(path), (1, 1))
    lab.write_config(f'[cache]\nfolder = "{lab.base / "own"}"\nlimit = "10kB"\n')


MENDED: dict[str, Cause] = {
    "cache-over-limit": cache_over_limit,
    "catalog-damaged": catalog_damaged,
    "catalog-empty": catalog_empty,
    "row-missing": row_missing,
    "row-differs": row_differs,
    "sidecar-missing": sidecar_missing,
    "sidecar-damaged": sidecar_damaged,
    "sidecar-superseded": sidecar_superseded,
    "sidecar-only-in-vault": sidecar_only_in_vault,
    "write-leftover": write_leftover,
    "file-touched": file_touched,
    "not-restored": not_restored,
    "trash-stray": trash_stray,
    "trash-gone": trash_gone,
    "vault-copy-missing": vault_copy_missing,
    "vault-copy-damaged": vault_copy_damaged,
    "evidence-missing": evidence_missing,
    "evidence-damaged": evidence_damaged,
    "staging-leftover": staging_leftover,
    "lease-dead": lease_dead,
    "intent-dead": intent_dead,
    "aside-dead": aside_dead,
}


def config_missing(lab: Lab) -> None:
    lab.config.unlink()


def config_invalid(lab: Lab) -> None:
    lab.write_config("[relese]\n")


def root_twice(lab: Lab) -> None:
    lab.write_config(f'[stores.again]\nroot = "{lab.root}"\n')


def recipes_broken(lab: Lab) -> None:
    (lab.base / "broken_recipes.py").write_text("import no_such_module_at_all\n")
    text = lab.config.read_text().replace('"lab_recipes"', '"broken_recipes", "lab_recipes"')
    lab.config.write_text(text.replace("paths = [", f'paths = ["{lab.base}", '))


def root_gone(lab: Lab) -> None:
    lab.root.rename(lab.base / "moved")


def not_a_store(lab: Lab) -> None:
    shutil.rmtree(lab.root)
    lab.root.mkdir()


def store_unusable(lab: Lab) -> None:
    (lab.root / ".recall/store.toml").write_text("format = [")


def store_copied(lab: Lab) -> None:
    lab.store.catalog.close()
    shutil.copytree(lab.root, lab.base / "copy")
    lab.write_config(f'[stores.copy]\nroot = "{lab.base / "copy"}"\n')


def store_nested(lab: Lab) -> None:
    from recallfs.catalog.store import create_store

    inner = create_store(lab.base / "inner", "inner", vault=lab.base / "inner-vault")
    inner.catalog.close()
    inner.root.rename(lab.root / "inner")
    lab.write_config(f'[stores.inner]\nroot = "{lab.root / "inner"}"\n')


def sidecar_newer(lab: Lab) -> None:
    write_file(lab)
    path = lab.store.sidecar_path(lab.entry("a.bin").id)
    path.write_text(path.read_text().replace('"rsc1"', '"rsc9"', 1))


def file_missing(lab: Lab) -> None:
    configure_mirror(lab)
    write_file(lab).unlink()


def file_lost(lab: Lab) -> None:
    write_file(lab).unlink()


def file_changed(lab: Lab) -> None:
    write_file(lab).write_bytes(CONTENT[::-1])


def file_unreadable(lab: Lab) -> None:
    """Let somebody be about to release a file: it cannot be read just then."""
    place = write_file(lab)
    os.utime(place)
    process = start(hold_lease_and_staging, "file", "a.bin", str(lab.base / "ready"))
    wait_for(lab.base / "ready", process)
    lab.environment["HOLDER"] = str(process.pid)


def path_occupied(lab: Lab) -> None:
    released_file(lab, "a.bin")
    (lab.root / "a.bin").write_bytes(b"somebody's")


def not_recallable(lab: Lab) -> None:
    released_file(lab, "a.bin")
    lab.write_config()


def evidence_expired(lab: Lab) -> None:
    lab.write_config('[release]\nproof_validity = "2s"\n')
    lab.derive("a.txt", "text")
    lab.prove("a.txt")
    lab.release("a.txt")
    time.sleep(2)


def recipe_gone(lab: Lab) -> None:
    lab.released()
    lab.config.write_text(lab.config.read_text().replace('"lab_recipes"', ""))


def interpreter_gone(lab: Lab) -> None:
    lab.released()
    for path in (lab.root / ".recall/environments").iterdir():
        import json

        content = json.loads(path.read_bytes())
        path.write_text(json.dumps({**content, "executable": "/opt/gone/python"}))


def trash_unnamed(lab: Lab) -> None:
    (lab.root / ".recall/trash/0123").write_text("perhaps the last copy")


def trash_overdue(lab: Lab) -> None:
    released_file(lab, "a.bin", hold="1s")
    time.sleep(1)


def vault_unreachable(lab: Lab) -> None:
    released_file(lab, "a.bin")
    (lab.base / "vault").rename(lab.base / "unmounted")


def evidence_lost(lab: Lab) -> None:
    lab.released()
    flip(skeleton(lab))
    flip(vault_place(lab.store, skeleton(lab)))


def mirror_unreachable(lab: Lab) -> None:
    configure_mirror(lab).rmdir()


def cache_unusable(lab: Lab) -> None:
    (lab.base / "file").touch()
    lab.write_config(f'[cache]\nfolder = "{lab.base / "file"}"\n')


def cache_shared_unusable(lab: Lab) -> None:
    lab.write_config(f'[cache]\nshared_folder = "{lab.base / "no-such-folder"}"\n')


def mirror_in_store(lab: Lab) -> None:
    configure_mirror(lab, f"file://{lab.root}")


def staging_foreign(lab: Lab) -> None:
    folder = lab.root / ".recall/staging" / "of-another-computer"
    folder.mkdir()
    os.utime(folder, (1, 1))


def intent_foreign(lab: Lab) -> None:
    write_file(lab)
    entry = lab.entry("a.bin")
    intent = Intent(entry.id, "pin", entry.path, {}, "elsewhere/boot|12|34")
    lab.store.catalog.intend([intent])


def aside_foreign(lab: Lab) -> None:
    write_file(lab)
    entry = lab.entry("a.bin")
    (lab.root / "a.bin").rename(lab.root / ".recall/aside" / f"ab-cd-12-34-{entry.id}")


def clock_set_back(lab: Lab) -> None:
    with time_machine.travel(time.time() + timedelta(days=30).total_seconds()):
        write_file(lab)


def group_cannot_write(lab: Lab) -> None:
    lab.root.chmod(0o2775)
    (lab.root / ".recall/trash").chmod(0o755)


TOLD: dict[str, Cause] = {
    "config-missing": config_missing,
    "config-invalid": config_invalid,
    "root-twice": root_twice,
    "recipes-broken": recipes_broken,
    "root-gone": root_gone,
    "not-a-store": not_a_store,
    "store-unusable": store_unusable,
    "store-copied": store_copied,
    "store-nested": store_nested,
    "sidecar-newer": sidecar_newer,
    "file-missing": file_missing,
    "file-lost": file_lost,
    "file-changed": file_changed,
    "file-unreadable": file_unreadable,
    "path-occupied": path_occupied,
    "not-recallable": not_recallable,
    "evidence-expired": evidence_expired,
    "recipe-gone": recipe_gone,
    "interpreter-gone": interpreter_gone,
    "trash-unnamed": trash_unnamed,
    "trash-overdue": trash_overdue,
    "vault-unreachable": vault_unreachable,
    "evidence-lost": evidence_lost,
    "cache-unusable": cache_unusable,
    "cache-shared-unusable": cache_shared_unusable,
    "mirror-unreachable": mirror_unreachable,
    "mirror-in-store": mirror_in_store,
    "staging-foreign": staging_foreign,
    "intent-foreign": intent_foreign,
    "aside-foreign": aside_foreign,
    "clock-set-back": clock_set_back,
    "group-cannot-write": group_cannot_write,
}

ELSEWHERE = {
    "hdf5-flags": "test_flags.py",
    "source-unreachable": "test_sources.py",
    "vault-same-disk": "every test here",
    "not-writable": "test_computer.py",
    "space-low": "test_computer.py",
    "inodes-low": "test_computer.py",
    "wal-on-network": "test_computer.py",
}
NOT_CAUSED = {
    "no-leases",
    "no-namespaces",
    "no-safe-rename",
    "no-folder-sync",
    "case-insensitive",
    "names-normalised",
    "hdf5-version",
}
"""These need kernels, file systems or libraries that a test cannot bring along."""


# -- help for the causes ------------------------------------------------------------------------


def flip(path: Path) -> None:
    """Flip one bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def skeleton(lab: Lab) -> Path:
    (path,) = (lab.root / ".recall/skeletons").rglob("*.rsk1")
    return path


def kill(lab: Lab, what: str) -> None:
    """Let a process take something in hand, and kill it."""
    ready = lab.base / "ready"
    process = start(hold_lease_and_staging, what, "a.bin", str(ready))
    wait_for(ready, process)
    process.kill()
    process.join()


# -- tests --------------------------------------------------------------------------------------


@pytest.mark.namespaces
def test_healthy_store_has_no_findings(lab: Lab) -> None:
    """A store with resident, released, trashed and recalled files has nothing wrong with it."""
    write_file(lab)
    lab.released()
    lab.derive("second.h5", factor=3.0)
    lab.prove("second.h5")
    lab.release("second.h5", hold="7d")
    released_file(lab, "far.bin")
    lab.cli("get", "recall://lab/far.bin")
    set_pin(lab.store, lab.entry("a.bin"), True)
    report = examine()
    assert found(report) == set(), [o.to_json() for o in report.outcomes]
    assert report.is_healthy


@pytest.mark.namespaces
def test_forgotten_and_overwritten_files_are_not_missed(lab: Lab) -> None:
    """What was forgotten or accepted anew leaves copies in the vault that are no fault."""
    for name in ("a.bin", "b.bin"):
        released_file(lab, name, name.encode() * 1000)
        lab.cli("get", f"recall://lab/{name}")
    forget(lab.store, "a.bin")
    (lab.root / "b.bin").write_bytes(b"new")
    add_existing(lab.store, ["b.bin"])
    assert found(examine()) == set()


@pytest.mark.parametrize("fault", MENDED)
def test_mended_fault(lab: Lab, fault: str) -> None:
    """It is found, nothing changes without ``fix``, and with it the bytes are had again."""
    place = MENDED[fault](lab)
    before = control_files(lab)
    report = examine()
    one = outcome_of(report, fault)
    assert one.is_left
    assert one.finding.mend is not None
    assert FAULTS[fault].is_mended
    assert control_files(lab) == before
    mended = examine(fix=True)
    assert outcome_of(mended, fault).done, outcome_of(mended, fault).failure
    after = examine()
    assert fault not in found(after)
    assert after.is_healthy, [o.to_json() for o in after.outcomes]
    if place is not None:
        expected = lab.entry(str(place.relative_to(lab.root))).sha256
        lab.cli("get", str(place))
        assert sha256(place) == expected


@pytest.mark.parametrize("fault", TOLD)
def test_told_fault(lab: Lab, fault: str) -> None:
    """It is found, and ``fix`` neither mends nor worsens it."""
    TOLD[fault](lab)
    try:
        one = outcome_of(examine(), fault)
        assert one.finding.mend is None
        before = control_files(lab)
        assert outcome_of(examine(fix=True), fault).is_left
        assert set(control_files(lab)) >= set(before)
    finally:
        if "HOLDER" in lab.environment:
            os.kill(int(lab.environment["HOLDER"]), signal.SIGKILL)
        lab.root.exists() or (lab.base / "moved").rename(lab.root)
        lab.write_config()
        if not (lab.root / ".recall/store.toml").exists() or fault == "store-unusable":
            shutil.rmtree(lab.root)
            from recallfs.catalog.store import create_store

            create_store(lab.root, "lab", vault=lab.base / "vault").catalog.close()


def test_every_fault_is_caused() -> None:
    """No fault is without a test that causes it, but for those named as such."""
    assert {*MENDED, *TOLD, *ELSEWHERE, *NOT_CAUSED} == set(FAULTS)
    mended = {fault for fault, what in FAULTS.items() if what.is_mended}
    assert mended == {*MENDED, "hdf5-flags"}


def test_moved_store_is_found(lab: Lab) -> None:
    """The line to write into the configuration is told."""
    root_gone(lab)
    problem = outcome_of(examine(), "root-gone").finding.problem
    assert f'root = "{lab.base / "moved"}" under [stores.lab]' in problem
    (lab.base / "moved").rename(lab.root)


@pytest.mark.namespaces
def test_one_broken_store_does_not_hide_the_others(lab: Lab) -> None:
    """The rest is examined; a store that is not named is not."""
    from recallfs.catalog.store import create_store

    other = create_store(lab.base / "other", "other", vault=lab.base / "vault2")
    lab.write_config(f'[stores.other]\nroot = "{other.root}"\n')
    write_file(lab).unlink()
    (other.root / ".recall/store.toml").write_text("format = [")
    report = examine()
    assert found(report) == {"store-unusable", "file-lost"}
    assert found(examine(["other"])) == {"store-unusable"}
    with pytest.raises(InvalidInputError, match="no store is named 'nostore'"):
        examine(["nostore"])


def test_restored_sidecar_follows_a_rename(lab: Lab) -> None:
    """The vault's copy names the old path; what it restores names the new one."""
    from recallfs.resolve.tree import move

    released_file(lab, "a.bin")
    move(lab.store, "a.bin", "b.bin")
    lab.store.sidecar_path(lab.entry("b.bin").id).unlink()
    assert outcome_of(examine(fix=True), "sidecar-missing").done
    lab.cli("get", "recall://lab/b.bin")
    assert (lab.root / "b.bin").read_bytes() == CONTENT


def test_without_a_copy_nothing_is_made_up(lab: Lab) -> None:
    """A damaged sidecar that the vault does not have stays, to be looked at by a person."""
    write_file(lab)
    path = lab.store.sidecar_path(lab.entry("a.bin").id)
    flip(path)
    damaged = path.read_bytes()
    assert outcome_of(examine(fix=True), "sidecar-damaged").is_left
    assert path.read_bytes() == damaged


def test_occupied_path_keeps_stray_and_occupant(lab: Lab) -> None:
    """A stray of the trash whose path is taken is recorded; both files stay."""
    place = trash_stray(lab)
    place.write_bytes(b"somebody's")
    examine(fix=True)
    assert place.read_bytes() == b"somebody's"
    assert lab.store.trash_path(lab.entry("a.bin").id).read_bytes() == CONTENT


def test_command_tells_and_counts(lab: Lab) -> None:
    """The page names fault, place and remedy; exit code 1 while errors are left."""
    done = lab.cli("doctor")
    assert "warning vault-same-disk" in done.stdout
    sidecar_damaged(lab)
    done = lab.cli("doctor", check=False)
    assert done.returncode == 1
    assert "error sidecar-damaged" in done.stdout
    assert "marked with *" in done.stdout
    document = lab.cli_json("doctor", "--fix")
    assert document["healthy"]
    assert {f["id"] for f in document["findings"] if f["fixed"]} == {"sidecar-damaged"}


@pytest.mark.namespaces
def test_sidecars_of_other_stores_in_one_database_are_left_alone(lab: Lab) -> None:
    """Rows of another store in the same database are not taken for this one's."""
    database = lab.base / "shared.sqlite"
    from recallfs.catalog.store import create_store

    lines = [f'[stores.lab]\nroot = "{lab.root}"\ncatalog = "sqlite:///{database}"\n']
    other = lab.base / "other"
    create_store(other, "other", vault=lab.base / "vault2").catalog.close()
    lines.append(f'[stores.other]\nroot = "{other}"\ncatalog = "sqlite:///{database}"\n')
    lab.config.write_text("\n".join(lines))
    for name, root in (("lab", lab.root), ("other", other)):
        (root / "a.bin").write_bytes(name.encode())
        lab.cli("add", str(root / "a.bin"))
    report = examine(fix=True)
    assert found(report) == set()
    with sqlite3.connect(database) as connection:
        assert connection.execute("SELECT count(*) FROM paths").fetchone() == (2,)
    connection.close()


def test_opening_is_not_mending(lab: Lab) -> None:
    """The doctor looks at what a killed process left before anything cleans it up."""
    staging_leftover(lab)
    store = open_store(lab.root)
    assert list((store.control / "staging").iterdir())
    examine()
    assert list((store.control / "staging").iterdir())
    store.catalog.close()
