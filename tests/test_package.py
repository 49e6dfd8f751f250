"""The package as a whole: cheap to import, nothing patched, entry points that work."""

from __future__ import annotations

import ast
import importlib.metadata
import subprocess
import sys
from pathlib import Path

import recallfs

SOURCES = Path(recallfs.__file__).parent
HEAVY = ("h5py", "numpy", "pynwb", "hdmf", "sqlalchemy", "fsspec", "dask", "dandi", "rich")


def test_import_loads_nothing_heavy_and_patches_nothing() -> None:
    """Importing recallfs loads none of the large packages."""
    code = f"import sys, recallfs; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_public_names_are_there() -> None:
    """Each name in ``__all__`` can be had, and unknown ones are an AttributeError."""
    for name in recallfs.__all__:
        assert getattr(recallfs, name) is not None
    assert not hasattr(recallfs, "no_such_name")


def test_entry_points_load() -> None:
    """Both programs, the filesystem, the path class and the demonstration's recipes load."""
    own = list(importlib.metadata.distribution("recallfs").entry_points)
    names = {(entry.group, entry.name) for entry in own}
    assert {
        ("console_scripts", "recall"),
        ("console_scripts", "recallfs"),
        ("fsspec.specs", "recall"),
        ("universal_pathlib.implementations", "recall"),
        ("recallfs.recipes", "demo"),
        ("recallfs.recipes", "spyglass"),
    } <= names
    for entry in own:
        assert entry.load() is not None


def test_version_is_the_same_wherever_it_is_written() -> None:
    """What is installed, the module and the citation have one version."""
    citation = (Path(__file__).parent.parent / "CITATION.cff").read_text()
    assert importlib.metadata.version("recallfs") == recallfs.__version__
    assert f"\nversion: {recallfs.__version__}\n" in citation


def test_every_test_says_what_it_proves() -> None:
    """Each test of ours has a docstring."""
    silent = []
    for path in Path(__file__).parent.rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.FunctionDef)
                and node.name.startswith("test_")
                and not ast.get_docstring(node)
            ):
                silent.append(f"{path.name}:{node.lineno} {node.name}")
    assert silent == []


def test_only_the_catalog_speaks_sql() -> None:
    """No module but the catalog's, and the suite that tests it, imports SQLAlchemy or sqlite3.

    What sources answered lately is in a file of its own, which is no catalog: it may be lost.
    """
    speakers = [
        str(path.relative_to(SOURCES))
        for path in SOURCES.rglob("*.py")
        if any(word in path.read_text() for word in ("import sqlalchemy", "import sqlite3"))
    ]
    assert {Path(name).parts[0] for name in speakers} == {"catalog", "testing", "sources"}
    assert [name for name in speakers if name.startswith("sources")] == ["sources/memory.py"]
    assert sorted(name for name in speakers if name.startswith("testing")) == [
        "testing/catalog.py",
        "testing/overviews.py",
    ]


def test_nothing_unpickles_or_evaluates_data() -> None:
    """Neither pickle, eval, exec nor a shell is used on anything."""
    for path in SOURCES.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                name = getattr(node.func, "id", "")
                assert name not in ("eval", "exec"), path
                assert not any(keyword.arg == "shell" for keyword in node.keywords), path
            if isinstance(node, ast.Import):
                assert not {"pickle", "marshal", "shelve"} & {a.name for a in node.names}, path
