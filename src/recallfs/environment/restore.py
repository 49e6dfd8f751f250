"""Building a recorded environment again, from the package indexes that the configuration allows.

Only on request, never during a recall. Versions are pinned to what is on record, each file is held
against a hash from its index, and nothing but wheels is installed: building a package runs its
code. recallfs itself is copied from the one that runs.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recallfs.atomic import rename_without_replacing, write_record
from recallfs.config import EnvironmentSettings
from recallfs.environment.compare import Difference, compare, flags
from recallfs.environment.interpreter import READY, label_of
from recallfs.errors import ConflictError, EnvironmentMismatchError, InvalidInputError
from recallfs.values import canonical_json, now_utc

_LOCK = "requirements.txt"
_BUILD_S = 3600.0
_FRAME = " \t\u00d7\u2570\u2500\u25b6\u2502\u251c"
"""Signs that uv draws its messages with."""

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
        Kind ``invalid-config``: no folder or no index is configured.
    EnvironmentMismatchError
        Kind ``cannot-build``: a package is not to be had, was installed from a folder, the
        interpreter is not on this computer. Nothing is left behind.
    """
    label = label_of(identifier, environment)
    if settings.folder is None or not settings.indexes:
        missing = "folder" if settings.folder is None else "indexes"
        raise InvalidInputError(
            f"environments.{missing} is not configured; an administrator says there where "
            "environments are built and which package indexes may be used.",
            kind="invalid-config",
            details={"key": f"environments.{missing}"},
        )
    place = settings.folder / identifier
    if (place / READY).exists():
        return Built(identifier, label, place / "bin" / "python", is_new=False)
    _refuse_impossible(label, environment)
    settings.folder.mkdir(parents=True, exist_ok=True)
    # Scripts name the folder that they are in, but modules do not: it is built aside and renamed.
    aside = Path(tempfile.mkdtemp(prefix=".building-", dir=settings.folder))
    try:
        _build(aside / "new", label, environment, settings.indexes)
        python = aside / "new" / "bin" / "python"
        differences = _check(python, label, environment)
        ready = {"id": identifier, "label": label, "built_at": now_utc()}
        write_record(aside / "new" / READY, canonical_json(ready), mode=0o644)
        (aside / "new").chmod(0o755)  # for all who recall
        try:
            rename_without_replacing(aside / "new", place)
        except ConflictError:  # somebody else built it meanwhile
            return Built(identifier, label, place / "bin" / "python", is_new=False)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return Built(identifier, label, place / "bin" / "python", True, tuple(differences))


def _refuse_impossible(label: str, environment: Mapping[str, Any]) -> None:
    others = [each for each in flags(environment) if each.split(" ")[0] != "recallfs"]
    if others:
        raise _cannot(label, f"no index holds {', '.join(others)}; install it by hand there")
    if environment.get("conda"):
        raise _cannot(
            label,
            "it was conda's; `recall env export --format conda` writes the file that "
            "`conda env create` takes",
        )
    import platform

    for key, here in (("system", platform.system()), ("machine", platform.machine())):
        if environment.get(key) not in (None, here):
            raise _cannot(label, f"it is for {environment[key]}, and this computer is {here}")


def _build(place: Path, label: str, environment: Mapping[str, Any], indexes: Sequence[str]) -> None:
    pins = [
        f"{name}=={version}"
        for name, version in sorted((environment.get("packages") or {}).items())
        if name not in _OWN
    ]
    wanted, locked = place.parent / "wanted.txt", place.parent / _LOCK
    site = _Site(label, place, str(environment.get("python")), wanted, locked, indexes)
    wanted.write_text("".join(f"{pin}\n" for pin in pins), encoding="utf-8")
    uv = shutil.which("uv", path=os.pathsep.join((os.fspath(Path(sys.executable).parent), _path())))
    if uv is not None:
        _with_uv(uv, site)
    else:
        _with_pip(site)
    shutil.copyfile(locked, place / _LOCK)
    _copy_recallfs(place)


@dataclass(frozen=True)
class _Site:
    """A folder that an environment is built in, and what it is built of."""

    label: str
    place: Path
    version: str
    wanted: Path
    locked: Path
    indexes: Sequence[str]

    @property
    def python(self) -> str:
        return str(self.place / "bin" / "python")


