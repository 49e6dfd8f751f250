"""``recall status``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click

from recallfs.catalog.store import Store
from recallfs.cli.completion import complete_store
from recallfs.cli.output import bar, count_files, print_json, print_table, say, warn
from recallfs.cli.overview import (
    WORK_COLUMNS,
    cache_use,
    gather,
    label_unverified,
    work_cells,
    work_page,
)
from recallfs.errors import CatalogError, InvalidInputError, RecallError
from recallfs.resolve.stores import Stores, stores_in_reach
from recallfs.values import format_size

_STATES = ("resident", "released", "missing", "dirty", "conflict", "lost")
_AGES = {
    "week": "in the last week",
    "month": "in the last month",
    "quarter": "in the last 3 months",
    "year": "in the last year",
    "older": "longer ago",
}


@click.command(name="status")
@click.argument("names", metavar="[STORE...]", shell_complete=complete_store, nargs=-1)
@click.option(
    "--by",
    metavar="recipe|parameter:NAME",
    help="Show instead what each recipe, or each value of a parameter, made and cost.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(names: tuple[str, ...], by: str | None, as_json: bool) -> int:
    """Show what the stores hold, what is released, what could be, and what recalls cost lately.

    With `--by recipe` files, bytes and costs are told by the recipe that made them; with
    `--by parameter:freq_max` by recipe and the value of that parameter.

    A store that cannot be opened is told as such, and the others are shown; the exit code is 1.

    Example: recall status analysis
    """
    parameter = _parameter(by)
    stores = stores_in_reach()
    for name in names:
        stores.root_of(name)  # a name that is not configured is an error of its own
    chosen = names or stores.names()
    if not chosen:
        raise InvalidInputError(
            "no store is configured; `recall init DIR --name NAME` makes one.",
            kind="unknown-store",
        )
    if by is not None:
        pages = [_page(stores, name, lambda store: work_page(store, parameter)) for name in chosen]
        if as_json:
            print_json({"by": by, "stores": pages})
        else:
            for page in pages:
                _print_work(page, parameter)
        return 1 if any("error" in page for page in pages) else 0
    settings = stores.config.release
    pages = [_page(stores, name, lambda store: gather(store, settings)) for name in chosen]
    cache = cache_use(stores.config.cache)
    if as_json:
        print_json({"stores": pages, "cache": cache})
    else:
        for page in pages:
            _print(page)
        _print_cache(cache)
    return 1 if any("error" in page for page in pages) else 0


def _parameter(by: str | None) -> str | None:
    if by in (None, "recipe"):
        return None
    kind, _, parameter = str(by).partition(":")
    if kind != "parameter" or not parameter:
        raise InvalidInputError(f"--by cannot be {by!r}; write recipe or parameter:NAME.")
    return parameter


def _page(stores: Stores, name: str, gathered: Callable[[Store], dict[str, Any]]) -> dict[str, Any]:
    try:
        return gathered(stores.by_name(name))
    except RecallError as error:
        failure = error
    except OSError as error:
        failure = CatalogError(f"{error.filename or ''}: {error.strerror or error}.")
    return {"name": name, "root": str(stores.root_of(name)), "error": failure.to_json()}


def _print(page: Mapping[str, Any]) -> None:
    say(f"{page['name']}  {page['root']}", style="bold")
    if "error" in page:
        say(f"  cannot be shown: {page['error']['message']}", style="red")
        say("  `recall doctor` says more.")
        say("")
        return
    _print_states(page)
    _print_space(page)
    _print_recipes(page["recipes"])
    _print_ages(page)
    _print_lately(page)
    for line in page["warnings"]:
        warn(line)
    say("")


def _print_work(page: Mapping[str, Any], parameter: str | None) -> None:
    say(f"{page['name']}  {page['root']}", style="bold")
    if "error" in page:
        say(f"  cannot be shown: {page['error']['message']}", style="red")
        return
    rows = [
        [item["recipe"], *([] if parameter is None else [item["value"]]), *work_cells(item)]
        for item in page["work"]
    ]
    if rows:
        columns = ["recipe", *([] if parameter is None else [parameter]), *WORK_COLUMNS]
        print_table(columns, rows)
    elif parameter is None:
        say("  No recipe made any of its files.")
    else:
        say(f"  No recipe that has a parameter {parameter} made any of its files.")
    unknown = sum(item["unknown_costs"] for item in page["work"])
    if unknown:
        say(f"  Processor time is not known of {unknown:,} runs, such as those of adopted files.")
    say("")


def _print_cache(cache: Mapping[str, Any]) -> None:
    """Print a line for each cache that has anything in it."""
    for name, part in cache.items():
        if part is not None and part["files"]:
            say(
                f"{name} cache: {_shown(part)} of {format_size(part['limit_bytes'])}, "
                f"{part['folder']}"
            )
    for line in label_unverified(cache):
        say(line)


def _print_states(page: Mapping[str, Any]) -> None:
    states = page["states"]
    total = sum(item["size_bytes"] for item in states.values())
    rows = [
        [
            state,
            f"{states[state]['files']:,}",
            format_size(states[state]["size_bytes"]),
            bar(states[state]["size_bytes"], total),
        ]
        for state in _STATES
        if state in states
    ]
    count = sum(item["files"] for item in states.values())
    rows.append(["all", f"{count:,}", format_size(total), ""])
    print_table(["state", "files>", "size>", ""], rows)


def _print_space(page: Mapping[str, Any]) -> None:
    trash, kept = page["in_trash"], page["kept"]
    waiting = _shown(trash) if trash["files"] else "empty"
    if trash["due"]["files"]:
        waiting += f"; {_shown(trash['due'])} due: `recall release --purge`"
    elif trash["next_purge"]:
        waiting += f"; the next is due on {trash['next_purge'][:10]}"
    about = "about " if kept["is_estimate"] else ""
    parts = ("sidecars", "skeletons", "residuals")
    vault = sum(kept[f"vault_{part}_bytes"] for part in parts)
    rows = [
        ["can be released now", f"{_shown(page['releasable'])} (proved, not pinned)"],
        ["after proving", f"{_shown(page['derived_and_unproved'])} (made by recipes)"],
        *(
            [["could not be proved", f"{count_files(failed)}; `recall show` says why"]]
            if (failed := page["proofs_failed"])
            else []
        ),
        ["in the trash", waiting],
        [
            "kept for recalls",
            f"{about}{format_size(kept['skeletons_bytes'])} of skeletons, "
            f"{format_size(kept['residuals_bytes'])} of residuals, "
            f"{format_size(kept['sidecars_bytes'])} of sidecars; {format_size(vault)} in the vault",
        ],
        [
            "disk",
            f"{format_size(page['disk']['free_bytes'])} free of "
            f"{format_size(page['disk']['size_bytes'])}",
        ],
    ]
    say("")
    print_table(["space", ""], rows)


def _print_recipes(recipes: Mapping[str, Mapping[str, Mapping[str, int]]]) -> None:
    if not set(recipes) - {""}:
        return
    rows = []
    total = max(sum(item["size_bytes"] for item in states.values()) for states in recipes.values())
    for name, states in sorted(recipes.items(), key=lambda pair: -_size(pair[1])):
        here = states.get("resident", {"files": 0, "size_bytes": 0})
        gone = states.get("released", {"files": 0, "size_bytes": 0})
        rows.append(
            [
                name or "(no recipe)",
                f"{here['files']:,}",
                format_size(here["size_bytes"]),
                f"{gone['files']:,}",
                format_size(gone["size_bytes"]),
                bar(_size(states), total),
            ]
        )
    columns = ["made by", "resident>", "size>", "released>", "size>", ""]
    say("")
    print_table(columns, rows)


def _print_ages(page: Mapping[str, Any]) -> None:
    ages = page["last_used"]
    total = sum(item["size_bytes"] for item in ages.values())
    if not total:
        return
    rows = [
        [
            _AGES[age],
            f"{item['files']:,}",
            format_size(item["size_bytes"]),
            bar(item["size_bytes"], total),
        ]
        for age, item in ages.items()
        if item["files"]
    ]
    say("")
    print_table(["resident files, last used", "files>", "size>", ""], rows)
    if page["largest_idle"]:
        idle = [[format_size(item["size_bytes"]), item["url"]] for item in page["largest_idle"]]
        say("")
        print_table(["size>", "largest that recipes made, unused for 30 days"], idle)


def _print_lately(page: Mapping[str, Any]) -> None:
    recalls: Sequence[Mapping[str, Any]] = page["recalls_lately"]
    if recalls:
        rows = [
            [
                item["source"],
                f"{item['files']:,}",
                format_size(item["size_bytes"]),
                f"{item['seconds']:.1f} s",
                f"{item['seconds'] / item['files']:.1f} s",
            ]
            for item in recalls
        ]
        columns = ["recalled in 7 days from", "files>", "size>", "waited>", "each>"]
        say("")
        print_table(columns, rows)
    for failure in page["failures_lately"]:
        say(f"{failure['at'][:16]} {failure['what']}: {failure['message']}", style="red")


def _shown(amount: Mapping[str, int]) -> str:
    return f"{count_files(amount['files'])}, {format_size(amount['size_bytes'])}"


def _size(states: Mapping[str, Mapping[str, int]]) -> int:
    return sum(item["size_bytes"] for item in states.values())
