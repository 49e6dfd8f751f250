"""Settings of backends: said, refused, printed, declared by recipes, taken over from NeuroConv."""

from __future__ import annotations

import itertools
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from nwb_files import add_series, new_file
from recallfs.errors import InvalidInputError
from recallfs.recipes.backend import Backend
from recallfs.recipes.model import Recipe, derivation_key, parse_parameters, validate_parameters


def test_printed() -> None:
    """The table tells shape, chunk, buffer and compression of each dataset in aligned columns."""
    nwbfile = new_file()
    add_series(nwbfile, "wide", np.zeros((600_000, 4), dtype="f4"))
    add_series(nwbfile, "none", np.zeros((0, 4)))
    text = str(Backend(chunk_mb=2, buffer_mb=5).configure(nwbfile))
    assert text.splitlines() == [
        "hdf5, 1 datasets",
        "dataset                type     shape        size    chunk              buffer  written",
        "acquisition/wide/data  float32  600,000 x 4  9.6 MB  125,000 x 4  2 MB  4 MB    "
        "gzip 4, shuffled",
        "acquisition/none/data: left as it is, empty",
    ]
    assert str(Backend()) == "hdf5, gzip 4, shuffled, chunks of 10 MB"


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (
            {"compression": "zip"},
            "backend: 'zip' is no compression for hdf5; there is gzip, lzf, BZip2, Bitshuffle, "
            "Blosc, Blosc2, LZ4, Zstd.",
        ),
        (
            {"kind": "zarr", "compression": "lzf"},
            "'lzf' is no compression for zarr; there is gzip, blosc, bz2, lz4, zlib, zstd.",
        ),
        ({"options": {"level": 11}}, "option 'level' of gzip is an integer from 0 to 9, not 11"),
        ({"options": {"level": 4.0}}, "is an integer from 0 to 9, not 4.0"),
        ({"options": {"lvl": 4}}, "compression gzip has no option 'lvl'; it has level"),
        ({"compression": None, "options": {"level": 4}}, "without a compression"),
        ({"compression": "Blosc", "options": {"cname": "x"}}, "is blosclz, lz4, lz4hc, zlib, zstd"),
        ({"kind": "n5"}, "'n5' is no kind of backend; there is hdf5, zarr"),
        ({"kind": "zarr", "fletcher32": True}, "fletcher32 is a checksum of HDF5"),
        ({"chunk_mb": 0}, "chunk_mb is a number of megabytes above 0"),
        ({"chunk_mb": float("nan")}, "chunk_mb is a number of megabytes above 0"),
        ({"chunk_mb": 200}, "buffer_mb is 100, less than chunk_mb 200"),
        ({"shuffle": 1}, "shuffle is true or false, not 1"),
        ({"chunks": 3}, "there is no setting 'chunks'; there is kind, compression"),
        (
            {"datasets": {"a/data": {"chunk": [1]}}},
            "a/data has no setting 'chunk'; it has chunk",
        ),
        ({"datasets": {"a/data": {"chunk_shape": [0]}}}, "is a list of integers above zero"),
        ({"datasets": {"a/data": 3}}, "a/data must be an object with names, not 3"),
        (
            {"datasets": {"acquisition/z/data": {}}},
            "the nearest is 'acquisition/x/data'.",
        ),
        (
            {"datasets": {"acquisition/x/data": {"chunk_shape": [5]}}},
            "acquisition/x/data has the shape 500 x 8, and the chunk shape 5 does not have 2 axes",
        ),
        (
            {"datasets": {"acquisition/x/data": {"chunk_shape": [4, 8], "buffer_shape": [6, 8]}}},
            "the buffer shape 6 x 8 of acquisition/x/data is not a multiple of its chunk shape 4",
        ),
    ],
)
def test_bad_settings(wrong: dict[str, Any], sentence: str) -> None:
    """Each is refused in one sentence that says what there is; the file is as it was."""
    nwbfile = new_file()
    data = np.ones((500, 8))
    series = add_series(nwbfile, "x", data)
    with pytest.raises(InvalidInputError) as caught:
        Backend.from_json(wrong).apply(nwbfile)
    assert sentence in caught.value.message
    assert caught.value.message.count("\n") == 0
    assert caught.value.kind == "invalid-parameters"
    assert series.data is data


