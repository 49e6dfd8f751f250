"""Files that were never here: their metadata ahead of time, and slices on the command line."""

from __future__ import annotations

import io
import json
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import recallfs
from conftest import Lab
from recallfs.cli.app import main
from recallfs.errors import InvalidInputError
from recallfs.partial.slices import parse_slice
from recallfs.testing.dandi import DandiServer
from recallfs.testing.misbehaviour import Fault
from served import Served, write_hdf5

URL = "recall://lab/a.h5"


def test_a_dandiset_is_opened_without_a_request(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """After `recall warm --metadata` a file of a dandiset opens by itself; slices are pinned."""
    made = tmp_path / "made.nwb"
    values = write_hdf5(made)
    values["big"] = np.random.default_rng(1).normal(size=(40_000, 16))
    with h5py.File(made, "a") as file:
        file["group"].create_dataset("big", data=values["big"], chunks=(100, 16))
    with DandiServer() as dandi:
        dandiset = dandi.add_dandiset()
        dandi.add_asset(dandiset, "sub-1/a.nwb", made)
        monkeypatch.setenv("RECALLFS_SOURCES__DANDI__ENABLED", "true")
        monkeypatch.setenv("RECALLFS_SOURCES__DANDI__INSTANCE", dandi.api_url)
        assert main(["add", "--from-dandi", dandiset, "--to", "recall://lab/d"]) == 0
        entry = next(iter(lab.store.catalog.entries_below("")))
        url = f"recall://lab/{entry.path}"
        with pytest.raises(InvalidInputError, match="unverified"):
            recallfs.open_h5(url, True)
        capsys.readouterr()
        assert main(["warm", "--metadata", url, "--json"]) == 0
        warmed = json.loads(capsys.readouterr().out)["files"][0]
        assert 0 < warmed["requests"] <= 12
        assert "unverified" in warmed["check"]
        dandi.bucket.log.clear()
        dandi.log.clear()
        monkeypatch.setenv("RECALLFS_READERS__PARTIAL_ABOVE", "1")
        with recallfs.open_h5(url) as file:  # warming it was agreeing to it
            assert file["group"].attrs["about"] == "a test"
            np.testing.assert_array_equal(file["group/small"][:], values["small"])
            assert (dandi.bucket.log, dandi.log) == ([], [])
            np.testing.assert_array_equal(
                file["group/big"][20_000:22_000], values["big"][20_000:22_000]
            )
            assert len(dandi.bucket.log) == 1
        assert main(["explain", url, "--no-ask"]) == 0
        assert "unverified, pinned by its ETag" in " ".join(capsys.readouterr().out.split())
        _is_labelled(url, capsys)
        assert main(["warm", "--metadata", url, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["files"][0]["requests"] == 0
        dandi.bucket.fail(Fault(etag="another"))
        with recallfs.open_h5(url) as file, pytest.raises(OSError, match="another object"):
            file["group/big"][30_000:]


def _is_labelled(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Check that all that shows unverified parts says so, for people and for programs."""

    def said(*words: str) -> Any:
        capsys.readouterr()
        assert main([*words, "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    assert said("explain", url, "--no-ask")["parts"]["is_verified"] is False
    parts = said("show", url)["parts"]
    assert (parts["is_verified"], parts["check"][:10]) == (False, "unverified")
    assert 0 < parts["size_bytes"] < 2_000_000
    assert said("status")["cache"]["own"]["unverified"]["files"] == 1
    for words in (["show", url], ["status"], ["cache", "show"]):
        assert main(words) == 0
        assert "unverified" in capsys.readouterr().out


def test_a_slice_on_the_command_line(
    served: Served, tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    """`recall get --slice` prints or writes values, and leaves the file where it is."""
    values = write_hdf5(tmp_path / "made.h5")
    served.release("a.h5", tmp_path / "made.h5")
    some = values["plain"][150:250, 3]
    target = tmp_path / "slice.npy"
    assert main(["get", "--slice", "/group/plain[150:250, 3]", URL, "-o", str(target)]) == 0
    np.testing.assert_array_equal(np.load(target), some)
    assert len(served.asked()) == 1
    capsysbinary.readouterr()
    assert main(["get", "--slice", "/group/plain[150:250, 3]", URL, "-o", "-"]) == 0
    np.testing.assert_array_equal(np.load(io.BytesIO(capsysbinary.readouterr().out)), some)
    assert main(["get", "--slice", "/group/small[::2]", URL, "--json"]) == 0
    assert json.loads(capsysbinary.readouterr().out)["values"] == [0, 2, 4, 6, 8]
    assert main(["get", "--slice", "/group/plain[:3, :2]", URL]) == 0
    assert len(capsysbinary.readouterr().out.splitlines()) == 3
    assert main(["get", "--slice", "/a", "recall://lab/none.h5"]) == 14
    (served.lab.root / "b.txt").write_bytes(b"no HDF5")
    assert main(["get", "--slice", "/a", "recall://lab/b.txt"]) == 19
    assert not (served.lab.root / "a.h5").exists()
    for wrong in (
        "/group/plain[",
        "group",
        "/group/none",
        "/group/plain[1:x]",
        "/group/plain[9,9,9]",
    ):
        assert main(["get", "--slice", wrong, URL]) == 10


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/a", ("/a", ())),
        ("/a/b[5]", ("/a/b", (5,))),
        ("/a[-3:, ::2, 1:9:3]", ("/a", (slice(-3, None), slice(None, None, 2), slice(1, 9, 3)))),
        ("/a[:]", ("/a", (slice(None),))),
    ],
)
def test_slices_are_read_as_they_are_written(text: str, expected: Any) -> None:
    """Numbers and ranges, as in Python, and nothing else."""
    assert parse_slice(text) == expected


@pytest.mark.parametrize(
    "text", ["", "/", "a[1]", "/a[1", "/a[]", "/a[1.5]", "/a[-]", "/a[x]", "/a[1,]"]
)
def test_what_is_no_slice_is_refused(text: str) -> None:
    """A slip is told of, never guessed at."""
    with pytest.raises(InvalidInputError):
        parse_slice(text)


def test_a_file_is_completed_behind_its_reader(served: Served) -> None:
    """While a file is read in parts, another process brings the rest; the reader sees no change."""
    values = write_hdf5(served.lab.base / "made.h5")
    content = served.release("a.h5", served.lab.base / "made.h5")
    entry = served.lab.entry("a.h5")
    cache = served.parts().cache
    with recallfs.open_h5(URL, True, complete=True) as file:
        np.testing.assert_array_equal(file["group/gzip"][:300], values["gzip"][:300])
        until = time.monotonic() + 60
        while cache.find(entry, {entry.sha256}) is None and time.monotonic() < until:
            time.sleep(0.05)
            np.testing.assert_array_equal(file["group/plain"][5:9], values["plain"][5:9])
        served.server.stop()
        for name, expected in values.items():
            np.testing.assert_array_equal(file[f"group/{name}"][()], expected)
    fetched = sum(exchange.sent_bytes for exchange in served.server.log)
    assert fetched < 1.1 * len(content)
    assert (cache.folder / "warm.log").stat().st_mode & 0o777 == 0o600
    assert main(["warm", URL]) == 0  # nothing is left to do
    assert main(["get", URL]) == 0
    assert (served.lab.root / "a.h5").read_bytes() == content


def test_more_than_the_cache_may_hold_is_not_begun(
    served: Served, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file that cannot be kept whole is not fetched; the error says what to do."""
    write_hdf5(served.lab.base / "made.h5")
    served.release("a.h5", served.lab.base / "made.h5")
    monkeypatch.setenv("RECALLFS_CACHE__LIMIT", "1MB")
    assert main(["warm", URL]) == 33
    assert "raise cache.limit" in " ".join(capsys.readouterr().err.split())
    assert served.asked() == []


def test_a_file_is_completed(served: Served, capsys: pytest.CaptureFixture[str]) -> None:
    """`recall warm` fetches what is missing, and the cache has the whole file then."""
    write_hdf5(served.lab.base / "made.h5")
    content = served.release("a.h5", served.lab.base / "made.h5")
    with served.parts().open() as parts:
        parts.read_at(0, len(content) // 2)
    served.asked()
    assert main(["warm", URL, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["files"][0]["fetched_bytes"] < 0.6 * len(content)
    assert not served.parts().choice().is_partial
    served.server.stop()
    assert main(["get", URL]) == 0
    assert (served.lab.root / "a.h5").read_bytes() == content
    with h5py.File(served.lab.root / "a.h5") as file:
        assert "group" in file
