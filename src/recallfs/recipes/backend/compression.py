"""The compressions that a backend can be asked for, and their options.

Names are those that NeuroConv uses: of h5py and hdf5plugin for HDF5, of numcodecs for Zarr. Only
what loses nothing and gives the same bytes each time is here. Nothing foreign is imported before
data is wrapped, so that a wrong name is refused where a run is asked for, and not where it ends.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from recallfs.errors import InvalidInputError

_CODERS = ("blosclz", "lz4", "lz4hc", "zlib", "zstd")


@dataclass(frozen=True)
class _Method:
    """One compression: its options with their defaults and values, and whether it shuffles."""

    options: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)
    shuffles: bool = False


_LEVEL = {"level": (4, range(10))}
_METHODS: Mapping[str, Mapping[str, _Method]] = {
    "hdf5": {
        "gzip": _Method(_LEVEL),
        "lzf": _Method(),
        "BZip2": _Method({"blocksize": (9, range(1, 10))}),
        "Bitshuffle": _Method(
            {"cname": ("lz4", ("lz4", "zstd")), "clevel": (3, range(1, 23))}, shuffles=True
        ),
        "Blosc": _Method(
            {"cname": ("lz4", _CODERS), "clevel": (5, range(10)), "shuffle": (1, range(3))},
            shuffles=True,
        ),
        "Blosc2": _Method(
            {"cname": ("blosclz", _CODERS), "clevel": (5, range(10)), "filters": (1, range(5))},
            shuffles=True,
        ),
        "LZ4": _Method({"nbytes": (0, range(2**30))}),
        "Zstd": _Method({"clevel": (3, range(1, 23))}),
    },
    "zarr": {
        "gzip": _Method(_LEVEL),
        "blosc": _Method(
            {"cname": ("lz4", _CODERS), "clevel": (5, range(10)), "shuffle": (1, range(3))},
            shuffles=True,
        ),
        "bz2": _Method({"level": (1, range(1, 10))}),
        "lz4": _Method({"acceleration": (1, range(1, 2**16))}),
        "zlib": _Method(_LEVEL),
        "zstd": _Method({"level": (3, range(23))}),
    },
}
_BUILT_IN = ("gzip", "lzf")

KINDS = tuple(_METHODS)
"""The backends that there are."""


def checked_compression(kind: str, name: object, given: Mapping[str, Any] | None) -> dict[str, Any]:
    """Hold a compression and its options against what there is.

    Parameters
    ----------
    kind : {"hdf5", "zarr"}
    name : str or None
        None for data that is not compressed.
    given : Mapping or None
        Options that differ from the method's defaults.

    Returns
    -------
    dict
        All of its options.

    Raises
    ------
    InvalidInputError
        Kind ``invalid-parameters``, naming what there is.
    """
    if name is None:
        if given:
            raise refusal(f"without a compression there are no options: {', '.join(given)}")
        return {}
    methods = _METHODS[kind]
    method = methods.get(name) if isinstance(name, str) else None
    if method is None:
        raise refusal(f"{name!r} is no compression for {kind}; there is {', '.join(methods)}")
    values = {option: default for option, (default, _) in method.options.items()}
    for option, value in (given or {}).items():
        if option not in values:
            known = ", ".join(values) or "none"
            raise refusal(f"compression {name} has no option {option!r}; it has {known}")
        allowed = method.options[option][1]
        # Not only 'in': 4.0 and True are in range(10), too, and would be other derivations.
        if type(value) is not type(values[option]) or value not in allowed:
            raise refusal(f"option {option!r} of {name} is {_shown(allowed)}, not {value!r}")
        values[option] = value
    return values


def _shown(allowed: Any) -> str:
    if isinstance(allowed, range):
        return f"an integer from {allowed.start} to {allowed.stop - 1}"
    return ", ".join(allowed)


def shuffles_itself(kind: str, name: str) -> bool:
    """Tell whether a compression sorts bytes by itself, so that to do so before would hurt."""
    return _METHODS[kind][name].shuffles


def hdf5_filter(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return a compression as `hdmf.backends.hdf5.H5DataIO` takes it.

    Raises
    ------
    InvalidInputError
        If it needs hdf5plugin, which is not installed.
    """
    if name in _BUILT_IN:
        made: dict[str, Any] = {"compression": name}
        if "level" in options:
            made["compression_opts"] = options["level"]
        return made
    try:
        import hdf5plugin
    except ImportError as error:
        raise refusal(
            f"compression {name} needs the package hdf5plugin, which is not installed; install "
            f"it or choose {' or '.join(_BUILT_IN)}"
        ) from error
    plugin: Mapping[str, Any] = getattr(hdf5plugin, name)(**options)
    return {**plugin, "allow_plugin_filters": True}


def zarr_codec(name: str, options: Mapping[str, Any]) -> Any:
    """Return a compression as `hdmf_zarr.ZarrDataIO` takes it: a codec of numcodecs."""
    import numcodecs

    return numcodecs.get_codec({"id": name, **options})


def refusal(problem: str) -> InvalidInputError:
    """Make the error that says what is wrong with a backend's settings."""
    return InvalidInputError(f"backend: {problem}.", kind="invalid-parameters")
