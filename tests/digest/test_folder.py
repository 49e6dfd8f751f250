"""The digest and the difference of folders: by content where that is known, else by bytes."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from blake3 import blake3

from recallfs.digest.folder import folder_digest
from recallfs.digest.folder_difference import compare_folders
from recallfs.digest.hdf5 import content_digest
from recallfs.digest.listing import list_folder
from recallfs.digest.rules import KNOWN, Rules, find_rules
from recallfs.digest.tally import Tolerance
from recallfs.errors import InvalidInputError

GOLDEN = "fdm1:strict:10ffc99d5af1194373efcc3d058f219387d39d8c15a8985c0b4b8107f6819934"


def fill(folder: Path) -> Path:
    """Write a folder that has one file of each kind."""
    (folder / "properties").mkdir(parents=True)
    (folder / "traces.raw").write_bytes(np.arange(1000, dtype="<i2").tobytes())
    (folder / "binary.json").write_text(
        json.dumps({"version": "0.100", "kwargs": {"gain": 0.195, "channels": [1, 2, None]}})
    )
    np.save(folder / "properties/gain.npy", np.linspace(0, 1, 32, dtype="<f4"))
    np.savez(folder / "spikes.npz", times=np.arange(50), unit=np.arange(50) % 3)
    with h5py.File(folder / "times.h5", "w") as file:
        file["deep/times"] = np.arange(100.0)
    (folder / "empty").touch()
    return folder


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    return fill(tmp_path / "plain")


@pytest.fixture
def other(plain: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(plain, tmp_path / "other"))


def text(folder: Path, rules: Rules = KNOWN["strict"]) -> str:
    """Return a folder's digest as it is written."""
    return str(folder_digest(folder, rules))


def test_digest_is_as_the_page_says(plain: Path) -> None:
    """The digest follows from docs/reference/formats/fdm1.md with hashlib and BLAKE3."""
    import hashlib

    def array(values: Any) -> str:
        head = json.dumps(
            {"dtype": json.dumps(values.dtype.str), "shape": list(values.shape)},
            separators=(",", ":"),
        )
        return blake3(head.encode() + b"\n" + values.tobytes()).hexdigest()

    value = b'{"kwargs":{"channels":[1,2,null],"gain":0.195},"version":"0.100"}'
    members = [
        ["times.npy", "npy", array(np.arange(50))],
        ["unit.npy", "npy", array(np.arange(50) % 3)],
    ]
    archive = blake3()
    for member in members:
        archive.update(json.dumps(member, separators=(",", ":")).encode() + b"\n")
    lines = [
        ["binary.json", "json", blake3(value).hexdigest()],
        ["empty", "bytes", hashlib.sha256(b"").hexdigest()],
        ["properties/gain.npy", "npy", array(np.linspace(0, 1, 32, dtype="<f4"))],
        ["spikes.npz", "npz", archive.hexdigest()],
        ["times.h5", "hdf5", content_digest(plain / "times.h5").digest],
        ["traces.raw", "bytes", hashlib.sha256((plain / "traces.raw").read_bytes()).hexdigest()],
    ]
    whole = blake3()
    for line in lines:
        whole.update(json.dumps(line, separators=(",", ":")).encode() + b"\n")
    assert text(plain) == f"fdm1:strict:{whole.hexdigest()}" == GOLDEN


def _reordered_json(folder: Path) -> None:
    value = json.loads((folder / "binary.json").read_text())
    ordered = dict(reversed(value.items()))
    (folder / "binary.json").write_text(json.dumps(ordered, indent=4))


def _other_npy(folder: Path) -> None:
    np.save(folder / "properties/gain.npy", np.linspace(0, 1, 32, dtype="<f4").astype(">f4"))


def _compressed_npz(folder: Path) -> None:
    np.savez_compressed(folder / "spikes.npz", unit=np.arange(50) % 3, times=np.arange(50))


def _compressed_hdf5(folder: Path) -> None:
    with h5py.File(folder / "times.h5", "w") as file:
        file.create_dataset("deep/times", data=np.arange(100.0), chunks=(10,), compression=4)


def _empty_folder(folder: Path) -> None:
    (folder / "nothing/in/here").mkdir(parents=True)


