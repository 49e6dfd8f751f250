"""Orders: what a recipe is to make of which files, checked against the record; nothing is run."""

from __future__ import annotations

import os
import secrets
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from recallfs.catalog import records
from recallfs.catalog.store import Store
from recallfs.errors import InvalidInputError, RecomputeError
from recallfs.recipes.declared import digests_of, observe_declared
from recallfs.recipes.model import Recipe, derivation_key, validate_parameters
from recallfs.recipes.registry import find_recipe
from recallfs.resolve.stores import Stores
from recallfs.values import DeclaredInput, Derivation, Entry, InputRef, now_utc


@dataclass(frozen=True)
class Order:
    """What a recipe is to make, before its inputs are looked at.

    Parameters
    ----------
    recipe : Recipe
    parameters : Mapping
        Checked, with the defaults of those that were not given.
    store : Store
        That all outputs go to.
    targets : Mapping of str to str
        Path of each output.
    """

    recipe: Recipe
    parameters: Mapping[str, Any]
    store: Store
    targets: Mapping[str, str]

    @classmethod
    def place(
        cls,
        stores: Stores,
        recipe_name: str,
        outputs: Mapping[str, str],
        parameters: Mapping[str, Any],
    ) -> Order:
        """Look up recipe and outputs.

        Parameters
        ----------
        outputs : Mapping of str to str
            Address of each of the recipe's outputs; all in one store. A single unnamed one is the
            recipe's only one.
        parameters : Mapping
            JSON values for the recipe's parameters.

        Raises
        ------
        InvalidInputError
            Unknown recipe, outputs or parameters.
        """
        settings = stores.config.recipes
        recipe = find_recipe(recipe_name, settings.modules, settings.paths)
        checked = validate_parameters(recipe, parameters)
        return cls(recipe, checked, *_targets(stores, recipe, outputs))

    @property
    def urls(self) -> dict[str, str]:
        """Address of each output."""
        return {name: self.store.url(path) for name, path in self.targets.items()}

    def bind(
        self,
        stores: Stores,
        inputs: Mapping[str, str],
        bring: Callable[[Entry], object] = lambda _: None,
    ) -> BoundOrder:
        """Bind it to the inputs by their digests.

        Parameters
        ----------
        inputs : Mapping of str to str
            Address of each, in the store of the outputs.
        bring : callable
            Called with each entry before its digest is taken, which may be known only then.

        Raises
        ------
        InvalidInputError
            An input is not on record, or in another store.
        RecomputeError
            Kind ``cycle``: an output would be made from itself.
        """
        store = self.store
        bound = []
        for name, address in sorted(inputs.items()):
            owner, path = stores.resolve(address)
            if owner.id != store.id:
                raise InvalidInputError(
                    f"the input {name}={address} is in the store {owner.name!r}, the output in "
                    f"{store.name!r}; a derivation stays within one store."
                )
            bring(records.known_entry(store, path))
            entry = records.known_entry(store, path)
            bound.append(InputRef(name, entry.id, entry.path, entry.sha256))
        _refuse_cycle(store, bound, self.targets)
        return BoundOrder(self, tuple(bound))


@dataclass(frozen=True)
class BoundOrder:
    """An order whose inputs are known by their digests."""

    order: Order
    inputs: tuple[InputRef, ...]

    @cached_property
    def declared(self) -> tuple[DeclaredInput, ...]:
        """What else the recipe would read; looked at when it is first asked for."""
        return observe_declared(self.order.recipe, self.order.parameters)

    @cached_property
    def key(self) -> str:
        """Key of the derivation; see `derivation_key`."""
        recipe = self.order.recipe
        return derivation_key(
            recipe.name,
            recipe.version,
            recipe.source_digest,
            self.order.parameters,
            {item.name: item.sha256 for item in self.inputs},
            other_inputs=digests_of(self.declared),
        )

    def begin(self, *, threads: int | None) -> Derivation:
        """Make the record of a run that is about to begin, with a seed of its own."""
        recipe = self.order.recipe
        return Derivation(
            id=uuid.uuid4().hex,
            key=self.key,
            recipe=recipe.name,
            version=recipe.version,
            source_digest=recipe.source_digest,
            parameters=self.order.parameters,
            inputs=self.inputs,
            outputs=(),
            # Fresh for every ordinary run, so that object ids stay unique; kept for runs to come.
            seed=secrets.randbits(128) if recipe.seeded else None,
            started_at=now_utc(),
            threads=threads or os.cpu_count() or 1,
            environment_id="",
            seconds=0.0,
            timeout_s=recipe.timeout_s,
            memory_bytes=recipe.memory_bytes,
            declared=self.declared,
        )


def _targets(
    stores: Stores, recipe: Recipe, outputs: Mapping[str, str]
) -> tuple[Store, dict[str, str]]:
    """Resolve the outputs' addresses; a single unnamed output is the recipe's only one."""
    if len(recipe.outputs) == 1 and set(outputs) == {""}:
        outputs = {recipe.outputs[0]: outputs[""]}
    if set(outputs) != set(recipe.outputs):
        raise InvalidInputError(
            f"recipe {recipe.name!r} writes {', '.join(recipe.outputs)}; "
            f"given were {', '.join(sorted(outputs)) or 'none'}.",
            kind="invalid-parameters",
        )
    found = {name: stores.resolve(outputs[name]) for name in recipe.outputs}
    store = next(iter(found.values()))[0]
    paths = {name: path for name, (_, path) in found.items()}
    if any(other.id != store.id for other, _ in found.values()):
        raise InvalidInputError("all outputs of a derivation go to one store.")
    nested = any(one.startswith(f"{other}/") for one in paths.values() for other in paths.values())
    if len(set(paths.values())) != len(paths) or "" in paths.values() or nested:
        raise InvalidInputError("each output needs a path of its own.", kind="invalid-path")
    return store, paths


def _refuse_cycle(store: Store, inputs: Sequence[InputRef], targets: Mapping[str, str]) -> None:
    """Refuse an output that one of the inputs is made from."""
    wanted = set(targets.values())

    def visit(path: str, entry_id: str, chain: tuple[str, ...]) -> None:
        chain = (*chain, store.url(path))
        if any(path == place or path.startswith(f"{place}/") for place in wanted):
            raise RecomputeError(
                "this would make a file from itself: " + " ← ".join(chain),
                kind="cycle",
                details={"chain": list(chain)},
            )
        if store.url(path) in chain[:-1] or store.catalog.entry(entry_id) is None:
            return
        for derivation in records.load(store, entry_id).derivations:
            for item in derivation.inputs:
                visit(item.path, item.entry_id, chain)

    for item in inputs:
        visit(item.path, item.entry_id, ())