def test_canonical_json() -> None:
    """Settings that mean the same have one form, which gives them back; others have another."""
    said = Backend(
        options={"level": 4},
        chunk_mb=10,
        datasets={"b/data": {"chunk_shape": [3]}, "a/data": {"chunk_shape": (3,), "options": {}}},
    )
    short = Backend.from_json(
        {
            "datasets": {
                "a/data": {"compression": "gzip", "chunk_shape": [3], "buffer_shape": None},
                "b/data": {"chunk_shape": [3]},
            }
        }
    )
    assert said.to_json() == short.to_json()
    assert Backend.from_json(said.to_json()) == said
    others: list[dict[str, Any]] = [
        {},
        {"options": {"level": 5}},
        {"compression": None},
        {"shuffle": False},
        {"chunk_mb": 9},
        {"buffer_mb": 90},
        {"datasets": {"a/data": {"compression": None}}},
    ]
    forms = [Backend.from_json(other).to_json() for other in others]
    assert all(one != two for one, two in itertools.combinations(forms, 2))


def test_changes_keep_what_they_do_not_name() -> None:
    """A changed level keeps the other options; another compression starts with its own defaults."""
    declared = Backend(compression="Blosc", options={"cname": "zstd", "clevel": 2}, chunk_mb=3)
    changed = declared.updated({"options": {"clevel": 7}})
    assert changed.options == {"cname": "zstd", "clevel": 7, "shuffle": 1}
    assert changed.chunk_mb == 3
    assert declared.updated({"compression": "gzip"}).options == {"level": 4}


def declaring(
    inputs: Any, output: Path, *, backend: Backend = Backend(compression="lzf", chunk_mb=2)
) -> None:
    """Write down what it is given."""
    output.write_text(repr(backend))


def bare(inputs: Any, output: Path, backend=Backend()) -> None:  # type: ignore[no-untyped-def] # an annotation is missing on purpose
    """Declare it without an annotation."""


def requiring(inputs: Any, output: Path, *, backend: Backend) -> None:
    """Leave it to whoever runs it."""


def test_a_declared_backend_is_a_parameter(tmp_path: Path) -> None:
    """It is recorded whole, changed in parts, part of the key, and an object in the function."""
    recipe = Recipe("declaring", "1", declaring)
    usual = validate_parameters(recipe, {})
    assert usual["backend"] == Backend(compression="lzf", chunk_mb=2).to_json()
    assert recipe.parameters["backend"].default == usual["backend"]
    changed = parse_parameters(recipe, ['backend={"compression": "gzip"}'])
    assert changed["backend"] == Backend(chunk_mb=2).to_json()
    given = validate_parameters(recipe, {"backend": Backend(shuffle=False)})
    assert given["backend"] == Backend(shuffle=False).to_json()
    written = [usual, changed, given, parse_parameters(recipe, ['backend={"chunk_mb": 2}'])]
    keys = [derivation_key("declaring", "1", "", parameters, {}) for parameters in written]
    assert len(set(keys)) == 3
    assert keys[0] == keys[3]
    assert validate_parameters(recipe, changed) == changed  # as a worker does again
    recipe.run({}, {"output": tmp_path / "out"}, changed)
    assert (tmp_path / "out").read_text() == repr(Backend(chunk_mb=2))
    with pytest.raises(InvalidInputError, match=r"'declaring': parameter 'backend': .*'zip' is no"):
        parse_parameters(recipe, ['backend={"compression": "zip"}'])
    with pytest.raises(InvalidInputError, match="must be an object with names"):
        parse_parameters(recipe, ["backend=gzip"])


