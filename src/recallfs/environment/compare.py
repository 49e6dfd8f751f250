"""What differs between two recorded environments."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from recallfs.environment.capture import RELEVANT_VARIABLES, THREAD_VARIABLES, lasting


class Difference(NamedTuple):
    """One thing that differs; None where an environment has it not."""

    what: str
    one: str | None
    other: str | None


_INTERPRETER = ("python", "implementation")
_BUILDS = ("numpy blas", "hdf5", "hdf5 built", "libc")
_COMPUTER = ("system", "machine", "cpu")
_LOADED = ("numpy", "hdf5")
"""What is known only of libraries that were loaded."""

_GIVEN = frozenset({*THREAD_VARIABLES, "TZ"})
"""Variables that a recipe is given, whatever they are in its environment."""

_NO_PACKAGES = frozenset(
    {*_BUILDS, *_COMPUTER, "cpu features", *THREAD_VARIABLES, *RELEVANT_VARIABLES}
)


def compare(
    one: Mapping[str, Any], other: Mapping[str, Any], only: Collection[str] = ()
) -> list[Difference]:
    """List what differs: interpreter and packages, then builds, computer and variables.

    Parameters
    ----------
    only : collection of str
        Names of packages; if given, nothing else is compared.

    Notes
    -----
    Of builds, and of variables that a recipe is given anyway (threads, time zone), what only one
    of the two has recorded is no difference: it depends on who asked, and on what was loaded.
    """
    if only:
        wanted = {name.lower().replace("_", "-").replace(".", "-") for name in only}
        packages = [(_packages(each), wanted) for each in (one, other)]
        first, second = (
            {k: v for k, v in found.items() if k in names} for found, names in packages
        )
        return _mapped(first, second)
    found = _mapped(_named(one, _INTERPRETER), _named(other, _INTERPRETER), _INTERPRETER)
    found += _mapped(_packages(one), _packages(other))
    found += _mapped(_conda(one), _conda(other))
    found += _in_both(_mapped(_builds(one), _builds(other), _BUILDS))
    found += _mapped(_named(one, _COMPUTER), _named(other, _COMPUTER), _COMPUTER)
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
        found += _in_both(_mapped(one.get(key) or {}, other.get(key) or {}), _GIVEN)
    return found


def is_of_packages(difference: Difference) -> bool:
    """Tell whether it is the interpreter or a package that differs, and not what is around them."""
    return difference.what not in _NO_PACKAGES


def is_same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Tell whether two captures are of one environment, asked by two who had loaded other parts.

    Notes
    -----
    Their digests may differ: they name also how many threads and which time zone a recipe was
    given, and whether it had loaded NumPy and HDF5.
    """
    first, second = lasting(one), lasting(other)
    for name in _LOADED:
        if first.get(name) is None or second.get(name) is None:
            first[name] = second[name] = None
    for each in (first, second):
        each.pop("threads", None)
        variables: Mapping[str, str] = each.get("variables") or {}
        each["variables"] = {k: v for k, v in variables.items() if k not in _GIVEN}
    return first == second


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


def _conda(environment: Mapping[str, Any]) -> dict[str, Any]:
    return {f"conda {name}": text for name, text in (environment.get("conda") or {}).items()}


def _builds(environment: Mapping[str, Any]) -> dict[str, Any]:
    """Return how what was loaded was built, and what it was linked with."""
    builds: Mapping[str, Mapping[str, Any]] = environment.get("builds") or {}
    return {
        "numpy blas": (builds.get("numpy") or {}).get("blas"),
        "hdf5": environment.get("hdf5"),
        "hdf5 built": (builds.get("hdf5") or {}).get("built"),
        "libc": environment.get("libc"),
    }


def _named(environment: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    return {name: environment.get(name) for name in names}


def _mapped(
    one: Mapping[str, Any], other: Mapping[str, Any], order: Collection[str] = ()
) -> list[Difference]:
    return [
        Difference(name, _text(one.get(name)), _text(other.get(name)))
        for name in order or sorted({*one, *other})
        if one.get(name) != other.get(name)
    ]


def _in_both(found: list[Difference], of: Collection[str] | None = None) -> list[Difference]:
    """Leave out what only one has recorded, of these or of all."""
    return [
        each
        for each in found
        if None not in (each.one, each.other) or (of is not None and each.what not in of)
    ]


def _text(value: Any) -> str | None:
    return None if value is None else str(value)
