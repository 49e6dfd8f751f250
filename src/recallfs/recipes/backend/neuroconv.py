"""NeuroConv's backend configurations, read as settings.

They are known by what they have, so that NeuroConv need not be imported. Before its version 0.10.2
a dataset has one compression method, since then a list of codecs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from recallfs.recipes.backend.compression import refusal
from recallfs.recipes.backend.settings import Backend

_FILTERS = ("shuffle", "fletcher32")


def from_neuroconv(configuration: Any) -> Backend:
    """Return a configuration of NeuroConv as settings for each of its datasets.

    Parameters
    ----------
    configuration : HDF5BackendConfiguration or ZarrBackendConfiguration

    Returns
    -------
    Backend
        By location; NeuroConv's object ids, which differ in every file, are not kept.

    Raises
    ------
    InvalidInputError
        Kind ``invalid-parameters``: a filter that is none of ours, or one given as an object that
        does not tell its settings.
    """
    kind = configuration.backend
    datasets = {
        location: _settings(location, kind, dataset)
        for location, dataset in configuration.dataset_configurations.items()
    }
    return Backend(kind=kind, datasets=datasets)


def _settings(location: str, kind: str, dataset: Any) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "chunk_shape": _shape(dataset.chunk_shape),
        "compression": None,
        "options": {},
        "shuffle": False,
        "fletcher32": False,
    }
    if dataset.chunk_shape is not None and dataset.buffer_shape is not None:
        settings["buffer_shape"] = _whole_chunks(dataset)
    for codec, options in _codecs(location, dataset):
        if codec in _FILTERS:
            settings[codec] = True
        elif settings["compression"] is not None:
            raise refusal(
                f"{location} has two compressions, {settings['compression']} and {codec}; keep one"
            )
        else:
            settings["compression"] = codec
            settings["options"] = options
    if kind == "zarr" and settings["compression"] in ("gzip", "zlib"):
        settings["options"] = {"level": 1, **settings["options"]}  # numcodecs' own default
    return settings


def _codecs(location: str, dataset: Any) -> list[tuple[str, dict[str, Any]]]:
    if hasattr(dataset, "compressors"):
        names = list(dataset.compressors or [])
        options = list(dataset.compressor_options or [None] * len(names))
    else:
        names = [] if dataset.compression_method is None else [dataset.compression_method]
        options = [dataset.compression_options] * len(names)
    # Filters of values, such as shuffle in older versions and delta.
    if hasattr(dataset, "filters"):
        filters, filter_options = dataset.filters, dataset.filter_options
    else:
        filters = getattr(dataset, "filter_methods", None)
        filter_options = getattr(dataset, "filter_options", None)
    names = [*(filters or []), *names]
    options = [*(filter_options or [None] * len(filters or [])), *options]
    return [_codec(location, name, given) for name, given in zip(names, options, strict=True)]


def _codec(
    location: str, codec: Any, options: Mapping[str, Any] | None
) -> tuple[str, dict[str, Any]]:
    if not isinstance(codec, str):
        if not hasattr(codec, "get_config"):
            raise refusal(
                f"{location} has the filter {type(codec).__name__} as an object; give its name, "
                f"compressors=[{type(codec).__name__!r}], and its compressor_options"
            )
        config = dict(codec.get_config())
        codec = config.pop("id")
        options = config
    # Read back from a file, the level of gzip is named as h5py does.
    named = {
        "level" if key == "compression_opts" else key: value
        for key, value in (options or {}).items()
        # Of numcodecs' own options we have no name for these; at zero they say nothing.
        if value is not None and not (key in ("blocksize", "checksum") and not value)
    }
    return codec, {} if codec in _FILTERS else named


def _shape(shape: Any) -> list[int] | None:
    return None if shape is None else [int(extent) for extent in shape]


def _whole_chunks(dataset: Any) -> list[int]:
    """Return the buffer made of whole chunks; NeuroConv's need not be in every axis."""
    return [
        extent if buffer >= extent else max(chunk, buffer - buffer % chunk)
        for buffer, chunk, extent in zip(
            map(int, dataset.buffer_shape),
            map(int, dataset.chunk_shape),
            map(int, dataset.full_shape),
            strict=True,
        )
    ]
