"""Who gets a file back: not backups; and not without asking, where that is wished."""

from __future__ import annotations

import io
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import pytest

import recallfs
from conftest import Lab
from many import made_file
from mirrored import released_hdf5
from quick_recipes import content
from recallfs.errors import AccessError, ConflictError
from recallfs.readers.availability import make_available
from recallfs.readers.company import is_denied


@pytest.fixture
def far(lab: Lab) -> Iterator[Path]:
    """Give the path of a released HDF5 file, with the readers wrapped."""
    released_hdf5(lab, "far.h5")
    recallfs.install()
    yield lab.root / "far.h5"
    recallfs.uninstall()


def configure(lab: Lab, *lines: str) -> None:
    """Add a ``[readers]`` table to the configuration."""
    lab.config.write_text("\n".join([lab.config.read_text(), "[readers]", *lines, ""]))


@pytest.mark.parametrize(
    ("program", "is_one"),
    [
        ("/usr/bin/borg", True),
        ("/opt/borgmatic.py", True),
        ("/opt/lib/duplicity/__main__.py", True),
        ("/usr/bin/tracker-extract-3", True),
        ("/home/ana/analysis.py", False),
        ("", False),
    ],
)
def test_programs_by_name(lab: Lab, program: str, is_one: bool) -> None:
    """Backups and indexers are known by their names, scripts of people are not taken for them."""
    assert is_denied(lab.stores.config.readers.deny, os.getpid(), program) is is_one


def test_a_backup_finds_what_is_on_the_disk(
    lab: Lab, far: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For a denied program a released file is not there, and still it cannot be overwritten."""
    assert far.exists()
    monkeypatch.setattr(sys, "argv", ["/usr/bin/borg", "create"])
    assert not far.exists()
    with pytest.raises(FileNotFoundError):
        h5py.File(far, "r")
    with pytest.raises(ConflictError):
        h5py.File(far, "w")
    assert not os.path.lexists(far)
    configure(lab, 'deny = ["backup-of-ours"]')
    assert far.exists()
    monkeypatch.setattr(sys, "argv", ["/opt/backup-of-ours"])
    assert not far.exists()


def test_process_by_its_name_alone(lab: Lab, far: Path) -> None:
    """The name that the system has for the process counts as well."""
    name = Path("/proc/self/comm").read_text().strip()
    configure(lab, f'deny = ["{name}"]')
    assert not far.exists()


def test_large_file_when_nobody_is_there(
    lab: Lab, far: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Above the limit a recall is refused in one sentence, which says how to get the file."""
    configure(lab, 'ask_above = "10kB"')
    with pytest.raises(
        AccessError, match="and nobody is there to be asked; `recall get "
    ) as caught:
        h5py.File(far, "r")
    assert caught.value.kind == "not-agreed"
    assert not os.path.lexists(far)
    assert capsys.readouterr().err == ""
    lab.config.write_text(lab.config.read_text().replace("10kB", "10MB"))
    with h5py.File(far, "r"):
        pass
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("recallfs: recall://lab/far.h5 was released: ")


class _Terminal(io.StringIO):
    """A terminal, as far as anybody asks."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("answer", "is_agreed"), [("y\n", True), ("\n", False), ("", False)])
def test_asked_at_a_terminal(
    lab: Lab, far: Path, monkeypatch: pytest.MonkeyPatch, answer: str, is_agreed: bool
) -> None:
    """At a terminal the user is asked once, and no answer is no."""
    configure(lab, 'ask_above = "10kB"')
    screen = _Terminal()
    monkeypatch.setattr(sys, "stdin", _Terminal(answer))
    monkeypatch.setattr(sys, "stdout", _Terminal())
    monkeypatch.setattr(sys, "stderr", screen)
    if is_agreed:
        h5py.File(far, "r").close()
    else:
        with pytest.raises(AccessError, match="you said no"):
            h5py.File(far, "r")
    assert os.path.lexists(far) is is_agreed
    assert screen.getvalue().count("Bring it back? [y/N]") == 1


def slow_file(lab: Lab, name: str) -> tuple[Path, Path]:
    """Make a file vanish whose recipe waits at a gate; return its path and the gate."""
    lab.config.write_text(lab.config.read_text().replace('"lab_recipes"', '"quick_recipes"'))
    gate = lab.base / f"gate-{name}"
    made_file(lab, name, content(1), {"number": 1, "gate": str(gate)}, recipe="gated")
    (lab.root / name).unlink()
    return lab.root / name, gate


def test_long_recall_is_asked_for_by_what_it_took(lab: Lab) -> None:
    """What took longer last time than agreed is refused where nobody is there."""
    place, _ = slow_file(lab, "slow")
    configure(lab, 'ask_after = "0.01s"')
    with pytest.raises(AccessError, match="min last time, and nobody"):
        make_available(place)


@pytest.mark.parametrize("choice", ["drop", "continue"])
def test_interrupted_recall(lab: Lab, choice: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Ctrl-C drops a recall without a trace or, if so configured, lets it go on."""
    place, gate = slow_file(lab, "slow")
    configure(lab, f'on_interrupt = "{choice}"')
    started = Path(f"{gate}.started")

    def interrupt() -> None:
        while not started.exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        threading.Thread(target=interrupt, daemon=True).start()
        with pytest.raises(KeyboardInterrupt):
            make_available(place)
    finally:
        signal.signal(signal.SIGINT, before)
    assert not os.path.lexists(place)
    gate.touch()
    assert ("goes on coming back" in capsys.readouterr().err) is (choice == "continue")
    if choice == "drop":
        assert [path for path in lab.store.control.rglob("staging/*/*") if path.is_file()] == []
        started.unlink()
    assert make_available(place) == str(place)
    assert place.read_bytes() == content(1)
    assert len(lab.store.catalog.recalls(lab.entry("slow").id)) == 1


def test_pool_of_threads(lab: Lab, far: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Readers in a pool get the file, all of one recall that is told once."""

    def read(number: int) -> int:
        with h5py.File(far, "r") as file:
            return int(file["group/data"][number])

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(read, range(16))) == list(range(16))
    assert capsys.readouterr().err.count("recallfs: recall://") == 1


def test_fork_after_install(lab: Lab, far: Path) -> None:
    """A child that was forked after `install` reads a released file, while threads were at work."""
    assert far.exists()  # the parent's catalog is open
    child = os.fork()
    if child == 0:
        code = 1
        try:
            with h5py.File(far, "r") as file:
                code = 0 if file["group/data"][3] == 3 else 2
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    assert os.path.lexists(far)
    with h5py.File(far, "r") as file:
        assert file["group/data"][4] == 4


def test_library_that_must_not_be_imported(far: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader whose library is missing or forbidden is passed over."""
    recallfs.uninstall()
    for name in ("pynwb", "hdmf_zarr.nwb", "spikeinterface.core.loading", "pynapple.io.misc"):
        monkeypatch.setitem(sys.modules, name, None)
    recallfs.install()
    with h5py.File(far, "r") as file:
        assert file["group/data"][2] == 2