@pytest.mark.parametrize(
    "change", [_reordered_json, _other_npy, _compressed_npz, _compressed_hdf5, _empty_folder]
)
def test_other_layout_is_the_same_content(
    plain: Path, other: Path, change: Callable[[Path], None]
) -> None:
    """Spaces and order of JSON, byte order of arrays, compression: none of it counts."""
    change(other)
    assert text(other) == text(plain)
    found = compare_folders(plain, other)
    same = change is _empty_folder
    assert found.verdict == ("identical bytes" if same else "same content, other layout")
    assert (found.compared, found.differing) == (6, 0)


def _json_value(folder: Path) -> None:
    place = folder / "binary.json"
    place.write_text(place.read_text().replace("0.195", "0.196"))


def _npy_value(folder: Path) -> None:
    values = np.load(folder / "properties/gain.npy")
    values[7] = np.nextafter(values[7], np.float32(2))
    np.save(folder / "properties/gain.npy", values)


def _npy_type(folder: Path) -> None:
    np.save(folder / "properties/gain.npy", np.linspace(0, 1, 32, dtype="<f4").astype("f8"))


def _npz_member(folder: Path) -> None:
    np.savez(folder / "spikes.npz", times=np.arange(50))


def _hdf5_value(folder: Path) -> None:
    with h5py.File(folder / "times.h5", "r+") as file:
        file["deep/times"][3] = 3.5


def _raw_byte(folder: Path) -> None:
    with (folder / "traces.raw").open("r+b") as file:
        file.seek(1234)
        file.write(b"\xff")


def _renamed(folder: Path) -> None:
    (folder / "empty").rename(folder / "void")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (_json_value, [("binary.json:/kwargs/gain", "values")]),
        (_npy_value, [("properties/gain.npy", "values")]),
        (_npy_type, [("properties/gain.npy", "type")]),
        (_npz_member, [("spikes.npz:unit.npy", "only in the first")]),
        (_hdf5_value, [("times.h5:/deep/times", "values")]),
        (_raw_byte, [("traces.raw", "values")]),
        (_renamed, [("empty", "only in the first"), ("void", "only in the second")]),
    ],
)
def test_each_change_is_found_and_named(
    plain: Path,
    other: Path,
    change: Callable[[Path], None],
    named: list[tuple[str, str]],
) -> None:
    """A changed value, type, member, byte or name changes the digest, and is said to."""
    change(other)
    assert text(other) != text(plain)
    found = compare_folders(plain, other)
    assert found.verdict == "different"
    assert [(item.path, item.what) for item in found.differences][: len(named)] == named
    back = compare_folders(other, plain)
    assert {item.path for item in back.differences} == {item.path for item in found.differences}


def test_difference_says_where_and_by_how_much(plain: Path, other: Path) -> None:
    """Of an array: count, largest error and first index; of bytes the first; within tolerance."""
    _npy_value(other)
    (item,) = compare_folders(plain, other).differences
    assert item.values is not None
    assert (item.values.count, item.values.total, item.values.first) == (1, 32, (7,))
    assert 0 < (item.values.largest_absolute or 0) < 1e-7
    close = compare_folders(plain, other, tolerance=Tolerance(absolute=1e-6))
    assert close.verdict == "within tolerance"
    _raw_byte(other)
    assert "first at byte 1,234" in compare_folders(plain, other).differences[-1].one


def test_keys_are_left_out_by_rules(plain: Path, other: Path, tmp_path: Path) -> None:
    """Keys such as the version are left out at any depth where the rules say so."""
    (other / "binary.json").write_text(
        json.dumps(
            {"version": "0.105", "kwargs": {"gain": 0.195, "channels": [1, 2, None], "version": 1}}
        )
    )
    assert text(other) != text(plain)
    assert text(other, KNOWN["spyglass"]) == text(plain, KNOWN["spyglass"])
    assert compare_folders(plain, other, KNOWN["spyglass"]).verdict == "same content, other layout"
    (tmp_path / "mine.toml").write_text('keys = ["version"]\n')
    mine = find_rules(str(tmp_path / "mine.toml"))
    assert text(other, mine) == text(plain, mine)
    assert text(plain, mine).startswith("fdm1:mine+")


