"""``recall revoke``."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime, timezone

import click

from recallfs.catalog.history import PROOF_SCHEMES
from recallfs.catalog.store import Store
from recallfs.cli.completion import complete_address
from recallfs.cli.output import print_json, print_table, say, told_warnings
from recallfs.errors import InvalidInputError
from recallfs.release.revocation import Revoked, check_recipe, named_environments, revoke
from recallfs.resolve.selection import select
from recallfs.resolve.stores import Stores, stores_in_reach
from recallfs.values import Level


@click.command(name="revoke")
@click.argument("selection", shell_complete=complete_address, nargs=-1)
@click.option("--recipe", default="", help="Only proofs of this recipe.")
@click.option("--environment", default="", help="Only proofs in it: label or the start of an id.")
@click.option(
    "--level",
    type=click.Choice([level.value for level in Level]),
    help="Only proofs of this level.",
)
@click.option(
    "--scheme",
    type=click.Choice(PROOF_SCHEMES),
    help="Only proofs that rest on this digest or format.",
)
@click.option("--before", help="Only proofs made before this date (2026-05-01, or with a time).")
@click.option("--why", required=True, help="Kept with the revocation.")
@click.option("--dry-run", is_flag=True, help="Say what would be revoked.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(  # noqa: PLR0917 - each is an option
    selection: tuple[str, ...],
    recipe: str,
    environment: str,
    level: str | None,
    scheme: str | None,
    before: str | None,
    why: str,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Let proofs count no more: of a recipe that turned out wrong, of an environment, of files.

    `--scheme` is for a version of a format that turned out wrong: `sha256` and `h5c1` (what exact
    and lower levels were compared by), `rsk1` and `rsd1` (skeletons and residuals they need).

    Files that are released stay so, and may still come back; `recall status` counts those that
    nothing vouches for any more.

    Example: recall revoke --recipe lfp --before 2026-05-01 --why "wrong filter edge"
    """
    if not (selection or recipe or environment or level or scheme or before):
        raise InvalidInputError(
            "say which proofs: files, --recipe, --environment, --level, --scheme or --before."
        )
    if not why.strip():
        raise InvalidInputError("--why is empty; say why the proofs no longer count.")
    stores = stores_in_reach()
    moment = "" if before is None else _moment(before)
    found: list[tuple[Store, str, list[str]]] = []
    concerned = list(_stores(stores, selection))
    within = [store for store, _ in concerned]
    if recipe:
        check_recipe(within, recipe)
    environments = named_environments(within, environment) if environment else {}
    for store, chosen in concerned:
        if environment and store.id not in environments:
            continue
        proofs: dict[str, list[str]] = defaultdict(list)
        listed = store.catalog.proofs(
            recipe=recipe,
            environment=environments.get(store.id, ""),
            level=level or "",
            scheme=scheme or "",
            before=moment,
        )
        for entry_id, proof_id in listed:
            if chosen is None or entry_id in chosen:
                proofs[entry_id].append(proof_id)
        found += [(store, entry_id, ids) for entry_id, ids in proofs.items()]
    if dry_run:
        done = [
            Revoked(store.url(entry.path), entry.state, tuple(ids), False)
            for store, entry_id, ids in found
            if (entry := store.catalog.entry(entry_id)) is not None
        ]
    else:
        with told_warnings():
            revoked = [revoke(store, entry_id, ids, why) for store, entry_id, ids in found]
        done = [item for item in revoked if item is not None]
    if as_json:
        rows = [{**vars(item), "state": item.state.value} for item in done]
        print_json({"revoked": rows, "why": why, "dry_run": dry_run})
        return
    print_table(
        ["file", "state", "proofs>", *([] if dry_run else ["still proved"])],
        [
            [
                item.url,
                item.state.value,
                str(len(item.proofs)),
                *([] if dry_run else ["yes" if item.is_proved else "no"]),
            ]
            for item in done
        ],
    )
    count = sum(len(item.proofs) for item in done)
    verb = "would be" if dry_run else "were"
    say(f"{count} proofs of {len(done)} files {verb} revoked.")


def _stores(
    stores: Stores, selection: tuple[str, ...]
) -> Iterator[tuple[Store, frozenset[str] | None]]:
    """Iterate over the stores concerned, with the entries that were selected; None for all."""
    if not selection:
        for name in stores.names():
            yield stores.by_name(name), None
        return
    chosen: dict[str, tuple[Store, set[str]]] = {}
    for store, entry in select(stores, selection):
        chosen.setdefault(store.id, (store, set()))[1].add(entry.id)
    for store, entries in chosen.values():
        yield store, frozenset(entries)


def _moment(text: str) -> str:
    """Read a date or a moment; without a zone it is local time."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidInputError(
            f"--before {text!r} is no date; write 2026-05-01 or 2026-05-01T12:00."
        ) from None
    return moment.astimezone(timezone.utc).isoformat(timespec="microseconds")
