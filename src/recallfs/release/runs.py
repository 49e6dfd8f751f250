"""Runs of recipes that prove several outputs of one derivation."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

from recallfs.catalog.store import Store
from recallfs.errors import RecallError, RecomputeError
from recallfs.recipes.job import Outcome
from recallfs.release.scratch import private_folder
from recallfs.values import Derivation

Run = tuple[dict[str, Path], Outcome]
"""Where each output was written, and how the run went."""


class Runs:
    """The runs that several outputs of one derivation are proved by; close it to drop its files.

    Only those of one derivation are kept: ask for the outputs of one derivation one after the
    other.

    Parameters
    ----------
    scratch : Path, optional
        Folder to work in; by default the store's own.
    """

    def __init__(self, scratch: Path | None = None) -> None:
        self._scratch = scratch
        self._folder = contextlib.ExitStack()
        self._derivation_id = ""
        self._made: dict[int, Run | RecomputeError] = {}

    def __enter__(self) -> Runs:
        return self

    def __exit__(self, *_: object) -> None:
        self._folder.close()

    def has(self, derivation: Derivation) -> bool:
        """Tell whether a run of a derivation is kept."""
        return bool(self._made) and self._derivation_id == derivation.id

    def run(
        self, store: Store, derivation: Derivation, make: Callable[[Path], Run], turn: int = 0
    ) -> Run:
        """Return a run of a derivation, which is made in a folder unless it was before.

        Parameters
        ----------
        make : callable
            Given an empty folder.
        turn : int
            Which run: a second one shows whether the recipe gives the same again.

        Raises
        ------
        RecallError
            What making it raises. A recipe that failed is not run again for the next output.
        """
        if self._derivation_id != derivation.id:
            self._folder.close()
            self._made, self._derivation_id = {}, derivation.id
        if turn not in self._made:
            try:
                place = private_folder(store, self._scratch)
                self._made[turn] = make(self._folder.enter_context(place))
            except RecomputeError as error:
                self._made[turn] = error
                raise
        made = self._made[turn]
        if isinstance(made, RecomputeError):
            raise RecallError.from_json(made.to_json())
        return made
