"""Finding recipes in configured modules and in entry points."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from recallfs.errors import InvalidInputError
from recallfs.recipes.registry import broken_modules, find_recipe, load_recipes

HEAD = "from recallfs.recipes.model import recipe\n"
DEFINITION = """
@recipe(name={name!r}, version="1")
def {function}(inputs, output):
    pass
"""


@pytest.fixture(autouse=True)
def clean_imports(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Give back `sys.path` and `sys.modules` as they were, and warn each test anew."""
    monkeypatch.setattr("recallfs.recipes.registry._warned", set())
    path, modules = list(sys.path), set(sys.modules)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        del sys.modules[name]


@pytest.fixture
def write_module(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes a module with recipes of the given names."""

    def write(module: str, *recipes: str, folder: str = "code", tail: str = "") -> Path:
        place = tmp_path / folder
        place.mkdir(exist_ok=True)
        body = "".join(
            DEFINITION.format(name=name, function=name.replace(".", "_")) for name in recipes
        )
        (place / f"{module}.py").write_text(HEAD + body + tail)
        return place

    return write


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Return a function that installs a package with the given entry points."""

    def add(package: str, entry_points: str) -> None:
        site = tmp_path / f"site-{package}"
        info = site / f"{package}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[recallfs.recipes]\n{entry_points}\n")
        monkeypatch.syspath_prepend(str(site))

    return add


def _load(**given: object) -> set[str]:
    """Load all recipes, whatever other installed packages bring."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return set(load_recipes(**given))  # type: ignore[arg-type] # passed on as it is


def test_configured_module_is_loaded_from_its_folder(write_module: Callable[..., Path]) -> None:
    """Recipes of a configured module are found, re-exported ones once."""
    folder = write_module("registry_a", "one", "two", tail="alias = one\n")
    assert {"one", "two"} <= _load(modules=["registry_a"], paths=[folder])
    assert find_recipe("two", ["registry_a"], [folder]).function.__name__ == "two"


def test_two_of_one_name_are_refused(write_module: Callable[..., Path]) -> None:
    """An ambiguous name is an error that tells where both are."""
    folder = write_module("registry_b", "same")
    write_module("registry_c", "same")
    with pytest.raises(InvalidInputError, match=r"registry_b:same and registry_c:same"):
        load_recipes(["registry_b", "registry_c"], [folder])


def test_module_of_the_same_name_elsewhere_is_refused(write_module: Callable[..., Path]) -> None:
    """Two stores may each have a 'recipes.py'; the first one is not taken for the second."""
    first = write_module("registry_d", "one")
    second = write_module("registry_d", "one", folder="other")
    find_recipe("one", ["registry_d"], [first])
    with pytest.raises(InvalidInputError, match="two modules"):
        find_recipe("one", ["registry_d"], [second])


@pytest.mark.parametrize(
    ("name", "tail"),
    [("registry_e", "raise KeyError('boom')\n"), ("registry_e", "import no_such_module_at_all\n")],
)
def test_broken_configured_module_disables_only_itself(
    write_module: Callable[..., Path], name: str, tail: str
) -> None:
    """Other recipes load; who asks for one that is not found is told what could not be loaded."""
    folder = write_module(name, tail=tail)
    write_module("registry_good", "fine")
    modules = [name, "registry_good"]
    with pytest.warns(RuntimeWarning, match=r"registry_e.*(boom|no_such_module)"):
        assert "fine" in load_recipes(modules, [folder])
    assert find_recipe("fine", modules, [folder]).name == "fine"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        with pytest.raises(InvalidInputError, match=r"registry_e.*(boom|no_such)") as caught:
            find_recipe("absent", modules, [folder])
    assert caught.value.kind == "invalid-config"
    assert set(broken_modules(modules, [folder])) == {name}


@pytest.mark.parametrize("name", ["no_such_module_at_all", "../up", "os; print()", ""])
def test_what_is_no_module_is_an_error(name: str) -> None:
    """A missing or malformed module name is an error in the configuration."""
    with pytest.raises(InvalidInputError) as caught:
        find_recipe("x", [name])
    assert caught.value.kind == "invalid-config"


def test_unknown_recipe_suggests_the_nearest(write_module: Callable[..., Path]) -> None:
    """A misspelt recipe is refused with names that are near."""
    folder = write_module("registry_f", "bandpass", "downsample")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        with pytest.raises(InvalidInputError, match="did you mean 'bandpass'") as caught:
            find_recipe("bandpas", ["registry_f"], [folder])
    assert caught.value.kind == "unknown-recipe"
    assert caught.value.details["nearest"][0] == "bandpass"


def test_entry_points_name_modules_and_recipes(
    write_module: Callable[..., Path],
    install: Callable[[str, str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An entry point is a module of recipes or a single one."""
    monkeypatch.syspath_prepend(str(write_module("registry_g", "one", "two")))
    write_module("registry_h", "three", "four")
    install("package_a", "all = registry_g\nthree = registry_h:three")
    names = _load()
    assert {"one", "two", "three"} <= names
    assert "four" not in names


def test_only_what_is_needed_is_loaded(
    write_module: Callable[..., Path],
    install: Callable[[str, str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Packages whose entry point is named otherwise are not imported for one recipe."""
    monkeypatch.syspath_prepend(str(write_module("registry_i", "lab.one")))
    write_module("registry_j", "two")
    install("package_b", "aaa = registry_j\nlab = registry_i")
    find_recipe("lab.one")
    assert "registry_i" in sys.modules
    assert "registry_j" not in sys.modules


def test_broken_entry_point_warns_once_and_is_named_when_it_matters(
    write_module: Callable[..., Path],
    install: Callable[[str, str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another package's fault stops nothing but the search for what it may hold."""
    monkeypatch.syspath_prepend(str(write_module("registry_k", tail="raise OSError('rotten')\n")))
    write_module("registry_l", "sound")
    install("package_c", "bad = registry_k\nnumber = registry_k_missing\ngood = registry_l")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert "sound" in load_recipes()
        assert "sound" in load_recipes()
    told = [str(warning.message) for warning in caught if "rotten" in str(warning.message)]
    assert len(told) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        with pytest.raises(InvalidInputError, match="rotten") as error:
            find_recipe("bad.one")
    assert error.value.kind == "unknown-recipe"
