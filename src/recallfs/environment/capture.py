"""What a recipe ran in: interpreter, packages, processor, thread counts.

Taken in the worker after each run, so it must be quick: packages are read off the names of their
``.dist-info`` folders instead of their metadata files.
"""

from __future__ import annotations

import json
import os
import platform
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from recallfs.values import canonical_json

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "BLOSC_NTHREADS",
)
"""Environment variables that set how many threads numerical libraries use."""

VOLATILE = frozenset({"executable"})
"""Fields that differ between environments that give the same results."""

_SCHEME = "recallfs-environment-1"
_EGG_PYTHON = re.compile(r"-py\d+(\.\d+)?$")
_COMMIT = re.compile(r"[0-9a-f]{40,64}")


def capture_environment() -> dict[str, Any]:
    """Describe the environment of this process.

    Returns
    -------
    dict
        JSON: ``python``, ``implementation``, ``executable``, ``system``, ``machine``, ``libc``,
        ``cpu``, ``packages`` (name to version), ``direct`` (packages installed from a URL or a
        folder: ``url``, ``editable``, ``commit``), ``numpy`` and ``hdf5`` (versions of what is
        loaded, or None) and ``threads`` (environment variables).

    Notes
    -----
    Nothing is imported and no program is run. Takes a few milliseconds for 100 packages.
    """
    packages, direct = _packages()
    return {
        "python": platform.python_version(),
        "implementation": sys.implementation.name,
        "executable": sys.executable,
        "system": platform.system(),
        "machine": platform.machine(),
        "libc": _libc(),
        "cpu": _cpu(),
        "packages": packages,
        "direct": direct,
        "numpy": getattr(sys.modules.get("numpy"), "__version__", None),
        "hdf5": getattr(getattr(sys.modules.get("h5py"), "version", None), "hdf5_version", None),
        "threads": {name: os.environ[name] for name in THREAD_VARIABLES if name in os.environ},
    }


def environment_id(environment: Mapping[str, Any]) -> str:
    """Name an environment by what can change a result.

    Parameters
    ----------
    environment : Mapping
        As `capture_environment` returns it.

    Returns
    -------
    str
        BLAKE3, 64 hexadecimal digits, of its canonical JSON without the `VOLATILE` fields and
        without the places that packages were installed from.
    """
    import blake3

    lasting = {name: value for name, value in environment.items() if name not in VOLATILE}
    lasting["direct"] = {
        name: {"editable": found.get("editable"), "commit": found.get("commit")}
        for name, found in (environment.get("direct") or {}).items()
    }
    content = {"scheme": _SCHEME, "environment": lasting}
    return blake3.blake3(canonical_json(content)).hexdigest()


def _packages() -> tuple[dict[str, str], dict[str, dict[str, Any]]]:
    """Scan `sys.path` for installed distributions; the first of a name wins, as at import."""
    versions: dict[str, str] = {}
    direct: dict[str, dict[str, Any]] = {}
    for folder in dict.fromkeys(sys.path):
        try:
            with os.scandir(folder or ".") as entries:
                names = sorted(entry.name for entry in entries)
        except OSError:  # a zip file, or a folder that is gone
            continue
        for file_name in names:
            stem, suffix = os.path.splitext(file_name)  # noqa: PTH122 - runs for each file
            if suffix not in (".dist-info", ".egg-info"):
                continue
            place = Path(folder, file_name)
            name, version = _name_and_version(place, stem)
            if name in versions:
                continue
            versions[name] = version
            installed_from = _direct_url(place)
            if installed_from is not None:
                direct[name] = installed_from
    return dict(sorted(versions.items())), dict(sorted(direct.items()))


def _name_and_version(place: Path, stem: str) -> tuple[str, str]:
    stem = _EGG_PYTHON.sub("", stem)
    name, dash, version = stem.rpartition("-")
    if not dash:  # ``name.egg-info`` of a development install
        name, version = stem, _egg_version(place)
    return re.sub(r"[-_.]+", "-", name).lower(), version


def _egg_version(place: Path) -> str:
    try:
        text = (place / "PKG-INFO").read_text("utf-8", "replace")
    except OSError:
        return ""
    found = re.search(r"^Version:\s*(\S+)", text, re.MULTILINE)
    return found[1] if found else ""


def _direct_url(place: Path) -> dict[str, Any] | None:
    """Read where a package was installed from, if not from an index (PEP 610)."""
    try:
        record = json.loads((place / "direct_url.json").read_bytes())
        parts = urlsplit(str(record["url"]))
        editable = bool(record.get("dir_info", {}).get("editable", False))
        commit = record.get("vcs_info", {}).get("commit_id")
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    if commit is None and editable and parts.scheme == "file":
        commit = _checked_out_commit(Path(unquote(parts.path)))
    host = parts.netloc.rpartition("@")[2]  # a URL may carry a password
    return {
        "url": urlunsplit((parts.scheme, host, parts.path, "", "")),
        "editable": editable,
        "commit": commit,
    }


def _checked_out_commit(folder: Path) -> str | None:
    """Return the commit that the Git work tree around `folder` stands at, without running Git."""
    for parent in (folder, *folder.parents):
        git = parent / ".git"
        try:
            head = (git / "HEAD").read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError):
            continue
        reference = head.removeprefix("ref:").strip()
        if reference == head:
            return head if _COMMIT.fullmatch(head) else None
        return _resolve_reference(git, reference)
    return None


def _resolve_reference(git: Path, reference: str) -> str | None:
    try:
        return (git / reference).read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError):
        pass
    try:
        packed = (git / "packed-refs").read_text("utf-8", "replace")
    except OSError:
        return None
    for line in packed.splitlines():
        commit, _, name = line.partition(" ")
        if name == reference:
            return commit
    return None


def _libc() -> str | None:
    try:
        return os.confstr("CS_GNU_LIBC_VERSION")
    except (ValueError, OSError):  # musl and macOS do not know the name
        return None


def _cpu() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text("utf-8", "replace")
    except OSError:
        text = ""
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return found[1].strip() if found else platform.processor() or platform.machine()
