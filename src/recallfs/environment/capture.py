"""What a recipe ran in: interpreter, packages, processor, thread counts.

Taken in the worker after each run, so it must be quick: packages are read off the names of their
``.dist-info`` folders instead of their metadata files, and of conda's records three lines.
What cannot be found out is left out: it makes no run fail.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import platform
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

from recallfs.environment.revision import revision_of
from recallfs.values import canonical_json

_T = TypeVar("_T")

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

RELEVANT_VARIABLES = (
    "OPENBLAS_CORETYPE",
    "MKL_CBWR",
    "MKL_ENABLE_INSTRUCTIONS",
    "NPY_DISABLE_CPU_FEATURES",
    "NPY_ENABLE_CPU_FEATURES",
    "HDF5_PLUGIN_PATH",
    "LD_PRELOAD",
    "TZ",
)
"""Other environment variables that can change a result."""

VOLATILE = frozenset({"executable", "name", "label", "builds", "pools", "conda_files"})
"""Fields that differ between environments that give the same results.

`builds` and `pools` follow from the packages, and tell only of those that a recipe has loaded.
`conda_files` tells where packages came from: a mirror gives the same, and one build is there in two
formats.
"""

_SCHEME = "recallfs-environment-1"
_EGG_PYTHON = re.compile(r"-py\d+(\.\d+)?$")
_FEATURE = re.compile(
    r"ss?se\d?(_\d)?|sse4a|avx\w*|amx_\w+|fma4?|f16c|bmi[12]|popcnt"
    r"|asimd\w*|sve\w*|neon|fphp|bf16|i8mm"
)
"""Flags of processors that numerical libraries choose their code by."""


def capture_environment() -> dict[str, Any]:
    """Describe the environment of this process.

    Returns
    -------
    dict
        JSON: ``python``, ``implementation``, ``executable``, ``name`` (of the virtual or conda
        environment), ``system``, ``machine``, ``libc``, ``cpu`` and ``cpu_features``, ``packages``
        (name to version), ``conda`` (name to ``version=build``; absent elsewhere), ``conda_files``
        (name to ``url`` and ``sha256``, else ``md5``, of what conda installed), ``direct``
        (packages installed from a URL or a folder: ``url``, ``editable``, ``commit`` and, for a
        work tree, ``dirty``), ``numpy`` and ``hdf5`` (versions of what is loaded, or None),
        ``builds`` (how these were built), ``pools`` (what `threadpoolctl` says of BLAS and OpenMP,
        if it is installed), ``threads`` and ``variables`` (environment variables).

    Notes
    -----
    Takes a few milliseconds for 100 packages, up to 100 for 250 of conda's, and some 10 for each
    editable install in a Git work tree. Besides Git (`recallfs.environment.revision`) no program is
    run, and nothing but `threadpoolctl` is imported.
    """
    packages, direct = _packages()
    conda, conda_files = _or((dict[str, str](), dict[str, dict[str, str]]()), _conda)
    return {
        "python": platform.python_version(),
        "implementation": sys.implementation.name,
        "executable": sys.executable,
        "name": environment_name(),
        "system": platform.system(),
        "machine": platform.machine(),
        "libc": _libc(),
        **_or({"cpu": platform.machine(), "cpu_features": list[str]()}, _cpu),
        "packages": packages,
        **({"conda": conda, "conda_files": conda_files} if conda else {}),
        "direct": direct,
        "numpy": getattr(sys.modules.get("numpy"), "__version__", None),
        "hdf5": getattr(getattr(sys.modules.get("h5py"), "version", None), "hdf5_version", None),
        "builds": _or(dict[str, Any](), _builds),
        "pools": _or(list[Any](), _pools),
        "threads": {name: os.environ[name] for name in THREAD_VARIABLES if name in os.environ},
        "variables": {name: os.environ[name] for name in RELEVANT_VARIABLES if name in os.environ},
    }


def environment_name() -> str:
    """Return what people call this environment: the name of its folder."""
    prefix = Path(sys.prefix)
    if sys.prefix == sys.base_prefix and not (prefix / "conda-meta").is_dir():
        name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    elif prefix.name.strip(".").lower() in ("venv", "env", "virtualenv"):
        name = prefix.parent.name  # the project's
    else:
        name = prefix.name
    return re.sub(r"[^A-Za-z0-9.-]+", "-", name).strip("-.") or "python"


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

    content = {"scheme": _SCHEME, "environment": lasting(environment)}
    return blake3.blake3(canonical_json(content)).hexdigest()


def lasting(environment: Mapping[str, Any]) -> dict[str, Any]:
    """Return what identifies an environment: its fields without the `VOLATILE` ones and places."""
    kept = {name: value for name, value in environment.items() if name not in VOLATILE}
    kept["direct"] = {
        name: {
            "editable": found.get("editable"),
            "commit": found.get("commit"),
            **({"changes": found["changes"]} if found.get("changes") else {}),
        }
        for name, found in (environment.get("direct") or {}).items()
    }
    return kept


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
    state: dict[str, Any] = {}
    if commit is None and editable and parts.scheme == "file":
        folder = Path(unquote(parts.path))
        revision = _or(None, lambda: revision_of(folder, with_diff=True))
        if revision is not None:
            commit, state = revision.commit, {"dirty": revision.dirty}
        if revision is not None and revision.dirty:
            # Two states of changed code are two environments.
            state["changes"] = hashlib.sha256(revision.diff).hexdigest()[:16]
    return {
        "url": _without_secrets(parts),
        "editable": editable,
        "commit": commit,
        **state,
    }


def _without_secrets(parts: SplitResult) -> str:
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, "", ""))


def _libc() -> str | None:
    try:
        return os.confstr("CS_GNU_LIBC_VERSION")
    except (ValueError, OSError):  # musl and macOS do not know the name
        return None


def _cpu() -> dict[str, Any]:
    try:
        text = Path("/proc/cpuinfo").read_text("utf-8", "replace")
    except OSError:
        text = ""
    model = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    flags = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", text, re.MULTILINE)
    return {
        "cpu": model[1].strip() if model else platform.processor() or platform.machine(),
        "cpu_features": sorted(filter(_FEATURE.fullmatch, flags[1].split())) if flags else [],
    }


def _conda() -> tuple[dict[str, str], dict[str, dict[str, str]]]:
    """Read what conda keeps of its packages: versions off the names of the records, and files."""
    found, files = {}, {}
    for place in sorted(Path(sys.prefix, "conda-meta").glob("*-*-*.json")):
        name, version, build = place.stem.rsplit("-", 2)
        found[name] = f"{version}={build}"
        files[name] = _or(dict[str, str](), functools.partial(_conda_file, place))
    return found, files


def _conda_file(place: Path) -> dict[str, str]:
    """Read where conda got a package, and its hash."""
    fields = _fields(place.read_bytes(), ("url", "sha256", "md5"))
    if not fields.get("url"):
        return {}
    parts = urlsplit(fields["url"])
    # A private channel's token stands in the path.
    parts = parts._replace(path=re.sub(r"^/t/[^/]+/", "/", parts.path))
    digest = next((name for name in ("sha256", "md5") if fields.get(name)), None)
    return {"url": _without_secrets(parts), **({digest: fields[digest]} if digest else {})}


def _fields(content: bytes, names: Sequence[str]) -> dict[str, str]:
    """Read some outermost fields of a record of conda's.

    Most of it are lists of the package's files, with hashes of their own. They are passed over: a
    large environment's records take a second to parse.
    """
    indent = re.match(rb'\{\r?\n([ \t]+)"', content)
    if indent is None:  # on one line: nobody writes them so, but it would be JSON
        return {name: text for name, text in json.loads(content).items() if name in names}
    found = {}
    for name in names:
        key = b'\n%b"%b":' % (indent[1], name.encode())
        start = content.find(key)
        if start >= 0:
            line = content[start + len(key) : content.find(b"\n", start + 1)]
            found[name] = json.loads(line.strip().removesuffix(b","))
    return found


def _builds() -> dict[str, Any]:
    """Tell how NumPy and HDF5 were built, as far as they are loaded."""
    found: dict[str, Any] = {}
    numpy, h5py = sys.modules.get("numpy"), sys.modules.get("h5py")
    configuration = getattr(getattr(numpy, "__config__", None), "CONFIG", None)  # NumPy >= 1.25
    if isinstance(configuration, dict):
        parts = configuration.get("Build Dependencies", {})
        found["numpy"] = {
            **{
                name: f"{parts[name].get('name')} {parts[name].get('version')}"
                for name in ("blas", "lapack")
                if name in parts
            },
            "simd": configuration.get("SIMD Extensions", {}).get("found", []),
        }
    if h5py is not None:
        built = getattr(h5py.version, "hdf5_built_version_tuple", ())
        found["hdf5"] = {"built": ".".join(map(str, built))}
    return json.loads(json.dumps(found))  # type: ignore[no-any-return] # it is a dict


def _pools() -> list[dict[str, Any]]:
    """Ask threadpoolctl about the libraries that are loaded; without NumPy there are none."""
    if "numpy" not in sys.modules:
        return []
    from importlib.util import find_spec

    if find_spec("threadpoolctl") is None:
        return []
    from threadpoolctl import threadpool_info

    kept = ("user_api", "internal_api", "version", "num_threads", "threading_layer", "architecture")
    pools = [{key: pool[key] for key in kept if key in pool} for pool in threadpool_info()]
    return sorted(json.loads(json.dumps(pools)), key=str)


def _or(default: _T, probe: Callable[[], _T]) -> _T:
    try:
        return probe()
    except Exception:  # noqa: BLE001 - whatever a library does here, the run went well
        return default