def test_other_ways_to_declare_a_backend() -> None:
    """It is known by its default without an annotation, and by its annotation without a default."""
    assert validate_parameters(Recipe("bare", "1", bare), {})["backend"] == Backend().to_json()
    recipe = Recipe("requiring", "1", requiring)
    with pytest.raises(InvalidInputError, match="'backend' must be given"):
        validate_parameters(recipe, {})
    made = parse_parameters(recipe, ['backend={"kind": "zarr"}'])
    assert made["backend"] == Backend(kind="zarr").to_json()


class Codec:
    """Stands for a codec of numcodecs."""

    def get_config(self) -> dict[str, Any]:
        """Return its settings, as numcodecs does."""
        return {"id": "blosc", "cname": "lz4", "clevel": 3, "shuffle": 1, "blocksize": 0}


class Neuroconv:
    """Stands for a configuration of NeuroConv: what we read of one, and nothing else."""

    def __init__(self, backend: str, **datasets: dict[str, Any]) -> None:
        usual = {"full_shape": (500, 8), "chunk_shape": (100, 8), "buffer_shape": (250, 8)}
        self.backend = backend
        self.dataset_configurations = {
            f"acquisition/{name}/data": SimpleNamespace(**{**usual, **given})
            for name, given in datasets.items()
        }


@pytest.mark.parametrize(
    ("backend", "dataset", "expected"),
    [
        (
            "hdf5",
            {"compressors": ["shuffle", "gzip"], "compressor_options": None},
            {"compression": "gzip", "options": {"level": 4}, "shuffle": True},
        ),
        (
            "hdf5",
            {
                "compressors": ["gzip", "fletcher32"],
                "compressor_options": [{"compression_opts": 7}, None],
            },
            {"compression": "gzip", "options": {"level": 7}, "fletcher32": True},
        ),
        (
            "hdf5",
            {"compression_method": "Blosc", "compression_options": {"cname": "zstd"}},
            {"compression": "Blosc", "options": {"cname": "zstd", "clevel": 5, "shuffle": 1}},
        ),
        ("hdf5", {"compressors": None, "compressor_options": None}, {"compression": None}),
        (
            "zarr",
            {"compression_method": "gzip", "compression_options": None, "filter_methods": None},
            {"compression": "gzip", "options": {"level": 1}},
        ),
        (
            "zarr",
            {
                "compressors": [Codec()],
                "compressor_options": None,
                "filters": ["shuffle"],
                "filter_options": [{"elementsize": 8}],
            },
            {
                "compression": "blosc",
                "options": {"cname": "lz4", "clevel": 3, "shuffle": 1},
                "shuffle": True,
            },
        ),
    ],
)
def test_a_configuration_of_neuroconv(
    backend: str, dataset: dict[str, Any], expected: dict[str, Any]
) -> None:
    """Chunks, codecs and options are taken over; the buffer is made of whole chunks."""
    made = Backend.from_neuroconv(Neuroconv(backend, x=dataset))
    usual = {
        "chunk_shape": [100, 8],
        "buffer_shape": [200, 8],
        "options": {},
        "shuffle": False,
        "fletcher32": False,
    }
    assert made.to_json()["datasets"]["acquisition/x/data"] == {**usual, **expected}
    assert made.kind == backend


@pytest.mark.parametrize(
    ("dataset", "sentence"),
    [
        ({"compressors": ["SZ"], "compressor_options": None}, "'SZ' is no compression for hdf5"),
        ({"compressors": ["gzip", "lzf"], "compressor_options": None}, "has two compressions"),
        ({"compressors": [object()], "compressor_options": None}, "has the filter object as an"),
    ],
)
def test_what_is_not_taken_over(dataset: dict[str, Any], sentence: str) -> None:
    """A filter that is not ours, two of them, or one without a name is refused in a sentence."""
    with pytest.raises(InvalidInputError, match=sentence):
        Backend.from_neuroconv(Neuroconv("hdf5", x=dataset))
