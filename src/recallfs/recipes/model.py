"""Recipes: registered, versioned functions that make derived files.

A recipe reads input files, writes one or more output files and depends on nothing else but its
parameters. Cheap to import, so that a module of recipes can be listed without loading h5py.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from recallfs.errors import InvalidInputError
from recallfs.recipes.backend import Backend
from recallfs.recipes.parameters import (
    Parameter,
    Signature,
    parse_parameters,
    read_signature,
    validate_parameters,
)
from recallfs.recipes.source import source_digest
from recallfs.values import canonical_json

__all__ = [
    "Parameter",
    "Recipe",
    "derivation_key",
    "parse_parameters",
    "recipe",
    "recipe_of",
    "validate_parameters",
]

_KEY_SCHEME = "recallfs-derivation-1"
_ATTRIBUTE = "__recallfs_recipe__"
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*")
_Function = TypeVar("_Function", bound=Callable[..., Any])


class MissingInputError(KeyError):
    """A recipe asked for an input that it was not given."""

    def __init__(self, name: str, given: Sequence[str]) -> None:
        super().__init__(name)
        self.name = name
        self.given = tuple(given)

    def __str__(self) -> str:
        given = ", ".join(self.given) or "none"
        return (
            f"it wants an input named {self.name!r} (given: {given}); add -i {self.name}=URL to "
            "`recall run`"
        )


class _Inputs(dict[str, Path]):
    """Inputs by name, which say what is missing; `get` and `in` work as ever."""

    def __missing__(self, name: str) -> Path:
        raise MissingInputError(name, sorted(self))


@dataclass(frozen=True)
class Recipe:
    """A registered, versioned function that makes derived files.

    Parameters
    ----------
    name : str
        What it is asked for by: letters, digits, ``_``, ``.`` and ``-``.
    version : str
        Changed by its author when the output changes.
    function : callable
        ``(inputs, output, **parameters)``.
    outputs : tuple of str
        Names of the files it writes; one that ends in ``/`` is a folder, which the function makes
        and of which every file below counts. With one output, the function gets its path; with
        several, a mapping of name (without the ``/``) to path.
    seeded : bool
        Whether random numbers, UUIDs and 'now' are fixed while it runs.
    timeout_s : float or None
        Time limit of a run in seconds.
    memory_bytes : int or None
        Limit of the data memory of each of its processes.
    declares : Mapping of str to callable
        What it reads beside files: each function gets the parameters as a dictionary and returns
        what is there now, such as rows of a database; see `recallfs.recipes.declared`.
    """

    name: str
    version: str
    function: Callable[..., Any]
    outputs: tuple[str, ...] = ("output",)
    seeded: bool = True
    timeout_s: float | None = None
    memory_bytes: int | None = None
    declares: Mapping[str, Callable[[dict[str, Any]], Any]] = field(default_factory=dict)

    @cached_property
    def signature(self) -> Signature:
        """The parameters that the function takes."""
        return read_signature(self.function)

    @property
    def parameters(self) -> Mapping[str, Parameter]:
        """The parameters by name, in the order of the function's signature."""
        return self.signature.parameters

    @cached_property
    def source_digest(self) -> str:
        """Digest of the code; see `recallfs.recipes.source.source_digest`.

        Raises
        ------
        InvalidInputError
            If the source cannot be read.
        """
        return source_digest(self.function)

    def run(
        self,
        inputs: Mapping[str, Path],
        outputs: Mapping[str, Path],
        parameters: Mapping[str, Any],
    ) -> None:
        """Call the function in this process, with the form of output that it expects.

        Parameters
        ----------
        inputs : Mapping of str to Path
            Files to read.
        outputs : Mapping of str to Path
            Where to write each of `self.outputs`.
        parameters : Mapping of str to JSON value
            As `validate_parameters` returns them.

        Raises
        ------
        InvalidInputError
            If the names of the outputs are not those of the recipe.
        """
        if set(outputs) != set(self.outputs):
            raise InvalidInputError(
                f"recipe {self.name!r} writes {', '.join(self.outputs)}, "
                f"not {', '.join(sorted(outputs)) or 'nothing'}."
            )
        places = {name.removesuffix("/"): place for name, place in outputs.items()}
        output = next(iter(places.values())) if len(places) == 1 else places
        self.function(_Inputs(inputs), output, **self._arguments(parameters))

    def _arguments(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Return parameters as the function takes them: a backend is an object there."""
        declared = self.signature.parameters
        return {
            name: Backend.from_json(value)
            if name in declared and declared[name].annotation is Backend
            else value
            for name, value in parameters.items()
        }


def recipe(
    *,
    name: str,
    version: str,
    outputs: Sequence[str] = ("output",),
    seeded: bool = True,
    timeout_s: float | None = None,
    memory_bytes: int | None = None,
    declares: Mapping[str, Callable[[dict[str, Any]], Any]] | None = None,
) -> Callable[[_Function], _Function]:
    """Register a function as a recipe.

    Parameters
    ----------
    name, version, outputs, seeded, timeout_s, memory_bytes, declares
        See `Recipe`.

    Returns
    -------
    callable
        A decorator that gives back the function itself, with a `Recipe` attached (`recipe_of`).

    Raises
    ------
    InvalidInputError
        If the name, an output or a limit cannot be used, or the function is not defined at the
        top level of a module: a worker imports it from there.

    Examples
    --------
    >>> @recipe(name="bandpass", version="1")  # doctest: +SKIP
    ... def bandpass(inputs, output, *, freq_min: float = 300.0):
    ...     ...
    """
    _check_declaration(name, version, outputs, timeout_s, memory_bytes)
    declared = dict(declares or {})
    for what, read in declared.items():
        if not _NAME.fullmatch(str(what)) or not callable(read):
            raise InvalidInputError(
                f"recipe {name!r} cannot declare {what!r}; give a name made of letters, digits, "
                "'_', '.' and '-', and a function that reads it."
            )

    def attach(function: _Function) -> _Function:
        if "<locals>" in function.__qualname__ or "." in function.__qualname__:
            raise InvalidInputError(
                f"recipe {name!r} must be a function at the top level of a module, "
                f"not {function.__qualname__}."
            )
        made = Recipe(
            name, version, function, tuple(outputs), seeded, timeout_s, memory_bytes, declared
        )
        setattr(function, _ATTRIBUTE, made)
        return function

    return attach


def _check_declaration(
    name: Any,
    version: Any,
    outputs: Sequence[Any],
    timeout_s: float | None,
    memory_bytes: int | None,
) -> None:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InvalidInputError(
            f"{name!r} is not a recipe name; use letters, digits, '_', '.' and '-'."
        )
    if not isinstance(version, str) or not version:
        raise InvalidInputError(f"the version of recipe {name!r} must be a string such as '1'.")
    distinct = {str(output).removesuffix("/") for output in outputs}
    if isinstance(outputs, str) or not outputs or len(distinct) != len(outputs):
        raise InvalidInputError(f"recipe {name!r} needs a tuple of distinct output names.")
    for output in outputs:
        if not isinstance(output, str) or not _NAME.fullmatch(output.removesuffix("/")):
            raise InvalidInputError(f"{output!r} is not an output name of recipe {name!r}.")
    for limit in (timeout_s, memory_bytes):
        if limit is not None and limit <= 0:
            raise InvalidInputError(f"the limits of recipe {name!r} must be above zero.")


def recipe_of(value: object) -> Recipe | None:
    """Return the recipe that `recipe` attached to a function, or None."""
    attached = getattr(value, "__dict__", {}).get(_ATTRIBUTE)
    return attached if isinstance(attached, Recipe) else None


def derivation_key(
    recipe_name: str,
    version: str,
    source_digest: str,
    parameters: Mapping[str, Any],
    inputs: Mapping[str, str],
    *,
    other_inputs: Mapping[str, str] | None = None,
) -> str:
    """Digest what determines the result of a derivation.

    Parameters
    ----------
    recipe_name, version, source_digest : str
        Of the recipe.
    parameters : Mapping of str to JSON value
        As `validate_parameters` returns them.
    inputs : Mapping of str to str
        The sha256 (hex) of each input file by name.
    other_inputs : Mapping of str to str, optional
        Digests of declared inputs that are not files, such as rows of a database.

    Returns
    -------
    str
        BLAKE3, 64 hexadecimal digits. Equal keys find earlier results; that the results are equal
        is said only by a proof.

    Raises
    ------
    InvalidInputError
        If the parameters are not JSON.
    """
    import blake3

    content = {
        "scheme": _KEY_SCHEME,
        "recipe": recipe_name,
        "version": version,
        "source_digest": source_digest,
        "parameters": dict(parameters),
        "inputs": dict(inputs),
        "other_inputs": dict(other_inputs or {}),
    }
    return blake3.blake3(canonical_json(content)).hexdigest()
