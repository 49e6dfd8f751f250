"""``recall env``."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import click

from recallfs.catalog import records
from recallfs.catalog.store import Store
from recallfs.cli.output import count_files, print_json, print_table, say
from recallfs.environment import export
from recallfs.environment.compare import compare, flags
from recallfs.environment.interpreter import check_start, find_interpreter, label_of
from recallfs.environment.restore import restore
from recallfs.errors import ConflictError, EnvironmentMismatchError, InvalidInputError
from recallfs.resolve.stores import Stores, stores_in_reach


@dataclass(frozen=True)
class _Kept:
    store: Store
    identifier: str
    content: Mapping[str, Any]
    used_by: tuple[tuple[str, str], ...]

    @property
    def label(self) -> str:
        return label_of(self.identifier, self.content)

    @property
    def released(self) -> list[str]:
        """Addresses of the released files that rest on it."""
        return sorted(self.store.url(path) for path, state in self.used_by if state == "released")


@click.group(name="env")
def command() -> None:
    """Show the environments that recipes ran in, compare them, build them again.

    An environment goes by its label, such as ada_lfp_03, or by the start of its digest.

    Example: recall env list
    """


@command.command(name="list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_command(as_json: bool) -> None:
    """List the environments on record, with the files that were made or proved in each.

    Example: recall env list
    """
    stores = stores_in_reach()
    folder = stores.config.environments.folder
    found = _all(stores)
    if as_json:
        print_json({"environments": [_summary(stores, kept) for kept in found]})
        return
    print_table(
        ["environment", "store", "python", "packages>", "files>", "released>", "here", "remarks"],
        [
            [
                kept.label,
                kept.store.name,
                str(kept.content.get("python", "")),
                str(len(kept.content.get("packages") or {})),
                f"{len(kept.used_by):,}",
                f"{len(kept.released):,}",
                "yes" if find_interpreter(kept.store, kept.identifier, folder) else "no",
                "; ".join(flags(kept.content)),
            ]
            for kept in found
        ],
    )


@command.command(name="show")
@click.argument("name", metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def show_command(name: str, as_json: bool) -> None:
    """Show an environment: interpreter, computer, packages; and start it.

    Example: recall env show ada_lfp_03
    """
    stores = stores_in_reach()
    kept = _find(stores, name)
    problem = ""
    try:
        check_start(kept.store, kept.identifier, stores.config.environments.folder)
    except EnvironmentMismatchError as error:
        problem = error.message
    content = kept.content
    if as_json:
        print_json({**_summary(stores, kept), "content": content, "problem": problem})
        return
    pools = (
        f"{pool.get('internal_api')} {pool.get('version')} ({pool.get('num_threads')} threads)"
        for pool in content.get("pools") or ()
    )
    facts = [
        ("digest", kept.identifier),
        ("python", f"{content.get('python')} ({content.get('executable')})"),
        ("system", f"{content.get('system')} {content.get('machine')} {content.get('libc') or ''}"),
        ("processor", str(content.get("cpu"))),
        ("its features", " ".join(content.get("cpu_features") or ())),
        ("libraries", ", ".join(pools)),
        ("built", json.dumps(content.get("builds") or {})),
        *(content.get("threads") or {}).items(),
        *(content.get("variables") or {}).items(),
        ("not from an index", "; ".join(flags(content))),
        ("files", f"{len(kept.used_by)}, {len(kept.released)} of them released"),
        ("starts", f"no: {problem}" if problem else "yes"),
    ]
    say(kept.label)
    print_table(["", ""], [[key, value] for key, value in facts if value])
    print_table(
        ["package", "version"],
        [[package, version] for package, version in (content.get("packages") or {}).items()],
        title="\npackages",
    )


@command.command(name="diff")
@click.argument("one", metavar="A")
@click.argument("other", metavar="B")
@click.option("--only", metavar="PACKAGES", help="Only these, for example pynwb,numpy.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def diff_command(one: str, other: str, only: str | None, as_json: bool) -> int:
    """Show what differs between two environments. Exit code 1 if anything does.

    Example: recall env diff ada_lfp_03 ada_lfp_04 --only pynwb,numpy
    """
    stores = stores_in_reach()
    first, second = _find(stores, one), _find(stores, other)
    names = [part.strip() for part in (only or "").split(",") if part.strip()]
    found = compare(first.content, second.content, names)
    if as_json:
        print_json(
            {
                "one": {"id": first.identifier, "label": first.label},
                "other": {"id": second.identifier, "label": second.label},
                "differences": [each._asdict() for each in found],
            }
        )
    elif found:
        rows = [[each.what, each.one or "-", each.other or "-"] for each in found]
        print_table(["", first.label, second.label], rows)
    else:
        say("Nothing differs.")
    return 1 if found else 0


@command.command(name="export")
@click.argument("name", metavar="ID")
@click.option(
    "--format",
    "form",
    type=click.Choice(["requirements", "conda"]),
    default="requirements",
    show_default=True,
    help="For pip, or for conda.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def export_command(name: str, form: str, as_json: bool) -> None:
    """Write an environment as a file for pip or conda.

    Example: recall env export ada_lfp_03 --format conda > environment.yml
    """
    kept = _find(stores_in_reach(), name)
    write = export.conda if form == "conda" else export.requirements
    text = write(kept.content)
    if as_json:
        print_json({"id": kept.identifier, "label": kept.label, "format": form, "text": text})
    else:
        click.echo(text, nl=False)


@command.command(name="restore")
@click.argument("name", metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def restore_command(name: str, as_json: bool) -> None:
    """Build an environment again, from the indexes and channels that the configuration allows.

    Recalls then run in it. `[environments] folder` says where it is built. One that was conda's
    needs py-rattler, which `pip install 'recallfs[conda]'` brings.

    Example: recall env restore ada_lfp_03
    """
    stores = stores_in_reach()
    kept = _find(stores, name)
    built = restore(kept.identifier, kept.content, stores.config.environments)
    differences = [each._asdict() for each in built.differences]
    if as_json:
        print_json(
            {
                "id": built.identifier,
                "label": built.label,
                "python": str(built.python),
                "is_new": built.is_new,
                "differences": differences,
            }
        )
        return
    say(f"{built.label} {'was built' if built.is_new else 'is there already'}: {built.python}")
    if built.differences:
        rows = [[each.what, each.one or "-", each.other or "-"] for each in built.differences]
        print_table(["not as recorded", "on record", "here"], rows)


@command.command(name="remove")
@click.argument("name", metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def remove_command(name: str, as_json: bool) -> None:
    """Remove a built environment that no released file rests on; what is on record stays.

    Example: recall env remove ada_lfp_03
    """
    stores = stores_in_reach()
    kept = _find(stores, name)
    same = [each for each in _all(stores) if each.identifier == kept.identifier]
    resting = [url for each in same for url in each.released]
    if resting:
        shown = ", ".join(resting[:3]) + (" …" if len(resting) > 3 else "")
        raise ConflictError(
            f"{count_files(len(resting))} that are released rest on {kept.label} ({shown}); "
            "recall them, or prove them in another environment and release them again, first.",
            kind="relied-on",
            details={"files": resting},
        )
    folder = stores.config.environments.folder
    place = None if folder is None else folder / kept.identifier
    if place is None or not place.is_dir():
        raise InvalidInputError(f"{kept.label} was not built here; nothing was removed.")
    shutil.rmtree(place)
    if as_json:
        print_json({"id": kept.identifier, "label": kept.label, "removed": str(place)})
    else:
        say(f"Removed {place}.")


def _all(stores: Stores) -> list[_Kept]:
    found = []
    for store in stores.all():
        use = store.catalog.environment_use()
        for identifier, content in records.environments(store).items():
            used_by = tuple(use.get(identifier, ()))
            found.append(_Kept(store, identifier, content, used_by))
    return sorted(found, key=lambda kept: (kept.store.name, kept.label))


def _find(stores: Stores, name: str) -> _Kept:
    found = _all(stores)
    named = [kept for kept in found if name in (kept.content.get("label"), kept.identifier)]
    if not named and len(name) >= 4:
        named = [kept for kept in found if kept.identifier.startswith(name)]
    if len({kept.identifier for kept in named}) == 1:
        return named[0]
    if named:
        digests = ", ".join(f"{kept.identifier[:12]} ({kept.store.name})" for kept in named)
        raise InvalidInputError(f"{name!r} names several environments: {digests}; give a digest.")
    raise InvalidInputError(
        f"no environment on record is called {name!r}; `recall env list` names them.",
        details={"known": [kept.label for kept in found]},
    )


def _summary(stores: Stores, kept: _Kept) -> dict[str, Any]:
    python = find_interpreter(kept.store, kept.identifier, stores.config.environments.folder)
    return {
        "id": kept.identifier,
        "label": kept.label,
        "store": kept.store.name,
        "python": str(kept.content.get("python", "")),
        "packages": len(kept.content.get("packages") or {}),
        "files": len(kept.used_by),
        "released": len(kept.released),
        "interpreter": None if python is None else str(python),
        "flags": flags(kept.content),
    }
