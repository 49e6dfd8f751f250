"""What can be configured: a dataclass for each table of the file."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from recallfs.errors import InvalidInputError
from recallfs.values import Level

SOURCE_KINDS = ("cache", "kachery", "dandi", "mirror", "recompute")
"""Kinds of sources, in the order in which they are asked unless a store says otherwise."""

PUBLIC_KINDS = ("kachery", "dandi")
"""Kinds of sources that are public services, on unless they are turned off."""


@dataclass(frozen=True)
class StoreSettings:
    """``[stores.NAME]``: where a store is and how its files are recalled.

    Parameters
    ----------
    root : Path
        The managed folder.
    catalog : str, optional
        SQLAlchemy URL; by default SQLite inside the store.
    vault : Path, optional
        Second failure domain; overrides what `recall init` recorded.
    recall_missing : bool
        Whether a file that vanished without a release is brought back too.
    order : tuple of str
        Kinds or names of sources, first asked first.
    offline : bool
        Whether public services (Kachery and DANDI) are never asked for its files.
    level : Level, optional
        Lowest level at which its files are proved, released and recalled; by default files are
        proved exact unless asked otherwise, and each comes back as it was proved.
    """

    root: Path
    catalog: str | None = None
    vault: Path | None = None
    recall_missing: bool = True
    order: tuple[str, ...] = SOURCE_KINDS
    offline: bool = False
    level: Level | None = None


@dataclass(frozen=True)
class RecipeSettings:
    """``[recipes]``: where recipes may come from and what a run may use.

    Parameters
    ----------
    modules : tuple of str
        Importable modules whose recipes are trusted, besides installed entry points.
    paths : tuple of Path
        Folders put on the import path for these modules.
    timeout_s : float, optional
        Wall-clock limit of one run, in seconds.
    memory_bytes : int, optional
        Limit of one run's data segment, in bytes.
    threads : int, optional
        Threads that numerical libraries may use; by default the number of CPUs.
    reuse : bool
        Whether `recall run` takes what the same derivation gave on another computer, if a mirror
        has it.
    refuse_dirty : bool
        Whether `recall run` and `recall prove` refuse code that is in a Git work tree and differs
        from its commit. A recall never does: its bytes are compared.
    """

    modules: tuple[str, ...] = ()
    paths: tuple[Path, ...] = ()
    timeout_s: float | None = None
    memory_bytes: int | None = None
    threads: int | None = None
    reuse: bool = False
    refuse_dirty: bool = False


@dataclass(frozen=True)
class EnvironmentSettings:
    """``[environments]``: where environments are built again, and from what.

    Parameters
    ----------
    folder : Path, optional
        Each environment that `recall env restore` builds is a folder in it, and recalls look for
        their interpreter there first. Without it nothing is built.
    indexes : tuple of str
        URLs of the package indexes that may be used, first asked first.
    """

    folder: Path | None = None
    indexes: tuple[str, ...] = ()


@dataclass(frozen=True)
class RemoteSettings:
    """Keys that the table of every remote source may have.

    Parameters
    ----------
    enabled : bool
        Whether it is asked at all.
    failure_domain : str, optional
        What fails together with it; by default derived from where it is.
    connect_timeout : timedelta
        How long a connection may take to be made.
    answer_timeout : timedelta
        How long the source may take, in all, to say whether it has a file.
    read_timeout : timedelta
        How long it may be silent while bytes flow.
    total_timeout : timedelta, optional
        How long one file may take, in all.
    bandwidth : int, optional
        Bytes per second that are taken from it, at most, by one process.
    streams : int
        Connections at once for one file, at most.
    """

    enabled: bool = True
    failure_domain: str | None = None
    connect_timeout: timedelta = timedelta(seconds=2)
    answer_timeout: timedelta = timedelta(seconds=2)
    read_timeout: timedelta = timedelta(seconds=30)
    total_timeout: timedelta | None = None
    bandwidth: int | None = None
    streams: int = 4


@dataclass(frozen=True)
class KacherySettings(RemoteSettings):
    """``[sources.kachery]``: files known by their sha1.

    What is not given is taken from the variables that the Kachery client knows
    (``KACHERY_GATEWAY_URL``, ``KACHERY_ZONE``, ``KACHERY_RESOURCE_URL``, ``KACHERY_CLOUD_DIR``),
    and else is the public service.

    Parameters
    ----------
    gateway_url : str, optional
    zone : str, optional
    resource_url : str, optional
        A lab's resource that is asked for files which were only linked.
    folder : Path, optional
        The Kachery client's own cache on this computer.
    """

    gateway_url: str | None = None
    zone: str | None = None
    resource_url: str | None = None
    folder: Path | None = None


@dataclass(frozen=True)
class DandiSettings(RemoteSettings):
    """``[sources.dandi]``: files of a DANDI archive, by asset or by digest.

    Parameters
    ----------
    instance : str, optional
        Name that the DANDI client knows (``dandi``, ``dandi-sandbox``) or URL of an API; by default
        what ``DANDI_INSTANCE`` says, else ``dandi``. The token is taken from ``<NAME>_API_KEY``.
    """

    instance: str | None = None


@dataclass(frozen=True, kw_only=True)
class MirrorSettings(RemoteSettings):
    """``[[sources.mirror]]``: any fsspec URL prefix that holds copies.

    Parameters
    ----------
    layout : {"path", "sha256"}
        Whether files lie there by their path in the store or as ``sha256/aa/bb/<hex>``; a mirror
        is asked both ways, and this says how it is written to.
    """

    name: str
    url: str = field(repr=False)
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    layout: str = "path"


@dataclass(frozen=True)
class Floor:
    """How much of a disk is to stay free.

    Parameters
    ----------
    size_bytes : int, optional
    fraction : float, optional
        Of the whole disk. Of two that are given, the smaller amount counts.
    """

    size_bytes: int | None = None
    fraction: float | None = None

    def on(self, disk_bytes: int) -> int:
        """Return the bytes to keep free on a disk of this size."""
        part = None if self.fraction is None else int(self.fraction * disk_bytes)
        return min((amount for amount in (self.size_bytes, part) if amount is not None), default=0)


@dataclass(frozen=True)
class PolicySettings:
    """``[[release.policy]]``: which files ``recall release --policy NAME`` is about.

    Parameters
    ----------
    name : str
    stores : tuple of str
        By default all.
    pattern : tuple of str
        Globs of paths in a store, of which one must match; by default all do.
    older_than : timedelta, optional
        Leave files alone that were written or recalled more recently.
    idle : timedelta, optional
        Leave files alone that were used, in any way that shows, more recently.
    min_size : int
        In bytes; leave smaller files alone.
    level : Level, optional
        Lowest level of a proof that counts, beside what the store asks for.
    copies : int, optional
        How many verified copies replace a proof; by default as in ``[release]``.
    hold : timedelta, optional
        How long released bytes stay in the trash; by default as in ``[release]``.
    keep_free : Floor, optional
        Take files, least recently used first, only until so much of the store's disk is free.
    """

    name: str
    stores: tuple[str, ...] = ()
    pattern: tuple[str, ...] = ()
    older_than: timedelta | None = None
    idle: timedelta | None = None
    min_size: int = 0
    level: Level | None = None
    copies: int | None = None
    hold: timedelta | None = None
    keep_free: Floor | None = None


@dataclass(frozen=True)
class ReleaseSettings:
    """``[release]``: what must hold before local bytes are dropped.

    Parameters
    ----------
    hold : timedelta
        How long released bytes stay in the trash.
    grace : timedelta
        The least stay in the trash where the system could not tell that nobody has the file open.
    proof_validity : timedelta
        How long a proof counts.
    copies : int
        How many verified copies replace a proof.
    max_skeleton : float
        Largest kept part of a file, as a fraction of its size.
    idle : timedelta, optional
        How long a file that came back may be unused before ``recall release --idle`` takes it.
    max_residual : float
        Largest residual, as a fraction of what the pieces that it makes right take in the file;
        0 for none at all.
    policy : tuple of PolicySettings
        ``[[release.policy]]`` in the file.
    """

    hold: timedelta = timedelta(days=7)
    grace: timedelta = timedelta(days=1)
    proof_validity: timedelta = timedelta(days=365)
    copies: int = 2
    max_skeleton: float = 0.05
    idle: timedelta | None = None
    max_residual: float = 0.2
    policy: tuple[PolicySettings, ...] = ()

    def named_policy(self, name: str) -> PolicySettings:
        """Return the policy of a name.

        Raises
        ------
        InvalidInputError
            Kind ``invalid-config``, with the nearest name.
        """
        known = {policy.name: policy for policy in self.policy}
        if name in known:
            return known[name]
        raise InvalidInputError(
            f"no release policy is named {name!r}{nearest(name, known)}; each is a table "
            "[[release.policy]] of the configuration.",
            kind="invalid-config",
            details={"policy": name, "known": sorted(known)},
        )


@dataclass(frozen=True)
class ExpectedFailure:
    """``[[expected_failures]]``: proofs that are known to fail, and why.

    Parameters
    ----------
    match : re.Pattern
        Searched for in the end of the recipe's log and in ``kind: message`` of the error.
    reason : str
    """

    match: re.Pattern[str]
    reason: str


@dataclass(frozen=True)
class RecallSettings:
    """``[recall]``: how much may be brought back at once on one computer.

    Parameters
    ----------
    recomputes : int, optional
        Recipes that run at once; by default as many as fit the CPUs by their threads.
    recomputes_per_user : int, optional
        How many of these one user may have; by default all.
    fetches : int
        Downloads at once.
    fetches_per_user : int, optional
        How many of these one user may have; by default all.
    keep_free : Floor
        What stays free on a disk that bytes are brought to.
    remember_absent : timedelta
        How long a source is not asked again for a file that it said it has not.
    budget_folder : Path, optional
        Where the processes of a computer agree on all this; by default in the folder for
        temporary files.
    """

    recomputes: int | None = None
    recomputes_per_user: int | None = None
    fetches: int = 8
    fetches_per_user: int | None = None
    keep_free: Floor = Floor(10 * 2**30, 0.01)
    remember_absent: timedelta = timedelta(minutes=10)
    budget_folder: Path | None = None


BACKUPS_AND_INDEXERS = (
    "attic", "bacula-fd", "baloo_file*", "bareos-fd", "borg", "borgmatic", "bup", "clamd",
    "clamscan", "crashplan*", "dsmc", "duplicati*", "duplicity", "find", "kopia", "locate",
    "mds", "mdworker*", "mlocate", "onedrive*", "plocate", "rclone", "rdiff-backup", "recoll*",
    "restic", "rsnapshot", "rsync", "tar", "tracker*", "updatedb*",
)  # fmt: skip
"""Programs that read whatever they find: for them a released file stays where it is."""


@dataclass(frozen=True)
class ReaderSettings:
    """``[readers]``: what `recallfs.install` does in a program that reads.

    Parameters
    ----------
    stat : bool
        Whether `os.stat`, and with it `os.path.exists`, tells of a released file as recorded.
    deny : tuple of str
        Programs, by name or glob of it, that are never given a file back.
    ask_above : int, optional
        In bytes; the user is asked before a larger file is brought back.
    ask_after : timedelta, optional
        The user is asked before what took longer last time.
    on_interrupt : {"drop", "continue"}
        What becomes of a recall that Ctrl-C interrupts.
    partial : {"auto", "always", "never"}
        Whether a file that is not here is read in parts, by this and by all else that reads:
        ``auto`` if it is large, what it is made of is known, and neither the trash nor a cache has
        it whole; ``always`` if its parts can be verified.
    partial_above : int
        In bytes; what ``auto`` takes to be large.
    """

    stat: bool = True
    deny: tuple[str, ...] = BACKUPS_AND_INDEXERS
    ask_above: int | None = None
    ask_after: timedelta | None = None
    on_interrupt: str = "drop"
    partial: str = "auto"
    partial_above: int = 64 * 1024**2


@dataclass(frozen=True)
class CacheSettings:
    """``[cache]``: where files are kept by their digest, outside any store.

    Parameters
    ----------
    folder : Path, optional
        The user's own; by default the platform's folder for caches (``~/.cache/recallfs`` on
        Linux).
    limit : int
        In bytes; above this, files that were not used for the longest time go.
    shared_folder : Path, optional
        For all users of a computer. An administrator makes it.
    shared_limit : int
        In bytes, for all users together.
    share_all : bool
        Whether files go to the shared folder too that not everybody may read: whoever can enter
        it can read them then.
    """

    folder: Path | None = None
    limit: int = 50 * 10**9
    shared_folder: Path | None = None
    shared_limit: int = 200 * 10**9
    share_all: bool = False


@dataclass(frozen=True)
class LogSettings:
    """``[log]``: where events are told; nowhere unless a level is given.

    Parameters
    ----------
    level : {"debug", "info", "warning", "error"}, optional
    form : {"text", "json"}
        ``format`` in the file.
    file : Path, optional
        Appended to; by default standard error.
    """

    level: str | None = None
    form: str = "text"
    file: Path | None = None


@dataclass(frozen=True)
class Config:
    """The whole configuration, valid by construction."""

    path: Path | None = None
    stores: Mapping[str, StoreSettings] = field(default_factory=dict)
    recipes: RecipeSettings = field(default_factory=RecipeSettings)
    kachery: KacherySettings = field(default_factory=KacherySettings)
    dandi: DandiSettings = field(default_factory=DandiSettings)
    mirrors: tuple[MirrorSettings, ...] = ()
    release: ReleaseSettings = field(default_factory=ReleaseSettings)
    recall: RecallSettings = field(default_factory=RecallSettings)
    readers: ReaderSettings = field(default_factory=ReaderSettings)
    cache: CacheSettings = field(default_factory=CacheSettings)
    log: LogSettings = field(default_factory=LogSettings)
    environments: EnvironmentSettings = field(default_factory=EnvironmentSettings)
    expected_failures: tuple[ExpectedFailure, ...] = ()

    def store_settings(self, name: str) -> StoreSettings:
        """Return the settings of a store.

        Raises
        ------
        InvalidInputError
            Kind ``unknown-store``, with the nearest configured name.
        """
        if name in self.stores:
            return self.stores[name]
        raise InvalidInputError(
            f"no store is named {name!r}{nearest(name, self.stores)}; "
            "`recall init DIR --name NAME` makes one.",
            kind="unknown-store",
            details={"store": name, "known": sorted(self.stores)},
        )


def nearest(word: str, known: Sequence[str] | Mapping[str, Any]) -> str:
    """Say which known word is the nearest to one that is not known; empty if none is near."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""
