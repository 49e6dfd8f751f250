"""Building a recorded environment again, from the package indexes that the configuration allows.

Only on request, never during a recall. Versions are pinned to what is on record, each file is held
against a hash from its index, and nothing but wheels is installed: building a package runs its
code. What was conda's comes from channels, with the hashes on record, and what else was in it from
the indexes. recallfs itself is copied from the one that runs.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recallfs.atomic import rename_without_replacing, said_if_full, write_record
from recallfs.config import EnvironmentSettings
from recallfs.environment import conda
from recallfs.environment.compare import Difference, compare, flags
from recallfs.environment.interpreter import READY, cannot_build, label_of
from recallfs.environment.program import program_path, run_program
from recallfs.errors import ConflictError, InvalidInputError
from recallfs.values import canonical_json, now_utc

_LOCK = "requirements.txt"
_SHOWN = ("--no-config", "--no-progress", "--color", "never", "--no-python-downloads")
_STAGING = ".building-"
_OWN = frozenset({"recallfs", "pip", "setuptools", "wheel", "uv"})
"""Taken from elsewhere, or not needed to run anything."""


@dataclass(frozen=True)
class Built:
    """An environment that was built.

    Parameters
    ----------
    python : Path
        Its interpreter.
    is_new : bool
        False if it was there already.
    differences : tuple of Difference
        What is other than on record: the processor, threads, recallfs itself.
    """

    identifier: str
    label: str
    python: Path
    is_new: bool
    differences: tuple[Difference, ...] = ()


def restore(
    identifier: str, environment: Mapping[str, Any], settings: EnvironmentSettings
) -> Built:
    """Build an environment in the configured folder, unless it is there.

    Raises
    ------
    InvalidInputError
        Kind ``invalid-config``: no folder, no index or no channel is configured. Without a kind of
        its own: it was conda's, and py-rattler is not installed.
    EnvironmentMismatchError
        Kind ``cannot-build``: a package is not to be had, was installed from a folder, the
        interpreter is not on this computer. Nothing is left behind.
    SourceError
        Kind ``no-space``. Nothing is left behind.
    """
    label = label_of(identifier, environment)
    folder = _configured(settings, "channels" if environment.get("conda") else "indexes")
    place = folder / identifier
    if (place / READY).exists():
        return Built(identifier, label, place / "bin" / "python", is_new=False)
    _refuse_impossible(label, environment)
    folder.mkdir(parents=True, exist_ok=True)
    with said_if_full(folder), _staging(folder) as aside:
        # Scripts name the folder that they are in, but modules do not: it is built aside and
        # renamed. Packages of conda are told the place where they will be.
        scripts = _build(aside, place, label, environment, settings)
        differences = _check(aside / "new" / "bin" / "python", label, environment)
        differences += [Difference(f"{name}'s post-link script", "run", None) for name in scripts]
        ready = {"id": identifier, "label": label, "built_at": now_utc()}
        write_record(aside / "new" / READY, canonical_json(ready), mode=0o644)
        (aside / "new").chmod(0o755)  # for all who recall
        try:
            rename_without_replacing(aside / "new", place)
        except ConflictError:  # somebody else built it meanwhile
            return Built(identifier, label, place / "bin" / "python", is_new=False)
    return Built(identifier, label, place / "bin" / "python", True, tuple(differences))


@contextmanager
def _staging(folder: Path) -> Iterator[Path]:
    """Make a folder to build in, that is gone afterwards; remove those of builds that were killed.

    Whoever builds holds a shared lock on the folder of all. So nobody does while one is exclusive.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with contextlib.suppress(OSError):  # somebody builds, or it cannot be locked, as over NFS
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for left in folder.glob(f"{_STAGING}*"):
                shutil.rmtree(left, ignore_errors=True)
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_SH)
        aside = Path(tempfile.mkdtemp(prefix=_STAGING, dir=folder))
        try:
            yield aside
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    finally:
        os.close(descriptor)


