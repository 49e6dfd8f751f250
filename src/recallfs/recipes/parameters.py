"""The parameters of a recipe: JSON values that fit the signature of its function.

Parameters come from command lines and from records, so they are untrusted: names are held against
the signature, values against simple annotations, and nothing is evaluated.
"""

from __future__ import annotations

import collections.abc
import inspect
import json
import math
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from recallfs.errors import InvalidInputError
from recallfs.recipes.backend import Backend

if TYPE_CHECKING:
    from recallfs.recipes.model import Recipe

_LEADING = 2  # inputs and output come before the parameters
_LISTS = (list, collections.abc.Sequence, collections.abc.Iterable)
_MAPPINGS = (dict, collections.abc.Mapping)


@dataclass(frozen=True)
class Parameter:
    """One parameter of a recipe.

    Parameters
    ----------
    name : str
        As in the signature.
    annotation : Any
        A type to check against; `typing.Any` if there is none that can be checked.
    required : bool
        Whether a value must be given.
    default : Any
        Used if no value is given; meaningless if `required`.
    """

    name: str
    annotation: Any
    required: bool
    default: Any = None


@dataclass(frozen=True)
class Signature:
    """What parameters a recipe takes.

    Parameters
    ----------
    parameters : Mapping of str to Parameter
        In the order of the function's signature.
    takes_others : bool
        Whether the function has ``**others``, so that any further name will do.
    """

    parameters: Mapping[str, Parameter]
    takes_others: bool


def read_signature(function: Callable[..., Any]) -> Signature:
    """Read the parameters after ``inputs`` and ``output`` off a function.

    Raises
    ------
    InvalidInputError
        If the function does not take inputs and output first, or has ``*args``.
    """
    given = list(inspect.signature(function).parameters.values())
    by_position = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    if len([p for p in given[:_LEADING] if p.kind in by_position]) < _LEADING:
        raise InvalidInputError(
            f"{function.__qualname__} must take (inputs, output, ...) as its first two arguments."
        )
    try:
        hints = typing.get_type_hints(function)
    except Exception:  # noqa: BLE001 - annotations are foreign code; unread ones are not checked
        hints = {}
    parameters: dict[str, Parameter] = {}
    takes_others = False
    for parameter in given[_LEADING:]:
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            takes_others = True
        elif parameter.kind in (
            inspect.Parameter.KEYWORD_ONLY,
            inspect.Parameter.POSITIONAL_OR_KEYWORD,
        ):
            parameters[parameter.name] = _read_parameter(parameter, hints)
        else:
            raise InvalidInputError(
                f"{function.__qualname__} takes {parameter.name!r} by position only; "
                "parameters of a recipe are given by name."
            )
    return Signature(parameters, takes_others)


def _read_parameter(parameter: inspect.Parameter, hints: Mapping[str, Any]) -> Parameter:
    required = parameter.default is inspect.Parameter.empty
    annotation = hints.get(parameter.name, Any)
    default = None if required else parameter.default
    if annotation is Any and isinstance(default, float):
        # Without this, 300 and 300.0 from a command line would be two derivations.
        annotation = float
    if isinstance(default, Backend):
        annotation, default = Backend, default.to_json()
    return Parameter(parameter.name, annotation, required, default)


def validate_parameters(recipe: Recipe, given: Mapping[str, Any]) -> dict[str, Any]:
    """Hold parameters against a recipe's signature and fill in the defaults.

    Parameters
    ----------
    recipe : Recipe
        Whose signature decides.
    given : Mapping of str to JSON value
        Tuples become lists and NumPy scalars become numbers. An int becomes a float where a float
        is annotated.

    Returns
    -------
    dict of str to JSON value
        One value for each parameter, in the order of the signature.

    Raises
    ------
    InvalidInputError
        Kind ``invalid-parameters``: an unknown name (the nearest known one is named), a missing
        one, a value that is not JSON or does not fit its annotation.

    Notes
    -----
    Checked annotations are ``int``, ``float``, ``str``, ``bool``, ``list``, ``tuple`` (which
    arrives as a list), ``dict``, ``None``, ``Literal``, unions and nestings of these, and
    `recallfs.recipes.backend.Backend`. Others, such as ``Any``, are not checked.
    """
    signature = recipe.signature
    for name in given:
        if name not in signature.parameters and not signature.takes_others:
            _refuse_name(recipe, name)
    valid: dict[str, Any] = {}
    for name, parameter in signature.parameters.items():
        if name in given:
            value = given[name]
        elif parameter.required:
            _refuse(recipe, f"parameter {name!r} must be given", name)
        else:
            value = parameter.default
        valid[name] = _checked(recipe, parameter, value)
    for name, value in given.items():
        if name not in valid:
            valid[name] = _checked(recipe, Parameter(name, Any, required=True), value)
    return valid


def parse_parameters(recipe: Recipe, arguments: Sequence[str]) -> dict[str, Any]:
    """Read parameters as they are written on a command line.

    Parameters
    ----------
    recipe : Recipe
        Whose signature decides.
    arguments : sequence of str
        Such as ``freq_min=300`` or ``channels=[1,2]``: JSON if it parses and fits the annotation,
        else the text itself.

    Returns
    -------
    dict of str to JSON value
        As `validate_parameters` returns it.

    Raises
    ------
    InvalidInputError
        Kind ``invalid-parameters``.

    Examples
    --------
    >>> parse_parameters(recipe, ["freq_min=300", "label=left"])  # doctest: +SKIP
    {'freq_min': 300.0, 'label': 'left'}
    """
    given: dict[str, Any] = {}
    for argument in arguments:
        name, equals, text = argument.partition("=")
        if not equals:
            _refuse(recipe, f"{argument!r} is not of the form name=value", argument)
        if name in given:
            _refuse(recipe, f"parameter {name!r} is given twice", name)
        parameter = recipe.signature.parameters.get(name)
        given[name] = _parse(text, Any if parameter is None else parameter.annotation)
    return validate_parameters(recipe, given)


