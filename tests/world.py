"""A store that anything may happen to, and a model of what it owes.

The model is not told by recallfs what is where: it hashes the files of the tree, the trash and the
mirror itself, reads the catalog with `sqlite3`, and knows what was written. From recallfs it takes
the sidecars, because which file was made from which is written nowhere else; in the end every file
that is owed is truly brought back and hashed.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NoReturn

from conftest import TESTS, sha256
from operations import PATHS, Operation, Outcome, churn, content, serve
from processes import connected, start
from recallfs.catalog.sidecar import Record, decode
from recallfs.catalog.store import create_store

PATIENCE_S = 90


@dataclass(frozen=True)
class Owed:
    """Bytes that a path must be able to give.

    Parameters
    ----------
    inputs : tuple of str or None
        Digests of what a recipe makes it from to the byte; None if none does.
    """

    sha256: str
    recipe: str = ""
    inputs: tuple[str, ...] | None = None
    is_proved: bool = False


@dataclass(frozen=True)
class Kill:
    """When a process is killed: at its n-th fault point, or so many seconds after it began."""

    point: int = 0
    seconds: float | None = None


@dataclass
class Seen:
    """What is on the disk."""

    files: dict[str, str]
    records: dict[str, Record]
    trashed: dict[str, str]
    copies: set[str]


class Worker:
    """A process that does what it is asked for."""

    def __init__(self, environment: dict[str, str], output: Path) -> None:
        self.connection, theirs = connected()
        self.output = output.with_suffix(".err")
        self.process: BaseProcess = start(serve, theirs, environment=environment, output=output)
        theirs.close()

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        self.process.join()
        self.connection.close()
        _wait_for_death(self.process)

    def stop(self) -> None:
        """Let it end by itself."""
        self.connection.close()
        self.process.join(10)


@dataclass
class Churning:
    """A process that does things by chance."""

    seed: int
    process: BaseProcess
    output: Path
    newest: Operation | None = None
    was_killed: bool = False


class World:
    """A lab with a store, a mirror, some processes, and a model of what is owed.

    Parameters
    ----------
    base : Path
        An empty folder.
    """

    def __init__(self, base: Path) -> None:
        self.base, self.root, self.mirror = base, base / "lab", base / "mirror"
        self.mirror.mkdir(parents=True)
        config = base / "config.toml"
        config.write_text(
            f'[stores.lab]\nroot = "{self.root}"\n\n'
            f'[recipes]\nmodules = ["lab_recipes"]\npaths = ["{TESTS}"]\n\n'
            f'[[sources.mirror]]\nname = "copies"\nurl = "{self.mirror.as_uri()}"\n'
            'layout = "sha256"\nfailure_domain = "elsewhere"\n\n[release]\ncopies = 1\n'
        )
        self.environment = {**os.environ, "RECALLFS_CONFIG": str(config)}
        self.store_id = create_store(self.root, "lab", vault=base / "vault").id
        self.control = self.root / ".recall"
        self.owed: dict[str, Owed] = {}
        self.foreign: dict[str, str] = {}
        self.excused: set[str] = set()
        self.history: list[str] = []
        self._workers: list[Worker] = []

    @property
    def derived(self) -> set[str]:
        """Paths of entries that a recipe made."""
        return {path for path, owed in self.owed.items() if owed.recipe}

    @property
    def proved(self) -> set[str]:
        """Paths of entries that may be released: proved."""
        return {path for path, owed in self.owed.items() if owed.is_proved}

    # -- what happens -----------------------------------------------------------------------

    def do(self, operation: Operation, kill: Kill | None = None) -> Outcome:
        """Do one thing, and hold the store against the model."""
        return self.do_together([(operation, kill)])[0]

    def do_together(self, wanted: Sequence[tuple[Operation, Kill | None]]) -> list[Outcome]:
        """Do things at once, each in a process of its own, some of which are killed."""
        self.history.append(" | ".join(f"{op} {kill or ''}" for op, kill in wanted))
        before = self.look()
        outcomes = self._run(wanted)
        said = [o.killed_at or "killed" if o.was_killed else o.refusal or "ok" for o in outcomes]
        self.history[-1] += f" -> {', '.join(said)}"
        for outcome in outcomes:
            if outcome.crash:
                self.fail(outcome.crash)
        if any(outcome.was_killed for outcome in outcomes):
            self.end()  # who had the store open already does not clean up after others
            (reopened,) = self._run([(Operation("reopen"), None)])
            if reopened.crash or reopened.refusal:
                self.fail(f"the store does not open: {reopened}")
        operations = [operation for operation, _ in wanted]
        self.follow(before, operations)
        if len(wanted) == 1:
            self._hold_to_its_word(before, operations[0], outcomes[0])
        self.check()
        return outcomes

    def churn(
        self, seeds: Sequence[int], seconds: float, kill_every_s: float = 0.0
    ) -> Counter[str]:
        """Let processes do things by chance for a while; return what came of them.

        Now and then one is killed, and another takes its place.
        """
        self.end()
        self.history.append(f"processes with the seeds {seeds}")
        before, chance = self.look(), random.Random(seeds[0])  # noqa: S311 - no secret
        running: dict[Connection, Churning] = {}
        end = time.monotonic() + seconds

        def begin(seed: int) -> None:
            ours, theirs = connected()
            output = self.base / f"churn-{seed}"
            left = max(0.0, end - time.monotonic())
            some = (churn, seed, left, str(self.root), theirs)
            process = start(*some, environment=self.environment, output=output)
            theirs.close()
            running[ours] = Churning(seed, process, output.with_suffix(".err"))

        for seed in seeds:
            begin(seed)
        operations: list[Operation] = []
        said: Counter[str] = Counter()
        next_kill = time.monotonic() + chance.expovariate(1 / kill_every_s) if kill_every_s else end
        while running:
            if next_kill < min(end, time.monotonic()):
                one = running[chance.choice(list(running))]
                one.process.kill()
                one.was_killed = True
                said["killed"] += 1
                next_kill = time.monotonic() + chance.expovariate(1 / kill_every_s)
                begin(seeds[-1] + said["killed"])
            if time.monotonic() > end + PATIENCE_S:
                late = [(one.seed, one.output.read_text()) for one in running.values()]
                self.fail(f"these do not end: {late}")
            for connection in wait(list(running), 0.05):
                assert isinstance(connection, Connection)
                one = running[connection]
                try:
                    message = connection.recv()
                except (EOFError, ConnectionResetError):
                    one.process.join(10)
                    if one.process.exitcode != 0 and not one.was_killed:
                        said_last = one.output.read_text() if one.output.exists() else ""
                        self.fail(
                            f"the process of seed {one.seed} ended with {one.process.exitcode} "
                            f"in {one.newest}: {said_last}"
                        )
                    if one.was_killed:
                        self.history.append(f"  {one.seed}: {one.newest} -> killed")
                        _wait_for_death(one.process)
                    del running[connection]
                    continue
                if isinstance(message, Operation):
                    operations.append(message)
                    one.newest = message
                    continue
                self.history.append(f"  {one.seed}: {one.newest} -> {message.refusal or 'ok'}")
                said[message.refusal or "ok"] += 1
                if message.crash:
                    self.fail(message.crash)
        (reopened,) = self._run([(Operation("reopen"), None)])
        if reopened.crash or reopened.refusal:
            self.fail(f"the store does not open: {reopened}")
        self.follow(before, operations)
        self.check()
        return said

    def behind(self, what: str, act: Callable[[], None]) -> None:
        """Let the user do something behind recallfs' back; what he destroys is his own loss."""
        self.history.append(f"user: {what}")
        self._settle_workers()
        before = self.available(self.look())
        act()
        seen = self.look()
        self.excused |= before - self.available(seen)
        self.foreign = {
            path: digest
            for path, digest in seen.files.items()
            if path not in self.owed or self.owed[path].sha256 != digest
        }

    def remove(self, path: str) -> None:
        """Remove a file plainly."""
        self.behind(f"rm {path}", lambda: (self.root / path).unlink(missing_ok=True))

    def scribble(self, path: str, number: int) -> None:
        """Write a file plainly, in place if it is there."""
        place = self.root / path
        place.parent.mkdir(exist_ok=True)
        self.behind(f"write {path}", lambda: _write(place, f"scribbled {number}".encode() * 7))

    def rename(self, path: str, new: str) -> None:
        """Rename a file plainly, over whatever is there."""
        source, target = self.root / path, self.root / new
        if source.exists():
            target.parent.mkdir(exist_ok=True)
            self.behind(f"mv {path} {new}", lambda: _into(source.rename(target)))

    def push(self, path: str) -> None:
        """Copy a file to the mirror by hand."""
        if (self.root / path).exists():
            copy = self._copy_place(sha256(self.root / path))
            copy.parent.mkdir(parents=True, exist_ok=True)
            self.behind(f"push {path}", lambda: _into(shutil.copyfile(self.root / path, copy)))

    def drop_copy(self, path: str) -> None:
        """Remove the mirror's copy of what is owed at a path."""
        if path in self.owed:
            copy = self._copy_place(self.owed[path].sha256)
            self.behind(f"drop copy of {path}", lambda: copy.unlink(missing_ok=True))

    def lose_catalog(self) -> None:
        """Delete the catalog, as a lab would whose disk ate it."""
        self.end()

        def delete() -> None:
            for file in self.control.glob("catalog.sqlite*"):
                file.unlink(missing_ok=True)

        self.behind("rm the catalog", delete)
        self.do(Operation("reopen"))

    def lose_vault(self) -> None:
        """Delete what the vault holds."""
        self.behind("rm the vault", lambda: shutil.rmtree(self.base / "vault", ignore_errors=True))

    def _copy_place(self, digest: str) -> Path:
        return self.mirror / "sha256" / digest[:2] / digest[2:4] / digest

    # -- processes --------------------------------------------------------------------------

    def _settle_workers(self) -> None:
        self._workers = [worker for worker in self._workers if worker.process.is_alive()]

    def _run(self, wanted: Sequence[tuple[Operation, Kill | None]]) -> list[Outcome]:
        self._settle_workers()
        while len(self._workers) < len(wanted):
            output = self.base / f"worker-{len(self.history)}-{len(self._workers)}"
            self._workers.append(Worker(self.environment, output))
        began, ends = time.monotonic(), {}
        workers: dict[Connection, int] = {}
        for number, (operation, kill) in enumerate(wanted):
            worker = self._workers[number]
            worker.connection.send((operation, kill.point if kill else 0))
            workers[worker.connection] = number
            timed = kill is not None and kill.seconds is not None
            ends[number] = kill.seconds if kill and kill.seconds is not None else PATIENCE_S
            if not timed:
                ends[number] = PATIENCE_S
        outcomes: dict[int, Outcome] = {}
        while workers:
            left = min(ends[number] for number in workers.values()) - (time.monotonic() - began)
            for connection in wait(list(workers), max(0.0, left)):
                assert isinstance(connection, Connection)
                number = workers.pop(connection)
                outcomes[number] = _received(connection)
                if outcomes[number].was_killed:
                    self._workers[number].kill()
            for connection, number in list(workers.items()):
                if time.monotonic() - began >= ends[number]:
                    self._end_late(number, wanted[number])
                    del workers[connection]
                    outcomes[number] = Outcome(was_killed=True)
        return [outcomes[number] for number in range(len(wanted))]

    def _end_late(self, number: int, wanted: tuple[Operation, Kill | None]) -> None:
        worker = self._workers[number]
        if wanted[1] is None or wanted[1].seconds is None:
            assert worker.process.pid is not None
            os.kill(worker.process.pid, signal.SIGUSR1)
            time.sleep(0.5)
            self.fail(f"{wanted[0]} does not end:\n{worker.output.read_text()}")
        worker.kill()

    def end(self) -> None:
        """End all processes."""
        self._settle_workers()
        for worker in self._workers:
            worker.stop()
        self._workers = []

    # -- what is there ----------------------------------------------------------------------

    def look(self) -> Seen:
        """Hash and read everything."""
        files = {
            path.relative_to(self.root).as_posix(): sha256(path)
            for path in self.root.rglob("*")
            if path.is_file() and ".recall" not in path.parts
        }
        records: dict[str, Record] = {}
        for path in (self.control / "entries").glob("*/*.rsc1"):
            record = decode(path.read_bytes(), name=str(path))
            other = records.setdefault(record.entry.path, record)
            if other is not record:
                self.fail(f"two records claim {record.entry.path}")
        trashed = {path.name: sha256(path) for path in (self.control / "trash").iterdir()}
        copies = {path.name for path in self.mirror.rglob("*") if path.is_file()}
        return Seen(files, records, trashed, copies)

    def available(self, seen: Seen) -> set[str]:
        """Return the paths whose bytes are somewhere, or can be made of what is."""
        found: set[str] = set()
        while True:
            digests = {self.owed[path].sha256 for path in found}
            more = {
                path
                for path, owed in self.owed.items()
                if seen.files.get(path) == owed.sha256
                or owed.sha256 in seen.copies
                or (
                    path in seen.records
                    and seen.trashed.get(seen.records[path].entry.id) == owed.sha256
                )
                or (owed.inputs is not None and digests.issuperset(owed.inputs))
            }
            if more <= found:
                return found
            found |= more

    # -- the model follows ------------------------------------------------------------------

    def follow(self, before: Seen, operations: Sequence[Operation]) -> None:
        """Take in what operations did, or what they had time to; fail at what none of them may."""
        seen = self.look()
        puts, takes, drops = self._effects(before, operations)
        lost = {before.records[p].entry.id for p in self.excused if p in before.records}
        for path in {*PATHS, *seen.files, *seen.records, *self.owed}:
            earlier = self.owed.get(path)
            record = seen.records.get(path)
            now = record.entry.sha256 if record else None
            if now != (earlier.sha256 if earlier else None):
                if earlier is not None and path not in takes:
                    self.fail(f"the entry at {path} was {earlier.sha256}, it is {now}")
                if (
                    now is not None
                    and now not in puts.get(path, ())
                    and "any" not in puts.get(path, ())
                ):
                    self.fail(f"the entry at {path} has bytes that nobody put there: {now}")
                self.excused.discard(path)
            if record is None:
                self.owed.pop(path, None)
            else:
                self.owed[path] = _owed_by(record)
                if record.entry.id in lost:
                    self.excused.add(path)  # moved: a loss goes along with its entry
            self._follow_file(path, before, seen, takes, drops)

    def _follow_file(
        self, path: str, before: Seen, seen: Seen, takes: set[str], drops: set[str]
    ) -> None:
        there, earlier = seen.files.get(path), self.foreign.get(path)
        owed = self.owed.get(path)
        if owed is not None and there == owed.sha256:
            if earlier is not None and earlier != there and path not in takes:
                self.fail(f"the user's own bytes at {path} were replaced")
            self.foreign.pop(path, None)
            return
        if earlier is not None and there != earlier and path not in takes:
            self.fail(f"the user's own bytes at {path} are gone")
        if there is None:
            if path in before.files and path not in takes | drops:
                self.fail(f"the file {path} is gone, and nobody released it")
            self.foreign.pop(path, None)
        elif there == before.files.get(path) or (path in takes and there in before.files.values()):
            self.foreign[path] = there
        else:
            self.fail(f"the file {path} holds {there}, which nobody wrote, or a part")

    def _effects(
        self, before: Seen, operations: Sequence[Operation]
    ) -> tuple[dict[str, set[str]], set[str], set[str]]:
        """Return what may be put where, from where it may be taken, and what may be released."""
        puts: dict[str, set[str]] = {}
        takes: set[str] = set()
        drops: set[str] = set()
        for operation in operations:
            what, some = operation.what, operation.arguments
            if what == "write":
                digest = hashlib.sha256(content(some["number"])).hexdigest()
                puts.setdefault(some["path"], set()).add(digest)
                takes.add(some["path"])
            elif what == "run":
                for path in some["outputs"]:
                    puts[path] = {"any"}
                    if path not in self.owed or self.owed[path].recipe == some["recipe"]:
                        takes.add(path)
            elif what == "forget":
                takes.add(some["path"])
            elif what == "add" and len(operations) > 1:
                # Another one may have written the file right before.
                puts[some["path"]] = {"any"}
                takes.add(some["path"])
            elif what == "add" and some["path"] in before.files:
                puts.setdefault(some["path"], set()).add(before.files[some["path"]])
                takes.add(some["path"])
            elif what == "release":
                drops.add(some["path"])
        known = {owed.sha256 for owed in self.owed.values()} | set(before.files.values())
        for operation in operations:
            if operation.what == "move":
                path, new = operation.arguments["path"], operation.arguments["new"]
                takes |= {path, new}
                puts[new] = {"any"} if len(operations) > 1 else known | puts.get(new, set())
                if "any" in puts.get(path, ()):
                    puts[new] = {"any"}
        return puts, takes, drops

    def _hold_to_its_word(self, before: Seen, operation: Operation, outcome: Outcome) -> None:
        """Make sure that what went well is done, and what was refused is not even done by half."""
        seen = self.look()
        if outcome.was_killed:
            if operation.what == "move":
                self._check_killed_move(before, seen, operation)
            return
        some = operation.arguments
        path = str(some.get("path", ""))
        had, has = before.records.get(path), seen.records.get(path)
        if outcome.refusal:
            ids = [{p: r.entry.id for p, r in look.records.items()} for look in (before, seen)]
            if ids[0] != ids[1]:
                self.fail(f"{operation} was refused ({outcome.refusal}), and something was changed")
            if operation.what == "release" and before.files.get(path) != seen.files.get(path):
                self.fail(f"{operation} was refused, and the file is gone")
            return
        there = seen.files.get(path)
        right = {
            "write": has is not None and there == has.entry.sha256,
            "get": has is not None and there == has.entry.sha256,
            "undo": has is not None and there == has.entry.sha256,
            "read": outcome.value == (has.entry.sha256 if has else there),
            "add": has is None or there in (None, has.entry.sha256),
            "forget": has is None and (had is None or had.entry.id not in seen.trashed),
            "release": there is None,
            "move": (had is None and before.files.get(path) is None)
            or (had is None and seen.files.get(some.get("new", "")) == before.files.get(path))
            or (
                had is not None
                and has is None
                and some.get("new") in seen.records
                and seen.records[some["new"]].entry.id == had.entry.id
            ),
            "run": all(
                url.removeprefix("recall://lab/") in seen.files for url in outcome.value or ()
            ),
        }
        if not right.get(operation.what, True):
            self.fail(f"{operation} went well, but it is not done: {had} {has} {there}")

    def _check_killed_move(self, before: Seen, seen: Seen, operation: Operation) -> None:
        path, new = operation.arguments["path"], operation.arguments["new"]
        had = before.records.get(path)
        if had is None:
            return
        places = [p for p, record in seen.records.items() if record.entry.id == had.entry.id]
        if places not in ([path], [new]):
            self.fail(f"{operation} was killed, and its entry is at {places}")

    # -- what must hold ---------------------------------------------------------------------

    def check(self) -> None:
        """Hold files, records and catalog against each other and against the model."""
        seen = self.look()
        there = self.available(seen)
        lost = set(self.owed) - there - self.excused
        if lost:
            self.fail(f"nothing can bring back {sorted(lost)}")
        self.excused -= there
        for folder in ("staging", "aside"):
            left = list((self.control / folder).iterdir())
            if left:
                self.fail(f"left in {folder}: {left}")
        if found := list(self.control.rglob("*.nwb")):
            self.fail(f"below .recall: {found}")
        self._check_catalog(seen)

    def _check_catalog(self, seen: Seen) -> None:
        """Hold the catalog, read with plain SQL, against sidecars, tree and trash."""
        with closing(sqlite3.connect(self.control / "catalog.sqlite")) as database:
            rows = database.execute("SELECT path, entry_id, state FROM paths").fetchall()
            trash = {row[0] for row in database.execute("SELECT entry_id FROM trash")}
            intents = database.execute("SELECT * FROM intents").fetchall()
        if intents:
            self.fail(f"intents that nobody ended: {intents}")
        indexed = {path: entry_id for path, entry_id, _ in rows}
        recorded = {path: record.entry.id for path, record in seen.records.items()}
        if indexed != recorded:
            self.fail(f"catalog and sidecars differ: {indexed} {recorded}")
        for path, _, state in rows:
            record = seen.records[path]
            released = record.release is not None
            if (state == "released") != released or (record.entry.state == "released") != released:
                self.fail(f"{path} is {state} in the catalog, {record.entry.state} on record")
            if not released and path in seen.files and state == "missing":
                continue  # it came back; that is noticed when it is next looked at
        waiting = {
            r.entry.id for r in seen.records.values() if r.release and r.release.stage == "trashed"
        }
        if not set(seen.trashed) == trash == waiting:
            self.fail(f"the trash holds {set(seen.trashed)}, listed {trash}, on record {waiting}")

    def finish(self, chance: random.Random | None = None) -> None:
        """Rebuild the catalog, which changes nothing, and bring everything back that is owed."""
        states = self._states()
        self.do(Operation("rebuild"))
        if self._states() != states:
            self.fail(f"a rebuild makes another catalog: {states} {self._states()}")
        paths = sorted(self.owed)
        (chance or random.Random(0)).shuffle(paths)  # noqa: S311 - no secret
        for path in sorted(self.foreign):
            if path in self.owed:
                self.behind(f"mv {path} away", (self.root / path).unlink)
                self.excused -= {path} & self.available(self.look())
        for path in paths:
            outcome = self.do(Operation("get", {"path": path}))
            digest = self.owed[path].sha256
            if outcome.refusal and path not in self.excused:
                self.fail(f"{path} is owed and was refused: {outcome.refusal}")
            if not outcome.refusal and sha256(self.root / path) != digest:
                self.fail(f"{path} came back as something else")
        self.end()

    def _states(self) -> dict[str, tuple[str, str]]:
        with closing(sqlite3.connect(self.control / "catalog.sqlite")) as database:
            rows = database.execute("SELECT path, entry_id, state FROM paths").fetchall()
        # Whether a file that was not released is there is looked up, not remembered.
        return {p: (i, state if state == "released" else "here or not") for p, i, state in rows}

    def fail(self, why: str) -> NoReturn:
        """Say what is wrong, and what happened before."""
        steps = "\n".join(f"  {number}. {step}" for number, step in enumerate(self.history))
        raise AssertionError(f"{why}\n{steps}\nin {self.base}")


def _owed_by(record: Record) -> Owed:
    if not record.derivations:
        return Owed(record.entry.sha256)
    derivation = record.derivations[-1]
    exact = derivation.recipe != "spread" or bool(record.proofs)
    inputs = tuple(item.sha256 for item in derivation.inputs) if exact else None
    return Owed(record.entry.sha256, derivation.recipe, inputs, bool(record.proofs))


def _wait_for_death(process: BaseProcess) -> None:
    """Wait a little longer than `join` does: a process's files are closed before it is dead."""
    while _is_running(process.pid or 0):
        time.sleep(0.001)


def _is_running(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def _received(connection: Connection) -> Outcome:
    try:
        outcome = connection.recv()
    except (EOFError, ConnectionResetError):
        return Outcome(was_killed=True)
    assert isinstance(outcome, Outcome)
    return outcome


def _write(place: Path, text: bytes) -> None:
    place.write_bytes(text)


def _into(result: Any) -> None:
    del result
