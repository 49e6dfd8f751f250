"""What a computer is, told in full and without saying whose it is."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import platform
import sys
from importlib.metadata import distributions
from typing import Any

from recallfs.bench.extras import require

MACHINE_VERSION = "1.4.1"
"""Version of nwb_benchmarks' description of a machine that ours has the fields of."""

_MANNERS = (
    "Brisk", "Calm", "Clever", "Eager", "Fair", "Fleet", "Gentle", "Glad", "Hardy", "Honest",
    "Jolly", "Keen", "Kind", "Lively", "Mellow", "Merry", "Nimble", "Patient", "Plain", "Proud",
    "Quick", "Quiet", "Ready", "Sober", "Spry", "Steady", "Stout", "Sturdy", "Swift", "Tidy",
    "Wary", "Wise",
)  # fmt: skip
_BIRDS = (
    "Avocet", "Bittern", "Bunting", "Crane", "Curlew", "Dipper", "Dunlin", "Eider", "Finch",
    "Gannet", "Godwit", "Grebe", "Heron", "Ibis", "Jackdaw", "Kestrel", "Lapwing", "Linnet",
    "Martin", "Nuthatch", "Osprey", "Petrel", "Pipit", "Plover", "Puffin", "Redstart", "Shrike",
    "Siskin", "Swift", "Tern", "Wheatear", "Wren",
)  # fmt: skip


def describe_machine() -> dict[str, Any]:
    """Describe this computer: processor, memory, disks, system, how HDF5 and NumPy were built.

    Returns
    -------
    dict
        JSON-able, with the fields of nwb_benchmarks' machine files. ``name`` is made from the rest:
        neither the host's name nor a user's is in it, and the same computer is called the same.

    Raises
    ------
    InvalidInputError
        If psutil or py-cpuinfo is not installed.
    """
    psutil, cpuinfo = require("psutil"), require("cpuinfo")
    processor = _processor(cpuinfo)
    wanted = (
        "brand_raw", "vendor_id_raw", "arch", "bits", "family", "model", "stepping",
        "l1_data_cache_size", "l2_cache_size", "l3_cache_size", "flags",
    )  # fmt: skip
    # Where disks are mounted often tells a user's name; what they are does not.
    disks = sorted({part.fstype for part in psutil.disk_partitions(all=False)})
    about: dict[str, Any] = {
        "version": MACHINE_VERSION,
        "os": {"cpu_count": os.cpu_count()},
        "sys": {"platform": sys.platform},
        "platform": {
            "architecture": list(platform.architecture()),
            "machine": platform.machine(),
            "platform": platform.platform(),
            "processor": platform.processor(),
            "system": platform.system(),
        },
        "psutil": {
            "number_of_processors": psutil.cpu_count(logical=False),
            "number_of_threads": psutil.cpu_count(logical=True),
            "total_virtual_memory": psutil.virtual_memory().total,
            "total_swap_memory": psutil.swap_memory().total,
            "disk_partitions": [{"fstype": kind} for kind in disks],
        },
        "cpuinfo": {name: processor[name] for name in wanted if name in processor},
        "builds": _builds(),
        "cuda": {},
    }
    name = friendly_name(digest_of(about))
    about["name"] = name
    about["asv"] = {name: asv_machine(about), "version": 1}
    return about


def asv_machine(about: dict[str, Any]) -> dict[str, str]:
    """Return what asv wants to know of a machine that was described."""
    psutil = about["psutil"]
    return {
        "arch": str(about["platform"]["machine"]),
        "cpu": str(about["cpuinfo"].get("brand_raw", "")),
        "machine": str(about["name"]),
        "num_cpu": str(psutil["number_of_threads"]),
        "os": f"{about['platform']['system']} {platform.release()}",
        "ram": str(psutil["total_virtual_memory"]),
    }


def describe_environment() -> dict[str, Any]:
    """Describe the Python that runs: its version, and each package with its version."""
    packages = {each.metadata["Name"]: each.version for each in distributions()}
    return {
        "python": sys.version,
        "packages": dict(sorted(packages.items(), key=lambda item: item[0].lower())),
    }


def digest_of(described: dict[str, Any]) -> str:
    """Return the SHA-1 that a description is filed under; names do not count."""
    plain = {key: value for key, value in described.items() if key not in ("name", "asv")}
    text = json.dumps(plain, sort_keys=True)
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


def friendly_name(digest: str) -> str:
    """Make a name that people can keep apart from a digest.

    Examples
    --------
    >>> friendly_name("0002")
    'BriskBunting'
    """
    number = int(digest, 16)
    return _MANNERS[number // len(_BIRDS) % len(_MANNERS)] + _BIRDS[number % len(_BIRDS)]


@functools.cache
def _processor(cpuinfo: Any) -> dict[str, Any]:
    """Ask py-cpuinfo, which starts programs and takes a second."""
    found: dict[str, Any] = cpuinfo.get_cpu_info()
    return found


def _builds() -> dict[str, Any]:
    """Tell how HDF5 and NumPy were built: both decide what is measured."""
    import h5py
    import numpy as np

    config = h5py.get_config()
    found: dict[str, Any] = {
        "h5py": h5py.version.version,
        "hdf5": h5py.version.hdf5_version,
        "hdf5_mpi": bool(config.mpi),
        "hdf5_ros3": bool(getattr(config, "ros3", False)),
        "numpy": np.__version__,
    }
    try:
        told: Any = np.show_config(mode="dicts")  # type: ignore[call-arg, func-returns-value, unused-ignore]
    except TypeError:  # before NumPy 1.25 it only prints
        return found
    found["numpy_simd"] = told.get("SIMD Extensions", {}).get("found", [])
    blas = told.get("Build Dependencies", {}).get("blas", {})
    found["blas"] = {key: blas[key] for key in ("name", "version") if key in blas}
    return found
