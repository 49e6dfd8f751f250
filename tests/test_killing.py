"""Random operations killed at random points, and processes at once on the same few paths."""

from __future__ import annotations

from pathlib import Path

import pytest

from killing import Tally, at_once, kill_at_random

pytestmark = pytest.mark.long


@pytest.mark.parametrize("seed", range(3))
def test_random_kills_lose_nothing(tmp_path: Path, seed: int) -> None:
    """Twenty processes a store die at random points; all that is owed comes back."""
    tally = Tally()
    kill_at_random(tmp_path, seed, 20, tally)
    assert tally.kills >= 20


@pytest.mark.parametrize(("seed", "kill_every_s"), [(0, 0.0), (1, 0.7)])
def test_processes_at_once_lose_nothing(tmp_path: Path, seed: int, kill_every_s: float) -> None:
    """Three processes do whatever they like on the same five paths; all that is owed comes back."""
    said = at_once(tmp_path, seed, processes=3, seconds=4, kill_every_s=kill_every_s)
    assert said["ok"] > 5
    assert bool(said["killed"]) == bool(kill_every_s)
