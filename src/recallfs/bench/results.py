"""Figures of one run, as a file: what was measured, where, with what, and what was not.

One JSON document, ``<moment>_<machine>.json``. `Results.load` refuses what is none, or what a newer
recallfs wrote.
"""

from __future__ import annotations

import ast
import json
import math
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from recallfs.atomic import write_record
from recallfs.errors import InvalidInputError

FORMAT = "recallfs-bench"
VERSION = 1

Samples = dict[str, dict[str, Any]]
"""Benchmark, case (as asv writes it), then seconds in a list, or names with lists of figures."""


@dataclass
class Results:
    """One run of the suite.

    Parameters
    ----------
    timestamp : str
        ``YYYY-MM-DD-hh-mm-ss``, UTC: when the run ended.
    commit_hash : str
        Of the code that ran.
    selection : str
        ``quick``, ``usual`` or ``large``.
    configuration : dict of str to str
        SHA-256 of each file that says what is measured.
    machine, environment : dict
        As `recallfs.bench.machine` describes them.
    machine_id, environment_id : str
        Their digests.
    results : dict
        The samples.
    absent : dict of str to str
        Peers that were not there, and what would bring them.
    failed : list of str
        Benchmarks that raised an error.
    online : str
        URL of the real file that was read; empty: all was on loopback.
    pattern : str
        What the names of benchmarks had to match; empty: all were run.
    """

    timestamp: str
    commit_hash: str
    selection: str
    configuration: dict[str, str]
    machine: dict[str, Any]
    environment: dict[str, Any]
    machine_id: str
    environment_id: str
    results: Samples
    absent: dict[str, str] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    online: str = ""
    pattern: str = ""

    @property
    def name(self) -> str:
        """Name of the file that holds them, without its ending."""
        return f"{self.timestamp}_{self.machine['name']}"

    def save(self, folder: Path) -> Path:
        """Write the file into a folder, which is made; return its path."""
        folder.mkdir(parents=True, exist_ok=True)
        place = folder / f"{self.name}.json"
        document = {"format": FORMAT, "version": VERSION, **asdict(self)}
        write_record(place, (json.dumps(document, indent=1) + "\n").encode(), mode=0o666)
        return place

    @classmethod
    def load(cls, path: Path) -> Results:
        """Read a file that `save` wrote.

        Raises
        ------
        InvalidInputError
            If there is none, if it is something else, or if a newer recallfs wrote it.
        """
        try:
            document = json.loads(path.read_text("utf-8"))
        except FileNotFoundError:
            raise InvalidInputError(
                f"no results are at {path}; `recall bench run` makes some."
            ) from None
        except (OSError, ValueError) as error:
            raise InvalidInputError(f"{path} cannot be read as JSON: {error}.") from error
        if not isinstance(document, dict) or document.pop("format", None) != FORMAT:
            raise InvalidInputError(f"{path} holds no results of `recall bench run`.")
        version = document.pop("version", None)
        if version != VERSION:
            raise InvalidInputError(
                f"{path} is of version {version}, and this recallfs reads version {VERSION}; "
                "use the recallfs that wrote it."
            )
        try:
            found = cls(**document)
            for cases in found.results.values():
                for case in cases:
                    parse_case(case)
        except (AttributeError, TypeError, ValueError, SyntaxError) as error:
            raise InvalidInputError(f"{path} is damaged: {error}.") from error
        return found


def newest(folder: Path) -> Path | None:
    """Return the newest file of results in a folder; None if there is none."""
    return max(folder.glob("*.json"), default=None, key=lambda path: path.name)


def newest_whole(folder: Path) -> Results | None:
    """Load the newest results of all benchmarks, on loopback; None if there are none."""
    found = map(Results.load, sorted(folder.glob("*.json"), reverse=True))
    return next((each for each in found if not each.pattern and not each.online), None)


def parse_case(text: str) -> dict[str, Any]:
    """Read a case as asv writes it, slices included, the way nwb_benchmarks' database does.

    Examples
    --------
    >>> parse_case("{'name': 'A', 'slice_range': (slice(0, 5, None),)}")
    {'name': 'A', 'slice_range': ('slice(0, 5, None)',)}
    """
    found = ast.literal_eval(re.sub(r"slice\([^)]+\)", r'"\g<0>"', text))
    if not isinstance(found, dict):
        raise ValueError(f"a case is no mapping: {text}")
    return found


def reduce_asv(raw: dict[str, Any]) -> tuple[Samples, list[str]]:
    """Take the samples out of a file that asv wrote.

    Parameters
    ----------
    raw : dict
        The JSON document.

    Returns
    -------
    tuple
        The samples, and the benchmarks that failed. What was left out on purpose is in neither.
    """
    columns = {name: number for number, name in enumerate(raw["result_columns"])}
    samples: Samples = {}
    failed = []
    for name, written in raw["results"].items():
        row = [*written, *[None] * (len(columns) - len(written))]  # asv leaves the last ones out
        results, axes = row[columns["result"]], row[columns["params"]]
        if results is None or None in results:
            failed.append(name)
        if results is None:
            continue
        cases = axes[0] if axes else ["{}"]
        each = row[columns["samples"]] or [None] * len(cases)
        kept = {
            case: found
            for case, result, found in zip(cases, results, each, strict=True)
            if found is not None and not (isinstance(result, float) and math.isnan(result))
        }
        if kept:
            samples[name] = kept
    return samples, failed
