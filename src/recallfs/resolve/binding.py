"""Binding files that were made elsewhere to the derivation that made them; nothing is run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from recallfs.catalog import audit, changes, records
from recallfs.catalog.holder import user_name
from recallfs.catalog.store import Store
from recallfs.config import RecipeSettings
from recallfs.digest.listing import list_folder
from recallfs.errors import ConflictError, InvalidInputError, RecallError
from recallfs.recipes.code import code_state
from recallfs.recipes.model import Recipe
from recallfs.recipes.outputs import in_commit_order, is_folder, recorded_outputs
from recallfs.recipes.runs import Run
from recallfs.resolve.commit import add_existing
from recallfs.resolve.environments import own_environment
from recallfs.resolve.orders import Order
from recallfs.resolve.presence import settle
from recallfs.resolve.stores import Stores
from recallfs.values import CodeState, Derivation, Entry, OutputRef, State


@dataclass(frozen=True)
class Adopted:
    """What was bound.

    Parameters
    ----------
    outputs : Mapping of str to str
        Address of each output.
    key : str
        Of the derivation.
    is_new : bool
        False if they were bound to this very derivation already.
    """

    outputs: Mapping[str, str]
    key: str
    is_new: bool


class Present:
    """Environment and code as they are now, looked at once for many adoptions.

    Both take a few calls of Git, and the first a process, which is most of what binding a small
    file takes.
    """

    def __init__(self) -> None:
        self._environments: dict[str, str] = {}
        self._codes: dict[tuple[str, str], CodeState | None] = {}

    def environment_in(self, store: Store, settings: RecipeSettings) -> str:
        """Put the environment of this interpreter on record, and return its digest."""
        if store.id not in self._environments:
            self._environments[store.id] = own_environment(store, settings)
        return self._environments[store.id]

    def code_in(self, store: Store, recipe: Recipe) -> CodeState | None:
        """Put the state of a recipe's code on record, and return it."""
        key = (store.id, recipe.name)
        if key not in self._codes:
            self._codes[key] = records.save_code(store, code_state(recipe))
        return self._codes[key]


def adopt(
    stores: Stores,
    recipe_name: str,
    *,
    outputs: Mapping[str, str],
    inputs: Mapping[str, str],
    parameters: Mapping[str, Any],
    present: Present | None = None,
) -> Adopted:
    """Put on record that files were made by a recipe from inputs and parameters.

    Nothing is run and no byte is changed: whether the recipe gives the files back is shown by a
    proof, before which they cannot be released. Files that are not catalogued yet are.

    Parameters
    ----------
    outputs : Mapping of str to str
        Address of each of the recipe's outputs; all in one store.
    inputs : Mapping of str to str
        Address of each input, in the same store; they need not be here, but on record.
    parameters : Mapping
        JSON values for the recipe's parameters.
    present : Present, optional
        What was looked at for the adoption before, if that was just now.

    Raises
    ------
    ConflictError
        An output is not here, or not as it was recorded.
    InvalidInputError
        Unknown recipe, input or parameters.
    RecomputeError
        Kind ``cycle``: an output would be made from itself.
    """
    order = Order.place(stores, recipe_name, outputs, parameters)
    store = order.store
    bound = order.bind(stores, inputs)
    entries = {name: _present(store, path) for name, path in _files(store, order.targets).items()}
    key = bound.key
    known = [records.load(store, entry.id).derivations for entry in entries.values()]
    if all(any(derivation.key == key for derivation in each) for each in known):
        return Adopted(order.urls, key, is_new=False)
    present = present or Present()
    identifier = present.environment_in(store, stores.config.recipes)
    derivation = replace(
        bound.begin(threads=stores.config.recipes.threads),
        # What it was made with is not known; it is tried with what is here.
        environment_id=identifier,
        code=present.code_in(store, order.recipe),
        seed=None,
    )
    references = [OutputRef(name, entry.id) for name, entry in entries.items()]
    for name in in_commit_order(entries):
        own = replace(derivation, outputs=recorded_outputs(references, name))
        _bind(store, entries[name], own)
    return Adopted(order.urls, key, is_new=True)


@dataclass(frozen=True)
class Bound:
    """What became of a line: either `adopted` or `error` is there."""

    run: Run
    adopted: Adopted | None
    error: RecallError | None = None

    @property
    def status(self) -> str:
        """``bound``, ``there`` (it was before) or ``failed``."""
        if self.adopted is None:
            return "failed"
        return "bound" if self.adopted.is_new else "there"


def adopt_all(
    stores: Stores, runs: Sequence[Run], *, told: Callable[[Bound], None] = lambda _bound: None
) -> list[Bound]:
    """Adopt what a list says; a line that cannot be bound does not keep the others back.

    Parameters
    ----------
    runs : sequence of Run
        As `recallfs.recipes.runs.read_batch` reads them. An input may be the output of a line
        further up.
    told : callable
        Called as each is done.

    Raises
    ------
    SourceError
        Kind ``no-space``; what was bound before stays so.

    Notes
    -----
    Each line is bound for itself: after an interrupt, the same list goes on with what is left.
    """
    done = []
    present = Present()
    for run in runs:
        try:
            adopted = adopt(
                stores,
                run.recipe,
                outputs=run.outputs,
                inputs=run.inputs,
                parameters=run.parameters,
                present=present,
            )
            item = Bound(run, adopted)
        except RecallError as error:
            if error.kind == "no-space":
                raise
            said = RecallError.from_json({**error.to_json(), "message": f"{run.label}: {error}"})
            item = Bound(run, None, said)
        done.append(item)
        told(item)
    return done


def _files(store: Store, targets: Mapping[str, str]) -> dict[str, str]:
    """Return the paths of all files that outputs consist of, by name."""
    found: dict[str, str] = {}
    for name, path in targets.items():
        if is_folder(name):
            below = list_folder(store.locate(path))
            found.update({name + file: f"{path}/{file}" for file in below})
            if not below:
                raise InvalidInputError(f"{store.url(path)} has no files.", kind="unknown-entry")
        else:
            found[name] = path
    return found


def _bind(store: Store, entry: Entry, derivation: Derivation) -> None:
    with changes.edit(store, entry.id, "adopt") as draft:
        draft.record = replace(draft.record, derivations=(*draft.record.derivations, derivation))
    said = {"recipe": derivation.recipe, "version": derivation.version, "key": derivation.key}
    audit.note(store, "adopt", entry, user_name(), said)


def _present(store: Store, path: str) -> Entry:
    """Return the entry of a file that is here as it was recorded, catalogued now if need be."""
    if store.catalog.entry_at(path) is None:
        if not store.locate(path).is_file():
            raise InvalidInputError(
                f"{store.url(path)} is not there; only files that exist can be adopted.",
                kind="unknown-entry",
                details={"path": path},
            )
        add_existing(store, [path])
    entry = records.known_entry(store, path)
    state = settle(store, entry)
    if state is not State.RESIDENT:
        raise ConflictError(
            f"{store.url(path)} is {state.value}; what is adopted must be here as it was recorded "
            "(`recall add` accepts it as it is now).",
            kind="dirty" if state is State.DIRTY else "conflict",
            details={"path": path, "state": state.value},
        )
    return entry
