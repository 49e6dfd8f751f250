"""Fixtures: Spyglass itself with a MariaDB server, one recording, and a store over its files.

Where Spyglass is not installed there is nothing to collect; `make test-spyglass` makes an
environment in which it is.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import importlib.util
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from conftest import TESTS, sha256
from database_servers import PASSWORD, MariaDB

HERE = Path(__file__).parent

collect_ignore_glob = [] if importlib.util.find_spec("spyglass") else ["test_*.py"]


@dataclass
class Pipeline:
    """A Spyglass database with one recording, and the folders of its files.

    Parameters
    ----------
    key : dict
        Primary key of the recording's row.
    """

    server: MariaDB
    base: Path
    key: dict[str, Any]
    nwb_file_name: str

    @property
    def root(self) -> Path:
        """Folder of the analysis files, which is the store."""
        return self.base / "analysis"

    @property
    def recording(self) -> Any:
        """The row of the recording."""
        from spyglass.spikesorting.v1 import SpikeSortingRecording

        return SpikeSortingRecording & self.key

    @property
    def mean(self) -> Any:
        """A row of a lab's own table."""
        from spyglass_tables import Mean

        return Mean() & {"name": "short"}

    def place(self, row: Any = None) -> Path:
        """Return where a row's file is, or was; by default the recording's."""
        from recallfs.integrations.spyglass.database import file_rows

        (found,) = file_rows(self.recording if row is None else row)
        assert found.path is not None
        return found.path

    def external(self) -> list[tuple[Any, ...]]:
        """Return what DataJoint has registered of all analysis files."""
        from spyglass.common.common_nwbfile import schema

        columns = ("filepath", "size", "contents_hash", "timestamp")
        return list(zip(*schema.external["analysis"].fetch(*columns), strict=True))

    def close(self) -> None:
        """Close the files that Spyglass and SpikeInterface keep open."""
        from spyglass.utils.nwb_helper_fn import close_nwb_files

        close_nwb_files()
        gc.collect()

    def release(self, row: Any = None, *, hold: timedelta = timedelta(0)) -> str:
        """Release a row's file, by default the recording's; return its sha256 from before."""
        from recallfs.integrations import spyglass

        row = self.recording if row is None else row
        digest = sha256(self.place(row))
        self.close()
        (result,) = spyglass.release(row, hold=hold)
        result.checked()
        assert not self.place(row).exists()
        return digest

    @contextlib.contextmanager
    def user(self, name: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        """Be another user of the database, here and in what is started from here."""
        import datajoint

        connection = datajoint.conn()
        before = dict(connection.conn_info)
        home = self.base / f"home-{name}"
        self.server.write_settings(home, name, self.base)
        with monkeypatch.context() as patch:
            patch.setenv("HOME", str(home))
            connection.conn_info.update(user=name, passwd=PASSWORD)
            connection.connect()
            try:
                yield
            finally:
                connection.conn_info.update(before)
                connection.connect()


@pytest.fixture(scope="session")
def _imported(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[MariaDB, Path]]:
    server = MariaDB()
    base = tmp_path_factory.mktemp("spyglass")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{HERE / 'programs'}{os.pathsep}{os.environ['PATH']}")
        patch.setenv("PYTHON_OF_CONDA", sys.executable)
        server.write_settings(base / "home", server.admin, base)
        patch.setenv("HOME", str(base / "home"))
        for variable in list(os.environ):
            if variable.startswith(("DJ_", "SPYGLASS_", "KACHERY_")):
                patch.delenv(variable)
        patch.chdir(base)
        (base / "raw").mkdir()
        yield server, base
    server.stop()


@pytest.fixture(scope="session")
def _made(_imported: tuple[MariaDB, Path]) -> Pipeline:
    import spyglass_recording

    server, base = _imported
    spyglass_recording.write_raw(base / "raw" / "rat1.nwb")
    name = spyglass_recording.insert_raw("rat1.nwb")
    key = spyglass_recording.make_recording(name)
    # Imported when a file is missing; who makes their schemas must have the right to.
    importlib.import_module("spyglass.common.common_dandi")
    importlib.import_module("spyglass.sharing.sharing_kachery")
    from spyglass_tables import Mean, Trend

    Mean.populate()
    Trend.populate({"name": "short"})
    server.run(
        f"CREATE USER reader@'127.0.0.1' IDENTIFIED BY '{PASSWORD}'",
        "GRANT SELECT ON *.* TO reader@'127.0.0.1'",
    )
    return Pipeline(server, base, key, name)


@pytest.fixture(scope="session")
def _snapshots(_made: Pipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keep the folders as Spyglass left them."""
    folder = tmp_path_factory.mktemp("snapshots")
    shutil.copytree(_made.root, folder / "made")
    return folder


@dataclass
class Folder:
    """A recording of spikesorting v0, which is a folder, in a store of its own."""

    pipeline: Pipeline
    key: dict[str, Any]
    place: Path

    def read(self) -> Any:
        """Return what Spyglass reads of it."""
        from spyglass.spikesorting.v0.spikesorting_recording import SpikeSortingRecording

        # A copy: what SpikeInterface gives keeps the file open.
        return SpikeSortingRecording().load_recording(self.key).get_traces().copy()


@pytest.fixture(scope="session")
def _folder_made(_made: Pipeline) -> Folder:
    import spyglass_recording

    key, place = spyglass_recording.make_folder(_made.nwb_file_name)
    return Folder(_made, key, place)


@pytest.fixture
def folder(_folder_made: Folder, made: Pipeline) -> Folder:
    """Give a store over the folder of v0's recordings, of which nothing is on record yet."""
    from recallfs.catalog.store import create_store

    root = _folder_made.place.parent
    shutil.rmtree(root / ".recall", ignore_errors=True)
    create_store(root, "recording", vault=made.base / "vault-v0")
    config = Path(os.environ["RECALLFS_CONFIG"])
    config.write_text(f'[stores.recording]\nroot = "{root}"\n\n{config.read_text()}')
    return _folder_made


def _configured(pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from recallfs.catalog.store import create_store

    config = tmp_path / "config.toml"
    config.write_text(
        f'[stores.analysis]\nroot = "{pipeline.root}"\n\n'
        f'[recipes]\nmodules = ["spyglass_recipes"]\npaths = ["{TESTS}"]\n'
    )
    monkeypatch.setenv("RECALLFS_CONFIG", str(config))
    create_store(pipeline.root, "analysis", vault=pipeline.base / "vault")


def _put_back(pipeline: Pipeline, snapshots: Path, name: str) -> None:
    pipeline.close()
    for folder, kept in ((pipeline.root, name), (pipeline.base / "vault", f"{name}-vault")):
        shutil.rmtree(folder, ignore_errors=True)
        if (snapshots / kept).exists():
            shutil.copytree(snapshots / kept, folder)


@pytest.fixture
def made(
    _made: Pipeline, _snapshots: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Pipeline]:
    """Give a store over the analysis folder, of which nothing is on record yet."""
    _put_back(_made, _snapshots, "made")
    _configured(_made, tmp_path, monkeypatch)
    yield _made
    _put_back(_made, _snapshots, "made")


@pytest.fixture
def proved(made: Pipeline, _snapshots: Path) -> Iterator[Pipeline]:
    """Give a store in which a recording and a row of a lab's own table are proved, once for all."""
    from recallfs.integrations import spyglass

    if (_snapshots / "proved").exists():
        _put_back(made, _snapshots, "proved")
    else:
        for row in (made.recording, made.mean):
            spyglass.adopt(row)[0].checked()
            tried = spyglass.prove(row)[0].checked()
            assert tried.proved is not None
            assert tried.proved.proof.level.value == "exact"
        shutil.copytree(made.root, _snapshots / "proved")
        shutil.copytree(made.base / "vault", _snapshots / "proved-vault")
    spyglass.install()
    yield made
    spyglass.uninstall()


@pytest.fixture
def bare(_made: Pipeline, _snapshots: Path) -> Iterator[Pipeline]:
    """Give the analysis folder as a lab has it before it knows of recallfs."""
    _put_back(_made, _snapshots, "made")
    yield _made
    _put_back(_made, _snapshots, "made")
