"""Putting the packages of a conda environment in place again: those on record, bit by bit.

Nothing is solved. A package's file comes from a channel that the configuration allows, whichever
has it, and is held against the hash that conda kept of it. `rattler` unpacks and links it; scripts
that packages bring are not run.
"""

from __future__ import annotations

import hashlib
import http.client
import importlib.util
import json
import re
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recallfs.atomic import is_full
from recallfs.environment.interpreter import cannot_build
from recallfs.environment.program import run_program
from recallfs.errors import InvalidInputError

_TIMEOUT_S = 60.0
_TRIES = 3
_AT_ONCE = 4
_PIECE_BYTES = 1024 * 1024
_PLACE = re.compile(
    r"(?P<channel>.+)/(?P<subdir>noarch|[a-z0-9]+-[a-z0-9_]+)/(?P<file>[\w.+!%~-]+\.(?:conda|tar\.bz2))"
)
_LINK = """
import asyncio, os, pathlib, sys
import rattler

async def link(downloads, prefix, final, cache):
    files = sorted(pathlib.Path(downloads).iterdir())
    await rattler.install(
        [await rattler.RepoDataRecord.from_package_archive(file) for file in files],
        prefix,
        cache_dir=cache,
        execute_link_scripts=False,
        show_progress=False,
        alternative_target_prefix=final,
    )

code = 0
try:
    asyncio.run(link(*sys.argv[1:]))
except Exception as error:
    print(error, file=sys.stderr, flush=True)
    code = 1
os._exit(code)
"""
"""Run by an interpreter of its own, which is not wound up: threads of rattler's may still be at
work then, and crash it."""

_OWN = frozenset({"recallfs"})
"""Copied from the one that runs."""


@dataclass(frozen=True)
class Package:
    """A package that conda installed.

    Parameters
    ----------
    name, version : str
        Its version with the build, as in ``1.26.4=py311h64a7726_0``.
    channel, subdir, file : str
        The parts of the URL that it came from.
    algorithm, digest : str
        ``sha256``, or ``md5`` of old records, and 64 or 32 hexadecimal digits.
    """

    name: str
    version: str
    channel: str
    subdir: str
    file: str
    algorithm: str
    digest: str

    @property
    def url(self) -> str:
        """Where it came from."""
        return f"{self.channel}/{self.subdir}/{self.file}"


def recorded_packages(label: str, environment: Mapping[str, Any]) -> list[Package]:
    """List the packages that conda had installed, if all that a build needs is on record.

    Raises
    ------
    EnvironmentMismatchError
        Kind ``cannot-build``: of some it is not known where they came from, or what they hold.
    """
    found, unknown, unhashed = [], [], []
    files = environment.get("conda_files") or {}
    for name, version in sorted((environment.get("conda") or {}).items()):
        if name in _OWN:
            continue
        file = files.get(name) or {}
        place = _PLACE.fullmatch(str(file.get("url", "")))
        algorithm = "sha256" if file.get("sha256") else "md5"
        if place is None:
            unknown.append(name)
        elif not file.get(algorithm):
            unhashed.append(name)
        else:
            digest = str(file[algorithm]).lower()
            parts = place["channel"], place["subdir"], place["file"]
            found.append(Package(name, str(version), *parts, algorithm, digest))
    for names, lacking in ((unknown, "where conda got"), (unhashed, "a hash of")):
        if names:
            raise cannot_build(
                label,
                f"its record does not hold {lacking} {_few(names)}; a proof in it completes the "
                "record, and `recall env export --format conda` writes the file that `conda env "
                "create` takes",
            )
    return found


def check_installer(label: str) -> None:
    """Raise if what unpacks packages of conda is not installed.

    Raises
    ------
    InvalidInputError
        With what to install.
    """
    if importlib.util.find_spec("rattler") is None:
        raise InvalidInputError(
            f"the environment {label} was conda's, and py-rattler, which builds those, is not "
            "installed; `pip install 'recallfs[conda]'` brings it."
        )


