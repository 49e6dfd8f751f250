"""Having Spyglass write an analysis file to where a recipe's output is to be."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from recallfs.integrations.spyglass.database import told_plainly
from recallfs.integrations.spyglass.lean import load_extensions


@contextlib.contextmanager
def writing_to(output: Path, file: str) -> Iterator[None]:
    """Let Spyglass take `output` for the path of an analysis file; for a recipe's own process.

    Parameters
    ----------
    output : Path
        Where it is to be written. Its name does not end in ``.nwb``: it lies below the analysis
        folder, where Spyglass' cleanup removes such files.
    file : str
        ``analysis_file_name``.

    Notes
    -----
    Spyglass also puts ``conda env export`` into each file, and cannot write where there is no
    conda. What the original says of its environment comes back from its skeleton, so a line stands
    for it here.
    """
    with told_plainly():
        from spyglass.common import AnalysisNwbfile, Nwbfile
        from spyglass.utils.mixins.analysis import AnalysisMixin

        parent = (AnalysisNwbfile & {"analysis_file_name": file}).fetch("nwb_file_name")
        if len(parent):
            load_extensions(Path(Nwbfile.get_abs_path(parent[0])))
    path, environment = vars(AnalysisMixin)["get_abs_path"], AnalysisMixin._logged_env_info

    def get_abs_path(cls: Any, name: Any, from_schema: bool = False) -> str:
        if name == file:
            return str(output)
        found: str = path.__func__(cls, name, from_schema=from_schema)
        return found

    AnalysisMixin.get_abs_path = classmethod(get_abs_path)
    AnalysisMixin._logged_env_info = lambda self: f"spyglass={self._spyglass_version}"
    try:
        yield
    finally:
        AnalysisMixin.get_abs_path = path
        AnalysisMixin._logged_env_info = environment


def create(output: Path, file: str) -> str:
    """Write what Spyglass writes of an analysis file before a table adds its own; for recipes.

    Parameters
    ----------
    output : Path
        Where it is to be written: the recipe's output.
    file : str
        ``analysis_file_name``, as it is in the common table of analysis files.

    Returns
    -------
    str
        The path, to be opened in mode ``a``.

    Raises
    ------
    InvalidInputError, SourceError
        The database has no such row, or does not answer.
    """
    with told_plainly():
        from spyglass.common import AnalysisNwbfile

        files = AnalysisNwbfile()
        parent = (files & {"analysis_file_name": file}).fetch1("nwb_file_name")
    with writing_to(output, file):
        files.create(parent, recompute_file_name=file)
    return str(output)
