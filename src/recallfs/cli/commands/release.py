"""``recall release``."""

from __future__ import annotations

import dataclasses
import sys
from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import click

from recallfs.catalog.database import Place
from recallfs.catalog.evidence import Listed
from recallfs.catalog.store import Store
from recallfs.cli.batch import print_failures
from recallfs.cli.completion import complete_address
from recallfs.cli.output import byte_bar, count_files, print_json, print_table, say, warn
from recallfs.cli.rows import spyglass_option, with_rows
from recallfs.config import Floor
from recallfs.config.fields import fraction
from recallfs.errors import ConflictError, InvalidInputError, RecallError
from recallfs.release.assessment import Assessed, assess_all, collecting_nothing
from recallfs.release.plan import ReleasePlan, check_again, draw_up, read_plan, write_plan
from recallfs.release.policies import files_of, only_needed, wanted_by
from recallfs.release.policy import Decision, Wanted
from recallfs.release.release import (
    Released,
    purge_days,
    purge_expired,
    release,
    totals,
    vault_warning,
)
from recallfs.release.snapshots import snapshot_warning
from recallfs.resolve.selection import select_listed, select_places
from recallfs.resolve.stores import Stores, stores_in_reach
from recallfs.values import Entry, after, format_size, now_utc, parse_size, parse_span

_WAYS_OUT = {
    "unproved": "`recall prove` makes proofs; copies by digest on other disks do as well.",
    "dirty": "`recall add` accepts the files as they are now.",
    "pinned": "`recall unpin` ends a pin.",
    "relied-on": "--allow-chain releases files that rest on one another.",
    "skeleton-too-large": "--max-skeleton raises the limit.",
    "hard-linked": "Remove the other names first.",
    "unknown-recipe": "`recall recipes` lists what is found; add its module to [recipes].",
    "environment-mismatch": "`recall env restore` builds it again.",
}
"""What can be done about each kind of refusal, said once below the table."""

_SUPPORT = {
    "pinned": "here, pinned",
    "held": "here, held while they are released",
    "proof": "released or about to be, proved",
    "copies": "released or about to be, copied",
}
"""Why something that files rest on can be relied on."""

_SHOWN = 20
_ALL_SHOWN = 1000
"""Of more files only some are shown: nobody reads a table that takes longer than the plan."""

_LONGEST = timedelta(days=365_000)
"""Longer ago than any file is old; and there are dates so long ago."""

_Chosen = list[Assessed]


