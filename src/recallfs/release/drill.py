"""Drills: bring released files back to a folder of their own, compare, and throw them away."""

from __future__ import annotations

import contextlib
import itertools
import math
import random
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from recallfs.catalog import audit, records
from recallfs.catalog.holder import user_name
from recallfs.catalog.store import Store
from recallfs.catalog.store_file import read_store_file
from recallfs.catalog.vaulted import was_used
from recallfs.config import CacheSettings, Config
from recallfs.errors import IntegrityError, InvalidInputError, RecallError, RecomputeError
from recallfs.release.revocation import revoke
from recallfs.resolve.chain import Limits
from recallfs.resolve.presence import has_bytes, settle
from recallfs.resolve.recall import ask_sources
from recallfs.resolve.stores import Stores
from recallfs.resolve.wish import Wish
from recallfs.skeleton.salvage import VaultStore, find_in_vault, open_from_vault
from recallfs.values import Digests, Entry, Level, State, now_utc

_Z = 1.96
"""Of a confidence interval of 95%."""


@dataclass(frozen=True)
class Drilled:
    """What came of one file.

    Parameters
    ----------
    recipe : str
        Empty for a file that no recipe made.
    source : str
        That gave it; empty if none did.
    level : str
        How close it was; empty if it did not come back.
    error : RecallError or None
        Why it did not.
    revoked : tuple of str
        Proofs that no longer count because of that.
    """

    url: str
    recipe: str
    size_bytes: int
    source: str
    level: str
    seconds: float
    error: RecallError | None = None
    revoked: tuple[str, ...] = ()


@dataclass(frozen=True)
class Share:
    """How many of the drilled files came back, with the interval that this says of all.

    Parameters
    ----------
    low, high : float
        Wilson's interval of 95%: of files like these, at least and at most this share comes back.

    References
    ----------
    E. B. Wilson, "Probable inference, the law of succession, and statistical inference",
    J. Am. Stat. Assoc. 22 (1927) 209-212.
    """

    recipe: str
    drilled: int
    came_back: int
    low: float
    high: float


def draw(
    found: Iterable[tuple[Store, Entry]],
    count: int,
    seed: int | None = None,
    *,
    only_made: bool = False,
) -> list[tuple[Store, Entry]]:
    """Draw released files at random, each with the same chance.

    Parameters
    ----------
    found : iterable of (Store, Entry)
        Others among them are passed over.
    only_made : bool
        Whether those that no recipe makes are, too.
    """
    released = [(store, entry) for store, entry in found if entry.state is State.RELEASED]
    chance = random.Random(seed)  # noqa: S311 - nothing is kept secret by it
    mixed = chance.sample(released, len(released))
    return list(itertools.islice((item for item in mixed if not only_made or _made(*item)), count))


def _made(store: Store, entry: Entry) -> bool:
    """Tell whether a recipe makes a file; where the record is damaged the drill will say so."""
    try:
        return records.load(store, entry.id).derivation(now_utc()) is not None
    except IntegrityError:
        return True


@contextlib.contextmanager
def from_vault(
    config: Config, names: Sequence[str], vault: Path | None = None, scratch: Path | None = None
) -> Iterator[tuple[Stores, list[tuple[Store, Entry]]]]:
    """Open stores by what their vaults hold, and by nothing else of what recallfs knows of them.

    Parameters
    ----------
    names : sequence of str
        Of configured stores.
    vault : Path, optional
        By default what the configuration names, else what the store's own file does.
    scratch : Path, optional
        Folder on a disk with room for the largest file; by default that for temporary files.

    Yields
    ------
    Stores
        With a cache of its own.
    list of (Store, Entry)
        Files that were released and are not at their paths.
    """
    with tempfile.TemporaryDirectory(prefix="recall-drill-", dir=scratch) as folder:
        found: list[tuple[Store, Entry]] = []
        for number, name in enumerate(names):
            try:
                kept = find_in_vault(vault or configured_vault(config, name), name)
            except InvalidInputError:
                if vault is None and _has_released_nothing(config, name):
                    continue
                raise
            records = Path(folder) / str(number)
            store = open_from_vault(kept, name, records, config.store_settings(name))
            entries = list(store.catalog.entries_below(""))
            found += [(store, e) for e in entries if not has_bytes(store.root / e.path)]
        cache = CacheSettings(folder=Path(folder) / "cache")
        try:
            yield Stores(replace(config, cache=cache)), found
        finally:
            for opened in {store.id: store for store, _ in found}.values():
                opened.catalog.close()


