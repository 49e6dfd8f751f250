"""Seeded processes give the same ids, numbers and times; each in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from recallfs.recipes.seeding import SeededEntropy

APPLY = """
import json, os, sys
from recallfs.recipes.seeding import apply_seed
apply_seed(int(sys.argv[1]), "2024-05-06T07:08:09.123456+00:00")
"""
IDS = """
import uuid
values = [uuid.uuid4(), uuid.uuid4(), uuid.uuid1(), uuid.uuid1()]
assert [v.version for v in values] == [4, 4, 1, 1]
assert len(set(values)) == 4
print(json.dumps([str(v) for v in values]))
"""
NUMBERS = """
import random
import numpy as np
print(json.dumps([
    random.random(), np.random.rand(), np.random.default_rng().random(),
    np.random.RandomState().rand(), str(np.random.SeedSequence().entropy),
]))
"""
NUMPY_LATER = "import numpy.random\n" + NUMBERS
TIMES = """
import time
from datetime import datetime, timezone
first = time.time()
time.sleep(0.01)
assert time.time() == first
print(json.dumps([first, datetime.now(timezone.utc).isoformat()]))
"""
FORKED = """
import uuid
read, write = os.pipe()
for _ in range(2):
    child = os.fork()
    if child == 0:
        os.write(write, (str(uuid.uuid4()) + "\\n").encode())
        os._exit(0)
    os.waitpid(child, 0)
os.close(write)
values = [*os.read(read, 1000).decode().split(), str(uuid.uuid4())]
assert len(set(values)) == 3
print(json.dumps(values))
"""


def _run(script: str, seed: int) -> Any:
    done = subprocess.run(
        [sys.executable, "-c", APPLY + script, str(seed)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("script", [IDS, NUMBERS, NUMPY_LATER, FORKED])
def test_equal_seeds_give_equal_values(script: str) -> None:
    """Ids and numbers follow from the seed: the same twice, others for another seed."""
    first = _run(script, 2**100 + 1)
    assert _run(script, 2**100 + 1) == first
    assert not set(first) & set(_run(script, 2**100 + 2))


def test_now_stands_still_at_the_recorded_moment() -> None:
    """Every clock of the calendar shows the start that is on record."""
    seconds, moment = _run(TIMES, 1)
    assert moment == "2024-05-06T07:08:09.123456+00:00"
    assert seconds == pytest.approx(1714979289.123456, abs=1e-6)


def test_true_randomness_is_left_alone() -> None:
    """Keys made with `secrets` stay secret, whatever the seed."""
    script = "import secrets; print(json.dumps(secrets.token_hex(16)))"
    assert _run(script, 1) != _run(script, 1)


def test_slow_companion_is_not_imported() -> None:
    """Fixing the time does not load pytest, which costs half a second, and leaves it importable."""
    script = """
loaded = "pytest" in sys.modules
import pytest
print(json.dumps(loaded))
"""
    assert _run(script, 1) is False


def test_streams_are_independent() -> None:
    """Drawing from one stream does not move another of the same seed."""
    first, second = SeededEntropy(1, "a"), SeededEntropy(1, "b")
    expected = SeededEntropy(1, "b").bits(128)
    assert first.bits(128) != expected
    assert second.bits(128) == expected
