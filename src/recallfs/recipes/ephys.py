"""Recipes for extracellular recordings, by SpikeInterface: filter, reference, decimate, clean.

Each reads one ElectricalSeries of the NWB file ``raw`` and writes an NWB file with the result, its
electrodes and its session. Samples are worked on in blocks that begin at fixed frames, with enough
of their neighbours, so that values depend neither on the backend nor on the memory there is.
SpikeInterface is imported when a recipe runs: ``pip install 'recallfs[ephys]'``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from recallfs.errors import EnvironmentMismatchError, InvalidInputError
from recallfs.recipes.backend import Backend
from recallfs.recipes.model import recipe

_BLOCK_S = 1.0
_CHANNELS = 64  # filtered at once: a slow filter needs seconds of margin, in float64
# What is carried over of a session; who reads the result wants to know whose it is.
_SESSION = (
    "session_description",
    "session_start_time",
    "timestamps_reference_time",
    "session_id",
    "experimenter",
    "institution",
    "lab",
)
_ELECTRODE = ("x", "y", "z", "imp", "location", "filtering", "rel_x", "rel_y", "rel_z", "reference")


@recipe(name="ephys.bandpass", version="1")
def bandpass(
    inputs: Mapping[str, Path],
    output: Path,
    *,
    freq_min: float = 300.0,
    freq_max: float = 6000.0,
    order: int = 5,
    dtype: Literal["same", "int16", "float32", "float64"] = "same",
    series: str = "",
    backend: Backend = Backend(),
) -> None:
    """Band-pass a recording without shifting it in time: Butterworth, forwards and backwards.

    Parameters
    ----------
    inputs : Mapping
        ``raw``: an NWB file.
    output : Path
        NWB file to write, with the series in ``processing/ecephys``.
    freq_min, freq_max : float
        Pass band, in Hz.
    order : int
        Of the filter in one direction.
    dtype : {"same", "int16", "float32", "float64"}
        Of the result; integers are rounded. ``same`` is that of the recording.
    series : str
        Name of the ElectricalSeries, where the file has several.
    backend : Backend
    """
    # Twice what SpikeInterface takes by itself: its borders show by 1% of what is left of a signal.
    margin_s = 6.0 / freq_min

    def make(recording: Any, preprocessing: Any, _source: Any) -> Any:
        return preprocessing.filter(
            recording,
            band=[freq_min, freq_max],
            btype="bandpass",
            filter_order=order,
            margin_ms=1000.0 * margin_s,
            dtype=_dtype(recording, dtype),
        )

    _derive(
        inputs["raw"],
        output,
        make,
        f"band-pass {freq_min:g} to {freq_max:g} Hz",
        series=series,
        backend=backend,
        block_s=max(_BLOCK_S, 2 * margin_s),
    )


@recipe(name="ephys.reference", version="1")
def reference(
    inputs: Mapping[str, Path],
    output: Path,
    *,
    operator: Literal["median", "average"] = "median",
    by_group: bool = False,
    dtype: Literal["same", "int16", "float32", "float64"] = "same",
    series: str = "",
    backend: Backend = Backend(),
) -> None:
    """Subtract what channels have in common from each.

    Parameters
    ----------
    inputs : Mapping
        ``raw``: an NWB file.
    output : Path
        NWB file to write, with the series in ``processing/ecephys``.
    operator : {"median", "average"}
        What is taken of all channels at each moment.
    by_group : bool
        Whether each electrode group, such as a shank or a tetrode, has a reference of its own.
    dtype, series, backend
        See `bandpass`.
    """

    def make(recording: Any, preprocessing: Any, source: Any) -> Any:
        groups: dict[str, list[Any]] = {}
        for channel, row in zip(recording.channel_ids, source.electrodes.data[:], strict=True):
            name = str(source.electrodes.table["group_name"][int(row)])
            groups.setdefault(name, []).append(channel)
        return preprocessing.common_reference(
            recording,
            reference="global",
            operator=operator,
            groups=list(groups.values()) if by_group else None,
            dtype=_dtype(recording, dtype),
        )

    what = f"common {operator} reference{' of each group' if by_group else ''}"
    _derive(
        inputs["raw"],
        output,
        make,
        what,
        series=series,
        backend=backend,
        channels=None,  # a reference is made of all of them
    )


@recipe(name="ephys.decimate", version="1")
def decimate(
    inputs: Mapping[str, Path],
    output: Path,
    *,
    rate_hz: float = 1000.0,
    dtype: Literal["same", "int16", "float32", "float64"] = "same",
    series: str = "",
    backend: Backend = Backend(),
) -> None:
    """Reduce the sampling rate by a whole factor, after a low-pass below half the new rate.

    Parameters
    ----------
    inputs : Mapping
        ``raw``: an NWB file.
    output : Path
        NWB file to write, with the series in ``processing/ecephys``.
    rate_hz : float
        Rate to reach; divides that of the recording.
    dtype, series, backend
        See `bandpass`.
    """

    def make(recording: Any, preprocessing: Any, _source: Any) -> Any:
        rate = recording.get_sampling_frequency()
        factor = round(rate / rate_hz)
        if factor < 1 or abs(rate / factor - rate_hz) > 1e-6 * rate_hz:
            raise InvalidInputError(
                f"{rate_hz:g} Hz does not divide the recording's {rate:g} Hz; "
                f"{rate / max(1, factor):g} Hz would."
            )
        return preprocessing.resample(
            recording, rate / factor, margin_ms=1000.0, dtype=_dtype(recording, dtype)
        )

    _derive(inputs["raw"], output, make, f"{rate_hz:g} Hz", series=series, backend=backend)


@recipe(name="ephys.artifacts", version="1")
def artifacts(
    inputs: Mapping[str, Path],
    output: Path,
    *,
    times_s: list[float],
    ms_before: float = 0.5,
    ms_after: float = 3.0,
    mode: Literal["zeros", "linear", "cubic"] = "linear",
    series: str = "",
    backend: Backend = Backend(),
) -> None:
    """Replace the samples around stimuli.

    Parameters
    ----------
    inputs : Mapping
        ``raw``: an NWB file.
    output : Path
        NWB file to write, with the series in ``processing/ecephys``.
    times_s : list of float
        When the stimuli were, in seconds after the first sample.
    ms_before, ms_after : float
        What is replaced around each, in milliseconds.
    mode : {"zeros", "linear", "cubic"}
        By zeros, or by a line or a curve between what is on both sides.
    series, backend
        See `bandpass`.
    """

    def make(recording: Any, preprocessing: Any, _source: Any) -> Any:
        frames = sorted(round(time * recording.get_sampling_frequency()) for time in times_s)
        last = recording.get_num_samples(0)
        outside = [frame for frame in frames if not 0 <= frame < last]
        if outside:
            rate = recording.get_sampling_frequency()
            raise InvalidInputError(
                f"{len(outside)} of {len(frames)} times lie outside the recording, which lasts "
                f"{last / rate:g} s; times are in seconds after its first sample."
            )
        if not frames:
            return recording
        return preprocessing.remove_artifacts(
            recording, [frames], ms_before=ms_before, ms_after=ms_after, mode=mode
        )

    _derive(
        inputs["raw"],
        output,
        make,
        f"{len(times_s)} artifacts replaced ({mode})",
        series=series,
        backend=backend,
        # At a block's edge there is but one side; the replaced samples would differ.
        margin_s=0.01 + 2 * (ms_before + ms_after) / 1000.0,
    )


def _derive(
    path: Path,
    output: Path,
    make: Callable[[Any, Any, Any], Any],
    what: str,
    *,
    series: str,
    backend: Backend,
    block_s: float = _BLOCK_S,
    margin_s: float = 0.0,
    channels: int | None = _CHANNELS,
) -> None:
    """Read a series, have it processed and write it."""
    readers, preprocessing = _spikeinterface()
    from pynwb import NWBHDF5IO

    from recallfs.recipes.backend.iterators import Slices

    with NWBHDF5IO(str(path), "r") as io:
        session = io.read()
        source = _series(session, series)
        recording = readers.NwbRecordingExtractor(
            str(path), electrical_series_path=source.data.parent.name.strip("/")
        )
        processed = make(recording, preprocessing, source)
        rate = processed.get_sampling_frequency()
        traces = _Traces(
            processed,
            block=max(1, round(block_s * rate)),
            margin=round(margin_s * rate),
            channels=channels,
        )
        nwbfile = _session_of(session, what)
        _add_series(nwbfile, source, Slices(traces), rate, what)
        print(backend.apply(nwbfile))  # noqa: T201 - to the run's log
        with NWBHDF5IO(str(output), "w") as target:
            target.write(nwbfile)


def _spikeinterface() -> tuple[Any, Any]:
    try:
        import scipy.signal  # noqa: F401 - which SpikeInterface asks for only when it filters
        from spikeinterface import preprocessing
        from spikeinterface.extractors import nwbextractors
    except ImportError as error:
        raise EnvironmentMismatchError(
            f"SpikeInterface cannot be imported by {sys.executable} ({error}); install it there: "
            "pip install 'recallfs[ephys]'."
        ) from error
    return nwbextractors, preprocessing


def _series(session: Any, name: str) -> Any:
    """Return the ElectricalSeries of that name, or the only one."""
    from pynwb.ecephys import ElectricalSeries

    found = [item for item in session.objects.values() if isinstance(item, ElectricalSeries)]
    fitting = [item for item in found if name in ("", item.name)]
    if len(fitting) == 1:
        return fitting[0]
    names = ", ".join(sorted(item.name for item in found)) or "none"
    if not fitting:
        raise InvalidInputError(f"there is no ElectricalSeries {name!r}; there is {names}.")
    raise InvalidInputError(f"there are several ElectricalSeries: {names}; name one: series=NAME.")


def _dtype(recording: Any, wanted: str) -> Any:
    return recording.get_dtype() if wanted == "same" else wanted


class _Traces:
    """What a recording has processed, as an array that is made when it is read.

    Parameters
    ----------
    recording : spikeinterface.core.BaseRecording
    block : int
        Frames that are made at once; the next begin where these end, wherever reading begins.
    margin : int
        Frames on both sides of a block that are made with it and dropped.
    channels : int or None
        Made at once; None for all.
    """

    def __init__(self, recording: Any, *, block: int, margin: int, channels: int | None) -> None:
        self._recording = recording
        self._block = block
        self._margin = margin
        self._channels = channels or recording.get_num_channels()
        self._latest: dict[int, tuple[int, Any]] = {}
        self.shape = (recording.get_num_samples(0), recording.get_num_channels())
        self.dtype = recording.get_dtype()

    def __getitem__(self, selection: tuple[slice, ...]) -> Any:
        import numpy as np

        rows, columns = (
            slice(*part.indices(extent)[:2])
            for part, extent in zip(selection, self.shape, strict=True)
        )
        made = np.empty((rows.stop - rows.start, columns.stop - columns.start), self.dtype)
        for group in range(columns.start // self._channels, -(-columns.stop // self._channels)):
            left = max(columns.start, group * self._channels)
            right = min(columns.stop, (group + 1) * self._channels)
            for index in range(rows.start // self._block, -(-rows.stop // self._block)):
                first = max(rows.start, index * self._block)
                last = min(rows.stop, (index + 1) * self._block)
                part = self._made(index, group)
                made[
                    first - rows.start : last - rows.start,
                    left - columns.start : right - columns.start,
                ] = part[
                    first - index * self._block : last - index * self._block,
                    left - group * self._channels : right - group * self._channels,
                ]
        return made

    def _made(self, index: int, group: int) -> Any:
        """Return a block of some channels; the latest is kept, as two buffers may share it."""
        if self._latest.get(group, (-1, None))[0] != index:
            first = index * self._block
            last = min(self.shape[0], first + self._block)
            start = max(0, first - self._margin)
            names = self._recording.channel_ids[group * self._channels :][: self._channels]
            traces = self._recording.get_traces(
                segment_index=0,
                start_frame=start,
                end_frame=min(self.shape[0], last + self._margin),
                channel_ids=names,
            )
            self._latest[group] = (index, traces[first - start : last - start])
        return self._latest[group][1]


def _session_of(session: Any, what: str) -> Any:
    """Make a file for what was derived from a session."""
    from pynwb import NWBFile
    from pynwb.file import Subject

    fields = {name: getattr(session, name) for name in _SESSION}
    nwbfile = NWBFile(
        identifier=f"{session.identifier}, {what}",
        **{name: value for name, value in fields.items() if value is not None},
    )
    if session.subject is not None:
        nwbfile.subject = Subject(**dict(session.subject.fields))
    return nwbfile


def _add_series(nwbfile: Any, source: Any, data: Any, rate: float, what: str) -> None:
    from pynwb.ecephys import ElectricalSeries

    timing: dict[str, Any] = {"rate": rate, "starting_time": source.starting_time}
    if source.rate is None:
        # Every n-th, so that a gap stays where it is.
        step = round(source.data.shape[0] / data.maxshape[0])
        timing = {"timestamps": source.timestamps if step == 1 else source.timestamps[::step]}
    scale = {"channel_conversion": source.channel_conversion}
    series = ElectricalSeries(
        name=source.name,
        data=data,
        electrodes=_electrodes(nwbfile, source),
        description=source.description,
        comments=source.comments,
        filtering=f"{source.filtering}; {what}" if source.filtering else what,
        conversion=source.conversion,
        offset=source.offset,
        **timing,
        **{name: value[:] for name, value in scale.items() if value is not None},
    )
    module = nwbfile.create_processing_module(name="ecephys", description=f"derived: {what}")
    module.add(series)


def _electrodes(nwbfile: Any, source: Any) -> Any:
    """Copy the electrodes of a series, in its order, and return the region of all of them."""
    table = source.electrodes.table
    columns = [
        table[name]
        for name in table.colnames
        if name not in ("group", "group_name") and not hasattr(table[name], "target")
    ]
    for column in columns:
        if column.name not in _ELECTRODE:
            nwbfile.add_electrode_column(name=column.name, description=column.description)
    for row in map(int, source.electrodes.data[:]):
        nwbfile.add_electrode(
            id=int(table.id[row]),
            group=_group(nwbfile, table["group"][row]),
            **{column.name: column[row] for column in columns},
        )
    return nwbfile.create_electrode_table_region(
        region=list(range(len(nwbfile.electrodes))), description=source.electrodes.description
    )


def _group(nwbfile: Any, group: Any) -> Any:
    """Return a file's own copy of an electrode group, with its device."""
    if group.name in nwbfile.electrode_groups:
        return nwbfile.electrode_groups[group.name]
    if group.device.name not in nwbfile.devices:
        nwbfile.create_device(name=group.device.name, description=group.device.description)
    return nwbfile.create_electrode_group(
        name=group.name,
        description=group.description,
        location=group.location,
        device=nwbfile.devices[group.device.name],
    )
