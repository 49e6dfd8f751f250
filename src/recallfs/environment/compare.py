"""What differs between two recorded environments."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple


class Difference(NamedTuple):
    """One thing that differs; None where an environment has it not."""

    what: str
    one: str | None
    other: str | None


_WHOLE = ("python", "implementation", "system", "machine", "libc", "cpu", "hdf5")


def compare(
    one: Mapping[str, Any], other: Mapping[str, Any], only: Collection[str] = ()
) -> list[Difference]:
    """List what differs: interpreter, processor, threads, packages.

    Parameters
    ----------
    only : collection of str
        Names of packages; if given, nothing else is compared.
    """
    if only:
        wanted = {name.lower().replace("_", "-").replace(".", "-") for name in only}
        packages = [(_packages(each), wanted) for each in (one, other)]
        first, second = (
            {k: v for k, v in found.items() if k in names} for found, names in packages
        )
        return _mapped("", first, second)
    found = [
        Difference(key, _text(one.get(key)), _text(other.get(key)))
        for key in _WHOLE
        if one.get(key) != other.get(key)
    ]
    ours, theirs = (set(each.get("cpu_features") or ()) for each in (one, other))
    if ours != theirs:
        found.append(
            Difference(
                "cpu features",
                " ".join(sorted(ours - theirs)) or None,
                " ".join(sorted(theirs - ours)) or None,
            )
        )
    for key in ("threads", "variables"):
        found += _mapped("", one.get(key) or {}, other.get(key) or {})
    found += _mapped("conda ", one.get("conda") or {}, other.get("conda") or {})
    return found + _mapped("", _packages(one), _packages(other))


def flags(environment: Mapping[str, Any]) -> list[str]:
    """List the packages that no index can give: editable, changed, or from a folder or URL."""
    found = []
    conda = {re.sub(r"[-_.]+", "-", name) for name in environment.get("conda") or ()}
    for name, direct in sorted((environment.get("direct") or {}).items()):
        if name in conda and not direct.get("editable"):
            continue  # it tells of the folder that conda's package was built in
        words = ["editable"] if direct.get("editable") else ["from " + str(direct.get("url"))]
        words += ["dirty"] if direct.get("dirty") else []
        found.append(f"{name} ({', '.join(words)})")
    return found


def _packages(environment: Mapping[str, Any]) -> dict[str, str]:
    """Return versions, with the commit of what was not installed from an index."""
    found = dict(environment.get("packages") or {})
    for name, direct in (environment.get("direct") or {}).items():
        parts = [
            found.get(name, ""),
            f"at {str(direct['commit'])[:12]}" if direct.get("commit") else "",
            f"dirty {direct.get('changes', '')}".strip() if direct.get("dirty") else "",
        ]
        found[name] = " ".join(part for part in parts if part)
    return found


def _mapped(prefix: str, one: Mapping[str, Any], other: Mapping[str, Any]) -> list[Difference]:
    return [
        Difference(prefix + name, _text(one.get(name)), _text(other.get(name)))
        for name in sorted({*one, *other})
        if one.get(name) != other.get(name)
    ]


def _text(value: Any) -> str | None:
    return None if value is None else str(value)