def _configured(settings: EnvironmentSettings, sources: str) -> Path:
    """Return the folder to build in, if it and what to build from are configured."""
    if settings.folder is None or not getattr(settings, sources):
        missing = "folder" if settings.folder is None else sources
        named = "conda channels" if sources == "channels" else "package indexes"
        raise InvalidInputError(
            f"environments.{missing} is not configured; an administrator says there where "
            f"environments are built and which {named} may be used.",
            kind="invalid-config",
            details={"key": f"environments.{missing}"},
        )
    return settings.folder


def _refuse_impossible(label: str, environment: Mapping[str, Any]) -> None:
    """Refuse what is known to be impossible before anything is fetched."""
    direct = environment.get("direct") or {}
    # conda's own packages tell of the folder that they were built in, which is nobody's now.
    kept = {
        name: found
        for name, found in direct.items()
        if name != "recallfs" and (found.get("editable") or not environment.get("conda"))
    }
    _refuse_direct(label, kept)
    import platform

    for key, here in (("system", platform.system()), ("machine", platform.machine())):
        if environment.get(key) not in (None, here):
            raise cannot_build(label, f"it is for {environment[key]}, and this computer is {here}")
    if environment.get("conda"):
        conda.recorded_packages(label, environment)
        conda.check_installer(label)


def _refuse_direct(label: str, direct: Mapping[str, Any]) -> None:
    others = flags({"direct": direct})
    if others:
        raise cannot_build(label, f"no index holds {', '.join(others)}; install it by hand there")


def _build(
    aside: Path,
    final: Path,
    label: str,
    environment: Mapping[str, Any],
    settings: EnvironmentSettings,
) -> list[str]:
    """Build an environment; return the packages of conda whose scripts were not run."""
    place, wanted, locked = aside / "new", aside / "wanted.txt", aside / _LOCK
    uv = shutil.which(
        "uv", path=os.pathsep.join((os.fspath(Path(sys.executable).parent), program_path()))
    )
    site = _Site(label, place, uv, wanted, locked, settings.indexes)
    packages = {
        name: version
        for name, version in sorted((environment.get("packages") or {}).items())
        if name not in _OWN
    }
    scripts = []
    if environment.get("conda"):
        recorded = conda.recorded_packages(label, environment)
        scripts = conda.install(label, recorded, settings.channels, aside=aside, final=final)
        if not (place / "bin" / "python").exists():
            raise cannot_build(label, "none of the packages on record brings a Python")
        _copy_recallfs(place)
        # What conda's packages did not bring came from an index.
        brought = _captured(label, site.python)
        lacking = {each.what for each in compare(brought, environment, packages) if each.other}
        packages = {name: version for name, version in packages.items() if name in lacking}
        direct = environment.get("direct") or {}
        _refuse_direct(label, {name: direct[name] for name in packages if name in direct})
        if packages:
            _configured(settings, "indexes")
    else:
        _make_venv(site, str(environment.get("python")))
        _copy_recallfs(place)
    text = "".join(f"{name}=={version}\n" for name, version in packages.items())
    wanted.write_text(text, encoding="utf-8")
    locked.touch()
    if packages:
        (_with_pip if uv is None else _with_uv)(site)
    shutil.copyfile(locked, place / _LOCK)
    return scripts


@dataclass(frozen=True)
class _Site:
    """A folder that an environment is built in, and what it is built of."""

    label: str
    place: Path
    uv: str | None
    wanted: Path
    locked: Path
    indexes: Sequence[str]

    @property
    def python(self) -> str:
        return str(self.place / "bin" / "python")


def _make_venv(site: _Site, version: str) -> None:
    if site.uv is not None:
        made = [site.uv, "venv", *_SHOWN, "--no-project", "--python", version, str(site.place)]
        run_program(site.label, made)
        return
    own = os.path.realpath(sys.executable)
    named = shutil.which(f"python{version.rpartition('.')[0]}", path=program_path()) or own
    base = own if _version(own) == version else named
    if _version(base) != version:
        raise cannot_build(site.label, f"there is no Python {version} on this computer")
    run_program(site.label, [base, "-m", "venv", str(site.place)])


