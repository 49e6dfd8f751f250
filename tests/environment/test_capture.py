"""What is told of an environment, and what its id rests on."""

from __future__ import annotations

import importlib.metadata
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from recallfs.environment.capture import capture_environment, environment_id

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty folder that is the whole of `sys.path`."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.setattr(sys, "path", [str(folder), str(tmp_path / "missing")])
    return folder


def _install(site: Path, name: str, direct_url: Any = None) -> None:
    info = site / name
    info.mkdir()
    if direct_url is not None:
        (info / "direct_url.json").write_text(
            direct_url if isinstance(direct_url, str) else json.dumps(direct_url)
        )


def test_agrees_with_importlib_metadata() -> None:
    """Reading folder names gives the versions that the metadata files have."""
    packages = capture_environment()["packages"]
    for name in ("numpy", "h5py", "sqlalchemy", "recallfs", "pytest-timeout"):
        assert packages[name] == importlib.metadata.version(name)


def test_is_json_and_names_the_interpreter() -> None:
    """The description can be recorded, and holds the versions of what is loaded."""
    import h5py
    import numpy as np

    told = capture_environment()
    assert json.loads(json.dumps(told)) == told
    assert told["executable"] == sys.executable
    assert told["python"].startswith(f"{sys.version_info.major}.{sys.version_info.minor}")
    assert told["hdf5"] == h5py.version.hdf5_version
    assert told["numpy"] == np.__version__
    assert told["cpu"]


def test_forms_of_installed_packages(site: Path) -> None:
    """Wheels, old eggs and development eggs are all read, names in their one form."""
    _install(site, "Ruamel_Yaml.Clib-0.2.8.dist-info")
    _install(site, "PyYAML-6.0-py3.11.egg-info")
    (site / "old_style-1.2.egg-info").write_text("a file, as distutils wrote it")
    _install(site, "devel.egg-info")
    (site / "devel.egg-info" / "PKG-INFO").write_text("Name: devel\nVersion: 3.4.dev0\n")
    (site / "not_a_package").mkdir()
    assert capture_environment()["packages"] == {
        "devel": "3.4.dev0",
        "old-style": "1.2",
        "pyyaml": "6.0",
        "ruamel-yaml-clib": "0.2.8",
    }


def test_direct_installs_are_flagged_without_passwords(site: Path, tmp_path: Path) -> None:
    """Where a package came from is told; what a URL held of a password is not."""
    _install(
        site,
        "fromgit-1.0.dist-info",
        {
            "url": "https://me:secret@example.org/a.git",
            "vcs_info": {"vcs": "git", "commit_id": COMMIT},
        },
    )
    _install(site, "broken-1.0.dist-info", "not json")
    direct = capture_environment()["direct"]
    assert direct == {
        "fromgit": {"url": "https://example.org/a.git", "editable": False, "commit": COMMIT}
    }


@pytest.mark.parametrize("form", ["detached", "loose", "packed"])
def test_editable_install_tells_its_commit(site: Path, tmp_path: Path, form: str) -> None:
    """The code revision of a work tree is read in each form that Git keeps it in."""
    tree = tmp_path / "my code"
    git = tree / ".git"
    (git / "refs" / "heads").mkdir(parents=True)
    (git / "HEAD").write_text(f"{COMMIT}\n" if form == "detached" else "ref: refs/heads/main\n")
    if form == "loose":
        (git / "refs" / "heads" / "main").write_text(f"{COMMIT}\n")
    if form == "packed":
        (git / "packed-refs").write_text(f"# pack-refs\n{COMMIT} refs/heads/main\n")
    (tree / "sub").mkdir()
    url = (tree / "sub").as_uri()
    _install(site, "mine-0.1.dist-info", {"url": url, "dir_info": {"editable": True}})
    assert capture_environment()["direct"]["mine"]["commit"] == COMMIT
    assert capture_environment()["direct"]["mine"]["editable"] is True


def test_id_rests_on_what_can_change_a_result() -> None:
    """Packages, threads and commits change the id; places on this computer do not."""
    told = capture_environment()
    told["direct"] = {"mine": {"url": "file:///a", "editable": True, "commit": COMMIT}}
    same = json.loads(json.dumps(told))
    same["executable"] = "/elsewhere/python"
    same["direct"]["mine"]["url"] = "file:///b"
    assert environment_id(same) == environment_id(told)
    for field, value in (
        ("packages", {**told["packages"], "numpy": "0.1"}),
        ("threads", {"OMP_NUM_THREADS": "99"}),
        ("cpu", "another"),
        ("direct", {"mine": {"url": "file:///a", "editable": True, "commit": None}}),
    ):
        assert environment_id({**told, field: value}) != environment_id(told)
