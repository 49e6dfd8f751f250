"""What a lab does to a store, as values: chosen by chance, sent to a process, killed in the middle.

Importable in other processes. `serve` is such a process; what it is asked to do, and what is owed
afterwards, is the business of `world`.
"""

from __future__ import annotations

import faulthandler
import hashlib
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

PATHS = ("raw.nwb", "a.nwb", "b.nwb", "sub/c.nwb", "sub/d.nwb")
RECIPES = {"digested": ("out",), "spread": ("out",), "halves": ("left", "right")}
HOLDS = {"none": timedelta(0), "long": timedelta(days=9)}


@dataclass(frozen=True)
class Operation:
    """One thing that somebody does through recallfs; `what` names a function of this module."""

    what: str
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.what}({', '.join(f'{k}={v}' for k, v in self.arguments.items())})"


@dataclass(frozen=True)
class Outcome:
    """What became of an operation.

    Parameters
    ----------
    refusal : str
        Kind of the error, or the class of one that is Python's own; empty if all went well.
    crash : str
        Traceback of an exception that nobody should ever see.
    points : int
        Fault points that were passed.
    """

    refusal: str = ""
    crash: str = ""
    value: Any = None
    points: int = 0
    seconds: float = 0.0
    was_killed: bool = False
    killed_at: str = ""


def content(number: int) -> bytes:
    """Return the bytes that number stands for; tiny, and unlike those of any other number."""
    return f"written {number} ".encode() * 9


def write(path: str, number: int) -> None:
    """Write a file through fsspec."""
    import fsspec

    with fsspec.open(f"recall://lab/{path}", "wb") as file:
        file.write(content(number))


def run(recipe: str, source: str, outputs: tuple[str, ...], salt: int) -> list[str]:
    """Run a recipe; return the addresses of its outputs."""
    from recallfs.resolve.derive import derive
    from recallfs.resolve.stores import stores_in_reach

    urls = {
        name: f"recall://lab/{path}"
        for name, path in zip(RECIPES[recipe], outputs[: len(RECIPES[recipe])], strict=True)
    }
    if len(urls) == 1:
        urls = {"": urls["out"]}
    derived = derive(
        stores_in_reach(),
        recipe,
        outputs=urls,
        inputs={"raw": f"recall://lab/{source}"},
        parameters={"salt": salt},
    )
    return list(derived.outputs.values()) if derived.executed else []