def _with_uv(site: _Site) -> None:
    assert site.uv is not None  # noqa: S101 - the caller looked
    allowed = ["--default-index", site.indexes[-1]]
    for index in site.indexes[:-1]:
        allowed += ["--index", index]
    common = [*_SHOWN, *allowed, "--no-deps", "--only-binary", ":all:", "--python", site.python]
    compiled = ["--generate-hashes", "--no-header", "--no-annotate", "--quiet"]
    compiled += ["--output-file", str(site.locked), str(site.wanted)]
    run_program(site.label, [site.uv, "pip", "compile", *common, *compiled])
    checked = ["--require-hashes", "-r", str(site.locked)]
    run_program(site.label, [site.uv, "pip", "install", *common, *checked])


def _with_pip(site: _Site) -> None:
    common = [site.python, "-m", "pip", "--isolated", "--disable-pip-version-check", "install"]
    common += ["--quiet", "--no-deps", "--only-binary", ":all:", "--index-url", site.indexes[0]]
    for index in site.indexes[1:]:
        common += ["--extra-index-url", index]
    report = site.place.parent / "report.json"
    found = ["--dry-run", "--ignore-installed", "--report", str(report), "-r", str(site.wanted)]
    run_program(site.label, [*common, *found])
    lines = []
    for item in json.loads(report.read_bytes())["install"]:
        pin = f"{item['metadata']['name']}=={item['metadata']['version']}"
        sha256 = item["download_info"]["archive_info"].get("hashes", {}).get("sha256")
        if sha256 is None:
            raise cannot_build(site.label, f"the index gives no sha256 for {pin}")
        lines.append(f"{pin} --hash=sha256:{sha256}\n")
    site.locked.write_text("".join(lines), encoding="utf-8")
    run_program(site.label, [*common, "--require-hashes", "-r", str(site.locked)])


def _copy_recallfs(place: Path) -> None:
    """Put the recallfs that runs into an environment, with what names its version and recipes."""
    site = next((place / "lib").glob("python*/site-packages"))
    source = Path(__file__).parents[1]
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(source, site / "recallfs", ignore=ignored, dirs_exist_ok=True)
    found = importlib.metadata.distribution("recallfs")
    info = site / f"recallfs-{found.version}.dist-info"
    info.mkdir(exist_ok=True)
    for name in ("METADATA", "entry_points.txt"):
        (info / name).write_text(found.read_text(name) or "", encoding="utf-8")


def _captured(label: str, python: str, *modules: str) -> dict[str, Any]:
    """Start an interpreter, let it import modules and describe its environment."""
    code = (
        f"import {', '.join(('json', *modules))}; from recallfs.environment.capture import "
        "capture_environment; print(json.dumps(capture_environment()))"
    )
    told = run_program(label, [python, "-c", code]).splitlines()[-1]
    return dict(json.loads(told))


def _check(python: Path, label: str, environment: Mapping[str, Any]) -> list[Difference]:
    """Start what was built and compare it with what is on record."""
    told = _captured(label, str(python), "recallfs.recipes.worker")
    # What only a run tells: which libraries it loaded, and how many threads it was given.
    skipped = ("numpy", "hdf5", "threads", "variables")
    found = compare(
        {key: value for key, value in environment.items() if key not in skipped},
        {key: value for key, value in told.items() if key not in skipped},
    )
    wrong = [
        each
        for each in found
        if each.what == "python"
        or (each.what.startswith("conda ") and each.what != "conda recallfs")
        or (each.what in environment.get("packages", {}) and each.what not in _OWN)
    ]
    if wrong:
        texts = (f"{each.what} {each.other or 'is missing'}" for each in wrong)
        raise cannot_build(label, f"what was built has other versions: {', '.join(texts)}")
    return [each for each in found if each.what not in _OWN - {"recallfs"}]


def _version(python: str) -> str:
    code = "import platform; print(platform.python_version())"
    try:
        done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()
