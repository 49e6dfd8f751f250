"""``recall prove``."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from recallfs.cli.batch import jobs_option
from recallfs.cli.completion import complete_address
from recallfs.cli.output import byte_bar, console, count_files, print_json, print_table, say, warn
from recallfs.cli.proving import hide_option, level_option
from recallfs.cli.rows import spyglass_option, with_rows
from recallfs.digest.tally import Tolerance
from recallfs.errors import InvalidInputError
from recallfs.release.proving import Campaign, Terms, Tried, campaign
from recallfs.resolve.selection import select
from recallfs.resolve.stores import stores_in_reach
from recallfs.resolve.wish import Wish
from recallfs.values import Level, display_name, format_size, parse_size

_SKIPPED = {
    "there": "proved already",
    "expected": "expected failure",
    "unbound": "no recipe on record",
}


@click.command(name="prove")
@click.argument("selection", shell_complete=complete_address, nargs=-1)
@spyglass_option
@click.option("--largest-first", is_flag=True, help="Begin with the largest files.")
@click.option("--until", metavar="SIZE", help="Stop once files of so many bytes are proved.")
@click.option(
    "--scratch",
    type=click.Path(path_type=Path),
    help="Folder that recipes write to, such as one on a fast disk; by default the store's own.",
)
@jobs_option
@click.option(
    "--env",
    "environment",
    metavar="ID",
    help="Prove in this environment: one on record, or the path of one or of an interpreter.",
)
@click.option("--again", is_flag=True, help="Prove anew what is proved already.")
@click.option("--retry-xfail", is_flag=True, help="Try what failed as the configuration expects.")
@hide_option
@click.option(
    "--max-residual",
    type=float,
    help="Largest residual, as a part of the data that it makes right (0.2 is 20%); 0 for none.",
)
@level_option
@click.option("--rtol", type=float, default=0.0, help="For --level tolerance, relative.")
@click.option("--atol", type=float, default=0.0, help="For --level tolerance, absolute.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(  # noqa: PLR0917 - each is an option
    selection: tuple[str, ...],
    restriction: str | None,
    largest_first: bool,
    until: str | None,
    scratch: Path | None,
    jobs: int,
    environment: str | None,
    again: bool,
    retry_xfail: bool,
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

    What has a valid proof of the present recipe is passed over, so the same command goes on after
    an interrupt. What fails beside other runs (`--jobs`) is tried once more alone. Failures are
    kept for `recall show`; those that `[[expected_failures]]` names are not tried again before
    recipe or environment change.

    Where values come out with a few other bits, the recipe is run a second time. If both runs
    agree, the difference to the original is kept as a residual, and the file is exact again.

    Where the bytes cannot be had, `--level content` is content with equal objects and values laid
    out anew, `--level tolerance` with numbers that are near enough and the same in two runs. The
    file comes back at the level at which it was proved.

    Example: recall prove recall://analysis --largest-first --until 1TB --scratch /fast --jobs 4
    """
    if not selection and restriction is None:
        raise click.UsageError("Say what to prove: files, or --spyglass RESTRICTION.")
    check_numbers(max_residual, rtol, atol)
    if (rtol or atol) and level != Level.TOLERANCE.value:
        raise InvalidInputError("--rtol and --atol are for --level tolerance; give that too.")
    terms = Terms(
        hiding=hiding,
        max_residual=max_residual,
        level=None if level is None else Level(level),
        tolerance=Tolerance(atol, rtol),
        environment=environment,
        scratch=scratch,
        jobs=jobs,
        until_bytes=None if until is None else parse_size(until),
        largest_first=largest_first,
        again=again,
        retry_expected=retry_xfail,
    )
    stores = stores_in_reach()
    found = select(stores, with_rows(stores, selection, restriction))

    def tell(item: Tried) -> None:
        # Now, and not at the end: that may be tomorrow.
        if item.error is not None and len(found) > 1 and not as_json:
            line = display_name(f"error: {item.error}")
            console(error=True).print(line, markup=False, soft_wrap=True)

    with byte_bar("proving", sum(e.size_bytes for _, e in found), quiet=as_json) as progress:
        done = campaign(stores, found, terms, Wish(progress=progress), told=tell)
    failed = [item.error for item in done.tried if item.error is not None]
    for error in (*failed, done.stopped):
        if len(found) == 1 and error is not None:
            raise error
    if as_json:
        print_json(_document(done))
    else:
        _print(done, terms)
    if done.stopped is not None:
        if as_json:
            return done.stopped.exit_code
        raise done.stopped
    return 1 if failed else 0


