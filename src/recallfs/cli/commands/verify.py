"""``recall verify``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import click

from recallfs.catalog import records
from recallfs.catalog.store import Store
from recallfs.cli.completion import complete_address
from recallfs.cli.output import byte_bar, count_files, print_json, print_table, say
from recallfs.doctor.verification import Mismatch, verify_all, verify_parts
from recallfs.release.copies import Checked, newest, recheck
from recallfs.resolve.selection import select
from recallfs.resolve.stores import Stores, stores_in_reach
from recallfs.values import Entry, State, format_size


@click.command(name="verify")
@click.argument("selection", shell_complete=complete_address, nargs=-1)
@click.option("--deep", is_flag=True, help="Read and hash every byte.")
@click.option(
    "--remote", is_flag=True, help="Read every copy on record again, too, wherever it is."
)
@click.option(
    "--jobs",
    type=click.IntRange(1, 64),
    default=min(4, os.cpu_count() or 1),
    show_default="CPUs, 4 at most",
    help="Files to read at once.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(selection: tuple[str, ...], deep: bool, remote: bool, jobs: int, as_json: bool) -> int:
    """Check files and records against their digests; without a selection, all stores.

    The quick way compares each file's identity (inode, size, times) with the one last seen, hashes
    files where it differs, and checks the digests of sidecars and of their copies in the vault.
    `--deep` hashes the bytes of all files, of the trash, skeletons, environments and the vault's
    copies of them, and what your cache has of files that are read in parts: it finds a flipped bit
    anywhere. `--remote` reads the copies in mirrors and
    archives again, in full, and records when each was found right. Nothing else is changed;
    `recall doctor --fix` mends what can be. Exit code 1 if anything is not as recorded.

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
    if deep:
        for store, entry in found:
            if entry.state is State.RELEASED:
                mismatches += verify_parts(stores, store, entry)
    copies = _recheck(stores, found, jobs, quiet=as_json) if remote else []
    amiss = [item for item in copies if item.verdict != "right"]
    code = 1 if mismatches or amiss else 0
    if as_json:
        print_json(
            {
                "entries": len(found),
                "read_bytes": read,
                "deep": deep,
                "mismatches": [item.to_json() for item in mismatches],
                "copies": [item.to_json() for item in copies],
            }
        )
        return code
    if mismatches:
        rows = [[m.url, m.part, m.place, m.expected, m.actual] for m in mismatches]
        print_table(["file", "part", "place", "expected", "actual"], rows)
    what = f"{count_files(len(found))}, {format_size(read)} read"
    problems = "1 mismatch" if len(mismatches) == 1 else f"{len(mismatches):,} mismatches"
    say(f"{what}: {problems if mismatches else 'all as recorded'}.")
    if mismatches:
        say("`recall doctor` says what each means; `recall doctor --fix` mends what can be.")
    if remote:
        _say_copies(copies, amiss)
    return code


def _recheck(
    stores: Stores, found: Sequence[tuple[Store, Entry]], jobs: int, *, quiet: bool
) -> list[Checked]:
    """Read the copies of all files again, several at a time."""
    known = {entry.id: newest(records.load(store, entry.id).copies) for store, entry in found}
    total = sum(len(known[entry.id]) * entry.size_bytes for _, entry in found)
    copied = [(store, entry) for store, entry in found if known[entry.id]]
    with (
        byte_bar("reading copies", total, quiet=quiet) as progress,
        ThreadPoolExecutor(jobs, thread_name_prefix="recall-verify") as pool,
    ):
        rounds = pool.map(lambda item: recheck(stores, item[0], item[1], progress), copied)
        return [checked for each in rounds for checked in each]


def _say_copies(copies: Sequence[Checked], amiss: Sequence[Checked]) -> None:
    if amiss:
        rows = [
            [c.url, c.source, c.location, c.verdict, c.what, c.verified_at[:19] or "never"]
            for c in amiss
        ]
        columns = ["file", "source", "address", "", "what was found", "last right"]
        print_table(columns, rows, title="\ncopies")
    read = format_size(sum(item.read_bytes for item in copies))
    problems = f"{len(amiss):,} not as recorded" if amiss else "all as recorded"
    count = "1 copy" if len(copies) == 1 else f"{len(copies):,} copies"
    say(f"{count}, {read} read: {problems}.")