@pytest.mark.parametrize(
    "content",
    [b'{"a": 1, "a": 2}', b"{", b'"\xff"', b'"\\ud800"', b"[" * 100_000],
)
def test_what_is_no_json_goes_by_its_bytes(plain: Path, content: bytes) -> None:
    """A key twice, a torn file, bad UTF-8, endless nesting: no error, and no value is guessed."""
    (plain / "binary.json").write_bytes(content)
    assert folder_digest(plain).files["binary.json"].kind == "bytes"


def test_numbers_that_json_has_not_are_told_apart(plain: Path) -> None:
    """NaN and infinities, which Python writes, are values like others, and no texts."""
    seen = set()
    for value in ("NaN", "Infinity", "-Infinity", '"NaN"', "1e999", "1", "1.0", "null"):
        (plain / "binary.json").write_text(f'{{"a": {value}}}')
        found = folder_digest(plain)
        assert found.files["binary.json"].kind == "json"
        seen.add(found.digest)
    assert len(seen) == 8


def test_arrays_of_objects_are_refused(plain: Path) -> None:
    """What only unpickling could read is refused, and not unpickled."""

    class Harmful:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(plain / "unpickled"),)

    np.save(plain / "bad.npy", np.array([Harmful()], dtype=object), allow_pickle=True)
    with pytest.raises(InvalidInputError, match="array of Python objects"):
        folder_digest(plain)
    (plain / "bad.npy").unlink()
    np.savez(plain / "bad.npz", a=np.array([Harmful()], dtype=object))
    with pytest.raises(InvalidInputError, match="array of Python objects"):
        folder_digest(plain)
    (plain / "bad.npz").unlink()
    (plain / "bad.npy").write_bytes(pickle.dumps(Harmful()))
    assert folder_digest(plain).files["bad.npy"].kind == "bytes"
    assert not (plain / "unpickled").exists()


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((0, 3)),
        np.float64(3.5),
        np.array(["a", "bcd"]),
        np.array([b"xy", b"z"]),
        np.array([True, False]),
        np.array([1 + 2j, np.nan]),
        np.array([(1, 2.0), (3, 4.0)], dtype=[("a", "i1"), ("b", "f8")]),
        np.array(["2024-01-01", "NaT"], dtype="M8[s]"),
        np.zeros(4, dtype="V0"),
        np.arange(300_000, dtype="f4").reshape(300, 1000),
    ],
)
def test_arrays_of_every_kind(array: Any, plain: Path, other: Path) -> None:
    """Scalars, empty, text, complex, structured, dates; in Fortran's order and aligned as well."""
    dtype = np.asarray(array).dtype
    np.save(plain / "array.npy", array)
    changed = np.asfortranarray(array)
    if dtype.fields:
        changed = np.asarray(array, dtype=np.dtype(dtype.descr, align=True))
    np.save(other / "array.npy", changed if np.ndim(array) else array)
    assert folder_digest(plain).files["array.npy"].kind == "npy"
    assert text(plain) == text(other)
    assert compare_folders(plain, other).verdict in {
        "identical bytes",
        "same content, other layout",
    }
    if np.size(array) and dtype.itemsize:
        again = np.array(array)
        again.reshape(-1)[0] = again.reshape(-1)[-1] if np.size(again) > 1 else again.dtype.type(4)
        np.save(other / "array.npy", again)
        assert text(plain) != text(other)
        (item,) = compare_folders(plain, other).differences
        assert item.values is not None
        assert item.values.count == 1


@pytest.mark.parametrize("what", ["link", "fifo", "socket", "name"])
def test_what_is_no_file_is_refused(plain: Path, what: str, tmp_path: Path) -> None:
    """Links, special files and names that are not UTF-8 are refused in one sentence."""
    if what == "link":
        (plain / "odd").symlink_to(plain / "empty")
        said = "is a symbolic link"
    elif what == "fifo":
        os.mkfifo(plain / "odd")
        said = "is a special file"
    elif what == "socket":
        (plain / "s").mkdir()
        with socket.socket(socket.AF_UNIX) as server:
            here = Path.cwd()
            os.chdir(plain / "s")
            server.bind("odd")
            os.chdir(here)
        said = "is a special file"
    else:
        try:
            (plain / os.fsdecode(b"\xff")).touch()
        except OSError:
            pytest.skip("this file system has only UTF-8 names")
        said = "has a name that is not UTF-8"
    with pytest.raises(InvalidInputError, match=said) as caught:
        list_folder(plain)
    assert caught.value.kind == "invalid-path"