def read(path: str) -> str:
    """Read a file as any program would; return its sha256."""
    import fsspec

    with fsspec.open(f"recall://lab/{path}", "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


def get(path: str) -> None:
    """Bring a file back."""
    from recallfs.resolve.recall import recall
    from recallfs.resolve.stores import stores_in_reach

    stores = stores_in_reach()
    recall(stores, stores.by_name("lab"), path)


def add(path: str) -> None:
    """Catalog a file that is in the tree, as the command does."""
    from recallfs.resolve.commit import add_existing
    from recallfs.resolve.stores import stores_in_reach
    from recallfs.resolve.tree import files_below, needs_adding

    store = stores_in_reach().by_name("lab")
    if store.locate(path).exists():
        add_existing(store, [p for p in files_below(store, path) if needs_adding(store, p)])


def move(path: str, new: str) -> None:
    """Rename a file through fsspec, over whatever is there."""
    import fsspec

    fsspec.filesystem("recall").mv(f"recall://lab/{path}", f"recall://lab/{new}")


def forget(path: str) -> None:
    """Remove a file through fsspec: its entry is forgotten."""
    import fsspec

    fsspec.filesystem("recall").rm_file(f"recall://lab/{path}")


def prove(path: str, hiding: str) -> None:
    """Prove a file."""
    from recallfs.catalog.records import known_entry
    from recallfs.release.proof import prove
    from recallfs.resolve.stores import stores_in_reach

    stores = stores_in_reach()
    store = stores.by_name("lab")
    prove(stores, store, known_entry(store, path), hiding=hiding)


def pin(path: str, is_pinned: bool) -> None:
    """Pin a file or end its pin."""
    from recallfs.catalog.records import known_entry
    from recallfs.release.pins import set_pin
    from recallfs.resolve.stores import stores_in_reach

    store = stores_in_reach().by_name("lab")
    set_pin(store, known_entry(store, path), is_pinned)


def release(path: str, hold: str, allow_chain: bool) -> None:
    """Release a file if it may be."""
    from recallfs.catalog.records import known_entry
    from recallfs.errors import ConflictError
    from recallfs.release.assessment import assess
    from recallfs.release.policy import Wanted
    from recallfs.release.release import release
    from recallfs.resolve.stores import stores_in_reach

    stores = stores_in_reach()
    store = stores.by_name("lab")
    entry = known_entry(store, path)
    wanted = Wanted(hold=HOLDS[hold], max_skeleton=100.0, allow_chain=allow_chain)
    decision = assess(stores, store, entry, wanted)
    if decision.verdict != "release":
        raise ConflictError(decision.reason, kind=decision.kind or "conflict")
    release(stores, store, entry, decision, wanted)


def undo(path: str) -> None:
    """Take a release back."""
    from recallfs.catalog.records import known_entry
    from recallfs.release.release import undo
    from recallfs.resolve.stores import stores_in_reach

    stores = stores_in_reach()
    store = stores.by_name("lab")
    undo(stores, store, known_entry(store, path))


def purge(path: str) -> None:
    """Empty the trash of one file whose hold is over."""
    from recallfs.catalog.records import known_entry
    from recallfs.release.release import purge
    from recallfs.resolve.stores import stores_in_reach

    store = stores_in_reach().by_name("lab")
    purge(store, known_entry(store, path).id)


def purge_expired() -> None:
    """Empty the trash of all whose hold is over."""
    from recallfs.release.release import purge_expired
    from recallfs.resolve.stores import stores_in_reach

    list(purge_expired(stores_in_reach().by_name("lab")))


def rebuild() -> None:
    """Make the catalog again."""
    from recallfs.resolve.stores import rebuild_catalog, stores_in_reach

    rebuild_catalog(stores_in_reach(), "lab")


def reopen() -> None:
    """Open the store, as every new process does."""
    from recallfs.resolve.stores import stores_in_reach

    stores_in_reach().by_name("lab")


OPERATIONS: dict[str, Callable[..., Any]] = {
    function.__name__: function
    for function in (
        write,
        run,
        read,
        get,
        add,
        move,
        forget,
        prove,
        pin,
        release,
        undo,
        purge,
        purge_expired,
        rebuild,
        reopen,
    )
}

_WEIGHTS = {
    "write": 2,
    "run": 6,
    "read": 2,
    "get": 3,
    "add": 1,
    "move": 2,
    "forget": 2,
    "prove": 6,
    "pin": 1,
    "release": 9,
    "undo": 1,
    "purge": 1,
    "purge_expired": 1,
    "rebuild": 1,
}


def by_chance(chance: random.Random, number: int) -> Operation:
    """Choose an operation; `number` is for what it may write."""
    names = list(_WEIGHTS)
    what = chance.choices(names, [_WEIGHTS[name] for name in names])[0]
    path, other = chance.sample(PATHS, 2)
    some: dict[str, dict[str, Any]] = {
        "write": {"path": path, "number": number},
        "move": {"path": path, "new": other},
        "prove": {"path": path, "hiding": chance.choice(["namespace", "aside"])},
        "pin": {"path": path, "is_pinned": chance.random() < 0.3},
        "release": {
            "path": path,
            "hold": chance.choice(list(HOLDS)),
            "allow_chain": chance.random() < 0.7,
        },
        "purge_expired": {},
        "rebuild": {},
    }
    if what == "run":
        source, *outputs = chance.sample(PATHS, 3)
        recipe = chance.choice(list(RECIPES))
        return run_of(recipe, source, outputs, chance.randrange(2))
    return Operation(what, some.get(what, {"path": path}))


def run_of(recipe: str, source: str, outputs: list[str], salt: int) -> Operation:
    """Return the operation that runs a recipe, with as many outputs as it has."""
    chosen = tuple(outputs[: len(RECIPES[recipe])])
    arguments = {"recipe": recipe, "source": source, "outputs": chosen, "salt": salt}
    return Operation("run", arguments)


def serve(connection: Connection) -> None:
    """Do what is asked for, until nobody asks any more; die at the fault point that is asked for.

    Each request is an operation and the number of fault points after which to die, or 0.
    """
    faulthandler.register(signal.SIGUSR1, file=sys.stderr)
    while True:
        try:
            operation, last_point = connection.recv()
        except EOFError:
            return
        connection.send(_performed(connection, operation, last_point))


def _performed(connection: Connection, operation: Operation, last_point: int) -> Outcome:
    from recallfs.atomic import set_fault_hook
    from recallfs.errors import RecallError

    points = 0

    def hook(name: str) -> None:
        nonlocal points
        points += 1
        if points == last_point:
            connection.send(Outcome(was_killed=True, killed_at=name))
            os.kill(os.getpid(), signal.SIGKILL)

    set_fault_hook(hook)
    start, value, refusal, crash = time.perf_counter(), None, "", ""
    try:
        value = OPERATIONS[operation.what](**operation.arguments)
    except RecallError as error:
        refusal = error.kind
    except (FileNotFoundError, FileExistsError, IsADirectoryError) as error:
        refusal = type(error).__name__
    except Exception:  # noqa: BLE001 - that there is none is what is tested
        crash = traceback.format_exc()
    finally:
        set_fault_hook(None)
    return Outcome(refusal, crash, value, points, time.perf_counter() - start)


def churn(seed: int, seconds: float, root: str, connection: Connection) -> None:
    """Do one thing after the other, all by chance; send what was done, and what became of it."""
    chance = random.Random(seed)  # noqa: S311 - no secret
    end = time.monotonic() + seconds
    number = 0
    while time.monotonic() < end:
        number += 1
        for _ in range(20):
            operation = by_chance(chance, seed * 100_000 + number)
            if chance.random() < 0.05 or _is_apt(Path(root), operation):
                break
        connection.send(operation)
        connection.send(_performed(connection, operation, 0))
    connection.close()


def _is_apt(root: Path, operation: Operation) -> bool:
    """Tell from what is in the tree whether an operation has a chance to do something."""
    some = operation.arguments
    is_here = (root / some.get("path", some.get("source", ""))).is_file()
    if operation.what == "run":
        return is_here and not any((root / path).exists() for path in some["outputs"])
    if operation.what in ("get", "read", "undo", "purge"):
        return not is_here
    return is_here or operation.what in ("write", "purge_expired", "rebuild")
