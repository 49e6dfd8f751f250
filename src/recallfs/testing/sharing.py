"""The part of a catalog's contract that several threads and processes put to the test."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from recallfs.catalog.database import Catalog
from recallfs.testing import load
from recallfs.testing.records import STORE_ID, hex_id, plain_record

_PROCESSES = 8
_LOAD_SECONDS = 3.0


class SharedCatalogContract:
    """What holds of a catalog that several use at once; a base of `CatalogContract`."""

    def in_processes(
        self, function: Any, url: str, folder: Path, *more: Any, count: int = _PROCESSES
    ) -> list[list[str]]:
        """Run a part of `recallfs.testing.load` in several processes; return what each wrote."""
        names = [f"p{number}" for number in range(count)]
        arguments = [(url, name, str(folder), *more) for name in names]
        assert load.in_processes(function, arguments) == [0] * count
        return [(folder / name).read_text(encoding="utf-8").splitlines() for name in names]

    def test_threads_share_a_catalog(self, catalog: Catalog) -> None:
        """Threads that put, read and take a lease in one process neither fail nor lose a row."""
        failures: list[BaseException] = []
        holders = [0]
        fences: list[int] = []

        def work(name: str) -> None:
            try:
                for number in range(10):
                    catalog.put([plain_record(f"{name}/{number}")])
                    assert len(catalog.children(name)[0]) == number + 1
                    fence = catalog.take_lease("k", f"{name}|{number}", instead_of=None)
                    if fence is not None:
                        holders[0] += 1
                        assert holders[0] == 1
                        fences.append(fence)
                        holders[0] -= 1
                        assert catalog.free_lease("k", fence)
            except BaseException as error:  # noqa: BLE001 - shown by the test
                failures.append(error)

        threads = [threading.Thread(target=work, args=(f"t{i}",)) for i in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        assert fences == list(range(1, len(fences) + 1))
        assert sum(1 for _ in catalog.entries_below("")) == 80

    def test_a_fork_has_connections_of_its_own(
        self, url: str, catalog: Catalog, tmp_path: Path
    ) -> None:
        """A child that was forked with the catalog open, and its parent, both go on using it."""
        assert load.in_processes(load.fork_and_ask, [(url, str(tmp_path))]) == [0]
        assert (tmp_path / "child").exists()
        assert (tmp_path / "parent").exists()
        assert sum(1 for _ in catalog.entries_below("")) == 41

    def test_processes_hold_a_lease_in_turn(
        self, url: str, catalog: Catalog, tmp_path: Path
    ) -> None:
        """Of eight processes that want one lease all the time, one has it, each time anew."""
        catalog.close()
        said = self.in_processes(load.hold_in_turn, url, tmp_path, 5)
        fences = sorted(int(line) for lines in said for line in lines)
        assert fences == list(range(1, 5 * _PROCESSES + 1))

    @pytest.mark.parametrize("part", ["take_over", "first_takers"])
    def test_processes_take_a_lease_at_once(
        self, url: str, catalog: Catalog, tmp_path: Path, part: str
    ) -> None:
        """Of eight processes that take a dead or a new lease at one moment, exactly one gets it."""
        rounds = 25
        for number in range(rounds):
            load.dead_lease(catalog, number)
        catalog.close()
        said = self.in_processes(getattr(load, part), url, tmp_path, rounds)
        won = sorted(int(line) for lines in said for line in lines)
        assert won == list(range(rounds))

    def test_processes_claim_a_path_at_once(
        self, url: str, catalog: Catalog, tmp_path: Path
    ) -> None:
        """Of eight processes that put an entry at one path, one does; the others see a conflict."""
        catalog.close()
        said = self.in_processes(load.claim_paths, url, tmp_path, 20)
        won = {int(line): name for name, lines in enumerate(said) for line in lines}
        assert sorted(int(line) for lines in said for line in lines) == list(range(20))
        for number, winner in won.items():
            found = catalog.entry_at(f"wanted {number}")
            assert found is not None
            assert found.id == hex_id(f"p{winner} {number}")

    def test_processes_work_side_by_side(self, url: str, catalog: Catalog, tmp_path: Path) -> None:
        """Eight processes that change one catalog for seconds lose no row and meet no error."""
        catalog.close()
        said = self.in_processes(load.work, url, tmp_path, _LOAD_SECONDS)
        expected = dict(line.split(" ", 1) for lines in said for line in lines[1:])
        assert {entry.id: entry.path for entry in catalog.entries_below("")} == expected
        moves = sum(int(lines[0]) for lines in said)
        assert len(catalog.events()) == moves
        assert sum(len(catalog.recalls(e["entry_id"])) for e in catalog.events()) == moves
        assert {intent.entry_id for intent in catalog.intents()} == set()
        assert sum(count for count, _ in catalog.totals().values()) == len(expected)

    def test_processes_prepare_at_once(self, url: str) -> None:
        """Eight processes that find an empty database at the same time all open the catalog."""
        assert load.in_processes(load.prepare, [(url,)] * _PROCESSES) == [0] * _PROCESSES
        catalog = Catalog(url, STORE_ID)
        assert len(list(catalog.entries_below(""))) == _PROCESSES
        catalog.close()
