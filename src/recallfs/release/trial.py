"""Matching what a proof recomputed with the original, which is at hand to say what differs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from recallfs.catalog.sidecar import Record
from recallfs.catalog.store import Store
from recallfs.digest.difference import VERDICTS, compare_files
from recallfs.digest.hdf5 import content_digest
from recallfs.digest.stream import digest_file
from recallfs.digest.tally import Tolerance
from recallfs.errors import IntegrityError, InvalidInputError
from recallfs.skeleton.residual import Residual, ResidualWriter
from recallfs.skeleton.vault import load_residual, load_skeleton
from recallfs.skeleton.witness import Witness
from recallfs.sources.base import Progress
from recallfs.sources.levels import Matched, lay_out
from recallfs.sources.recompute import match_output
from recallfs.values import Derivation, Level, display_name, format_size


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
                return self._match(result, witness, self._known)
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

    def are_values_wrong(self, error: IntegrityError) -> bool:
        """Tell whether it is values in which a file differs, and not only its structure."""
        if self.record.skeleton is None:
            return True
        return any(one["reason"] == "values" for one in error.details.get("objects", []))

    def values_of(self, result: Path) -> dict[str, str]:
        """Digest what a recall needs of a recomputed file: its bulk data, object by object.

        Returns
        -------
        dict of str to str
            Digest of the elements of each object that the skeleton leaves out, by its path; of a
            file without a skeleton, that of its bytes by the file's own path.
        """
        skeleton = load_skeleton(self.store, self.record)
        if skeleton is None:
            return {self.record.entry.path: digest_file(result).sha256}
        try:
            objects = content_digest(result).objects
        except InvalidInputError:
            return {self.record.entry.path: digest_file(result).sha256}
        wanted = [dataset.path for dataset in skeleton.datasets]
        return {path: (objects[path].data or "") if path in objects else "" for path in wanted}

    def refuse_varying(
        self, before: Mapping[str, str], result: Path, error: IntegrityError
    ) -> None:
        """Refuse a recipe whose second run gave other values than its first.

        Parameters
        ----------
        before : Mapping of str to str
            `values_of` the first run's file.
        error : IntegrityError
            What was wrong with it anyway.

        Raises
        ------
        IntegrityError
            Kind ``not-repeatable``; ``details['varying']`` names the objects, and
            ``details['compared']`` is of how many.
        """
        now = self.values_of(result)
        names = sorted({*before, *now})
        varying = [name for name in names if before.get(name) != now.get(name)]
        if not varying:
            return
        more = f" and {len(varying) - 3:,} more" if len(varying) > 3 else ""
        named = ", ".join(map(display_name, varying[:3])) + more
        raise IntegrityError(
            f"unreproducible: {len(varying):,} of {len(names):,} objects vary between runs "
            f"({named}). The recipe {self.derivation.recipe!r} gave other values in two runs in "
            "one environment, so a recall could not be held to anything; make it repeatable "
            f"(seeds, threads, order). {error.message}",
            kind="not-repeatable",
            details={**error.details, "varying": varying, "compared": len(names)},
        ) from error

    def match_again(self, result: Path, residual: Residual, before: Mapping[str, str]) -> Matched:
        """Match the file of a second run with the help of the residual of the first.

        Parameters
        ----------
        before : Mapping of str to str
            `values_of` the first run's file.

        Raises
        ------
        IntegrityError
            Kind ``not-repeatable`` if the second run gave other values than the first.
        """
        # What is compared with the original now says how far the second run is off it.
        with Witness(self.original, 0.0, self.scratch) as witness:
            try:
                return self._match(result, witness, lambda: residual)
            except IntegrityError as error:
                self.refuse_varying(before, result, error)
                raise

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

    def confirm(
        self, matched: Matched, again: Matched, result: Path, before: Mapping[str, str]
    ) -> None:
        """Make sure that a second run gave the same: a recall has to give what was proved.

        Parameters
        ----------
        result : Path
            Of the second run.
        before : Mapping of str to str
            `values_of` the first run's file.

        Raises
        ------
        IntegrityError
            Kind ``not-repeatable``.
        """
        if again.content != matched.content:
            error = IntegrityError("Both are within the tolerance.")
            self.refuse_varying(before, result, error)
            raise IntegrityError(
                f"the recipe {self.derivation.recipe!r} gave another content in two runs in one "
                "environment; make it repeatable (seeds, threads, order).",
                kind="not-repeatable",
            )

    def _match(
        self, result: Path, witness: Witness, residual: Callable[[], Residual | None]
    ) -> Matched:
        return match_output(
            self.store,
            self.record,
            result,
            self.scratch,
            self.progress,
            residual=residual,
            witness=witness,
            python=self.python,
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