@click.command(name="release")
@click.argument("selection", shell_complete=complete_address, nargs=-1)
@spyglass_option
@click.option("--dry-run", is_flag=True, help="Only show what would be released.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--older-than", help="Only files unused for so long, for example 7d.")
@click.option("--min-size", help="Only files of at least this size, for example 1GB.")
@click.option("--hold", help="How long to keep the trash, for example 14d; 0s frees at once.")
@click.option(
    "--max-skeleton", metavar="FRACTION", help="Largest part of a file to keep, as 0.05 or 5%."
)
@click.option("--allow-chain", is_flag=True, help="Release files that rest on released ones too.")
@click.option(
    "--idle",
    is_flag=False,
    flag_value="",
    metavar="[SPAN]",
    help="Only files that were released once, came back, and are unused since then for so long; "
    "by default as release.idle says. Without a selection: of all stores.",
)
@click.option(
    "--policy",
    "policy_name",
    metavar="NAME",
    help="Files that this policy of the configuration names, or those of the selection among them.",
)
@click.option("--purge", "only_purge", is_flag=True, help="Only empty the trash of what is due.")
@click.option(
    "--plan-out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Release nothing; write what would be to this file, for somebody to approve.",
)
@click.option(
    "--apply",
    "approved",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Release what such a file says, each file checked again, and nothing else.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    *,
    selection: tuple[str, ...],
    restriction: str | None,
    dry_run: bool,
    yes: bool,
    older_than: str | None,
    min_size: str | None,
    hold: str | None,
    max_skeleton: str | None,
    allow_chain: bool,
    idle: str | None,
    policy_name: str | None,
    only_purge: bool,
    plan_out: Path | None,
    approved: Path | None,
    as_json: bool,
) -> int:
    """Drop the local bytes of files that are proved to come back; their entries stay.

    The exit code is 1 if a file was refused, or could not be released. With --policy a refusal
    does not count: a policy takes what is fit, and leaves the rest for another day.

    Example: recall release recall://analysis --older-than 30d --min-size 1GB --dry-run
    """
    stores = stores_in_reach()
    if only_purge:
        return _purge(stores, as_json)
    if approved is not None:
        said = (
            restriction, older_than, min_size, hold, max_skeleton, idle, plan_out, policy_name
        )  # fmt: skip
        if selection or dry_run or allow_chain or any(given is not None for given in said):
            raise click.UsageError("--apply does what the plan says; give it alone, or with --yes.")
        return _apply(stores, approved, yes=yes, as_json=as_json)
    selection = with_rows(stores, selection, restriction)
    filters = _Filters(older_than, min_size, hold, max_skeleton, allow_chain, idle, policy_name)
    # Of a hundred thousand files nothing is let go before the plan is there.
    with collecting_nothing():
        wanted, found, keep_free = _sought(stores, selection, filters)
        assessment = assess_all(stores, found, wanted)
    chosen = assessment.files
    if keep_free is not None:
        chosen = only_needed(chosen, keep_free)
    fit = [item for item in chosen if item[2].verdict == "release"]
    # A policy takes what is fit, night for night; that other files are not is no failure of it.
    refused = not policy_name and any(d.verdict == "refuse" for *_, d in chosen)
    warnings = _warnings(fit)
    hold_for = stores.config.release.hold if wanted.hold is None else wanted.hold
    if not as_json:
        _print_plan(chosen, hold_for)
        for line in warnings:
            warn(line)
    results: list[Released] = []
    failed: list[RecallError] = []
    if plan_out is not None:
        plan = draw_up(stores, fit, wanted, warnings=warnings, known=assessment.evidence)
        write_plan(plan, plan_out)
        if not as_json:
            _print_ground(plan)
            say(f"The plan is in {plan_out}; `recall release --apply {plan_out}` carries it out.")
    elif fit and not dry_run:
        if not yes:
            _ask(len(fit))
        results, failed = _release(stores, fit, wanted, quiet=as_json)
    if as_json:
        print_json(_document(chosen, results, failed, warnings))
    elif not dry_run and plan_out is None:
        _print_results(fit, results, failed)
    return 1 if refused or failed else 0


class _Filters(NamedTuple):
    """What the command line says of which files."""

    older_than: str | None
    min_size: str | None
    hold: str | None
    max_skeleton: str | None
    allow_chain: bool
    idle: str | None
    policy: str | None


def _sought(
    stores: Stores, selection: Sequence[str], filters: _Filters
) -> tuple[Wanted, Sequence[tuple[Store, Entry | Place | Listed]], Floor | None]:
    """Return what is asked for, the files, and how much of their disks is to be free."""
    span = None if filters.idle is None else _idle(stores, filters.idle)
    if not selection and span is None and filters.policy is None:
        raise click.UsageError("say what to release, or use --policy or --purge.")
    wanted = Wanted(
        older_than=parse_span(filters.older_than) if filters.older_than else None,
        min_size_bytes=parse_size(filters.min_size) if filters.min_size else 0,
        hold=parse_span(filters.hold) if filters.hold else None,
        max_skeleton=None if filters.max_skeleton is None else _largest_part(filters.max_skeleton),
        allow_chain=filters.allow_chain,
        idle=span,
    )
    if filters.policy is None:
        if span is not None:
            return wanted, _came_back(stores, selection, span), None
        return wanted, select_listed(stores, selection), None
    if filters.older_than or filters.min_size or span is not None:
        raise click.UsageError(
            "--policy says which files; give no --older-than, --min-size or --idle."
        )
    policy = stores.config.release.named_policy(filters.policy)
    return wanted_by(policy, wanted), files_of(stores, policy, selection), policy.keep_free


def _largest_part(given: str) -> float:
    """Read which part of a file may be kept."""
    try:
        return fraction(given)
    except ValueError:
        raise InvalidInputError(
            f"--max-skeleton cannot be {given}; write a fraction such as 0.05 or 5%, up to 1."
        ) from None