def check_numbers(max_residual: float | None, rtol: float, atol: float) -> None:
    """Refuse what click's own ranges let pass, which take 'nan' for a number within them."""
    if max_residual is not None and not 0 <= max_residual <= 1:
        raise InvalidInputError(
            f"--max-residual cannot be {max_residual}; write a fraction from 0 to 1, such as 0.2."
        )
    if not (0 <= rtol < math.inf and 0 <= atol < math.inf):
        raise InvalidInputError(f"--rtol {rtol} --atol {atol}: write numbers such as 1e-9.")


def _document(done: Campaign) -> dict[str, Any]:
    return {
        "proved": [
            {
                "url": item.url,
                "proof": item.proved.proof.id,
                "level": item.proved.proof.level.value,
                "method": item.proved.proof.method,
                "seconds": item.proved.proof.seconds,
                "valid_until": item.proved.proof.valid_until,
                "size_bytes": item.proved.size_bytes,
                "kept_bytes": item.proved.kept_bytes,
                "residual_bytes": item.proved.residual_bytes,
                "frees_bytes": item.proved.frees_bytes,
                "note": item.reason,
            }
            for item in done.tried
            if item.proved is not None
        ],
        "failed": [
            {"url": item.url, **item.error.to_json()}
            for item in done.tried
            if item.error is not None
        ],
        "skipped": [
            {
                "url": item.url,
                "size_bytes": item.entry.size_bytes,
                "status": _SKIPPED[item.status],
                "reason": item.reason,
            }
            for item in done.tried
            if item.status in _SKIPPED
        ],
        "left": {
            "files": len(done.left),
            "size_bytes": sum(entry.size_bytes for _, entry in done.left),
        },
        "stopped": done.stopped and done.stopped.to_json(),
    }


def _print(done: Campaign, terms: Terms) -> None:
    rows = [
        [
            item.url,
            format_size(item.proved.size_bytes),
            item.proved.proof.level.value,
            item.proved.proof.method,
            f"{item.proved.proof.seconds:.1f}",
            format_size(item.proved.kept_bytes),
            format_size(item.proved.residual_bytes) if item.proved.residual_bytes else "-",
            format_size(item.proved.frees_bytes),
            item.proved.proof.valid_until[:10],
        ]
        for item in done.tried
        if item.proved is not None
    ]
    columns = (
        "file", "size>", "level", "how", "seconds>", "kept>", "residual>", "frees>", "valid until",
    )  # fmt: skip
    if rows:
        print_table(columns, rows)
    for item in done.tried:
        if item.status == "proved" and item.reason:
            warn(f"{item.url}: {item.reason}")
    expected = Counter(item.reason for item in done.tried if item.status == "expected")
    for reason, count in expected.most_common():
        say(f"{count_files(count)} not tried, expected to fail: {reason} (--retry-xfail tries).")
    say(_sentence(done, terms))


def _sentence(done: Campaign, terms: Terms) -> str:
    words = {
        "there": "proved already",
        "proved": "proved now",
        "expected": "expected to fail",
        "unbound": "without a recipe on record",
        "failed": "failed",
    }
    parts = [_part(word, [i for i in done.tried if i.status == key]) for key, word in words.items()]
    if done.left:
        size = format_size(sum(entry.size_bytes for _, entry in done.left))
        why = "not tried" if terms.until_bytes is None or done.stopped else "left, enough is proved"
        parts.append(f"{count_files(len(done.left))} ({size}) {why}")
    return "; ".join(filter(None, parts)) + "."


def _part(word: str, items: Sequence[Tried]) -> str:
    if not items:
        return ""
    size = format_size(sum(item.entry.size_bytes for item in items))
    return f"{count_files(len(items))} ({size}) {word}"
