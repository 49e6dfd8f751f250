"""``recall demo``: the story of one derived file, told by doing it."""

from __future__ import annotations

import importlib.util
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from recallfs.catalog.records import known_entry, load
from recallfs.catalog.store import Store, create_store
from recallfs.cli.output import print_json, print_table, say
from recallfs.config import register_store
from recallfs.digest.plain import hash_file
from recallfs.errors import ConflictError, InvalidInputError
from recallfs.release.assessment import assess
from recallfs.release.policy import Wanted
from recallfs.release.proof import prove
from recallfs.release.release import release
from recallfs.resolve.commit import add_existing
from recallfs.resolve.derive import derive
from recallfs.resolve.stores import Stores, stores_in_reach
from recallfs.values import format_size, parse_span

_RAW, _LFP = "raw/sub-1.nwb", "derived/sub-1_lfp.nwb"
_PLAIN = "demo.lfp"
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class _Opening:
    """One opening of the released file."""

    reader: str
    freed_bytes: int
    source: str
    seconds: float
    sha256: str


@click.command(name="demo")
@click.option("--seconds", default=26, show_default=True, help="Length of the recording.")
@click.option(
    "--keep",
    type=click.Path(path_type=Path),
    help="Work in this new folder and keep it; by default a temporary one is removed.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(seconds: int, keep: Path | None, as_json: bool) -> int:
    """See it work: make a recording and its LFP, prove, release, and open it as if it were there.

    The LFP is made by `ephys.decimate` where SpikeInterface is installed, else by SciPy.

    Example: recall demo --seconds 5 --keep /tmp/recall-demo
    """
    if seconds < 1:
        raise InvalidInputError("a recording lasts at least one second.")
    try:
        import pynwb  # noqa: F401 - asked for early, to say so before anything is made
        import scipy  # noqa: F401 - the same
    except ImportError as error:
        raise InvalidInputError(
            f"the demonstration needs {error.name}; pip install 'recallfs[demo]'."
        ) from error
    if keep is None:
        with tempfile.TemporaryDirectory(prefix="recallfs-demo-") as folder:
            return _Demo(Path(folder), seconds, as_json).run()
    if keep.exists() and (not keep.is_dir() or any(keep.iterdir())):
        raise ConflictError(f"{keep} is not an empty folder; choose another.")
    keep.mkdir(parents=True, exist_ok=True)
    return _Demo(keep.resolve(), seconds, as_json, is_kept=True).run()


class _Demo:
    """The steps, in order; each says what it did."""

    def __init__(self, folder: Path, seconds: int, as_json: bool, *, is_kept: bool = False) -> None:
        self.folder = folder
        self.seconds = seconds
        self.as_json = as_json
        self.is_kept = is_kept
        self.mirror = folder / "mirror"
        self.recipe, self.parameters, self.what = _recipe()
        # The demonstration has a configuration of its own; yours is not touched.
        self.config = folder / "config.toml"
        self.mirror_table = f'[[sources.mirror]]\nname = "lab"\nurl = "file://{self.mirror}"\n'
        os.environ["RECALLFS_CONFIG"] = str(self.config)

    def run(self) -> int:
        store = self._make_store()
        stores = stores_in_reach()
        path = store.root / _LFP
        self._make_files(stores, store)
        before = hash_file(path, "sha256")
        self._tell("prove", lambda: self._prove(stores, store))
        self._copy_to_mirror(path, before)
        openings = [
            self._release_and_open(stores, store, "fsspec.open(url)", _read_with_fsspec),
        ]
        self._give_up_mirror()
        openings.append(
            self._release_and_open(stores, store, "pynwb, plain path", _read_with_pynwb)
        )
        return self._report(store, before, openings)

    def _tell(self, what: str, action: Callable[[], _Result]) -> _Result:
        start = time.monotonic()
        result = action()
        if not self.as_json:
            say(f"{time.monotonic() - start:6.1f} s  {what}")
        return result

    def _make_store(self) -> Store:
        root = self.folder / "analysis"
        root.mkdir()
        self.mirror.mkdir()
        self.config.write_text(
            "[sources.kachery]\nenabled = false\n\n[sources.dandi]\nenabled = false\n\n"
            f"{self.mirror_table}",
            encoding="utf-8",
        )
        register_store("analysis", root)
        return create_store(root, "analysis", vault=self.folder / "vault")

    def _make_files(self, stores: Stores, store: Store) -> None:
        from recallfs.cli.demo.recording import CHANNELS, write_recording

        raw = store.root / _RAW
        raw.parent.mkdir()
        what = f"write a recording: {CHANNELS} channels, 30 kHz, {self.seconds} s"
        self._tell(what, lambda: write_recording(raw, self.seconds))
        self._tell(
            f"recall add: {format_size(raw.stat().st_size)}",
            lambda: add_existing(store, [_RAW]),
        )
        self._tell(
            f"recall run {self.recipe}: {self.what}",
            lambda: derive(
                stores,
                self.recipe,
                outputs={"": store.url(_LFP)},
                inputs={"raw": store.url(_RAW)},
                parameters=self.parameters,
            ),
        )

    def _prove(self, stores: Stores, store: Store) -> None:
        prove(stores, store, known_entry(store, _LFP), hiding="auto")

    def _copy_to_mirror(self, path: Path, sha256: str) -> None:
        copy = self.mirror / "sha256" / sha256[:2] / sha256[2:4] / sha256
        copy.parent.mkdir(parents=True)
        shutil.copyfile(path, copy)

    def _give_up_mirror(self) -> None:
        """Remove the mirror, also from the configuration: whoever keeps the folder looks around."""
        shutil.rmtree(self.mirror)
        text = self.config.read_text("utf-8")
        self.config.write_text(text.replace(self.mirror_table, ""), encoding="utf-8")

    def _release_and_open(
        self, stores: Stores, store: Store, reader: str, read: Callable[[Store], float]
    ) -> _Opening:
        entry = known_entry(store, _LFP)
        wanted = Wanted(hold=parse_span("0s"))
        decision = assess(stores, store, entry, wanted)
        released = self._tell(
            "recall release: the bytes are dropped",
            lambda: release(stores, store, entry, decision, wanted),
        )
        path = store.root / _LFP
        if path.exists():
            raise AssertionError("a released file is still there")
        seconds = self._tell(f"open it: {reader}", lambda: read(store))
        newest = store.catalog.recalls(entry.id)[0]
        return _Opening(
            reader, released.freed_bytes, str(newest["source"]), seconds, hash_file(path, "sha256")
        )

    def _report(self, store: Store, before: str, openings: list[_Opening]) -> int:
        is_exact = all(opening.sha256 == before for opening in openings)
        record = load(store, known_entry(store, _LFP).id)
        kept = record.skeleton.stored_bytes if record.skeleton else 0
        if self.as_json:
            print_json(
                {
                    "sha256_before": before,
                    "exact": is_exact,
                    "kept_bytes": kept,
                    "openings": [vars(opening) for opening in openings],
                }
            )
            return 0 if is_exact else 1
        say("")
        print_table(
            ["opened by", "freed>", "came from", "seconds>", "sha256 before", "sha256 after"],
            [
                [
                    opening.reader,
                    format_size(opening.freed_bytes),
                    opening.source,
                    f"{opening.seconds:.2f}",
                    before[:16],
                    opening.sha256[:16],
                ]
                for opening in openings
            ],
        )
        size = format_size(record.entry.size_bytes)
        say("")
        seeds = "with nothing seeded" if self.recipe == _PLAIN else "with its seeds on record"
        say(f"Kept of {size}: a skeleton of {format_size(kept)}. The recipe ran {seeds}.")
        say(
            f"The file is {'the original, byte for byte' if is_exact else 'OTHER'}.",
            style="bold green" if is_exact else "bold red",
        )
        if self.is_kept:
            config = f"RECALLFS_CONFIG={self.config}"
            say(f"Look around:  {config} recall status")
            say(f"              {config} recall show {store.url(_LFP)}")
            say(f"              {config} recall explain {store.url(_LFP)}")
        return 0 if is_exact else 1


def _recipe() -> tuple[str, dict[str, Any], str]:
    """Return the recipe's name, its parameters and what it does."""
    if importlib.util.find_spec("spikeinterface") is None:
        what = "band-pass 0.5 to 300 Hz, decimate to 2.5 kHz, write with pynwb"
        return _PLAIN, {}, what
    return "ephys.decimate", {"rate_hz": 2500.0, "dtype": "float32"}, "to 2.5 kHz by SpikeInterface"


def _read_with_fsspec(store: Store) -> float:
    import fsspec

    start = time.monotonic()
    with fsspec.open(store.url(_LFP), "rb") as file:
        file.read()
    return time.monotonic() - start


def _read_with_pynwb(store: Store) -> float:
    import recallfs

    recallfs.install()
    try:
        start = time.monotonic()
        _unchanged_code(str(store.root / _LFP))
        return time.monotonic() - start
    finally:
        recallfs.uninstall()


def _unchanged_code(path: str) -> float:
    """Read the way any analysis does; it knows nothing of recallfs."""
    from pynwb import NWBHDF5IO

    with NWBHDF5IO(path, "r") as io:
        (series,) = io.read().processing["ecephys"].data_interfaces.values()
        for inner in getattr(series, "electrical_series", {}).values():  # of an LFP
            series = inner
        return float(series.data[:1000].mean())
