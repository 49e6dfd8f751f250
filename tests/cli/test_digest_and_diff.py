"""`recall digest` and `recall diff`: no store, no configuration; exit codes; bad input."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from processes import Finished, run_cli
from recallfs.digest.hdf5 import content_digest


def cli(*arguments: str) -> Finished:
    """Run the command line in a process of its own, without any store."""
    return run_cli(arguments, dict(os.environ))


def write(path: Path, values: object, **attributes: object) -> Path:
    """Write an HDF5 file with one dataset."""
    with h5py.File(path, "w") as file:
        file["größe/x"] = values
        file.attrs.update(attributes)
    return path


def test_digests_need_nothing(tmp_path: Path) -> None:
    """All digests of an HDF5 file and of another one, as the standard library and we take them."""
    path = write(tmp_path / "a file.h5", np.arange(10))
    other = tmp_path / "text"
    other.write_bytes(b"text")
    done = json.loads(cli("digest", str(path), str(other), "--json").stdout)["files"]
    assert done[0]["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert done[0]["h5c1"] == str(content_digest(path))
    assert {item["path"] for item in done[0]["objects"]} == {"/", "/größe", "/größe/x"}
    assert done[1]["sha1"] == hashlib.sha1(b"text").hexdigest()  # noqa: S324 - what is asked for
    assert done[1]["h5c1"] is None
    assert "h5c1:strict:" in cli("digest", str(path), "--scheme", "h5c1").stdout


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("digest", "{text}", "--scheme", "h5c1"), 19, "not an HDF5 file"),
        (("digest", "{nowhere}"), 11, "neither file nor folder"),
        (("digest", "{folder}", "--scheme", "h5c1"), 10, "is a folder; h5c1 is for files"),
        (("digest", "{a}", "--scheme", "fdm1"), 10, "is a file; fdm1 is for folders"),
        (("diff", "{a}", "{folder}"), 2, "compare two folders, or two files"),
        (("digest", "{a}", "--rules", "nonsense"), 10, "there are no rules 'nonsense'"),
        (("diff", "{a}", "{text}"), 2, "not an HDF5 file"),
        (("diff", "{a}", "{nowhere}"), 2, "is not there"),
        (("diff", "{a}", "{cut}"), 2, "not an HDF5 file"),
    ],
)
def test_bad_input(tmp_path: Path, arguments: tuple[str, ...], code: int, words: str) -> None:
    """One sentence, the right exit code, no traceback."""
    places = {name: tmp_path / name for name in ("a", "text", "nowhere", "cut")}
    write(places["a"], np.arange(1000))
    places["text"].write_bytes(b"text" * 1000)
    places["cut"].write_bytes(places["a"].read_bytes()[:3000])
    texts = {name: str(path) for name, path in places.items()} | {"folder": str(tmp_path)}
    done = cli(*(argument.format(**texts) for argument in arguments))
    assert done.returncode == code, done
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_exit_codes_of_diff(tmp_path: Path) -> None:
    """0 for what is the same, in bytes or in content or within the tolerance; 1 for different."""
    one = write(tmp_path / "1.h5", np.array([1.0, 2.0]))
    two = write(tmp_path / "2.h5", np.array([1.0, 2.0 + 1e-12]))
    copy = Path(shutil.copyfile(one, tmp_path / "copy.h5"))
    assert cli("diff", str(one), str(copy)).returncode == 0
    different = cli("diff", str(one), str(two))
    assert different.returncode == 1
    assert "1 of 2 values, first at [1]" in different.stdout
    assert "1 of 3 objects differ" in different.stdout
    near = cli("diff", str(one), str(two), "--rtol", "1e-9", "--json")
    assert near.returncode == 0
    assert json.loads(near.stdout)["verdict"] == "within tolerance"


def test_the_page_escapes_what_files_hold(tmp_path: Path) -> None:
    """A name in a file cannot put script into the page."""
    one = write(tmp_path / "1.h5", 1, note="<script>alert(1)</script>")
    two = write(tmp_path / "2.h5", 1, note="<b>other</b>")
    page = tmp_path / "page.html"
    assert cli("diff", str(one), str(two), "--html", str(page)).returncode == 1
    text = page.read_text()
    assert "<script>" not in text
    assert "&lt;script&gt;" in text


def test_folders(tmp_path: Path) -> None:
    """Two folders are digested and compared file by file; the exit code is that of files."""
    for name, gain in (("a", 1), ("b", 2)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "about.json").write_text(json.dumps({"gain": gain, "version": name}))
        np.save(tmp_path / name / "x.npy", np.arange(10))
    one, other = str(tmp_path / "a"), str(tmp_path / "b")
    (row,) = json.loads(cli("digest", one, "--json").stdout)["files"]
    assert row["fdm1"].startswith("fdm1:strict:")
    assert [item["path"] for item in row["files"]] == ["about.json", "x.npy"]
    assert row["sha256"] is row["h5c1"] is None
    assert "x.npy" in cli("digest", one, "--objects").stdout
    page = tmp_path / "page.html"
    done = cli("diff", one, other, "--rules", "spyglass", "--html", str(page))
    assert done.returncode == 1
    assert "about.json:/gain" in done.stdout
    assert "version" not in done.stdout
    assert "1 of 2 files differ." in done.stdout
    assert "1 of 2 files differ" in page.read_text()
    (tmp_path / "b/about.json").write_text(json.dumps({"version": 3, "gain": 1}))
    assert cli("diff", one, other, "--rules", "spyglass").returncode == 0
