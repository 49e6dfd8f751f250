"""The recipes of tables that Spyglass itself brings along."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from recallfs.errors import InvalidInputError
from recallfs.integrations.spyglass.database import load_table, told_plainly
from recallfs.integrations.spyglass.upstream import RECORDING_V0, RECORDING_V1, rows
from recallfs.integrations.spyglass.writing import writing_to
from recallfs.recipes.model import recipe


@recipe(
    name="spyglass.recording-v1",
    version="1",
    seeded=False,
    declares=rows(RECORDING_V1),
)
def recording_v1(
    inputs: Any,  # noqa: ARG001 - every recipe is given them
    output: Path,
    *,
    key: dict[str, Any],
    file: str,
) -> None:
    """Write the file of a row of spikesorting v1's SpikeSortingRecording anew.

    Spyglass' ``_make_file`` wants to read the original, or writes to the database; so what it calls
    is called here.
    """
    import spikeinterface.preprocessing  # noqa: F401 - the module takes it for granted

    table = load_table(RECORDING_V1)()
    v1 = sys.modules[type(table).__module__]
    with told_plainly():
        name, series, electrodes = (table & key).fetch1(
            "analysis_file_name", "object_id", "electrodes_id"
        )
        parent = (v1.SpikeSortingRecordingSelection & key).fetch1("nwb_file_name")
    if name != file:
        raise InvalidInputError(
            f"the row of this recording now belongs to {name}, not to {file}; the recording was "
            "made anew."
        )
    with writing_to(output, file):
        v1._write_recording_to_nwb(
            **table._get_preprocessed_recording(key),
            nwb_file_name=parent,
            recompute_file_name=file,
            recompute_object_id=series,
            # Rows of before Spyglass kept this id have none; the original's is in its skeleton.
            recompute_electrodes_id=electrodes or "unknown",
        )


@recipe(
    name="spyglass.recording-v0",
    version="1",
    outputs=("recording/",),
    declares=rows(RECORDING_V0),
)
def recording_v0(
    inputs: Any,  # noqa: ARG001 - every recipe is given them
    output: Path,
    *,
    key: dict[str, Any],
    file: str,
) -> None:
    """Write the folder of a row of spikesorting v0's SpikeSortingRecording anew.

    With its usual folder present, ``_make_file`` does nothing and answers for that one; so it is
    given another.
    """
    import spikeinterface.preprocessing  # noqa: F401 - the module takes it for granted

    table = load_table(RECORDING_V0)()
    with told_plainly():
        made = Path(table._make_file(key, base_dir=output.parent)["path"])
    if made.name != file:
        raise InvalidInputError(f"the folder of this recording is {made.name} now, not {file}.")
    made.rename(output)
