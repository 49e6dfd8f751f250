"""Every fault is really caused, found, and where it can be, mended with the bytes as they were."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3

import pytest

from conftest import Lab, sha256
from doctor.causing import flip, write_file
from doctor.mended_faults import MENDED, sidecar_damaged, staging_leftover, trash_stray
from doctor.told_faults import TOLD, root_gone
from mirrored import CONTENT, released_file
from recallfs.catalog.store import create_store, open_store
from recallfs.doctor.examination import Outcome, Report, examine
from recallfs.doctor.faults import FAULTS
from recallfs.errors import InvalidInputError
from recallfs.release.pins import set_pin
from recallfs.resolve.commit import add_existing
from recallfs.resolve.tree import forget, move

EXPECTED = {"vault-same-disk", "hdf5-version"}
"""What is wrong with every store of the tests, all below one folder, or with an old HDF5."""


def found(report: Report) -> set[str]:
    return {outcome.finding.id for outcome in report.outcomes} - EXPECTED


def outcome_of(report: Report, fault: str) -> Outcome:
    outcomes = [outcome for outcome in report.outcomes if outcome.finding.id == fault]
    assert outcomes, found(report)
    return outcomes[0]


def control_files(lab: Lab) -> dict[str, bytes]:
    """Read all evidence of the store."""
    control = lab.root / ".recall"
    return {
        str(path.relative_to(control)): path.read_bytes()
        for name in ("entries", "skeletons", "environments", "trash", "aside")
        for path in (control / name).rglob("*")
        if path.is_file()
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
