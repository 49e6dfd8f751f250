"""``recall bench``."""

from __future__ import annotations

import dataclasses
import signal
from pathlib import Path

import click

from recallfs.bench.comparison import compare
from recallfs.bench.export import export
from recallfs.bench.machine import describe_machine
from recallfs.bench.report import write_report
from recallfs.bench.results import Results, newest
from recallfs.bench.suite import (
    SELECTIONS,
    absent_peers,
    changes_since,
    find_suite,
    run_suite,
)
from recallfs.bench.table import HEAD, cells, format_ratio, format_seconds, rows_of
from recallfs.cli.output import count_things, print_json, print_table, say, warn
from recallfs.errors import InvalidInputError
from recallfs.values import format_size

_FOLDER = "results"


@click.group(name="bench")
def command() -> None:
    """Measure recallfs beside other ways to read and bring back the same files.

    Works in a checkout, with the extra `bench`: pip install 'recallfs[bench]'.

    Example: recall bench run --selection quick
    """


@command.command(name="run")
@click.option("--bench", "pattern", metavar="REGEX", default="", help="Only these benchmarks.")
@click.option(
    "--selection",
    type=click.Choice(SELECTIONS),
    default="quick",
    show_default=True,
    help="How much: quick takes minutes, large has a catalog of a million entries.",
)
@click.option(
    "--online",
    metavar="URL",
    default="",
    help="Read a file of a real dandiset: API/dandisets/ID/versions/VERSION/assets/ASSET/.",
)
@click.option(
    "--results",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where the figures go; by default benchmarks/results of the checkout.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def run_command(
    pattern: str, selection: str, online: str, folder: Path | None, as_json: bool
) -> int:
    """Measure, and keep every sample in a file of results.

    Says what has changed since the newest results there: the computer, the packages, or what is
    measured.

    Example: recall bench run --bench remote_slicing
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # to end what asv started, too
    suite = find_suite(Path.cwd())
    folder = suite / _FOLDER if folder is None else folder
    for name, remedy in absent_peers(suite).items():
        warn(f"{name} is not here and will not be measured; to have it, {remedy}.")
    before = newest(folder)
    results = run_suite(suite, pattern=pattern, selection=selection, online=online, quiet=as_json)
    changes = changes_since(Results.load(before), results) if before is not None else []
    for change in changes:
        warn(f"not to be compared with {before.name if before else ''} as it stands: {change}.")
    for name in results.failed:
        warn(f"{name} failed; its error is above.")
    place = results.save(folder)
    if as_json:
        print_json(
            {
                "results": str(place),
                "benchmarks": len(results.results),
                "failed": results.failed,
                "absent": results.absent,
                "changes": changes,
            }
        )
    else:
        say(f"{count_things(len(results.results), 'benchmark')} in {place}")
    return 1 if results.failed else 0


@command.command(name="machine")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def machine_command(as_json: bool) -> int:
    """Describe this computer, under a name that says neither the host nor a user.

    Example: recall bench machine --json
    """
    about = describe_machine()
    if as_json:
        print_json(about)
        return 0
    psutil, builds = about["psutil"], about["builds"]
    rows = [
        ["name", about["name"]],
        ["processor", str(about["cpuinfo"].get("brand_raw", about["platform"]["processor"]))],
        ["threads", str(psutil["number_of_threads"])],
        ["memory", format_size(psutil["total_virtual_memory"])],
        ["system", about["platform"]["platform"]],
        ["file systems", ", ".join(disk["fstype"] for disk in psutil["disk_partitions"])],
        ["HDF5", f"{builds['hdf5']} (h5py {builds['h5py']})"],
        ["NumPy", builds["numpy"]],
    ]
    print_table(["machine", ""], rows)
    return 0


@command.command(name="report")
@click.argument("results", type=click.Path(path_type=Path), required=False)
@click.option(
    "--to",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Also write pictures (PNG) and a page (HTML) into this folder.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def report_command(results: Path | None, folder: Path | None, as_json: bool) -> int:
    """Show figures beside recallfs' own; by default the newest results of the checkout.

    Example: recall bench report --to report
    """
    found = _loaded(results)
    written = write_report(found, folder) if folder is not None else []
    rows = rows_of(found)
    if as_json:
        print_json(
            {
                "rows": [
                    {
                        "group": row.group,
                        "case": row.case,
                        "method": row.method,
                        "median_s": row.median_s,
                        "samples": len(row.seconds),
                        "ratio": row.ratio,
                        "tracked": {name: row.figure(name) for name in row.tracked},
                    }
                    for row in rows
                ],
                "files": [str(path) for path in written],
            }
        )
        return 0
    print_table(HEAD, [cells(row) for row in rows])
    for name, remedy in found.absent.items():
        warn(f"{name} was not measured; to have it, {remedy}.")
    for path in written:
        say(str(path))
    return 0


@command.command(name="export")
@click.argument("results", type=click.Path(path_type=Path), required=False)
@click.option(
    "--to",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="Gets the folders results, machines and environments.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def export_command(results: Path | None, folder: Path, as_json: bool) -> int:
    """Write results as nwb_benchmarks of NeurodataWithoutBorders collects them.

    Example: recall bench export --to nwb-benchmarks-results
    """
    written = [str(path) for path in export(_loaded(results), folder)]
    if as_json:
        print_json({"files": written})
        return 0
    for path in written:
        say(path)
    return 0


@command.command(name="compare")
@click.argument("before", type=click.Path(path_type=Path))
@click.argument("after", type=click.Path(path_type=Path))
@click.option(
    "--confidence", type=click.FloatRange(0.5, 0.999), default=0.95, show_default=True,
    help="Of the intervals.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def compare_command(before: Path, after: Path, confidence: float, as_json: bool) -> int:
    """Hold two results against each other, with confidence intervals.

    Example: recall bench compare results/monday.json results/tuesday.json
    """
    old, new = Results.load(before), Results.load(after)
    changes = compare(old, new, confidence=confidence)
    if not changes:
        raise InvalidInputError(
            f"{before} and {after} have timed nothing in common, so there is nothing to compare."
        )
    differences = changes_since(old, new)
    if as_json:
        print_json(
            {
                "changes": [dataclasses.asdict(change) for change in changes],
                "differences": differences,
            }
        )
        return 0
    for difference in differences:
        warn(f"{difference}.")
    print_table(
        ["benchmark", "case", "before>", "after>", "after / before>", "interval>", "verdict"],
        [
            [
                change.benchmark.rpartition(".")[2],
                change.case,
                format_seconds(change.before_s),
                format_seconds(change.after_s),
                format_ratio(change.ratio),
                f"{change.low:.2f} to {change.high:.2f}",
                change.verdict,
            ]
            for change in changes
        ],
    )
    return 0


def _loaded(path: Path | None) -> Results:
    """Load results, by default the newest ones of the checkout."""
    if path is None:
        folder = find_suite(Path.cwd()) / _FOLDER
        path = newest(folder)
        if path is None:
            raise InvalidInputError(f"no results are in {folder}; `recall bench run` makes some.")
    return Results.load(path)
