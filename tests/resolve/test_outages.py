"""Sources that never answer: what they cost, and what is said of them."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

import pytest

from actors import run_main
from conftest import Lab, sha256
from processes import start
from recallfs.errors import SourceError, SourceTimeoutError
from recallfs.release.push import push, push_target
from recallfs.resolve.commit import add_existing
from recallfs.resolve.recall import recall
from recallfs.resolve.wish import Wish
from recallfs.testing.http import Files
from recallfs.testing.misbehaviour import Fault

pytestmark = pytest.mark.long

DEADLINE_S = 0.5


def tables(*urls: str, deadline_s: float = DEADLINE_S) -> str:
    """Configure mirrors by the names m0, m1 and so on."""
    return "".join(
        f'[[sources.mirror]]\nname = "m{number}"\nurl = "{url}"\nlayout = "sha256"\n'
        f'answer_timeout = "{deadline_s}s"\n'
        for number, url in enumerate(urls)
    )


def black_holes(stack: contextlib.ExitStack, folder: Path, count: int = 1) -> list[Files]:
    """Start servers that take connections and never answer."""
    holes = [stack.enter_context(Files(folder)) for _ in range(count)]
    for hole in holes:
        hole.fail(Fault(stall=True))
    return holes


def gone(lab: Lab, *names: str, size: int = 1000) -> None:
    """Catalog files that then vanish."""
    for name in names:
        (lab.root / name).write_bytes(os.urandom(size))
    add_existing(lab.store, names)
    for name in names:
        (lab.root / name).unlink()


def test_all_sources_stalled(lab: Lab) -> None:
    """The error comes within about one deadline, not six, and says what each source did."""
    gone(lab, "a.bin")
    with contextlib.ExitStack() as stack:
        holes = black_holes(stack, lab.base, 6)
        lab.write_config(tables(*(hole.url for hole in holes), deadline_s=2))
        lab.stores.by_name("lab")
        began = time.monotonic()
        with pytest.raises(SourceTimeoutError) as caught:
            recall(lab.stores, lab.store, "a.bin")
        seconds = time.monotonic() - began
    assert seconds < 6 * 2
    names = {f"mirror:m{number}" for number in range(6)}
    assert set(caught.value.details["answers"]) == names
    for name in names:
        assert name in str(caught.value)


def test_source_that_stalls_in_the_midst(lab: Lab) -> None:
    """One that answered and then sends nothing is given up after its read deadline."""
    lab.add("a.bin", os.urandom(1000))
    folder = lab.base / "mirror"
    folder.mkdir()
    lab.write_config(tables(f"file://{folder}"))
    push(lab.stores, lab.store, lab.entry("a.bin"), push_target(lab.stores, "mirror:m0"))
    (lab.root / "a.bin").unlink()
    with Files(folder) as served:
        lab.write_config(tables(served.url) + 'read_timeout = "0.5s"\n')
        with pytest.raises(SourceError, match="mirror:m0"):
            recall(
                lab.stores,
                lab.store,
                "a.bin",
                Wish(announce=lambda _: served.fail(Fault(stall=True))),
            )
        assert len(served.log) >= 2


def test_dead_mirror_costs_its_deadline_once(lab: Lab) -> None:
    """Of 50 files with a dead mirror in front, only the first waits for it."""
    names = [f"{number}.bin" for number in range(50)]
    for name in names:
        (lab.root / name).write_bytes(os.urandom(1000))
    add_existing(lab.store, names)
    folder = lab.base / "mirror"
    folder.mkdir()
    with contextlib.ExitStack() as stack:
        (hole,) = black_holes(stack, lab.base)
        lab.write_config(tables(hole.url, f"file://{folder}"))
        target = push_target(lab.stores, "mirror:m1")
        for name in names:
            push(lab.stores, lab.store, lab.entry(name), target)
            (lab.root / name).unlink()
        for name in names:
            found = recall(lab.stores, lab.store, name)
            assert found.source == "mirror:m1"
        assert 1 <= len(hole.log) <= 3


def test_recompute_starts_soon_without_a_network(lab: Lab) -> None:
    """With three mirrors that never answer, at the usual deadlines, a recipe starts within 3 s."""
    started = lab.base / "started"
    lab.derive("out.h5", "counted", count_file=str(started), seconds=0)
    started.unlink()
    digest = sha256(lab.root / "out.h5")
    lab.prove("out.h5")
    lab.release("out.h5")
    started.unlink()
    with contextlib.ExitStack() as stack:
        holes = black_holes(stack, lab.base, 3)
        lab.write_config(tables(*(hole.url for hole in holes), deadline_s=2))
        lab.stores.by_name("lab")
        began = time.monotonic()
        told: list[float] = []

        def announce(sentence: str) -> None:
            told.append(time.monotonic() - began)

        found = recall(lab.stores, lab.store, "out.h5", Wish(announce=announce))
    assert found.source == "recompute"
    assert told[0] < 3
    assert all(hole.log for hole in holes)
    assert sha256(lab.root / "out.h5") == digest


def test_eight_processes_one_download(lab: Lab) -> None:
    """Processes that want one file at once share what one of them fetches."""
    place = lab.add("a.bin", os.urandom(3_000_000))
    digest = sha256(place)
    folder = lab.base / "mirror"
    folder.mkdir()
    lab.write_config(tables(f"file://{folder}"))
    push(lab.stores, lab.store, lab.entry("a.bin"), push_target(lab.stores, "mirror:m0"))
    place.unlink()
    with Files(folder) as served:
        lab.write_config(tables(served.url, deadline_s=5))
        actors = [start(run_main, ("get", "recall://lab/a.bin")) for _ in range(8)]
        for actor in actors:
            actor.join(60)
        assert [actor.exitcode for actor in actors] == [0] * 8
        assert sha256(place) == digest
        # Each may ask whether it is there; the bytes are sent once.
        assert sum(asked.sent_bytes for asked in served.log) < 3_000_000 + 100
