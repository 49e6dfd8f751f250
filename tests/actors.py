"""What other processes do in the tests; importable, so that they can be sent there."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
import time
from datetime import timedelta
from multiprocessing.process import BaseProcess
from pathlib import Path


def wait_for(path: Path, process: BaseProcess, seconds: float = 30) -> None:
    """Wait until a process has made a file."""
    end = time.monotonic() + seconds
    while not path.exists():
        assert process.is_alive(), f"the process ended with {process.exitcode} before {path} was"
        assert time.monotonic() < end, f"{path} did not come"
        time.sleep(0.01)


def run_main(arguments: tuple[str, ...]) -> None:
    """Run the command line and end as it says."""
    from recallfs.cli.app import main

    sys.exit(main(list(arguments)))


def open_and_report(url: str, place: str) -> None:
    """Read a file through fsspec and write down its sha256."""
    import fsspec

    with fsspec.open(url, "rb") as file:
        Path(place).write_text(hashlib.sha256(file.read()).hexdigest())


def write_without_locking(path: str, ready: str) -> None:
    """Keep an HDF5 file open for writing, with its locking off."""
    os.environ["HDF5_USE_FILE_LOCKING"] = "FALSE"
    import h5py

    with h5py.File(path, "r+", locking=False):
        Path(ready).touch()
        time.sleep(60)


def prove_aside(path: str) -> None:
    """Prove a file, with the original renamed away meanwhile."""
    from recallfs.release.proof import prove
    from recallfs.resolve.stores import stores_in_reach

    stores = stores_in_reach()
    store = stores.by_name("lab")
    entry = store.catalog.entry_at(path)
    assert entry is not None
    prove(stores, store, entry, hiding="aside")


def move_when_told(old: str, new: str, go: str, said: str) -> None:
    """Move a file as soon as a file appears, and write down what became of it."""
    from recallfs.errors import RecallError
    from recallfs.resolve import tree
    from recallfs.resolve.stores import stores_in_reach

    store = stores_in_reach().by_name("lab")
    while not Path(go).exists():
        time.sleep(0.0005)
    try:
        tree.move(store, old, new)
        Path(said).write_text("moved")
    except RecallError as error:
        Path(said).write_text(error.kind)


def forget_and_report(path: str, said: str) -> None:
    """Forget a file, and write down what became of it."""
    from recallfs.errors import RecallError
    from recallfs.resolve import tree
    from recallfs.resolve.stores import stores_in_reach

    try:
        tree.forget(stores_in_reach().by_name("lab"), path)
        Path(said).write_text("forgotten")
    except RecallError as error:
        Path(said).write_text(error.kind)


def forget_and_write(path: str, content: str, said: str) -> None:
    """Forget a file and write another one at its path, and write down that it went well."""
    import fsspec

    from recallfs.resolve import tree
    from recallfs.resolve.stores import stores_in_reach

    tree.forget(stores_in_reach().by_name("lab"), path)
    with fsspec.open(f"recall://lab/{path}", "w") as file:
        file.write(content)
    Path(said).write_text("written")


def kill_while_aside(path: str) -> None:
    """Die while an original is set aside."""
    from recallfs.release.aside import set_aside
    from recallfs.resolve.stores import stores_in_reach

    store = stores_in_reach().by_name("lab")
    entry = store.catalog.entry_at(path)
    assert entry is not None
    with set_aside(store, entry):
        os.kill(os.getpid(), signal.SIGKILL)


def kill_while_moving(path: str, new: str) -> None:
    """Die after the file was renamed and before that is on record."""
    from recallfs.atomic import set_fault_hook
    from recallfs.resolve import tree
    from recallfs.resolve.stores import stores_in_reach
    from recallfs.testing.faults import kill_at

    store = stores_in_reach().by_name("lab")
    set_fault_hook(kill_at("place.unstaged"))
    tree.move(store, path, new)


def hold_an_edit(path: str, ready: str) -> None:
    """Stay in the middle of a change."""
    from recallfs.catalog import changes
    from recallfs.resolve.stores import stores_in_reach

    store = stores_in_reach().by_name("lab")
    entry = store.catalog.entry_at(path)
    assert entry is not None
    with changes.edit(store, entry.id, "pin"):
        Path(ready).touch()
        time.sleep(60)


def hold_lease_and_staging(what: str, path: str, ready: str) -> None:
    """Take something of the store in hand, say so, and wait to be killed."""
    from recallfs.catalog.holder import Holder
    from recallfs.resolve.stores import stores_in_reach

    store = stores_in_reach().by_name("lab")
    if what == "staging":
        with store.staging() as folder:
            (folder / "data").write_bytes(b"unfinished")
            Path(ready).touch()
            time.sleep(60)
    elif what == "file":
        from recallfs.exclusive import watch

        with watch(store.root / path):
            Path(ready).touch()
            time.sleep(60)
    else:
        entry = store.catalog.entry_at(path)
        assert entry is not None
        if what == "lease":
            store.catalog.take_lease(f"entry:{entry.id}", str(Holder.current()), instead_of=None)
        else:
            (store.root / path).rename(store.aside_path(entry.id))
    Path(ready).touch()
    time.sleep(60)


def hold_intent(path: str, ready: str) -> None:
    """Die amid a change of evidence."""
    import signal

    from recallfs.catalog import changes
    from recallfs.resolve.stores import stores_in_reach

    store = stores_in_reach().by_name("lab")
    entry = store.catalog.entry_at(path)
    assert entry is not None
    with changes.edit(store, entry.id, "pin"):
        os.kill(os.getpid(), signal.SIGKILL)


def churn(folder: str, end: str, has: str) -> None:
    """Write, write over, move and forget files until told to end; write down what is left."""
    import json
    import random

    import fsspec

    from recallfs.resolve import tree
    from recallfs.resolve.stores import stores_in_reach

    store = stores_in_reach().by_name("lab")
    chance = random.Random(folder)  # noqa: S311 - no secret
    left: dict[str, str] = {}
    while not Path(end).exists():
        path = f"{folder}/{chance.randrange(5)}"
        action = chance.choice(["write", "write", "move", "forget"])
        if action == "write":
            content = chance.randbytes(50)
            with fsspec.open(f"recall://lab/{path}", "wb") as file:
                file.write(content)
            left[path] = hashlib.sha256(content).hexdigest()
        elif path in left and action == "forget":
            tree.forget(store, path)
            del left[path]
        elif path in left and (new := f"{folder}/{chance.randrange(5)}") not in left:
            tree.move(store, path, new)
            left[new] = left.pop(path)
    Path(has).write_text(json.dumps(left))


def die_with_file_open(path: str, how: str) -> None:
    """Open an HDF5 file for writing, and die."""
    import signal

    import h5py

    latest = {} if how == "open" else {"libver": "latest"}
    file = h5py.File(path, "r+", **latest)
    if how == "swmr":
        file.swmr_mode = True
    if how == "write":
        file["data"][0] = 7
        file.flush()
    os.kill(os.getpid(), signal.SIGKILL)


def examine_without_rights(output: str) -> None:
    """Examine the store as somebody who cannot write to it; write down the faults."""
    from recallfs.doctor.examination import examine
    from recallfs.resolve.stores import stores_in_reach

    examine()  # everything is imported now: another user could not read our Python
    control = stores_in_reach().by_name("lab").control
    (control / "staging").chmod(0o555)
    if os.getuid() == 0:
        # Root may write anywhere; without its capabilities it is a user like others.
        import ctypes

        header, nothing = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
        assert ctypes.CDLL(None).capset(header, nothing) == 0
    Path(output).write_text(" ".join(item.finding.id for item in examine().outcomes))


def race(what: str, names: list[str], seconds: float, seed: int, said: str) -> None:
    """Read, write or release files of the lab at random for a while; write down what came of it.

    Parameters
    ----------
    what : {"read", "write", "release", "apply"}
    """
    import random

    from recallfs.errors import RecallError
    from recallfs.filesystem import RecallFileSystem
    from recallfs.release.assessment import assess, assess_all
    from recallfs.release.plan import check_again, draw_up
    from recallfs.release.policy import Wanted
    from recallfs.release.release import release
    from recallfs.resolve.stores import stores_in_reach

    chance = random.Random(seed)  # noqa: S311 - a test
    stores = stores_in_reach()
    store = stores.by_name("lab")
    wanted = Wanted(hold=timedelta(0), max_skeleton=1.0)
    done: list[tuple[str, str, str]] = []

    def turn(name: str) -> str:
        if what == "read":
            with RecallFileSystem().open(f"recall://lab/{name}", "rb") as file:
                return hashlib.sha256(file.read()).hexdigest()
        if what == "write":
            with (store.root / name).open("r+b") as file:
                file.seek(0, os.SEEK_END)
                text = f"written {seed} {len(done)}"
                file.write(text.encode())
            return text
        entry = store.catalog.entry_at(name)
        assert entry is not None
        if what == "release":
            decision = assess(stores, store, entry, wanted)
            release(stores, store, entry, decision, wanted)
            return "released"
        found = assess_all(stores, [(store, entry)], wanted).files
        fit = [item for item in found if item[2].verdict == "release"]
        for item in check_again(stores, draw_up(stores, fit, wanted)):
            if isinstance(item, RecallError):
                raise item
            release(stores, *item, wanted)
            return "released"
        return "not fit"

    if what in ("release", "apply"):
        entry = store.catalog.entry_at(names[0])
        assert entry is not None
        assess(stores, store, entry, wanted)  # starts the interpreter
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        name = chance.choice(names)
        if what == "write":  # what was written over once is not released any more
            time.sleep(chance.random() * seconds / 4)
            names = [other for other in names if other != name] or names
        try:
            done.append((name, "done", turn(name)))
        except (RecallError, FileNotFoundError) as error:
            done.append((name, type(error).__name__, str(error)))
        time.sleep(chance.random() * 0.02)
    Path(said).write_text(json.dumps(done))