def install(
    label: str,
    packages: Sequence[Package],
    channels: Sequence[str],
    *,
    aside: Path,
    final: Path,
) -> list[str]:
    """Fetch packages and link them into ``aside / "new"``, which will be moved to `final`.

    Parameters
    ----------
    channels : sequence of str
        URLs that may be used; that which a package came from is asked first.
    aside : Path
        A folder for this build alone, on the same disk as `final`.
    final : Path
        The place that is written into those files that name the folder they are in.

    Returns
    -------
    list of str
        Names of the packages that bring a script to be run once they are linked. It was not.

    Raises
    ------
    EnvironmentMismatchError
        Kind ``cannot-build``: no channel has a package, or has other bytes.
    OSError
        The disk is full.
    """
    downloads = aside / "downloads"
    downloads.mkdir()
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        jobs = [
            pool.submit(_fetch, label, package, channels, downloads / package.file)
            for package in packages
        ]
        try:
            for job in jobs:
                job.result()
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    prefix = aside / "new"
    # The cache is one of its own: what is in the user's was not held against a hash just now.
    places = (downloads, prefix, final, aside / "unpacked")
    run_program(label, [sys.executable, "-c", _LINK, *map(str, places)])
    _name_origins(prefix, packages)
    scripts = sorted((prefix / "bin").glob(".*-post-link.sh"))
    return [script.name.removeprefix(".").removesuffix("-post-link.sh") for script in scripts]


def _few(names: Sequence[str]) -> str:
    rest = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + rest


def _fetch(label: str, package: Package, channels: Sequence[str], target: Path) -> None:
    """Fetch a package's file from the first channel that has the bytes on record."""
    reasons = []
    for channel in sorted(channels, key=lambda each: each != package.channel):
        url = f"{channel}/{package.subdir}/{package.file}"
        reason = _download(url, target, package)
        if reason is None:
            return
        reasons.append(f"{url}: {reason}")
    came = "" if package.channel in channels else f" It came from {package.channel}."
    raise cannot_build(
        label,
        f"{package.name}={package.version} is not to be had from the channels that are allowed "
        f"({'; '.join(reasons)}).{came}",
    )


def _download(url: str, target: Path, package: Package) -> str | None:
    """Fetch a file; return why it is not to be had, or None."""
    reason = ""
    # Some channels turn away what calls itself by the library's name.
    request = urllib.request.Request(url, headers={"User-Agent": "recallfs"})  # noqa: S310 - as below
    for _ in range(_TRIES):
        hasher = hashlib.new(package.algorithm, usedforsecurity=False)
        try:
            # The URL is an administrator's, and redirections never lead to files.
            with (
                urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer,  # noqa: S310
                target.open("wb") as file,
            ):
                expected = answer.headers.get("Content-Length")
                while piece := answer.read(_PIECE_BYTES):
                    hasher.update(piece)
                    file.write(piece)
                length = file.tell()
        except urllib.error.HTTPError as error:
            error.close()
            reason = f"{error.code} {error.reason}"
            if error.code < 500:
                return reason
            continue
        except urllib.error.URLError as error:
            told = error.reason
            reason = (told.strerror if isinstance(told, OSError) else "") or str(told)
            if isinstance(told, FileNotFoundError):
                return reason
            continue
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, OSError) and is_full(error):
                raise
            reason = str(error)
            continue
        if expected is not None and length < int(expected):
            reason = f"the connection broke off after {length} of {expected} bytes"
            continue
        if hasher.hexdigest() == package.digest:
            return None
        return f"its {package.algorithm} is {hasher.hexdigest()}, not {package.digest} as on record"
    return reason


def _name_origins(prefix: Path, packages: Sequence[Package]) -> None:
    """Let conda's records name the URLs that packages came from at first, not our downloads."""
    by_name = {package.name: package for package in packages}
    for place in (prefix / "conda-meta").glob("*.json"):
        record = json.loads(place.read_bytes())
        package = by_name.get(record["name"])
        if package is not None:  # else it is not what was on record, as the comparison will tell
            record |= {"fn": package.file, "url": package.url, "channel": package.channel}
            place.write_text(json.dumps(record, indent=2), encoding="utf-8")
