"""Every fault that the doctor knows: its id, how grave it is, what it means, how to mend it.

Ids are append-only, like kinds of errors: programs and notes refer to them.
docs/reference/doctor.md is generated from this table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any


class Severity(str, Enum):
    """How grave a fault is."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True)
class Fault:
    """One sort of fault.

    Parameters
    ----------
    area : str
        What it is about: the heading that it stands under.
    meaning : str
        What follows from it.
    remedy : str
        What a person does about it.
    is_mended : bool
        Whether ``recall doctor --fix`` mends it where that is safe.
    """

    area: str
    severity: Severity
    meaning: str
    remedy: str
    is_mended: bool = False


@dataclass(frozen=True)
class Finding:
    """A fault that was found.

    Parameters
    ----------
    id : str
        A key of `FAULTS`.
    place : str
        What has it: a path, an address, a name.
    problem : str
        What is wrong there, in one sentence.
    store : str, optional
        Name of the store that it belongs to.
    mend : callable, optional
        Mends this very one and says what it did; None where only a person can.
    """

    id: str
    place: str
    problem: str
    store: str | None = None
    mend: Callable[[], str] | None = None

    @property
    def fault(self) -> Fault:
        """The sort of fault that it is."""
        return FAULTS[self.id]

    def to_json(self) -> dict[str, Any]:
        """Return the finding as a JSON-able mapping."""
        return {
            "id": self.id,
            "severity": self.fault.severity.value,
            "area": self.fault.area,
            "store": self.store,
            "place": self.place,
            "problem": self.problem,
            "meaning": self.fault.meaning,
            "remedy": self.fault.remedy,
            "fixable": self.mend is not None,
        }


_ERROR, _WARNING, _NOTE = Severity.ERROR, Severity.WARNING, Severity.NOTE