def _warnings(fit: _Chosen) -> list[str]:
    """Say what makes less of the release than it seems: of each store and file system once."""
    stores = {store.id: store for store, *_ in fit}.values()
    said = [line for store in stores for line in (vault_warning(store), snapshot_warning(store))]
    return list(dict.fromkeys(filter(None, said)))


def _apply(stores: Stores, path: Path, *, yes: bool, as_json: bool) -> int:
    """Carry out an approved plan."""
    plan = read_plan(path)
    checked = list(check_again(stores, plan))
    fit: _Chosen = [item for item in checked if not isinstance(item, RecallError)]
    stale: list[RecallError] = [item for item in checked if isinstance(item, RecallError)]
    warnings = _warnings(fit)
    if not as_json:
        _print_plan(fit, timedelta(seconds=plan.hold_s or 0))
        _print_ground(plan)
        for line in warnings:
            warn(line)
        say(f"Drawn up by {plan.made_by} on {plan.made_at[:16]}.")
    results: list[Released] = []
    failed: list[RecallError] = []
    if fit:
        if not yes:
            _ask(len(fit))
        results, failed = _release(stores, fit, plan.wanted, quiet=as_json)
    if as_json:
        print_json(_document(fit, results, [*stale, *failed], warnings))
    else:
        _print_results(fit, results, [*stale, *failed])
    return 1 if stale or failed else 0


def _idle(stores: Stores, given: str) -> timedelta:
    """Read for how long files must be unused."""
    span = stores.config.release.idle
    if given:
        try:
            span = parse_span(given)
        except InvalidInputError as error:
            raise InvalidInputError(
                f"--idle: {error.message} `--idle` alone comes after the selection."
            ) from error
    if span is None or span <= timedelta(0):
        raise InvalidInputError(
            "--idle needs a length of time above 0: write --idle=14d, or set `idle` in [release] "
            "of the configuration."
        )
    return min(span, _LONGEST)


def _came_back(
    stores: Stores, selection: Sequence[str], span: timedelta
) -> list[tuple[Store, Entry]]:
    """Return the files that came back after a release and are idle, as far as the catalog knows."""
    since = datetime.now(timezone.utc) - span
    chosen = select_places(stores, selection)
    wanted = {entry.id for _, entry in chosen}
    found = []
    among = {store.id: store for store, _ in chosen} if selection else {}
    for store in among.values() if selection else stores.all():
        paths = [path for path, _ in store.catalog.came_back(unused_since=since)]
        entries = store.catalog.entries_at(paths)
        found += [
            (store, entries[path])
            for path in paths
            if path in entries and (not selection or entries[path].id in wanted)
        ]
    return found


def _ask(count: int) -> None:
    if not sys.stdin.isatty():
        raise click.UsageError("nobody is there to ask; add --yes (or --dry-run).")
    click.confirm(f"Release {count_files(count)}?", abort=True)


def _release(
    stores: Stores, fit: _Chosen, wanted: Wanted, *, quiet: bool
) -> tuple[list[Released], list[RecallError]]:
    results: list[Released] = []
    failed: list[RecallError] = []
    total = sum(entry.size_bytes for _, entry, _ in fit)
    with byte_bar("releasing", total, quiet=quiet) as progress:
        for store, file, decision in fit:
            try:
                entry = _present(store, file, decision)
                results.append(release(stores, store, entry, decision, wanted, progress=progress))
            except RecallError as error:  # a plan is gone through to its end
                failed.append(error)
    for store in {store.id: store for store, *_ in fit}.values():
        failed += [
            what for _, what in purge_expired(store, stores) if isinstance(what, RecallError)
        ]
    return results, failed


def _present(store: Store, file: Entry | Listed, decision: Decision) -> Entry:
    """Return the entry of a file that was decided on."""
    if isinstance(file, Entry):
        return file
    entry = store.catalog.entry_at(file.path)
    if entry is None or entry.id != file.id:
        raise ConflictError(f"{decision.url} is no longer the file that was looked at.")
    return entry


def _purge(stores: Stores, as_json: bool) -> int:
    freed, failed = 0, []
    for store in list(stores.all()):
        for _, what in purge_expired(store, stores):
            if isinstance(what, RecallError):
                failed.append(what)
            else:
                freed += what
    if as_json:
        print_json({"freed_bytes": freed, "failed": [error.to_json() for error in failed]})
    else:
        say(f"Freed {format_size(freed)}.")
        print_failures(failed)
    return 1 if failed else 0


