"""What Spyglass has logged of files: environments, attempts, deletions, copies elsewhere.

None of it is evidence. Spyglass counts a file as matched that was never made again, and an old
hasher of its left values out. So it is told, and kept in the audit trail.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py

from recallfs.integrations.spyglass.database import FileRow, known_table

_RECOMPUTES = {
    "`spikesorting_recording`.`__spike_sorting_recording`": "spikesorting_recompute_v0",
    "`spikesorting_v1_recording`.`__spike_sorting_recording`": "spikesorting_v1_recompute",
}
"""Schemas with the recompute tables of a table."""

_VERSIONS = re.compile(
    r"^\s*- (datajoint|h5py|hdmf|numpy|pynwb|python|scipy|spikeinterface)={1,2}([^=\s]+)", re.M
)
_SPYGLASS = re.compile(r"spyglass=(\S+)")


@dataclass(frozen=True)
class Logged:
    """What Spyglass says of one file.

    Parameters
    ----------
    environments : Mapping of str to str
        Its ``env_hash`` by ``env_id``, of the UserEnvironment rows that go with the file.
    attempts, matched : int
        Recomputes that were tried, and that Spyglass found equal.
    at_creation : int
        How many of these 'matches' are none: logged when the file was made.
    deleted_after : tuple of str
        ``env_id`` of attempts after which Spyglass deleted the file.
    kachery : tuple of str
        URIs. The file may be linked there only, which is no copy.
    dandi : tuple of Mapping
        Rows of DandiPath.
    """

    environments: Mapping[str, str]
    attempts: int = 0
    matched: int = 0
    at_creation: int = 0
    deleted_after: tuple[str, ...] = ()
    kachery: tuple[str, ...] = ()
    dandi: tuple[Mapping[str, str], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON-able mapping."""
        return {
            "environments": dict(self.environments),
            "attempts": self.attempts,
            "matched": self.matched,
            "logged_at_creation": self.at_creation,
            "deleted_after": list(self.deleted_after),
            "kachery": list(self.kachery),
            "dandi": [dict(row) for row in self.dandi],
        }

    def notes(self) -> list[str]:
        """Say it in sentences; of what is not there nothing is said."""
        said = []
        if self.environments:
            said.append(
                f"Spyglass logged it in {', '.join(self.environments)}; that is noted, and proves "
                "nothing"
            )
        if self.attempts:
            said.append(
                f"of {self.attempts} recomputes in Spyglass' tables {self.matched} matched, "
                f"{self.at_creation} of them logged at creation; they count for no proof"
            )
        if self.deleted_after:
            said.append(f"Spyglass deleted it after a match in {', '.join(self.deleted_after)}")
        return said


class Log:
    """Reads what Spyglass has logged; a table that is not in the database says nothing.

    Parameters
    ----------
    query : datajoint.Table
        Whose rows' files are asked for.
    """

    def __init__(self, query: Any) -> None:
        self._connection = query.connection
        schema = _RECOMPUTES.get(query.full_table_name, "")
        self._chosen = self._table(schema, "recording_recompute_selection")
        self._tried = self._table(schema, "__recording_recompute")
        self._environments = self._table("common_user", "user_environment")
        self._kachery = self._table("sharing_kachery", "__analysis_nwbfile_kachery")
        self._dandi = self._table("common_dandi", "dandi_path")

    def of(self, row: FileRow) -> Logged:
        """Return what is logged of one row's file."""
        chosen = _rows(self._chosen, row.key, "env_id", "logged_at_creation")
        tried = _rows(self._tried, row.key, "env_id", "matched", "deleted")
        names = sorted({str(item["env_id"]) for item in chosen})
        hashes = _rows(self._environments, [{"env_id": name} for name in names], "env_hash")
        at_creation = {item["env_id"] for item in chosen if item["logged_at_creation"]}
        matched = [item for item in tried if item["matched"]]
        by_name = {"analysis_file_name": row.name}
        uris = _rows(self._kachery, by_name, "analysis_file_uri")
        return Logged(
            environments={str(item["env_id"]): str(item["env_hash"]) for item in hashes},
            attempts=len(tried),
            matched=len(matched),
            at_creation=sum(item["env_id"] in at_creation for item in matched),
            deleted_after=tuple(sorted(str(i["env_id"]) for i in tried if i["deleted"])),
            kachery=tuple(str(i["analysis_file_uri"]) for i in uris if i["analysis_file_uri"]),
            dandi=tuple(
                {name: str(item[name]) for name in ("dandiset_id", "dandi_path", "dandi_instance")}
                for item in _rows(
                    self._dandi,
                    {"filename": row.name},
                    "dandiset_id",
                    "dandi_path",
                    "dandi_instance",
                )
            ),
        )

    def totals(self) -> tuple[int, int, int]:
        """Return how many attempts of all files there were, matched, and were deleted after."""
        tried = _rows(self._tried, {}, "matched", "deleted")
        matched, deleted = (
            sum(bool(item[name]) for item in tried) for name in ("matched", "deleted")
        )
        return len(tried), matched, deleted

    def _table(self, schema: str, name: str) -> Any | None:
        return known_table(self._connection, f"`{schema}`.`{name}`")


def _rows(table: Any | None, restriction: Any, *columns: str) -> list[dict[str, Any]]:
    if table is None or restriction == []:
        return []
    found: list[dict[str, Any]] = (table & restriction).fetch("KEY", *columns, as_dict=True)
    return found


def embedded_versions(place: Path) -> dict[str, str]:
    """Return the versions that Spyglass wrote into an analysis file: its own, of packages, of NWB.

    Nothing if it says none, or is no such file.
    """
    found: dict[str, str] = {}
    with contextlib.suppress(OSError, KeyError, ValueError), h5py.File(place, "r") as file:
        script = file.get("general/source_script")
        if isinstance(script, h5py.Dataset) and script.shape == ():
            text = script.asstr()[()]
            own = _SPYGLASS.search(text)
            found.update({"spyglass": own[1]} if own else {})
            found.update(_VERSIONS.findall(text))
        for name, group in file.get("specifications", {}).items():
            if isinstance(group, h5py.Group) and len(group):
                found[f"nwb:{name}"] = sorted(group)[-1]
    return found
