"""``recall prove``."""

from __future__ import annotations

import math

import click

from recallfs.cli.batch import for_each, print_failures
from recallfs.cli.completion import complete_address
from recallfs.cli.output import byte_bar, print_json, print_table
from recallfs.digest.difference import Tolerance
from recallfs.errors import InvalidInputError
from recallfs.release.proof import HIDING, prove
from recallfs.release.runs import Runs, by_derivation
from recallfs.resolve.recall import Wish
from recallfs.resolve.selection import select
from recallfs.resolve.stores import stores_in_reach
from recallfs.values import Level, format_size


@click.command(name="prove")
@click.argument("selection", shell_complete=complete_address, nargs=-1, required=True)
@click.option(
    "--hide",
    "hiding",
    type=click.Choice(HIDING),
    default="namespace",
    show_default=True,
    help="How the original is put out of the recipe's sight.",
)
@click.option(
    "--max-residual",
    type=float,
    help="Largest residual, as a part of the data that it makes right (0.2 is 20%); 0 for none.",
)
@click.option(
    "--level",
    type=click.Choice([level.value for level in Level]),
    help="Lowest level to be content with; by default as the store's settings say, else exact.",
)
@click.option("--rtol", type=float, default=0.0, help="For --level tolerance, relative.")
@click.option("--atol", type=float, default=0.0, help="For --level tolerance, absolute.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(  # noqa: PLR0917 - each is an option
    selection: tuple[str, ...],
    hiding: str,
    max_residual: float | None,
    level: str | None,
    rtol: float,
    atol: float,
    as_json: bool,
) -> int:
    """Run recipes again with the originals out of their sight, and compare byte for byte.

    By default store, vault and local mirrors are covered by empty folders that only the recipe's
    process sees. Where the kernel forbids that, `--hide aside` renames the original away while the
    recipe runs: reading through recallfs waits that long, other programs miss the file.
    Files that one run gives, such as those of a folder, are proved by one run, except with aside.

    Where values come out with a few other bits, the recipe is run a second time. If both runs
    agree, the difference to the original is kept as a residual, and the file is exact again.

    Where the bytes cannot be had, `--level content` is content with equal objects and values laid
    out anew, `--level tolerance` with numbers that are near enough and the same in two runs. The
    file comes back at the level at which it was proved.

    Example: recall prove 'recall://analysis/sub-1/*_lfp.nwb'
    """
    # Not click's own range, which takes 'nan' for a number within it.
    if max_residual is not None and not 0 <= max_residual <= 1:
        raise InvalidInputError(
            f"--max-residual cannot be {max_residual}; write a fraction from 0 to 1, such as 0.2."
        )
    if not (0 <= rtol < math.inf and 0 <= atol < math.inf):
        raise InvalidInputError(f"--rtol {rtol} --atol {atol}: write numbers such as 1e-9.")
    if (rtol or atol) and level != Level.TOLERANCE.value:
        raise InvalidInputError("--rtol and --atol are for --level tolerance; give that too.")
    stores = stores_in_reach()
    found = select(stores, selection)
    with byte_bar("proving", sum(e.size_bytes for _, e in found), quiet=as_json) as progress:
        wish = Wish(progress=progress)
        with Runs() as runs:
            proved, failed = for_each(
                by_derivation(found),
                lambda store, entry: prove(
                    stores,
                    store,
                    entry,
                    wish,
                    hiding=hiding,
                    max_residual=max_residual,
                    runs=runs,
                    level=None if level is None else Level(level),
                    tolerance=Tolerance(atol, rtol),
                ),
            )
    if as_json:
        rows = [
            {
                "url": item.url,
                "proof": item.proof.id,
                "level": item.proof.level.value,
                "method": item.proof.method,
                "seconds": item.proof.seconds,
                "valid_until": item.proof.valid_until,
                "size_bytes": item.size_bytes,
                "kept_bytes": item.kept_bytes,
                "residual_bytes": item.residual_bytes,
                "frees_bytes": item.frees_bytes,
            }
            for item in proved
        ]
        print_json({"proved": rows, "failed": [error.to_json() for error in failed]})
        return 1 if failed else 0
    print_table(
        [
            "file",
            "size>",
            "level",
            "how",
            "seconds>",
            "kept>",
            "residual>",
            "frees>",
            "valid until",
        ],
        [
            [
                item.url,
                format_size(item.size_bytes),
                item.proof.level.value,
                item.proof.method,
                f"{item.proof.seconds:.1f}",
                format_size(item.kept_bytes),
                format_size(item.residual_bytes) if item.residual_bytes else "-",
                format_size(item.frees_bytes),
                item.proof.valid_until[:10],
            ]
            for item in proved
        ],
    )
    print_failures(failed)
    return 1 if failed else 0
