"""What a recipe declares of how its outputs are written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from recallfs.recipes.backend.compression import KINDS, checked_compression, refusal

if TYPE_CHECKING:
    from recallfs.recipes.backend.configuration import BackendConfiguration

_COMPRESSED = ("compression", "options", "shuffle", "fletcher32")
_OF_DATASET = ("chunk_shape", "buffer_shape", *_COMPRESSED)


@dataclass(frozen=True)
class Backend:
    """How datasets are written: chunks, compression and buffers.

    A recipe declares it as the default of a parameter that is annotated with this class. It then
    belongs to the parameters: it is part of the derivation, can be given to ``recall run`` as JSON
    in whole or in part, and reaches the function as an object of this class.

    Parameters
    ----------
    kind : {"hdf5", "zarr"}
    compression : str or None
        For HDF5 ``gzip``, ``lzf`` or a filter of hdf5plugin, for Zarr a codec of numcodecs; None
        for none.
    options : Mapping, optional
        Of the compression, by name, such as ``{"level": 9}``; what is not given has its default.
    shuffle : bool
        Whether the bytes of numbers are sorted by significance before they are compressed. Smaller
        and faster on all that we measured: 0.54 for 0.67 of the size of 16-bit traces, 0.01 for
        0.33 of that of timestamps.
    fletcher32 : bool
        Whether HDF5 keeps a checksum with each chunk.
    chunk_mb, buffer_mb : float
        Size of a chunk, and of what is read and written at once, in 10**6 bytes, at most.
    datasets : Mapping of str to Mapping
        What differs for one dataset, by its location, such as
        ``{"acquisition/ElectricalSeries/data": {"chunk_shape": [30000, 64]}}``. Keys:
        ``chunk_shape``, ``buffer_shape`` (a multiple of the chunk's), ``compression``,
        ``options``, ``shuffle``, ``fletcher32``.

    Raises
    ------
    InvalidInputError
        Kind ``invalid-parameters``: an unknown compression or option, or another wrong value.

    Examples
    --------
    >>> @recipe(name="lfp", version="1")  # doctest: +SKIP
    ... def lfp(inputs, output, *, backend: Backend = Backend(chunk_mb=5.0)):
    ...     nwbfile = ...
    ...     print(backend.apply(nwbfile))
    ...     with NWBHDF5IO(output, "w") as io:
    ...         io.write(nwbfile)
    """

    kind: str = "hdf5"
    compression: str | None = "gzip"
    options: Mapping[str, Any] | None = None
    shuffle: bool = True
    fletcher32: bool = False
    chunk_mb: float = 10.0
    buffer_mb: float = 100.0
    datasets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise refusal(f"{self.kind!r} is no kind of backend; there is {', '.join(KINDS)}")
        _check_flags(self.kind, {"shuffle": self.shuffle, "fletcher32": self.fletcher32})
        options = checked_compression(
            self.kind, self.compression, _mapping(self.options or {}, "options")
        )
        self._set("options", MappingProxyType(options))
        for name in ("chunk_mb", "buffer_mb"):
            self._set(name, _size(name, getattr(self, name)))
        if self.buffer_mb < self.chunk_mb:
            raise refusal(f"buffer_mb is {self.buffer_mb:g}, less than chunk_mb {self.chunk_mb:g}")
        self._set(
            "datasets",
            MappingProxyType(
                {
                    location: MappingProxyType(self._checked(location, given))
                    for location, given in sorted(_mapping(self.datasets, "datasets").items())
                }
            ),
        )

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)  # frozen; what is stored is what was checked

    def _checked(self, location: str, given: Any) -> dict[str, Any]:
        """Return what is said of one dataset in its canonical form."""
        given = _mapping(given, location)
        unknown = [key for key in given if key not in _OF_DATASET]
        if unknown:
            raise refusal(
                f"{location} has no setting {unknown[0]!r}; it has {', '.join(_OF_DATASET)}"
            )
        values = dict(given)
        _check_flags(self.kind, {key: values[key] for key in _COMPRESSED[2:] if key in values})
        for key in ("chunk_shape", "buffer_shape"):
            if values.get(key) is None:
                values.pop(key, None)
            else:
                values[key] = _shape(f"{key} of {location}", values[key])
        if "compression" in values or "options" in values:
            name = values.setdefault("compression", self.compression)
            options = dict(_mapping(values.get("options") or {}, f"the options of {location}"))
            if name == self.compression:
                options = {**(self.options or {}), **options}
            values["options"] = MappingProxyType(checked_compression(self.kind, name, options))
        return values

    def settings_of(self, location: str) -> Mapping[str, Any]:
        """Return all that holds for one dataset: the common settings, and what differs there."""
        common = {key: getattr(self, key) for key in _COMPRESSED}
        return {**common, **self.datasets.get(location, {})}

    def updated(self, changes: object) -> Backend:
        """Return these settings with some changed.

        Parameters
        ----------
        changes : Backend, Mapping or NeuroConv's BackendConfiguration
            A mapping changes what it names; with another compression, options that are not given
            are that one's defaults. The others replace all.

        Raises
        ------
        InvalidInputError
            Kind ``invalid-parameters``.
        """
        if isinstance(changes, Backend):
            return changes
        if hasattr(changes, "dataset_configurations"):
            from recallfs.recipes.backend.neuroconv import from_neuroconv

            return from_neuroconv(changes)
        named = dict(_mapping(changes, "the value"))
        unknown = [key for key in named if key not in self.__dataclass_fields__]
        if unknown:
            known = ", ".join(self.__dataclass_fields__)
            raise refusal(f"there is no setting {unknown[0]!r}; there is {known}")
        is_other = named.get("kind", self.kind) != self.kind
        if is_other or named.get("compression", self.compression) != self.compression:
            named.setdefault("options", None)
        elif isinstance(named.get("options"), Mapping):
            named["options"] = {**(self.options or {}), **named["options"]}
        return replace(self, **named)

    def to_json(self) -> dict[str, Any]:
        """Return the settings in their one canonical form, with every default filled in."""
        return {
            "kind": self.kind,
            "compression": self.compression,
            "options": dict(self.options or {}),
            "shuffle": self.shuffle,
            "fletcher32": self.fletcher32,
            "chunk_mb": self.chunk_mb,
            "buffer_mb": self.buffer_mb,
            "datasets": {
                location: {
                    key: dict(value) if isinstance(value, Mapping) else _listed(value)
                    for key, value in sorted(settings.items())
                }
                for location, settings in self.datasets.items()
            },
        }

    @classmethod
    def from_json(cls, data: object) -> Backend:
        """Rebuild settings that `to_json` wrote, or that give only what differs from defaults."""
        return cls().updated(data)

    @classmethod
    def from_neuroconv(cls, configuration: Any) -> Backend:
        """Take over a configuration of NeuroConv, for the datasets that it names.

        Parameters
        ----------
        configuration : HDF5BackendConfiguration or ZarrBackendConfiguration
            From ``neuroconv.tools.nwb_helpers``; changed by hand or not.

        Returns
        -------
        Backend
            With settings by location. Datasets that it does not name are written as by default.

        Raises
        ------
        InvalidInputError
            Kind ``invalid-parameters``: it has a filter that there is no setting for.
        """
        return cls().updated(configuration)

    def configure(self, nwbfile: Any) -> BackendConfiguration:
        """Decide how each dataset of a file in memory is written; changes nothing.

        Parameters
        ----------
        nwbfile : pynwb.NWBFile

        Returns
        -------
        BackendConfiguration
            Print it to see it.

        Raises
        ------
        InvalidInputError
            Kind ``invalid-parameters``: settings for a dataset that is not there, or that do not
            fit its shape.
        """
        from recallfs.recipes.backend.nwb import configure

        return configure(self, nwbfile)

    def apply(self, nwbfile: Any) -> BackendConfiguration:
        """Make a file in memory be written like this.

        Parameters
        ----------
        nwbfile : pynwb.NWBFile
            Its datasets are wrapped in `H5DataIO` or `ZarrDataIO`. Data in other files and data
            that comes by an iterator is written buffer by buffer.

        Returns
        -------
        BackendConfiguration
            As `configure` decided.

        Raises
        ------
        InvalidInputError
            As `configure`, or if a package that the compression needs is missing. The file is
            then unchanged.
        """
        from recallfs.recipes.backend.nwb import apply

        return apply(self, nwbfile)

    def __str__(self) -> str:
        parts = [
            self.kind,
            compression_text(self.compression, self.options or {}, self.shuffle),
            f"chunks of {self.chunk_mb:g} MB",
        ]
        if self.datasets:
            parts.append(f"{len(self.datasets)} datasets otherwise")
        return ", ".join(parts)


def compression_text(name: str | None, options: Mapping[str, Any], shuffle: bool) -> str:
    """Return a compression in words, such as ``gzip 4, shuffled``."""
    if name is None:
        return "not compressed"
    if set(options) <= {"level", "clevel"}:
        values = "".join(f" {value}" for value in options.values())
    else:
        values = " " + " ".join(f"{option}={value}" for option, value in options.items())
    return f"{name}{values}{', shuffled' if shuffle else ''}"


def _check_flags(kind: str, flags: Mapping[str, Any]) -> None:
    for name, value in flags.items():
        if not isinstance(value, bool):
            raise refusal(f"{name} is true or false, not {value!r}")
    if kind != "hdf5" and flags.get("fletcher32"):
        raise refusal("fletcher32 is a checksum of HDF5; leave it out for zarr")


def _size(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 4e3:
        raise refusal(f"{name} is a number of megabytes above 0 and below 4000, not {value!r}")
    return float(value)


def _shape(name: str, value: Any) -> tuple[int, ...]:
    if not isinstance(value, (list, tuple)) or not value:
        raise refusal(f"the {name} is a list of integers above zero, not {value!r}")
    if any(isinstance(item, bool) or not isinstance(item, int) or item < 1 for item in value):
        raise refusal(f"the {name} is a list of integers above zero, not {list(value)!r}")
    return tuple(value)


def _mapping(value: Any, name: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise refusal(f"{name} must be an object with names, not {value!r}")
    return value


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
