"""Fixtures: a scrubbed environment and a small lab to work in."""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from database_servers import (  # noqa: F401 - fixtures
    mariadb,
    mariadb_url,
    postgresql,
    postgresql_url,
    server,
    server_url,
)
from processes import Finished, run_cli
from ready_made import Look, look, new_store, step
from recallfs import atomic
from recallfs.catalog.store import Store
from recallfs.recipes.sandbox import can_hide
from recallfs.resolve.stores import Stores, stores_in_reach
from recallfs.values import Entry

TESTS = Path(__file__).parent

_PLAIN_RECIPES = ("double", "text")
"""Recipes that touch nothing but their inputs and outputs."""

# How long an example takes says how busy the machine is.
hypothesis.settings.register_profile(
    "recallfs", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("recallfs")


def sha256(path: Path) -> str:
    """Digest a file the plain way, with nothing of ours involved."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


@dataclass
class Lab:
    """A configuration, a store called ``lab`` and a folder of recipes, all below one folder."""

    base: Path
    extra: str = ""
    environment: dict[str, str] = field(default_factory=dict)
    # The steps in common that made what is here; None once a test did something else.
    done: tuple[str, ...] | None = None
    untouched: Look = field(default_factory=dict)

    @property
    def root(self) -> Path:
        """Folder of the store."""
        return self.base / "lab"

    @property
    def config(self) -> Path:
        """Configuration file."""
        return self.base / "config.toml"

    @property
    def stores(self) -> Stores:
        """Stores of the configuration as it is now."""
        return stores_in_reach()

    @property
    def store(self) -> Store:
        """The store, opened by this process."""
        return self.stores.by_name("lab")

    @property
    def staged(self) -> list[Path]:
        """What lies in staging: what is being written, or was given up."""
        return list((self.store.control / "staging").iterdir())

    def entry(self, path: str) -> Entry:
        """Return the entry at a path of the store."""
        entry = self.store.catalog.entry_at(path)
        assert entry is not None, f"{path} is not in the catalog"
        return entry

    def write_config(self, extra: str = "") -> None:
        """Write the configuration, with more tables at its end."""
        self.config.write_text(self._config_text() + extra)

    def _config_text(self) -> str:
        return (
            f'[stores.lab]\nroot = "{self.root}"\n\n'
            f'[recipes]\nmodules = ["lab_recipes"]\npaths = ["{TESTS}"]\n\n'
        )

    def cli(self, *arguments: str, check: bool = True, kill_at: str = "") -> Finished:
        """Run the command line in a process of its own."""
        done = run_cli(arguments, {**os.environ, **self.environment}, kill_at=kill_at)
        if check:
            assert done.returncode == 0, f"{arguments}: {done}"
        return done

    def cli_json(self, *arguments: str, check: bool = True) -> Any:
        """Run the command line with ``--json`` and read what it prints."""
        return json.loads(self.cli(*arguments, "--json", check=check).stdout)

    def _go_on(self, name: str, act: Callable[[], object]) -> None:
        """Take a step that tests have in common; if nothing else was done, it may be a copy."""
        is_usual = (
            self.done is not None
            and atomic._fault_hook is None  # a copy passes no fault point
            and self.config.read_text() == self._config_text()
            and look(self.base) == self.untouched
        )
        if self.done is None or not is_usual:
            self.done = None
            act()
            return
        steps = self.done = (*self.done, name)
        self.untouched = {}  # whoever comes while this goes on has not found it untouched
        step(self.base, lambda: self.store, steps, act, lambda: self.done is steps)
        self.untouched = look(self.base)

    def add(self, path: str, content: bytes) -> Path:
        """Write a file into the store, and catalog it."""
        from recallfs.resolve.commit import add_existing

        place = self.root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
        add_existing(self.store, [path])
        return place

    def write_raw(self, path: str = "raw.h5", *, seed: int = 0, rows: int = 2000) -> Path:
        """Write an HDF5 file of numbers into the store, and catalog it."""
        self._go_on(
            f"write {path} {seed} {rows}",
            functools.partial(self._write_raw, path, seed=seed, rows=rows),
        )
        return self.root / path

    def _write_raw(self, path: str, *, seed: int, rows: int) -> None:
        import h5py
        import numpy as np

        from recallfs.resolve.commit import add_existing

        place = self.root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        with h5py.File(place, "w") as file:
            file["data"] = np.random.default_rng(seed).normal(size=(rows, 32))
        add_existing(self.store, [path])

    def derive(
        self,
        path: str = "derived.h5",
        recipe: str = "double",
        *,
        raw: str = "raw.h5",
        **parameters: Any,
    ) -> Path:
        """Run a recipe on a file, by default ``raw.h5``, made if need be."""
        act = functools.partial(self._derive, path, recipe, raw, **parameters)
        if recipe in _PLAIN_RECIPES:
            self._go_on(f"derive {path} {recipe} {raw} {parameters}", act)
        else:
            act()
        return self.root / path

    def _derive(self, path: str, recipe: str, raw: str, **parameters: Any) -> None:
        from recallfs.resolve.derive import derive

        if not (self.root / raw).exists() and self.store.catalog.entry_at(raw) is None:
            self._write_raw(raw, seed=0, rows=2000)
        derive(
            self.stores,
            recipe,
            outputs={"": f"recall://lab/{path}"},
            inputs={"raw": f"recall://lab/{raw}"},
            parameters=parameters,
        )

    def prove(self, path: str = "derived.h5") -> None:
        """Prove a derived file."""
        self._go_on(f"prove {path}", lambda: self._prove(path))

    def _prove(self, path: str) -> None:
        from recallfs.release.proof import prove

        prove(self.stores, self.store, self.entry(path), hiding="auto")

    def release(self, path: str = "derived.h5", *, hold: str = "0s") -> None:
        """Release a proved file; at once by default, so that the trash cannot bring it back."""
        act = functools.partial(self._release, path, hold)
        if hold == "0s":
            self._go_on(f"release {path}", act)
        else:
            act()
        assert not os.path.lexists(self.root / path)

    def _release(self, path: str, hold: str) -> None:
        from recallfs.release.assessment import assess
        from recallfs.release.policy import Wanted
        from recallfs.release.release import release
        from recallfs.values import parse_span

        wanted = Wanted(hold=parse_span(hold), max_skeleton=1.0)
        decision = assess(self.stores, self.store, self.entry(path), wanted)
        release(self.stores, self.store, self.entry(path), decision, wanted)

    def released(self, path: str = "derived.h5") -> str:
        """Make, prove and release a file, and return its sha256 from before."""
        digest = sha256(self.derive(path))
        self.prove(path)
        self.release(path)
        return digest


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test that needs namespaces where the kernel gives none, as in many containers."""
    if item.get_closest_marker("namespaces") is not None and not can_hide():
        pytest.skip("the kernel refuses a private view of the file system; see `recall doctor`")


@pytest.fixture(autouse=True)
def _scrubbed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test sees the caller's configuration, and none leaves its own behind."""
    for variable in list(os.environ):
        if variable.startswith(("RECALLFS_", "FSSPEC_", "KACHERY_", "DANDI_")):
            monkeypatch.delenv(variable)
    monkeypatch.setenv("RECALLFS_CONFIG", str(tmp_path / "no-config.toml"))
    # Nor is anybody's cache a source of what a test wants.
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    # What other tests, or somebody's own work, run at the same time is none of a test's concern.
    monkeypatch.setenv("RECALLFS_RECALL__BUDGET_FOLDER", str(tmp_path / "budget"))
    # Nor are public services; a test of a source turns it on, with a server of its own.
    for kind in ("KACHERY", "DANDI"):
        monkeypatch.setenv(f"RECALLFS_SOURCES__{kind}__ENABLED", "false")


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    """Give a store called ``lab`` with recipes."""
    new_store(tmp_path)
    lab = Lab(tmp_path, done=(), untouched=look(tmp_path))
    lab.write_config()
    monkeypatch.setenv("RECALLFS_CONFIG", str(lab.config))
    yield lab
    lab.store.catalog.close()
