"""Finding recipes: in configured modules and in the entry points of installed packages.

Code is loaded from these two only, never from a record. What cannot be loaded does not disable the
rest: it warns, and it is named when a recipe is not found.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import os
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from recallfs.errors import InvalidInputError
from recallfs.recipes.model import Recipe, recipe_of

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

ENTRY_POINT_GROUP = "recallfs.recipes"
"""Group under which packages register a module of recipes, or one recipe."""

_warned: set[str] = set()


def load_recipes(modules: Sequence[str] = (), paths: Sequence[Path] = ()) -> Mapping[str, Recipe]:
    """Load all recipes that are registered.

    Parameters
    ----------
    modules : sequence of str
        Importable names of modules, from the configuration.
    paths : sequence of Path
        Folders in which these are looked for first; put at the head of `sys.path`.

    Returns
    -------
    Mapping of str to Recipe
        By name, sorted.

    Raises
    ------
    InvalidInputError
        Kind ``invalid-config`` if two recipes have one name.

    Warns
    -----
    RuntimeWarning
        Once for each module or entry point that cannot be loaded.
    """
    found: dict[str, Recipe] = {}
    broken: dict[str, str] = {}
    for recipe in _configured(modules, paths, broken):
        _add(found, recipe)
    for module, problem in broken.items():
        _warn(f"the module {module} of the configuration cannot be used: {problem}")
    for entry_point in _entry_points():
        for recipe in _load_entry_point(entry_point, broken):
            _add(found, recipe)
    return dict(sorted(found.items()))


def find_recipe(name: str, modules: Sequence[str] = (), paths: Sequence[Path] = ()) -> Recipe:
    """Load one recipe by name, and no more packages than it takes.

    Parameters
    ----------
    name : str
        Of the recipe.
    modules, paths
        As for `load_recipes`.

    Returns
    -------
    Recipe
        From the configured modules if it is there, else from the entry points, of which those
        named like the recipe come first.

    Raises
    ------
    InvalidInputError
        Kind ``unknown-recipe`` with the nearest names, and with the modules and entry points that
        could not be loaded; kind ``invalid-config`` if that is so of a configured module, or as for
        `load_recipes`.
    """
    found: dict[str, Recipe] = {}
    broken: dict[str, str] = {}
    for recipe in _configured(modules, paths, broken):
        _add(found, recipe)
    is_misconfigured = bool(broken)
    if name not in found:
        # A stable sort: of entry points that may both hold it, the first installed one is asked.
        for entry_point in sorted(_entry_points(), key=lambda e: not _may_hold(e.name, name)):
            for recipe in _load_entry_point(entry_point, broken):
                _add(found, recipe)
            if name in found:
                break
    if name in found:
        return found[name]
    raise _unknown(name, list(found), broken, is_misconfigured)


def broken_modules(modules: Sequence[str], paths: Sequence[Path] = ()) -> dict[str, str]:
    """Return why each of the configured modules that cannot be loaded cannot."""
    broken: dict[str, str] = {}
    for _ in _configured(modules, paths, broken):
        pass
    return broken


def _may_hold(entry_point: str, recipe: str) -> bool:
    return recipe == entry_point or recipe.startswith(
        tuple(f"{entry_point}{separator}" for separator in "._-")
    )


def _unknown(
    name: str, known: list[str], broken: Mapping[str, str], is_misconfigured: bool
) -> InvalidInputError:
    import difflib

    nearest = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    if nearest:
        hint = f"did you mean {' or '.join(map(repr, nearest))}?"
    else:
        hint = "list what there is with 'recallfs recipes', or add its module to the configuration."
    message = f"no recipe is registered as {name!r}; {hint}"
    if broken:
        problems = "; ".join(f"{entry}: {problem}" for entry, problem in broken.items())
        message += f" These could not be loaded, and may hold it: {problems}."
    return InvalidInputError(
        message,
        kind="invalid-config" if is_misconfigured else "unknown-recipe",
        details={"recipe": name, "nearest": nearest, "known": known, "broken": dict(broken)},
    )


def _add(found: dict[str, Recipe], recipe: Recipe) -> None:
    other = found.setdefault(recipe.name, recipe)
    if other is not recipe:
        raise InvalidInputError(
            f"two recipes are named {recipe.name!r}: {_place(other)} and {_place(recipe)}; "
            "rename one.",
            kind="invalid-config",
            details={"recipe": recipe.name, "places": [_place(other), _place(recipe)]},
        )


def _place(recipe: Recipe) -> str:
    return f"{recipe.function.__module__}:{recipe.function.__qualname__}"


def _recipes_in(module: ModuleType) -> Iterator[Recipe]:
    seen: set[int] = set()
    for value in list(vars(module).values()):
        recipe = recipe_of(value)
        if recipe is not None and id(recipe) not in seen:
            seen.add(id(recipe))
            yield recipe


def _configured(
    modules: Sequence[str], paths: Sequence[Path], broken: dict[str, str]
) -> Iterator[Recipe]:
    """Iterate over the recipes of configured modules; note in `broken` what cannot be loaded."""
    folders = [os.fspath(Path(path).absolute()) for path in paths]
    for folder in reversed(folders):
        if folder not in sys.path:
            sys.path.insert(0, folder)
    for name in modules:
        try:
            module = _import(name, folders)
        except InvalidInputError as error:
            broken[name] = error.message
            continue
        yield from _recipes_in(module)


def _import(name: str, folders: Sequence[str]) -> ModuleType:
    if not all(part.isidentifier() for part in name.split(".")):
        raise InvalidInputError(f"{name!r} is not the name of a module.", kind="invalid-config")
    try:
        importlib.invalidate_caches()  # the module may be younger than Python's view of its folder
        module = importlib.import_module(name)
    except Exception as error:  # an import runs foreign code, which may raise anything
        raise InvalidInputError(
            f"the module {name!r} with recipes cannot be imported: {_summary(error)}.",
            kind="invalid-config",
            details={"module": name, "problem": _summary(error)},
        ) from error
    _check_origin(name, folders)
    return module


def _check_origin(name: str, folders: Sequence[str]) -> None:
    """Refuse a module of the same name that was loaded from elsewhere before."""
    top = name.partition(".")[0]
    spec = importlib.machinery.PathFinder.find_spec(top, list(folders))
    loaded = getattr(sys.modules.get(top), "__file__", None)
    if spec is None or spec.origin is None or loaded is None:
        return
    if Path(loaded).resolve() != Path(spec.origin).resolve():
        raise InvalidInputError(
            f"two modules are named {top!r}: {spec.origin} and {loaded}, which was loaded first; "
            "rename one.",
            kind="invalid-config",
            details={"module": top, "places": [spec.origin, loaded]},
        )


def _entry_points() -> list[EntryPoint]:
    from importlib.metadata import entry_points

    return list(entry_points(group=ENTRY_POINT_GROUP))


def _load_entry_point(entry_point: EntryPoint, broken: dict[str, str]) -> list[Recipe]:
    """Return the recipes of an entry point; if it cannot be loaded, note that in `broken`."""
    shown = f"{entry_point.name} = {entry_point.value}"
    try:
        value = entry_point.load()
        recipe = recipe_of(value)
        if recipe is not None:
            return [recipe]
        if isinstance(value, ModuleType):
            return list(_recipes_in(value))
        problem = "it is neither a module nor a recipe"
    except Exception as error:  # noqa: BLE001 - foreign code; one broken package must not stop all
        problem = _summary(error)
    broken[shown] = problem
    _warn(f"the entry point {shown} in group {ENTRY_POINT_GROUP} cannot be loaded: {problem}")
    return []


def _warn(message: str) -> None:
    if message not in _warned:
        _warned.add(message)
        warnings.warn(message, RuntimeWarning, stacklevel=4)


def _summary(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