def _parse(text: str, annotation: Any) -> Any:
    """Return the JSON value of `text` if it has one that fits, else `text`."""
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
        _fit(value, annotation)
    except (ValueError, RecursionError):
        return text
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _checked(recipe: Recipe, parameter: Parameter, value: Any) -> Any:
    try:
        if parameter.annotation is Backend:
            # What is not said is as the recipe declares it, and is recorded with the rest.
            return Backend.from_json(parameter.default or {}).updated(value).to_json()
        return _fit(_as_json(value), parameter.annotation)
    except (ValueError, OverflowError, RecursionError) as error:
        _refuse(recipe, f"parameter {parameter.name!r}: {str(error).rstrip('.')}", parameter.name)


def _refuse_name(recipe: Recipe, name: str) -> NoReturn:
    import difflib

    known = list(recipe.signature.parameters)
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    if nearest:
        hint = f"did you mean {nearest[0]!r}?"
    else:
        hint = f"it takes {', '.join(known) or 'no parameters'}."
    raise InvalidInputError(
        f"recipe {recipe.name!r} has no parameter {name!r}; {hint}",
        kind="invalid-parameters",
        details={"recipe": recipe.name, "parameter": name, "known": known},
    )


def _refuse(recipe: Recipe, problem: str, name: str) -> NoReturn:
    raise InvalidInputError(
        f"recipe {recipe.name!r}: {problem}.",
        kind="invalid-parameters",
        details={"recipe": recipe.name, "parameter": name},
    )


def _as_json(value: Any) -> Any:
    """Return a value in JSON's own types, or raise ValueError."""
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{value!r} is not a JSON number")
        return float(value)
    if isinstance(value, (list, tuple)):
        return [_as_json(item) for item in value]
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise ValueError("the keys of a mapping must be strings")
        return {key: _as_json(item) for key, item in value.items()}
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        return _as_json(value.item())  # a NumPy scalar
    raise ValueError(f"{_shown(value)} is not a JSON value")


def _fit(value: Any, annotation: Any) -> Any:
    """Return a JSON value as its annotation wants it, or raise ValueError."""
    origin = typing.get_origin(annotation)
    arguments = typing.get_args(annotation)
    if origin is typing.Union or origin is types.UnionType:
        return _fit_union(value, annotation, arguments)
    if origin is Literal:
        # 1 == True in Python, but they are two JSON values.
        if any(value == one and type(value) is type(one) for one in arguments):
            return value
        raise ValueError(f"must be one of {', '.join(map(repr, arguments))}, not {_shown(value)}")
    kind = origin or annotation
    if kind is tuple:
        return _fit_tuple(value, arguments)
    if kind in _LISTS:
        _require(value, list, annotation)
        return [_fit(item, arguments[0]) for item in value] if arguments else value
    if kind in _MAPPINGS:
        _require(value, dict, annotation)
        return {k: _fit(v, arguments[1]) for k, v in value.items()} if arguments else value
    return _fit_scalar(value, annotation)


def _fit_scalar(value: Any, annotation: Any) -> Any:
    if annotation is float:
        if isinstance(value, int) and not isinstance(value, bool):
            return float(value)
        _require(value, float, annotation)
    elif annotation is int:
        if isinstance(value, bool):
            raise ValueError(f"must be int, not {_shown(value)}")
        _require(value, int, annotation)
    elif annotation is str or annotation is bool:
        _require(value, annotation, annotation)
    elif annotation is None or annotation is type(None):
        _require(value, type(None), annotation)
    return value


def _fit_tuple(value: Any, arguments: tuple[Any, ...]) -> Any:
    _require(value, list, tuple)
    if not arguments:
        return value
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        return [_fit(item, arguments[0]) for item in value]
    if len(value) != len(arguments):
        raise ValueError(f"must have {len(arguments)} items, not {len(value)}")
    return [_fit(item, wanted) for item, wanted in zip(value, arguments, strict=True)]


def _fit_union(value: Any, annotation: Any, members: tuple[Any, ...]) -> Any:
    fitting = []
    for member in members:
        try:
            fitting.append(_fit(value, member))
        except ValueError:
            continue
    # A member that takes the value as it is goes before one that converts it: int | float keeps 3.
    for fitted in fitting:
        if fitted == value and type(fitted) is type(value):
            return fitted
    if fitting:
        return fitting[0]
    raise ValueError(f"must be {_name_of(annotation)}, not {_shown(value)}")


def _require(value: Any, wanted: type, annotation: Any) -> None:
    if not isinstance(value, wanted):
        raise ValueError(f"must be {_name_of(annotation)}, not {_shown(value)}")


def _name_of(annotation: Any) -> str:
    if annotation is None or annotation is type(None):
        return "null"
    if isinstance(annotation, type) and typing.get_origin(annotation) is None:
        return annotation.__name__
    return str(annotation).replace("typing.", "")


def _shown(value: Any) -> str:
    text = repr(value)
    return f"{text if len(text) <= 60 else text[:57] + '...'} ({type(value).__name__})"
