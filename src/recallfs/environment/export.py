"""A recorded environment as a file for pip or conda."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def requirements(environment: Mapping[str, Any]) -> str:
    """Write an environment's packages for ``pip install -r``; what pip cannot give is a comment."""
    lines = [f"# Python {environment.get('python')}, {environment.get('machine')}"]
    return "\n".join([*lines, *_pins(environment)]) + "\n"


def conda(environment: Mapping[str, Any]) -> str:
    """Write an environment for ``conda env create -f``.

    Packages of conda keep version and build; of an environment that was not conda's, only the
    interpreter comes from conda.
    """
    packages: Mapping[str, str] = environment.get("conda") or {}
    name = environment.get("label") or "recallfs"
    urls = [str(file.get("url")) for file in (environment.get("conda_files") or {}).values()]
    # A file's URL ends in its platform and its name.
    channels = dict.fromkeys(url.rsplit("/", 2)[0] for url in urls if url.count("/") > 2)
    lines = [f"name: {name}", "channels:", *(f"  - {each}" for each in channels or ["conda-forge"])]
    lines.append("dependencies:")
    if packages:
        lines += [f"  - {package}={text}" for package, text in sorted(packages.items())]
    else:
        lines += [f"  - python={environment.get('python')}", "  - pip"]
    known = {package.lower().replace("_", "-").replace(".", "-") for package in packages}
    pins = _pins(environment, known)
    lines += [f"  {pin}" for pin in pins if pin.startswith("#")]
    pins = [pin for pin in pins if not pin.startswith("#")]
    if pins:
        lines += ["  - pip:", *(f"      - {pin}" for pin in pins)]
    return "\n".join(lines) + "\n"


def _pins(environment: Mapping[str, Any], leave_out: set[str] | None = None) -> list[str]:
    lines = []
    direct = environment.get("direct") or {}
    for name, version in sorted((environment.get("packages") or {}).items()):
        if leave_out and name in leave_out:
            continue
        if name not in direct:
            lines.append(f"{name}=={version}")
            continue
        url, commit = str(direct[name].get("url")), direct[name].get("commit")
        state = ", changed since" if direct[name].get("dirty") else ""
        if direct[name].get("editable") or url.startswith("file:"):
            at = f", commit {commit}{state}" if commit else ""
            lines.append(f"# {name}=={version} was installed from {url}{at}")
        elif commit:
            lines.append(f"{name} @ git+{url}@{commit}")
        else:
            lines.append(f"{name} @ {url}")
    return lines
