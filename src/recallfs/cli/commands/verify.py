"""``recall verify``."""

from __future__ import annotations

import os

import click

from recallfs.cli.completion import complete_address
from recallfs.cli.output import byte_bar, count_files, print_json, print_table, say
from recallfs.doctor.verification import Mismatch, verify_all
from recallfs.resolve.selection import select
from recallfs.resolve.stores import stores_in_reach
from recallfs.values import State, format_size


@click.command(name="verify")
@click.argument("selection", shell_complete=complete_address, nargs=-1)
@click.option("--deep", is_flag=True, help="Read and hash every byte.")
@click.option(
    "--jobs",
    type=click.IntRange(1, 64),
    default=min(4, os.cpu_count() or 1),
    show_default="CPUs, 4 at most",
    help="Files to read at once.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(selection: tuple[str, ...], deep: bool, jobs: int, as_json: bool) -> int:
    """Check files and records against their digests; without a selection, all stores.

    The quick way compares each file's identity (inode, size, times) with the one last seen, hashes
    files where it differs, and checks the digests of sidecars and of their copies in the vault.
    `--deep` hashes the bytes of all files, of the trash, skeletons, environments and the vault's
    copies of them: it finds a flipped bit anywhere. Nothing is changed; `recall doctor --fix`
    mends what can be. Exit code 1 if anything is not as recorded.

    Example: recall verify recall://analysis --deep
    """
    stores = stores_in_reach()
    found = select(stores, selection) if selection else []
    if not selection:
        for store in stores.all():
            found += [(store, entry) for entry in store.catalog.entries_below("")]
    total = sum(e.size_bytes for _, e in found if e.state is not State.RELEASED)
    mismatches: list[Mismatch] = []
    read = 0
    with byte_bar("verifying", total if deep else 0, quiet=as_json) as progress:
        told = progress if deep else None
        for verified in verify_all(found, deep=deep, jobs=jobs, progress=told):
            mismatches += verified.mismatches
            read += verified.read_bytes
    if as_json:
        print_json(
            {
                "entries": len(found),
                "read_bytes": read,
                "deep": deep,
                "mismatches": [item.to_json() for item in mismatches],
            }
        )
        return 1 if mismatches else 0
    if mismatches:
        rows = [[m.url, m.part, m.place, m.expected, m.actual] for m in mismatches]
        print_table(["file", "part", "place", "expected", "actual"], rows)
    what = f"{count_files(len(found))}, {format_size(read)} read"
    problems = "1 mismatch" if len(mismatches) == 1 else f"{len(mismatches):,} mismatches"
    say(f"{what}: {problems if mismatches else 'all as recorded'}.")
    if mismatches:
        say("`recall doctor` says what each means; `recall doctor --fix` mends what can be.")
    return 1 if mismatches else 0
