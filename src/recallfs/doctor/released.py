"""Released files: whether what would bring each back is still there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from recallfs.catalog import records
from recallfs.catalog.recovery import reconciled
from recallfs.catalog.sidecar import Record
from recallfs.catalog.store import Store
from recallfs.doctor.faults import Finding
from recallfs.environment.interpreter import find_interpreter, label_of
from recallfs.errors import RecallError
from recallfs.recipes.registry import find_recipe
from recallfs.resolve.stores import Stores
from recallfs.values import now_utc


class ReleasedCheck:
    """Checks released files one by one, and what several of them share at the end.

    Parameters
    ----------
    stores : Stores
    store : Store
    """

    def __init__(self, stores: Stores, store: Store) -> None:
        self._stores = stores
        self._store = store
        self._now = now_utc()
        self._mirrors = {source.name for source in stores.remotes()}
        self._seen: set[str] = set()
        self._recipes: Counter[str] = Counter()
        self._environments: Counter[str] = Counter()

    def check(self, record: Record) -> Iterator[Finding]:
        """Check a released file; others are passed over."""
        release = record.release
        if release is None or record.entry.id in self._seen:
            return
        self._seen.add(record.entry.id)
        store, url = self._store, self._store.url(record.entry.path)
        is_trashed = store.trash_path(record.entry.id).exists()
        if release.stage == "trashed" and not is_trashed:
            yield Finding(
                "trash-gone",
                url,
                f"{store.trash_path(record.entry.id)} is not there.",
                store.name,
                lambda: _settle(store, record.entry.id),
            )
        derivation = record.derivation(self._now)
        copies = {copy.source for copy in record.copies}
        has_copy = bool(self._mirrors & copies) or (not copies and bool(self._mirrors))
        if derivation is None and not has_copy and not is_trashed:
            known = ", ".join(sorted(copies)) or "none"
            problem = f"It has no recipe; its copies ({known}) are in no configured mirror."
            yield Finding("not-recallable", url, problem, store.name)
            return
        if derivation is None or (release.evidence == "copies" and has_copy):
            return
        self._recipes[derivation.recipe] += 1
        valid = record.valid_proofs(self._now)
        self._environments[valid[0].environment_id if valid else derivation.environment_id] += 1
        if release.evidence.startswith("proof:") and not valid:
            ends = max((proof.valid_until for proof in record.proofs), default="?")
            problem = f"Its last proof ended on {ends[:10]} or was revoked."
            yield Finding("evidence-expired", url, problem, store.name)

    def check_shared(self) -> Iterator[Finding]:
        """Check the recipes and interpreters that the released files rest on."""
        settings = self._stores.config.recipes
        for name, count in sorted(self._recipes.items()):
            try:
                find_recipe(name, settings.modules, settings.paths)
            except RecallError as error:
                problem = f"{count} released files rest on it. {error.message}"
                yield Finding("recipe-gone", name, problem, self._store.name)
        for identifier, count in sorted(self._environments.items()):
            executable = self._executable(identifier)
            built = self._stores.config.environments.folder
            if executable and find_interpreter(self._store, identifier, built) is None:
                label = label_of(identifier, records.environment(self._store, identifier))
                problem = f"{count} released files rest on it; its environment is {label}."
                yield Finding("interpreter-gone", executable, problem, self._store.name)

    def _executable(self, identifier: str) -> str:
        # One that cannot be read is told as lost evidence.
        return str(records.environment(self._store, identifier).get("executable", ""))


def _settle(store: Store, entry_id: str) -> str:
    with store.lock(entry_id):
        settled = reconciled(store, records.load(store, entry_id))
        store.catalog.put([settled])
    stage = settled.release.stage if settled.release else settled.entry.state.value
    return f"recorded as {stage}"
