"""A small raw NWB file of the sort that Spyglass reads, and what Spyglass makes of it."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import numpy as np

RATE = 20_000.0
CHANNELS = 4


def write_raw(path: Path, *, seconds: float = 4.0) -> None:
    """Write four channels of one tetrode: slow waves and noise, in 16-bit numbers."""
    import pynwb
    from ndx_franklab_novela import (
        DataAcqDevice,
        NwbElectrodeGroup,
        Probe,
        Shank,
        ShanksElectrode,
    )

    start = datetime.datetime(2024, 3, 5, 9, 30, tzinfo=datetime.timezone.utc)
    file = pynwb.NWBFile(
        session_description="a rat on a track",
        identifier="recallfs-spyglass",
        session_start_time=start,
        session_id="day1",
        lab="Made Up Lab",
        institution="Made Up Institution",
        experimenter=["Example, Ann"],
        experiment_description="none",
    )
    file.subject = pynwb.file.Subject(
        subject_id="rat1", sex="F", species="Rattus norvegicus", age="P90D", description="a rat",
        genotype="wild type",
    )  # fmt: skip
    file.add_device(
        DataAcqDevice(
            name="dataacq_device0", system="SpikeGadgets", amplifier="Intan", adc_circuit="Intan"
        )
    )
    shank = Shank(name="0")
    for number in range(CHANNELS):
        shank.add_shanks_electrode(
            ShanksElectrode(name=str(number), rel_x=0.0, rel_y=12.5 * number, rel_z=0.0)
        )
    probe = Probe(
        name="probe 0",
        id=0,
        probe_type="tetrode_12.5",
        units="um",
        probe_description="four wires",
        contact_side_numbering=False,
        contact_size=12.5,
        shanks=[shank],
    )
    file.add_device(probe)
    group = NwbElectrodeGroup(
        name="0",
        description="a tetrode",
        location="hippocampus",
        device=probe,
        targeted_location="CA1",
        targeted_x=1.0,
        targeted_y=2.0,
        targeted_z=3.0,
        units="mm",
    )
    file.add_electrode_group(group)
    columns = {
        "probe_shank": "shank", "probe_electrode": "electrode", "bad_channel": "whether bad",
        "ref_elect_id": "reference", "wire": "which", "depth": "how deep", "batch": "of wires",
    }  # fmt: skip
    for name, description in columns.items():
        file.add_electrode_column(name, description)
    for number in range(CHANNELS):
        file.add_electrode(
            x=0.0, y=12.5 * number, z=0.0, imp=1.0, location="CA1", filtering="none", group=group,
            group_name="0", probe_shank=0, probe_electrode=number, bad_channel=False,
            ref_elect_id=-1, rel_x=0.0, rel_y=12.5 * number, wire=number, depth=1.5, batch="a",
        )  # fmt: skip
    samples = int(seconds * RATE)
    times = np.arange(samples) / RATE
    random = np.random.default_rng(3)
    slow = 300 * np.sin(2 * np.pi * 8 * times)[:, None]
    data = (slow + random.normal(scale=60, size=(samples, CHANNELS))).astype("i2")
    file.add_acquisition(
        pynwb.ecephys.ElectricalSeries(
            name="e-series",
            data=data,
            electrodes=file.create_electrode_table_region(list(range(CHANNELS)), "all"),
            timestamps=times,
            conversion=1.95e-7,
            description="raw",
        )
    )
    with pynwb.NWBHDF5IO(path, "w") as io:
        io.write(file)


def insert_raw(name: str) -> str:
    """Have Spyglass read the raw file into the database; return its name there."""
    from spyglass import data_import
    from spyglass.common import LabTeam, Nwbfile

    data_import.insert_sessions(name, raise_err=True)
    LabTeam.insert1({"team_name": "team", "team_description": "all"}, skip_duplicates=True)
    (found,) = Nwbfile.fetch("nwb_file_name")
    return str(found)


def make_folder(nwb_file_name: str) -> tuple[dict[str, Any], Path]:
    """Have Spyglass' older pipeline filter a recording into a folder; return its key and place."""
    from spyglass.common import IntervalList
    from spyglass.spikesorting.v0 import spikesorting_recording as v0

    v0.SortGroup().set_group_by_shank(nwb_file_name)
    group = {"nwb_file_name": nwb_file_name, "sort_group_id": 0}
    # It refuses recordings without any reference.
    v0.SortGroup().update1({**group, "sort_reference_electrode_id": -2})
    v0.SpikeSortingPreprocessingParameters().insert_default()
    name = "one second"
    v0.SortInterval().insert1(
        {
            "nwb_file_name": nwb_file_name,
            "sort_interval_name": name,
            "sort_interval": np.array([0.0, 1.0]),
        }
    )
    IntervalList.insert1(
        {
            "nwb_file_name": nwb_file_name,
            "interval_list_name": name,
            "valid_times": np.array([[0.0, 1.0]]),
            "pipeline": "",
        }
    )
    key = {
        **group,
        "sort_interval_name": name,
        "preproc_params_name": "default",
        "team_name": "team",
    }
    v0.SpikeSortingRecordingSelection.insert1({**key, "interval_list_name": name})
    v0.SpikeSortingRecording.populate(key)
    return key, Path((v0.SpikeSortingRecording & key).fetch1("recording_path"))


def make_recording(nwb_file_name: str, *, interval: tuple[float, float] = (0.0, 3.0)) -> Any:
    """Have Spyglass filter the recording of one sort group; return the key of its row."""
    import spyglass.spikesorting.v1 as sgs
    from spyglass.common import IntervalList

    if not sgs.SortGroup & {"nwb_file_name": nwb_file_name}:
        sgs.SortGroup.set_group_by_shank(nwb_file_name)
    sgs.SpikeSortingPreprocessingParameters.insert_default()
    name = f"from {interval[0]} to {interval[1]} s"
    IntervalList.insert1(
        {
            "nwb_file_name": nwb_file_name,
            "interval_list_name": name,
            "valid_times": np.array([interval]),
            "pipeline": "",
        },
        skip_duplicates=True,
    )
    key = sgs.SpikeSortingRecordingSelection.insert_selection(
        {
            "nwb_file_name": nwb_file_name,
            "sort_group_id": 0,
            "preproc_param_name": "default",
            "interval_list_name": name,
            "team_name": "team",
        }
    )
    own = {"recording_id": key["recording_id"]}
    sgs.SpikeSortingRecording.populate(own)
    return own