def _has_released_nothing(config: Config, name: str) -> bool:
    """Tell whether nothing of a store was ever released, if the store is there to say so.

    Where anything was, a vault that holds nothing is on a disk that is not mounted.
    """
    try:
        store = Stores(config).by_name(name)
        return not was_used(store) and State.RELEASED.value not in store.catalog.totals()
    except RecallError:
        return False


def configured_vault(config: Config, name: str) -> Path:
    """Return where the vault of a store is.

    Raises
    ------
    InvalidInputError
        Kind ``not-a-store`` if neither configuration nor store say it.
    """
    settings = config.store_settings(name)
    if settings.vault is not None:
        return settings.vault
    try:
        return Path(read_store_file(settings.root)["vault"])
    except InvalidInputError:
        beside = settings.root.with_name(f"{settings.root.name}.recall-vault")
        if beside.is_dir():
            return beside
        raise InvalidInputError(
            f"nothing says where the vault of {name!r} is: {settings.root} has no store file. "
            "Name it with --from-vault=DIR, or set `vault` in [stores] of the configuration.",
            kind="not-a-store",
            details={"store": name},
        ) from None


def drill(stores: Stores, store: Store, entry: Entry, wish: Wish | None = None) -> Drilled:
    """Try whether a released file comes back. Neither trash nor caches are asked.

    What the recipe gives wrong, or no longer gives, revokes the proofs of that derivation; not in a
    drill from the vault, which only tells. Of a source that is only out of reach nothing is
    concluded but that the drill failed.
    """
    wish = wish or Wish(limits=Limits(from_afar=True))
    recipe = ""
    start = time.monotonic()

    def look(_: object, digests: Digests, level: Level) -> tuple[str, Level]:
        return digests.sha256, level

    try:
        derivation = records.load(store, entry.id).derivation(now_utc())
        recipe = "" if derivation is None else derivation.recipe
        state = settle(store, entry)
        if state not in (State.RELEASED, State.MISSING):
            raise RecallError(f"{store.url(entry.path)} is {state.value} by now.")
        step, _, (sha256, level) = ask_sources(
            stores,
            store,
            entry,
            wish,
            staging=store.staging,
            partials=lambda scratch: scratch / "partial",
            cancelled=threading.Event(),
            commit=look,
        )
    except RecallError as error:
        revoked = () if isinstance(store, VaultStore) else _revoke(store, entry, error)
        said = {**error.to_json(), "revoked": list(revoked)}
        audit.note(store, "drill-failed", entry, user_name(), said)
        seconds = time.monotonic() - start
        return Drilled(
            store.url(entry.path), recipe, entry.size_bytes, "", "", seconds, error, revoked
        )
    seconds = time.monotonic() - start
    done = {"source": step.source, "level": level.value, "sha256": sha256}
    audit.note(store, "drill", entry, user_name(), {**done, "seconds": round(seconds, 3)})
    return Drilled(
        store.url(entry.path), recipe, entry.size_bytes, step.source, level.value, seconds
    )


def _revoke(store: Store, entry: Entry, error: RecallError) -> tuple[str, ...]:
    """Revoke what a failed recompute has shown to be wrong."""
    said = error.details.get("answers", {}).get("recompute")
    failure = None if said is None else RecallError.from_json(said)
    if not isinstance(failure, (IntegrityError, RecomputeError)):
        return ()
    # Neither says anything of the recipe: the one is set back, the other restored.
    if failure.kind in ("input-changed", "environment-mismatch"):
        return ()
    record = records.load(store, entry.id)
    proofs = [proof.id for proof in record.valid_proofs(now_utc())]
    done = revoke(store, entry.id, proofs, f"a drill failed: {failure.message}")
    return () if done is None else done.proofs


def shares(drilled: Sequence[Drilled]) -> list[Share]:
    """Add up by recipe; the last row is of all."""
    recipes = sorted({item.recipe for item in drilled})
    groups = [(name, [item for item in drilled if item.recipe == name]) for name in recipes]
    if len(groups) != 1:
        groups.append(("all", list(drilled)))
    return [_share(name, items) for name, items in groups]


def _share(name: str, items: Sequence[Drilled]) -> Share:
    total, good = len(items), sum(item.error is None for item in items)
    low, high = wilson(good, total)
    return Share(name, total, good, low, high)


def wilson(good: int, total: int) -> tuple[float, float]:
    """Return Wilson's interval of 95% for a share; (0, 1) if nothing was tried."""
    if not total:
        return 0.0, 1.0
    share, z2 = good / total, _Z * _Z
    middle = share + z2 / (2 * total)
    spread = _Z * math.sqrt(share * (1 - share) / total + z2 / (4 * total * total))
    low, high = ((middle + sign * spread) / (1 + z2 / total) for sign in (-1, 1))
    return max(0.0, min(low, share)), min(1.0, max(high, share))
