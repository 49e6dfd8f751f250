"""Matching what a proof recomputed with the original, which is at hand to say what differs."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from recallfs.catalog.sidecar import Record
from recallfs.catalog.store import Store
from recallfs.digest.difference import VERDICTS, Tolerance, compare_files
from recallfs.errors import IntegrityError
from recallfs.skeleton.residual import Residual, ResidualWriter
from recallfs.skeleton.vault import load_residual
from recallfs.skeleton.witness import Witness
from recallfs.sources.base import Progress
from recallfs.sources.levels import Matched, lay_out
from recallfs.sources.recompute import match_output
from recallfs.values import Derivation, Level, format_size


@dataclass
class Trial:
    """One proof's comparisons.

    Parameters
    ----------
    original : Path
        Only read, and only after the recipe has ended.
    scratch : Path
        Private folder.
    python : Path, optional
        Interpreter that runs the recipe.
    """

    store: Store
    record: Record
    derivation: Derivation
    original: Path
    scratch: Path
    progress: Progress | None = None
    python: Path | None = None
    _residual: Residual | None = field(default=None, init=False)

    def match(self, result: Path, limit: float) -> Matched:
        """Match a recomputed file, as a recall would.

        Parameters
        ----------
        limit : float
            Of a residual, as `ResidualWriter` takes it.

        Raises
        ------
        IntegrityError
            As `match_output`; `residual` takes it. Kind ``residual-too-large`` if one was wanted.
        """
        with Witness(self.original, limit, self.scratch) as witness:
            try:
                return match_output(
                    self.store,
                    self.record,
                    result,
                    self.scratch,
                    self.progress,
                    residual=self._known,
                    witness=witness,
                    python=self.python,
                )
            except IntegrityError as error:
                reasons = {one["reason"] for one in error.details.get("objects", [])}
                if reasons == {"values"} and limit:
                    self._residual = self._made(error, witness.residual, limit)
                raise

    def residual(self, error: IntegrityError) -> Residual:
        """Return what makes the values right that `match` found to differ.

        Raises
        ------
        IntegrityError
            `error` itself if more than values differ, or no residual is wanted.
        """
        if self._residual is None:
            raise error
        return self._residual

    def match_again(self, result: Path, residual: Residual) -> Matched:
        """Match the file of a second run with the help of the residual of the first.

        Raises
        ------
        IntegrityError
            Kind ``not-repeatable`` if the second run gave other values than the first.
        """
        # What is compared with the original now says how far the second run is off it.
        with Witness(self.original, 0.0, self.scratch) as witness:
            try:
                return match_output(
                    self.store,
                    self.record,
                    result,
                    self.scratch,
                    self.progress,
                    residual=lambda: residual,
                    witness=witness,
                    python=self.python,
                )
            except IntegrityError as error:
                raise IntegrityError(
                    f"the recipe {self.derivation.recipe!r} gave other values in two runs in one "
                    "environment, so no residual can make them right; make it repeatable (seeds, "
                    f"threads, order). {error.message}",
                    kind="not-repeatable",
                    details=error.details,
                ) from error

    def lower(
        self, error: IntegrityError, result: Path, lowest: Level, tolerance: Tolerance
    ) -> Matched:
        """Judge a recomputed file that is not exact against the original, object by object.

        Parameters
        ----------
        error : IntegrityError
            Of `match`.
        tolerance : Tolerance
            For numbers, where `lowest` is the tolerance level.

        Raises
        ------
        IntegrityError
            It is not even that close.
        """
        matched = lay_out(
            self.store,
            self.record,
            result,
            self.scratch,
            residual=None,
            lowest=lowest,
            error=error,
        )
        found = compare_files(matched.path, self.original, tolerance=tolerance)
        if found.verdict == VERDICTS[1]:
            return replace(matched, level=Level.CONTENT)
        if not found.is_same or lowest is not Level.TOLERANCE:
            named = "; ".join(str(one) for one in found.differences[:3])
            raise IntegrityError(
                f"{error.message} With rtol {tolerance.relative:g} and atol "
                f"{tolerance.absolute:g} it is different too: {named}.",
                details=error.details,
            ) from error
        return matched

    def confirm(self, matched: Matched, again: Matched) -> None:
        """Make sure that a second run gave the same: a recall has to give what was proved.

        Raises
        ------
        IntegrityError
            Kind ``not-repeatable``.
        """
        if again.content != matched.content:
            raise IntegrityError(
                f"the recipe {self.derivation.recipe!r} gave other values in two runs in one "
                "environment; both are within the tolerance, but a recall could not be held to "
                "what was proved. Make it repeatable (seeds, threads, order).",
                kind="not-repeatable",
            )

    def _made(self, error: IntegrityError, writer: ResidualWriter, limit: float) -> Residual:
        """Write the residual into the scratch folder."""
        skeleton = self.record.skeleton
        if skeleton is None:
            raise error
        if writer.is_too_large:
            share = writer.size_bytes / max(1, writer.concerned_bytes)
            raise IntegrityError(
                f"{error.message}. A residual would take {format_size(writer.size_bytes)}, "
                f"{share:.0%} of the data concerned, above {limit:.0%}; --max-residual raises the "
                "limit.",
                kind="residual-too-large",
                details=error.details,
            ) from error
        return writer.finish(
            self.scratch / "residual.rsd1",
            sha256=self.record.entry.sha256,
            skeleton=skeleton.digest,
            derivation_id=self.derivation.id,
        )

    def _known(self) -> Residual | None:
        """Load the residual on record; one that cannot be used is about to be made anew."""
        try:
            return load_residual(self.store, self.record, self.derivation.id)
        except IntegrityError:
            return None
