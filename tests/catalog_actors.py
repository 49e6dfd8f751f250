"""What other processes do in the tests of the ground floor and the catalog."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from recallfs.catalog.store import open_store
from recallfs.config import load_config, register_store
from recallfs.errors import RecallError


def become_nobody() -> None:
    """Give up root's rights, if we have them: root may read and write everything."""
    if os.getuid() == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)


def open_to_all(folder: Path) -> None:
    """Let other users reach a test's folder; pytest makes such folders private."""
    for place in (folder, *folder.parents):
        if place.name.startswith(("pytest-", "popen-")) or place == folder:
            place.chmod(0o755)


def load_config_as_nobody(path: str, said: str) -> None:
    """Load a configuration without rights, and write down the error."""
    become_nobody()
    try:
        load_config(Path(path), {})
    except RecallError as error:
        Path(said).write_text(f"{error.kind}: {error}")


def register_many(path: str, prefix: str) -> None:
    """Register eight stores."""
    for i in range(8):
        register_store(f"{prefix}{i}", Path(f"/{prefix}{i}"), Path(path))


def use_store_as_nobody(root: str, said: str) -> None:
    """Try to open and to change a store without rights, and write down what happened."""
    # Whoever has no rights may not even read our libraries: import them first.
    store = open_store(Path(root))
    with store.staging(), store.lock("0" * 32):
        store.catalog.close()
    become_nobody()
    attempts: dict[str, Callable[[], AbstractContextManager[object]]] = {
        "open": lambda: nullcontext(open_store(Path(root))),
        "staging": store.staging,
        "lock": lambda: store.lock("0" * 32),
    }
    lines = []
    for name, attempt in attempts.items():
        try:
            with attempt():
                lines.append(f"{name} allowed")
        except RecallError as error:
            lines.append(f"{name} {error.kind}")
    Path(said).write_text("\n".join(lines))


def start_time_of(said: str) -> None:
    """Write down which process this is, and wait to be ended."""
    import signal

    from recallfs.catalog.holder import Holder

    place = Path(said)
    place.with_suffix(".new").write_text(str(Holder.current()))
    place.with_suffix(".new").rename(place)
    signal.pause()


def create_stores(root: str, vault: str) -> None:
    """Make one store, as others do at the same time."""
    from recallfs.catalog.store import create_store

    create_store(Path(root), "lab", vault=Path(vault)).catalog.close()


def prepare_catalog(url: str, kill_at_statement: int) -> None:
    """Open a catalog, upgrading it; be killed just before a statement that changes something."""

    def die(number: int) -> None:
        if number == kill_at_statement:
            os.kill(os.getpid(), 9)

    _on_statement(die)
    _prepare(url)


def count_statements(url: str) -> int:
    """Upgrade a catalog and return how many statements changed something."""
    counted = [0]

    def count(number: int) -> None:
        counted[0] = number

    forget = _on_statement(count)
    _prepare(url)
    forget()
    return counted[0]


def _prepare(url: str) -> None:
    from recallfs.catalog.database import Catalog

    catalog = Catalog(url, "5" * 32)
    catalog.prepare()
    catalog.close()


def _on_statement(do: Callable[[int], object]) -> Callable[[], None]:
    """Call a function before each statement of this process that is no question."""
    import sqlalchemy as sa
    from sqlalchemy import event

    passed = [0]

    def before(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if statement.lstrip()[:6].upper() not in ("SELECT", "PRAGMA", "SHOW T", "DESCRI"):
            passed[0] += 1
            do(passed[0])

    event.listen(sa.Engine, "before_cursor_execute", before)
    return lambda: event.remove(sa.Engine, "before_cursor_execute", before)


def read_as_nobody(root: str, said: str, end: str) -> None:
    """Ask a catalog without rights until told to end, and write down every kind of answer."""
    store = open_store(Path(root))
    store.catalog.entry_at("x")
    store.catalog.close()
    become_nobody()
    store = open_store(Path(root))
    answers: dict[str, int] = {}
    last = -1
    while not Path(end).exists():
        try:
            sizes = [entry.size_bytes for entry in store.catalog.entries_below("")]
            # The writer always adds two at once, and never takes any away.
            answer = "odd" if len(sizes) % 2 else "fewer" if len(sizes) < last else "whole"
            last = len(sizes)
        except RecallError as error:
            answer = f"{error.kind}: {error}"
        answers[answer] = answers.get(answer, 0) + 1
    try:
        store.catalog.drop("x" * 32)
    except RecallError as error:
        answers[f"drop {error.kind}"] = 1
    Path(said).write_text("\n".join(f"{n} {answer}" for answer, n in answers.items()))


def hold_a_transaction(url: str, ready: str) -> None:
    """Change a catalog and neither finish nor take back the change."""
    import time

    import sqlalchemy as sa

    from recallfs.catalog import schema
    from recallfs.catalog.database import Catalog

    catalog = Catalog(url, "5" * 32)

    def change(connection: sa.Connection) -> None:
        connection.execute(sa.delete(schema.paths))
        Path(ready).touch()
        time.sleep(60)

    catalog._database.transact(change, store_id="5" * 32)
