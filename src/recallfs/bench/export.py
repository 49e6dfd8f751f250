"""Results in the form that NeurodataWithoutBorders' nwb_benchmarks collects.

Three files, as its database expects them: the figures, and the descriptions of the machine and of
the environment, filed under their digests, which the figures name.

References
----------
https://github.com/NeurodataWithoutBorders/nwb_benchmarks, ``setup/_reduce_results.py`` and
``database/_models.py`` (database version 2.2.0, machine file version 1.4.1).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from recallfs.atomic import write_record
from recallfs.bench.results import Results

DATABASE_VERSION = "3.0.0"


def export(results: Results, folder: Path) -> list[Path]:
    """Write the three files.

    Parameters
    ----------
    folder : Path
        Gets ``results/``, ``machines/`` and ``environments/``, as the repository of results has.

    Returns
    -------
    list of Path
        What was written.
    """
    machine, environment = results.machine_id, results.environment_id
    name = f"timestamp-{results.timestamp}_environment-{environment}_machine-{machine}_results.json"
    packages = [
        {"name": package, "version": version, "build": "pypi"}
        for package, version in results.environment["packages"].items()
    ]
    documents: dict[Path, Any] = {
        folder / "results" / name: {
            "database_version": DATABASE_VERSION,
            "timestamp": results.timestamp,
            "commit_hash": results.commit_hash,
            "environment_id": environment,
            "machine_id": machine,
            "results": results.results,
        },
        folder / "machines" / f"machine-{machine}.json": results.machine,
        folder / "environments" / f"environment-{environment}.json": {
            results.environment["python"]: packages
        },
    }
    for place, document in documents.items():
        place.parent.mkdir(parents=True, exist_ok=True)
        write_record(place, (json.dumps(document, indent=1) + "\n").encode(), mode=0o666)
    return list(documents)
