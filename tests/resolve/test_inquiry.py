"""Asking sources: each within its deadline, one slow source not holding up the others."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import Lab
from recallfs.catalog import records
from recallfs.catalog.sidecar import Record
from recallfs.catalog.store import Store
from recallfs.errors import (
    IntegrityError,
    SourceError,
    SourceTimeoutError,
)
from recallfs.resolve.inquiry import Inquiry
from recallfs.sources.base import Found, Source
from recallfs.sources.memory import Memory
from recallfs.sources.trash import TrashSource
from scripted import HAS, HAS_NOT, Scripted

DEADLINE_S = 0.8

FOREVER_S = 600.0


@pytest.fixture
def ask(lab: Lab, tmp_path: Path) -> Callable[..., Inquiry]:
    lab.write_raw()
    record = records.load(lab.store, lab.entry("raw.h5").id)
    memory = Memory(tmp_path / "answers.sqlite", 60)

    def begin(*sources: Source) -> Inquiry:
        return Inquiry(lab.store, record, sources, memory)

    return begin


def test_the_first_that_answers_quickly_is_the_only_one_asked(ask: Callable[..., Inquiry]) -> None:
    """No request goes to a source that is not needed."""
    first, second = Scripted("first", HAS), Scripted("second", HAS)
    assert ask(first, second).answer(first) == HAS
    assert not second.asked_at


def test_a_slow_source_does_not_hold_up_the_next(ask: Callable[..., Inquiry]) -> None:
    """While the first does not answer the others are asked; in all it costs one deadline."""
    dead = [Scripted(f"dead{i}", HAS, after_s=FOREVER_S) for i in range(6)]
    last = Scripted("last", HAS)
    inquiry = ask(*dead, last)
    start = time.monotonic()
    for source in dead:
        with pytest.raises(SourceTimeoutError, match=r"did not say within 0\.8 s"):
            inquiry.answer(source)
    assert inquiry.answer(last) == HAS
    # One deadline, and the quarter seconds by which the others began later: 2.05 s.
    assert time.monotonic() - start < len(dead) * DEADLINE_S


def test_a_dead_source_costs_its_deadline_once(ask: Callable[..., Inquiry]) -> None:
    """Of a thousand files the first pays; the others are told at once, with the reason."""
    dead = Scripted("dead", HAS, after_s=FOREVER_S)
    with pytest.raises(SourceTimeoutError):
        ask(dead).answer(dead)
    start = time.monotonic()
    for _ in range(1000):
        with pytest.raises(SourceError, match="asked again in"):
            ask(dead).answer(dead)
    assert len(dead.asked_at) == 1
    assert time.monotonic() - start < 100 * DEADLINE_S


def test_each_answer_in_a_table(ask: Callable[..., Inquiry]) -> None:
    """Found, absent, unavailable, wrong, and what needs no asking are told apart."""
    sources = [
        TrashSource(),
        Scripted("found", HAS, after_s=0.1),
        Scripted("absent", HAS_NOT, after_s=0.1),
        Scripted("wrong", IntegrityError("it has other bytes."), after_s=0.1),
        Scripted("down", SourceError("it is down.")),
        Scripted("late", HAS, after_s=FOREVER_S),
    ]
    start = time.monotonic()
    answers = {answer.source: answer for answer in ask(*sources).answers(sources)}
    assert time.monotonic() - start < FOREVER_S / 2
    assert {name: answer.verdict for name, answer in answers.items()} == {
        "trash": "local",
        "found": "found",
        "absent": "absent",
        "wrong": "wrong",
        "down": "unavailable",
        "late": "unavailable",
    }
    assert answers["found"].size_bytes == 100
    assert "down" in answers["down"].what


def test_a_fault_in_a_source_is_not_taken_for_an_answer(ask: Callable[..., Inquiry]) -> None:
    """A programming error of a source is raised where the answer is awaited, not hung on."""

    class Faulty(Scripted):
        def look_up(self, store: Store, record: Record) -> Found:
            """Fail in a way that no source should."""
            raise ZeroDivisionError

    faulty = Faulty("faulty", HAS)
    with pytest.raises(ZeroDivisionError):
        ask(faulty).answer(faulty)