def _print_plan(chosen: _Chosen, hold: timedelta) -> None:
    shown = chosen if len(chosen) <= _ALL_SHOWN else _some(chosen)
    print_table(
        ["file", "size>", "frees>", "", "why", "back in>"],
        [
            [
                decision.url,
                format_size(entry.size_bytes),
                format_size(decision.frees_bytes) if decision.verdict == "release" else "-",
                decision.verdict,
                decision.reason,
                "-" if decision.expected_s is None else f"{decision.expected_s:.1f} s",
            ]
            for _, entry, decision in shown
        ],
    )
    if len(shown) < len(chosen):
        say(f"… and {len(chosen) - len(shown):,} more; --json lists all of them.")
    fit = [decision for *_, decision in chosen if decision.verdict == "release"]
    frees = format_size(sum(decision.frees_bytes for decision in fit))
    say(f"{len(fit):,} of {count_files(len(chosen))} can be released, {frees} net.")
    if fit and hold > timedelta(0):
        say(f"Freed now: 0 B; on {after(now_utc(), hold)[:10]}: {frees}.")
    refused = Counter(decision.kind for *_, decision in chosen if decision.verdict == "refuse")
    for kind, count in refused.most_common():
        say(f"Refused as {kind}: {count_files(count)}. {_WAYS_OUT.get(kind, '')}".rstrip())


def _some(chosen: _Chosen) -> _Chosen:
    """Return some files of each verdict: first those that stay although they were asked for."""
    verdicts = ("refuse", "skip", "release")
    return [
        item
        for verdict in verdicts
        for item in islice((item for item in chosen if item[2].verdict == verdict), _SHOWN)
    ]


def _print_ground(plan: ReleasePlan) -> None:
    """Say what the files of a plan rest on, and what they all cost to get back."""
    if plan.ground:
        print_table(
            ["rests on", "files>", "which is"],
            [[item.url, f"{item.files:,}", _SUPPORT[item.how]] for item in plan.ground[:_SHOWN]],
        )
        if len(plan.ground) > _SHOWN:
            say(f"… and on {len(plan.ground) - _SHOWN:,} more, which the plan names.")
    totals = plan.totals
    say(
        f"All of them back, one after the other: {_time(totals['expected_s'])}; with all that they "
        f"rest on, {_time(totals['worst_s'])} at worst, {totals['depth']} deep."
    )


def _time(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 120 else f"{seconds / 60:,.0f} min"


def _print_results(fit: _Chosen, results: list[Released], failed: list[RecallError]) -> None:
    _, waiting = totals(results)
    # Less what is kept of each file, as the plan above has it.
    frees = {decision.url: decision.frees_bytes for *_, decision in fit}
    net = [
        dataclasses.replace(
            item,
            size_bytes=frees[item.url],
            freed_bytes=frees[item.url] if item.freed_bytes else 0,
        )
        for item in results
    ]
    freed, _ = totals(net)
    days = "".join(f"; on {day}: {format_size(size)}" for day, size in purge_days(net))
    say(f"Released {count_files(len(results))}. Freed now: {format_size(freed)}{days}.")
    if waiting:
        say(
            f"{format_size(waiting)} are in the trash until then. `recall undo` puts them back; "
            "`recall release --purge` frees what is due."
        )
    if any(not item.inode_watched for item in results):
        warn(
            "for some files the system cannot tell whether they are open elsewhere; they stay in "
            "the trash for the configured grace."
        )
    print_failures(failed)


def _document(
    chosen: _Chosen, results: list[Released], failed: list[RecallError], warnings: list[str]
) -> dict[str, Any]:
    freed, waiting = totals(results)
    return {
        "decisions": [decision._asdict() for *_, decision in chosen],
        "released": [dataclasses.asdict(item) for item in results],
        "failed": [error.to_json() for error in failed],
        "freed_bytes": freed,
        "in_trash_bytes": waiting,
        "frees_later": [{"on": day, "size_bytes": size} for day, size in purge_days(results)],
        "warnings": warnings,
    }
