"""The recipes of tables that Spyglass itself brings along."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from recallfs.errors import EnvironmentMismatchError
from recallfs.integrations.spyglass.database import told_plainly
from recallfs.integrations.spyglass.rows import rows
from recallfs.recipes.model import recipe


@recipe(
    name="spyglass.recording-v1",
    version="1",
    seeded=False,
    declares=rows("spyglass.spikesorting.v1.recording:SpikeSortingRecording"),
)
def recording_v1(inputs: Any, output: Path, *, key: dict[str, Any], file: str) -> None:
    """Write the file of a row of spikesorting v1's SpikeSortingRecording anew.

    Spyglass' ``_make_file`` wants to read the original, or writes to the database; so what it calls
    is called here. What is written goes to a folder of the run.
    """
    with told_plainly():
        from spyglass.spikesorting.v1 import recording as spyglass

        table = spyglass.SpikeSortingRecording()
        name, series, electrodes = (table & key).fetch1(
            "analysis_file_name", "object_id", "electrodes_id"
        )
        parent = (spyglass.SpikeSortingRecordingSelection & key).fetch1("nwb_file_name")
        if name != file:
            raise EnvironmentMismatchError(
                f"the database's row for this file now belongs to {name}, not to {file}."
            )
        without_conda()
        folder = output.parent / "spyglass"
        spyglass._write_recording_to_nwb(
            **table._get_preprocessed_recording(key),
            nwb_file_name=parent,
            recompute_file_name=file,
            # A row of before Spyglass kept this id has none; the original's comes from its skeleton.
            recompute_object_id=series,
            recompute_electrodes_id=electrodes or "unknown",
            save_to=folder,
        )
    take(folder, file, output)


def without_conda() -> None:
    """Let Spyglass write files where there is no conda.

    It puts ``conda env export`` into each file. What the original says of its environment comes
    back from its skeleton, so in a recipe's process nothing is lost.
    """
    from spyglass.utils.mixins.analysis import AnalysisMixin

    AnalysisMixin._logged_env_info = lambda self: f"spyglass={self._spyglass_version}"


def take(folder: Path, file: str, output: Path) -> None:
    """Move the one file of that name below a folder to where a recipe's output is to be."""
    (found,) = folder.rglob(file)
    found.replace(output)
    shutil.rmtree(folder)