FAULTS: Mapping[str, Fault] = {
    # configuration
    "config-missing": Fault(
        "configuration", _ERROR,
        "Every store seems to be unknown.",
        "Correct RECALLFS_CONFIG, or unset it to use the default place.",
    ),
    "config-invalid": Fault(
        "configuration", _ERROR,
        "No command works until it is mended.",
        "Correct the key that the message names.",
    ),
    "root-twice": Fault(
        "configuration", _WARNING,
        "One store has two names, so one file has two addresses.",
        "Take one of the two tables out of the configuration.",
    ),
    "recipes-broken": Fault(
        "configuration", _ERROR,
        "Its recipes cannot be run: files that were made by them cannot be recomputed.",
        "Mend the module, or correct `modules` and `paths` of [recipes].",
    ),
    # stores
    "root-gone": Fault(
        "stores", _ERROR,
        "None of its files can be had.",
        "Mount its disk, or set `root` in the configuration to where the folder is now.",
    ),
    "not-a-store": Fault(
        "stores", _ERROR,
        "The folder has no .recall of a store: it was emptied, or another disk is mounted there.",
        "Mount the right disk, set `root` to where the store is now, or `recall init` it.",
    ),
    "store-unusable": Fault(
        "stores", _ERROR,
        "The store could not be opened, so nothing else in it was looked at.",
        "Do what the message says.",
    ),
    "store-copied": Fault(
        "stores", _ERROR,
        "Two folders claim to be one store: their evidence overwrites each other in the vault.",
        "Take the copy out of the configuration and delete its .recall; `recall init` makes it a "
        "store of its own.",
    ),
    "store-nested": Fault(
        "stores", _ERROR,
        "Files of the inner store are in the tree of both.",
        "Move one of the two elsewhere.",
    ),
    # catalog and evidence
    "catalog-damaged": Fault(
        "catalog", _ERROR,
        "No file can be looked up. The evidence in the sidecars is not touched by that.",
        "`recall catalog rebuild` makes the catalog again.", True,
    ),
    "catalog-empty": Fault(
        "catalog", _ERROR,
        "There are sidecars, but the catalog knows none of them: it was lost.",
        "`recall catalog rebuild` makes it again.", True,
    ),
    "row-missing": Fault(
        "catalog", _ERROR,
        "A file's evidence is there, but the catalog does not know of it, so it is not found.",
        "`recall catalog rebuild` indexes it.", True,
    ),
    "row-differs": Fault(
        "catalog", _ERROR,
        "The catalog says other things than the evidence.",
        "`recall catalog rebuild` makes the catalog follow the evidence.", True,
    ),
    "sidecar-missing": Fault(
        "catalog", _ERROR,
        "The catalog knows the file, but its evidence is gone: it cannot be released or recalled.",
        "Restored from the vault where that has it. Else, while the file is there: "
        "`recall catalog rebuild`, then `recall add` it.", True,
    ),
    "sidecar-damaged": Fault(
        "catalog", _ERROR,
        "The file's evidence cannot be read: it cannot be released or recalled.",
        "Restored from the vault where that has it. Else, while the file is there: move the "
        "sidecar away, `recall catalog rebuild`, `recall add` the file.", True,
    ),
    "sidecar-newer": Fault(
        "catalog", _ERROR,
        "A newer recallfs wrote it; this one cannot read it.",
        "Update recallfs.",
    ),
    "sidecar-superseded": Fault(
        "catalog", _NOTE,
        "The record of an earlier file whose path belongs to another one now; nothing reads it.",
        "Put away under .recall/superseded.", True,
    ),
    "sidecar-only-in-vault": Fault(
        "catalog", _ERROR,
        "The vault has evidence of a file that the store does not know any more, and nothing says "
        "that it was forgotten on purpose.",
        "Restored into the store, unless another file is at its path.", True,
    ),
    "write-leftover": Fault(
        "catalog", _NOTE,
        "A process was killed while it wrote a record; the record itself is whole.",
        "Nothing depends on it; it can be deleted.", True,
    ),
    # files
    "file-missing": Fault(
        "files", _WARNING,
        "It vanished without a release; opening it brings it back.",
        "`recall get` it, or `recall forget` it if it was deleted on purpose.",
    ),
    "file-lost": Fault(
        "files", _ERROR,
        "It is gone, and there is no copy and no recipe that could bring it back.",
        "Restore it from a backup, or `recall forget` it.",
    ),
    "file-changed": Fault(
        "files", _WARNING,
        "Its bytes are not the recorded ones. It is neither released nor used as an input.",
        "If the change is meant, `recall add` accepts it; else restore the file.",
    ),
    "file-touched": Fault(
        "files", _NOTE,
        "Its bytes are the recorded ones, but it was copied or touched since; it is hashed each "
        "time the catalog is in doubt.",
        "Its present identity is noted.", True,
    ),
    "not-restored": Fault(
        "files", _WARNING,
        "Whoever recalled the file may not give files away, so it has not all of its recorded "
        "owner, group, mode and ACL. Nobody has more access than recorded; some may have less.",
        "Root puts them back with `recall doctor --fix`.", True,
    ),
    "hdf5-flags": Fault(
        "files", _ERROR,
        "A writer of the HDF5 file was killed. Only the marks in its superblock that say 'open for "
        "writing' differ from what was recorded; HDF5 refuses to open it.",
        "The recorded marks are put back in place; the file then has its recorded sha256.", True,
    ),
    "path-occupied": Fault(
        "files", _ERROR,
        "Something else sits at the path of a released file, which cannot come back therefore.",
        "Move it away, or `recall forget` the released file.",
    ),
    "file-unreadable": Fault(
        "files", _WARNING,
        "It could not be read, so nothing is known of its bytes.",
        "Do what the message says; the disk may be failing.",
    ),
    "not-recallable": Fault(
        "files", _ERROR,
        "It is released, and nothing that is configured can bring it back.",
        "Configure its mirror again, or restore it from a backup.",
    ),
    "evidence-expired": Fault(
        "files", _WARNING,
        "It is released, and the proof that its release rests on no longer counts.",
        "`recall get` it, then `recall prove` it again.",
    ),
    "recipe-gone": Fault(
        "files", _ERROR,
        "Released files were made by a recipe that is not registered here: they cannot be "
        "recomputed.",
        "Install its package, or name its module in [recipes].",
    ),
    "interpreter-gone": Fault(
        "files", _WARNING,
        "The Python that released files were proved with is not there. They are not recomputed "
        "with another one: their recall is refused, unless a copy is at hand.",
        "Put it back there, or build it again with `recall env restore`.",
    ),
    # trash
    "trash-stray": Fault(
        "trash", _WARNING,
        "The trash holds a file that its record does not call released.",
        "Put back at its path, or recorded as trashed if that is taken.", True,
    ),
    "trash-unnamed": Fault(
        "trash", _ERROR,
        "The trash holds bytes that no record names. They may be the last copy of something.",
        "Look at the file and move it where it belongs; nothing deletes it.",
    ),
    "trash-gone": Fault(
        "trash", _WARNING,
        "The record says that the bytes wait in the trash, but they are not there.",
        "Recorded as purged; the file's other sources stand.", True,
    ),
    "trash-overdue": Fault(
        "trash", _NOTE,
        "Released bytes stay on the disk although their time is over.",
        "`recall release --purge` frees them.",
    ),
    # vault
    "vault-unreachable": Fault(
        "vault", _ERROR,
        "Evidence has no second place, and nothing can be released.",
        "Mount its disk, or set `vault` for the store to where the folder is now.",
    ),
    "vault-same-disk": Fault(
        "vault", _WARNING,
        "A lost disk takes files, evidence and vault together.",
        "Set `vault` for the store to a folder on another disk.",
    ),
    "vault-copy-missing": Fault(
        "vault", _ERROR,
        "Evidence of a released file is in the store only.",
        "Copied to the vault.", True,
    ),
    "vault-copy-behind": Fault(
        "vault", _ERROR,
        "The vault's copy lacks what was changed since: a proof that was revoked, a pin, a new "
        "name or permissions. After a rebuild from the vault it would be as before that.",
        "Written again from the store's.", True,
    ),
    "vault-copy-damaged": Fault(
        "vault", _ERROR,
        "The vault's copy fails its digest; the one in the store is whole.",
        "Written again from the store's.", True,
    ),
    "evidence-missing": Fault(
        "vault", _ERROR,
        "A skeleton, residual or environment is gone from the store; the vault's copy is whole.",
        "Copied back from the vault.", True,
    ),
    "evidence-damaged": Fault(
        "vault", _ERROR,
        "A skeleton, residual or environment in the store fails its digest; the vault's copy is "
        "whole.",
        "Written again from the vault's.", True,
    ),
    "evidence-lost": Fault(
        "vault", _ERROR,
        "A skeleton, residual or environment is whole neither in the store nor in the vault.",
        "Of a resident file: `recall prove` makes it again. Of a released one: restore it from a "
        "backup.",
    ),
    # sources
    "mirror-unreachable": Fault(
        "sources", _WARNING,
        "Files that only it holds cannot be recalled now.",
        "Do what the message says, or correct `url` of [[sources.mirror]].",
    ),
    # cache
    "cache-unusable": Fault(
        "cache", _WARNING,
        "Files of stores that you may not write to cannot be brought back.",
        "Name a folder of yours as `folder` in [cache].",
    ),
    "cache-shared-unusable": Fault(
        "cache", _WARNING,
        "Files go to each user's own cache; or others could remove them from the shared one.",
        "As root: install -d -m 1777 FOLDER; a folder in it that is named by a user's number has "
        "to be that user's.",
    ),
    "cache-over-limit": Fault(
        "cache", _NOTE,
        "What is left is open, was used just now, or is another user's.",
        "Yours is removed. As root `recall cache clear --unused 7d` removes everybody's.", True,
    ),
    "source-unreachable": Fault(
        "sources", _NOTE,
        "A public service, or what is configured in its place, cannot be asked now.",
        "Do what the message says; or turn it off: `enabled = false` in [sources.kachery] or "
        "[sources.dandi].",
    ),
    "mirror-in-store": Fault(
        "sources", _WARNING,
        "It is lost together with the store: what it holds is no copy, and it is not asked for "
        "that store's files.",
        "Give it a folder on another disk, outside the store and its vault.",
    ),
    # work in hand
    "staging-leftover": Fault(
        "work", _NOTE,
        "A process died while it brought or made a file; its unfinished bytes take space.",
        "Removed.", True,
    ),
    "staging-foreign": Fault(
        "work", _NOTE,
        "Unfinished bytes of another computer, a week old. Whether that process lives cannot be "
        "told from here.",
        "Run `recall doctor --fix` on that computer, or delete the folder.",
    ),
    "intent-dead": Fault(
        "work", _WARNING,
        "A process died amid a change of evidence.",
        "The change is finished or undone.", True,
    ),
    "intent-foreign": Fault(
        "work", _WARNING,
        "A change of evidence was begun on another computer. Whether its process lives cannot be "
        "told from here.",
        "If it does not, run `recall doctor --fix` on that computer.",
    ),
    "lease-dead": Fault(
        "work", _NOTE,
        "A process died while it held a file's lease. The next one to want the file takes it over.",
        "The lease is given back.", True,
    ),
    "aside-dead": Fault(
        "work", _ERROR,
        "A proof that was killed left an original out of its place.",
        "Put back at its path.", True,
    ),
    "aside-foreign": Fault(
        "work", _WARNING,
        "An original is out of its place for a proof on another computer.",
        "If that process is dead, run `recall doctor --fix` on that computer.",
    ),
    # this computer
    "no-namespaces": Fault(
        "computer", _WARNING,
        "A recipe cannot be run with the original out of its sight.",
        "Allow user namespaces, or prove with `--hide aside`.",
    ),
    "no-leases": Fault(
        "computer", _NOTE,
        "Whether a file is open cannot be told here; released files stay in the trash for the "
        "configured grace.",
        "Nothing need be done.",
    ),
    "no-safe-rename": Fault(
        "computer", _ERROR,
        "Files cannot be put in place without the danger of replacing another.",
        "Put the store on a file system with hard links or RENAME_NOREPLACE.",
    ),
    "no-folder-sync": Fault(
        "computer", _WARNING,
        "After a power cut the newest names may be missing.",
        "Put the store on a file system that can sync folders.",
    ),
    "wal-on-network": Fault(
        "computer", _WARNING,
        "SQLite's write-ahead log needs shared memory, which network file systems do not have: "
        "used from two computers, the catalog can be damaged.",
        "Set `catalog` for the store to a database on a server.",
    ),
    "case-insensitive": Fault(
        "computer", _WARNING,
        "Names that differ in case only are one file there.",
        "Keep names apart by more than case.",
    ),
    "names-normalised": Fault(
        "computer", _WARNING,
        "The file system changes the Unicode form of names, so that a recorded name and the one "
        "listed may differ.",
        "Use plain ASCII in names.",
    ),
    "space-low": Fault(
        "computer", _WARNING,
        "Recalls and records need space.",
        "`recall release --purge` frees what is due in the trash; `recall status` shows what else "
        "can go.",
    ),
    "inodes-low": Fault(
        "computer", _WARNING,
        "New files and records need inodes.",
        "Remove small files, or make the file system anew with more inodes.",
    ),
    "clock-set-back": Fault(
        "computer", _WARNING,
        "Times on record lie in the future: proofs made at them do not count yet, and the trash is "
        "kept longer.",
        "Set the clock right.",
    ),
    "hdf5-version": Fault(
        "computer", _NOTE,
        "This HDF5 reports wrong places of chunks in files with a user block; such files are kept "
        "whole.",
        "Install another version of h5py.",
    ),
    # rights
    "not-writable": Fault(
        "rights", _NOTE,
        "You can read the store, not write to it; what needs writing was not looked at.",
        "Nothing need be done, if you only read.",
    ),
    "group-cannot-write": Fault(
        "rights", _WARNING,
        "The store's folder is shared with a group, and a part of .recall is not: members cannot "
        "release or recall.",
        "chgrp -R GROUP .recall; chmod -R g+rwX .recall; find .recall -type d -exec chmod g+s {} +",
    ),
}  # fmt: skip
"""Every sort of fault by id."""
