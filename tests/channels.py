"""A conda channel for tests: a folder with a Python, cut out of the one that runs, and a package.

Whoever serves conda packages makes such files; `rattler` installs them as it does any others.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import os
import platform
import sys
import sysconfig
import tarfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import rattler
import zstandard

PLACEHOLDER = "/placeholder" * 12
"""Stands in packages for the folder that they will be in."""

SUBDIR = {
    ("Linux", "x86_64"): "linux-64",
    ("Linux", "aarch64"): "linux-aarch64",
    ("Darwin", "x86_64"): "osx-64",
    ("Darwin", "arm64"): "osx-arm64",
}[platform.system(), platform.machine()]
"""What conda calls this kind of computer."""

_LEFT_OUT = {
    "__pycache__", "ensurepip", "idlelib", "lib2to3", "site-packages", "test", "tests",
    "tkinter", "turtledemo", "pydoc_data",
}  # fmt: skip


def write_package(
    channel: Path,
    name: str,
    version: str,
    files: Mapping[str, bytes | Path | str],
    *,
    noarch: bool = False,
    depends: tuple[str, ...] = (),
) -> Path:
    """Write a package into a channel and its index.

    Parameters
    ----------
    files : Mapping
        What is in it: bytes, a file to take them from, or the target of a symlink.
    noarch : bool
        Whether it is pure Python: its modules are below ``site-packages/`` then.
    """
    subdir = "noarch" if noarch else SUBDIR
    index: dict[str, object] = {
        "name": name,
        "version": version,
        "build": "0",
        "build_number": 0,
        "depends": list(depends),
        "subdir": subdir,
        **({"noarch": "python"} if noarch else {}),
    }
    paths = {"paths": [_described(*item) for item in files.items()], "paths_version": 1}
    info: dict[str, bytes | Path | str] = {
        "info/index.json": json.dumps(index).encode(),
        "info/paths.json": json.dumps(paths).encode(),
    }
    if noarch:
        link = {"noarch": {"type": "python"}, "package_metadata_version": 1}
        info["info/link.json"] = json.dumps(link).encode()
    stem = f"{name}-{version}-0"
    place = channel / subdir / f"{stem}.conda"
    place.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(place, "w") as archive:
        archive.writestr("metadata.json", '{"conda_pkg_format_version": 2}')
        archive.writestr(f"pkg-{stem}.tar.zst", _packed(files))
        archive.writestr(f"info-{stem}.tar.zst", _packed(info))
    content = place.read_bytes()
    listed = {**index, "sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
    for each in ("noarch", SUBDIR):
        table = channel / each / "repodata.json"
        table.parent.mkdir(exist_ok=True)
        known: dict[str, Any] = {"info": {"subdir": each}}
        known |= json.loads(table.read_text()) if table.exists() else {}
        if each == subdir:
            known.setdefault("packages.conda", {})[place.name] = listed
        table.write_text(json.dumps(known))
    return place


def write_python(channel: Path) -> str:
    """Write a package of the running interpreter, without its tests and tools; return its name."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    library = Path(sysconfig.get_path("stdlib"))
    files: dict[str, bytes | Path | str] = {
        f"bin/python{version}": Path(os.path.realpath(sys.executable)),
        "bin/python": f"python{version}",
        # Text that names the folder it is in, as many packages have.
        "etc/place": f"{PLACEHOLDER}/etc\n".encode(),
        "bin/.python-post-link.sh": b"touch $PREFIX/ran\n",
    }
    shared = Path(str(sysconfig.get_config_var("LIBDIR")), str(sysconfig.get_config_var("SONAME")))
    if sysconfig.get_config_var("Py_ENABLE_SHARED") and shared.is_file():
        files[f"lib/{shared.name}"] = shared
    for place in sorted(library.rglob("*")):
        parts = place.relative_to(library).parts
        wanted = not _LEFT_OUT.intersection(parts) and not parts[0].startswith("config-")
        if wanted and place.is_file():
            files[f"lib/python{version}/{'/'.join(parts)}"] = place
    write_package(channel, "python", platform.python_version(), files)
    return version


def write_tools(channel: Path, python: str) -> None:
    """Write `labtools`, which finds whatever is installed for the interpreter that runs."""
    here = sysconfig.get_paths()["purelib"]
    info = "site-packages/labtools-2.0.dist-info"
    built = {"url": "file:///home/conda/feedstock_root/labtools", "dir_info": {}}
    files: dict[str, bytes | Path | str] = {
        "site-packages/labtools.py": b"value = 2\n",
        "site-packages/rest.pth": f"import site; site.addsitedir({here!r})\n".encode(),
        f"{info}/METADATA": b"Metadata-Version: 2.1\nName: labtools\nVersion: 2.0\n",
        f"{info}/INSTALLER": b"conda",
        f"{info}/direct_url.json": json.dumps(built).encode(),
    }
    write_package(channel, "labtools", "2.0", files, noarch=True, depends=(f"python {python}.*",))


def create(channel: Path, prefix: Path, *specs: str) -> Path:
    """Make an environment of a channel's packages, as people do; return its interpreter."""

    async def make() -> None:
        found = await rattler.solve([channel.as_uri()], list(specs))
        cache = prefix.parent / "conda-cache"
        await rattler.install(found, prefix, cache_dir=cache, show_progress=False)

    asyncio.run(make())
    return prefix / "bin" / "python"


def _described(name: str, content: bytes | Path | str) -> dict[str, object]:
    if isinstance(content, str):
        return {"_path": name, "path_type": "softlink"}
    data = content if isinstance(content, bytes) else content.read_bytes()
    described: dict[str, object] = {
        "_path": name,
        "path_type": "hardlink",
        "sha256": hashlib.sha256(data).hexdigest(),
        "size_in_bytes": len(data),
    }
    if isinstance(content, bytes) and PLACEHOLDER.encode() in content:
        described |= {"prefix_placeholder": PLACEHOLDER, "file_mode": "text"}
    return described


def _packed(files: Mapping[str, bytes | Path | str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for member, data in _members(files):
            archive.addfile(member, io.BytesIO(data))
    return zstandard.ZstdCompressor(level=1).compress(buffer.getvalue())


def _members(
    files: Mapping[str, bytes | Path | str],
) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    for name, content in files.items():
        member, data = tarfile.TarInfo(name), b""
        if isinstance(content, str):
            member.type, member.linkname = tarfile.SYMTYPE, content
        else:
            data = content if isinstance(content, bytes) else content.read_bytes()
            member.size = len(data)
            member.mode = 0o755 if name.startswith("bin/") else 0o644
        yield member, data