def _with_uv(uv: str, site: _Site) -> None:
    shown = ["--no-config", "--no-progress", "--color", "never", "--no-python-downloads"]
    _do(site.label, [uv, "venv", *shown, "--no-project", "--python", site.version, str(site.place)])
    allowed = ["--default-index", site.indexes[-1]]
    for index in site.indexes[:-1]:
        allowed += ["--index", index]
    common = [*shown, *allowed, "--no-deps", "--only-binary", ":all:", "--python", site.python]
    compiled = ["--generate-hashes", "--no-header", "--no-annotate", "--quiet"]
    compiled += ["--output-file", str(site.locked), str(site.wanted)]
    _do(site.label, [uv, "pip", "compile", *common, *compiled])
    if site.locked.stat().st_size:
        checked = ["--require-hashes", "-r", str(site.locked)]
        _do(site.label, [uv, "pip", "install", *common, *checked])


def _with_pip(site: _Site) -> None:
    own = os.path.realpath(sys.executable)
    named = shutil.which(f"python{site.version.rpartition('.')[0]}", path=_path()) or own
    base = own if _version(own) == site.version else named
    if _version(base) != site.version:
        raise _cannot(site.label, f"there is no Python {site.version} on this computer")
    _do(site.label, [base, "-m", "venv", str(site.place)])
    common = [site.python, "-m", "pip", "--isolated", "--disable-pip-version-check", "install"]
    common += ["--quiet", "--no-deps", "--only-binary", ":all:", "--index-url", site.indexes[0]]
    for index in site.indexes[1:]:
        common += ["--extra-index-url", index]
    report = site.place.parent / "report.json"
    found = ["--dry-run", "--ignore-installed", "--report", str(report), "-r", str(site.wanted)]
    _do(site.label, [*common, *found])
    lines = []
    for item in json.loads(report.read_bytes())["install"]:
        pin = f"{item['metadata']['name']}=={item['metadata']['version']}"
        sha256 = item["download_info"]["archive_info"].get("hashes", {}).get("sha256")
        if sha256 is None:
            raise _cannot(site.label, f"the index gives no sha256 for {pin}")
        lines.append(f"{pin} --hash=sha256:{sha256}\n")
    site.locked.write_text("".join(lines), encoding="utf-8")
    if lines:
        _do(site.label, [*common, "--require-hashes", "-r", str(site.locked)])


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


def _check(python: Path, label: str, environment: Mapping[str, Any]) -> list[Difference]:
    """Start what was built and compare it with what is on record."""
    code = (
        "import json, recallfs.recipes.worker; from recallfs.environment.capture import "
        "capture_environment; print(json.dumps(capture_environment()))"
    )
    told = json.loads(_do(label, [str(python), "-c", code]).splitlines()[-1])
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
        or (each.what in environment.get("packages", {}) and each.what not in _OWN)
    ]
    if wrong:
        texts = (f"{each.what} {each.other or 'is missing'}" for each in wrong)
        raise _cannot(label, f"what was built has other versions: {', '.join(texts)}")
    return [each for each in found if each.what not in _OWN - {"recallfs"}]


def _do(label: str, arguments: Sequence[str]) -> str:
    """Run a program to its end; say in one sentence why it failed."""
    variables = {
        name: text
        for name, text in os.environ.items()
        if not name.startswith(("UV_", "PIP_", "PYTHON", "VIRTUAL_ENV", "CONDA_"))
    }
    try:
        done = subprocess.run(
            arguments,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            cwd="/",
            env={**variables, "PATH": _path()},
            timeout=_BUILD_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _cannot(label, str(error)) from error
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip()
        lines = [" ".join(line.strip(_FRAME).split()) for line in said.splitlines()]
        text = " ".join(line for line in lines if line)
        raise _cannot(label, text[:500] or f"exit code {done.returncode}", log=said)
    return done.stdout.decode("utf-8", "replace")


def _path() -> str:
    return os.environ.get("PATH", os.defpath)


def _version(python: str) -> str:
    code = "import platform; print(platform.python_version())"
    try:
        done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()


def _cannot(label: str, why: str, *, log: str = "") -> EnvironmentMismatchError:
    return EnvironmentMismatchError(
        f"the environment {label} cannot be built: {why.rstrip('.')}.",
        kind="cannot-build",
        details={"label": label, **({"output": log[-4000:]} if log else {})},
    )
