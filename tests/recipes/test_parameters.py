"""Parameters: names, defaults, annotations, and what a command line gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from recallfs.errors import InvalidInputError
from recallfs.recipes.model import Recipe, parse_parameters, validate_parameters
from recallfs.recipes.parameters import read_signature


def filtered(
    inputs: Any,
    output: Path,
    *,
    freq_min: float = 300,
    order: int = 5,
    label: str = "all",
    channels: list[int] | None = None,
    mode: Literal["fast", "exact", 1] = "fast",
    band: tuple[float, float] = (1.0, 2.0),
    gains: dict[str, float] | None = None,
    is_causal: bool = False,
    number: int | float = 0,
    anything: Any = None,
) -> None:
    """Stand for a recipe with every annotation that is checked."""


def open_ended(inputs: Any, output: Path, scale: int, plain=1.5, **others: Any) -> None:  # type: ignore[no-untyped-def] # an annotation is missing on purpose
    """Stand for a recipe that takes any further parameter."""


FILTERED = Recipe("filtered", "1", filtered)
OPEN_ENDED = Recipe("open_ended", "1", open_ended)


def test_defaults_are_filled_in_and_made_json() -> None:
    """Every parameter has a value, ints become annotated floats, tuples lists."""
    values = validate_parameters(FILTERED, {})
    assert list(values) == list(FILTERED.parameters)
    assert values["freq_min"] == 300.0
    assert type(values["freq_min"]) is float
    assert values["band"] == [1.0, 2.0]


@pytest.mark.parametrize(
    ("given", "name", "expected"),
    [
        ({"freq_min": 1}, "freq_min", 1.0),
        ({"channels": (1, 2)}, "channels", [1, 2]),
        ({"channels": None}, "channels", None),
        ({"mode": "exact"}, "mode", "exact"),
        ({"gains": {"a": 1}}, "gains", {"a": 1.0}),
        ({"band": [3, 4]}, "band", [3.0, 4.0]),
        ({"number": 3}, "number", 3),
        ({"order": np.int64(7)}, "order", 7),
        ({"freq_min": np.float32(0.5)}, "freq_min", 0.5),
        ({"anything": {"deep": [None, True]}}, "anything", {"deep": [None, True]}),
    ],
)
def test_fitting_values_are_taken(given: dict[str, Any], name: str, expected: Any) -> None:
    """A value that fits comes out as its annotation wants it, in JSON's own types."""
    value = validate_parameters(FILTERED, given)[name]
    assert value == expected
    assert type(value) is type(expected)


@pytest.mark.parametrize(
    "given",
    [
        {"freq_min": "300"},
        {"freq_min": True},
        {"freq_min": float("nan")},
        {"freq_min": 10**400},
        {"order": 2.5},
        {"order": True},
        {"label": 3},
        {"channels": [1, "2"]},
        {"channels": 1},
        {"mode": "slow"},
        {"mode": True},
        {"band": [1.0]},
        {"band": [1.0, "2"]},
        {"gains": {"a": "b"}},
        {"gains": {1: 2.0}},
        {"is_causal": 1},
        {"anything": object()},
        {"anything": b"bytes"},
    ],
)
def test_misfits_are_refused(given: dict[str, Any]) -> None:
    """A value that is not JSON or does not fit is an error that names its parameter."""
    with pytest.raises(InvalidInputError, match=next(iter(given))) as caught:
        validate_parameters(FILTERED, given)
    assert caught.value.kind == "invalid-parameters"


def test_deep_nesting_is_refused() -> None:
    """Untrusted nesting beyond Python's stack is an error of ours, not a RecursionError."""
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(InvalidInputError):
        validate_parameters(FILTERED, {"anything": deep})


def test_unknown_name_suggests_the_nearest() -> None:
    """A misspelt name is refused with the known one that is nearest."""
    with pytest.raises(InvalidInputError, match="did you mean 'freq_min'") as caught:
        validate_parameters(FILTERED, {"frq_min": 1})
    assert caught.value.kind == "invalid-parameters"
    assert caught.value.details["known"] == list(FILTERED.parameters)


def test_missing_parameter_is_named() -> None:
    """A parameter without a default must be given."""
    with pytest.raises(InvalidInputError, match="'scale' must be given"):
        validate_parameters(OPEN_ENDED, {})


def test_further_names_are_taken_where_the_function_takes_them() -> None:
    """Behind ``**others`` any JSON value is accepted; an unannotated float default is a float."""
    assert validate_parameters(OPEN_ENDED, {"scale": 1, "plain": 2, "more": [1]}) == {
        "scale": 1,
        "plain": 2.0,
        "more": [1],
    }
    with pytest.raises(InvalidInputError, match="more"):
        validate_parameters(OPEN_ENDED, {"scale": 1, "more": {1, 2}})


@pytest.mark.parametrize(
    ("argument", "name", "expected"),
    [
        ("freq_min=300", "freq_min", 300.0),
        ("label=300", "label", "300"),
        ("label=a=b", "label", "a=b"),
        ("label=", "label", ""),
        ("channels=[1, 2]", "channels", [1, 2]),
        ("channels=null", "channels", None),
        ("is_causal=true", "is_causal", True),
        ("mode=exact", "mode", "exact"),
        ("anything=NaN", "anything", "NaN"),
        ("anything=__import__('os')", "anything", "__import__('os')"),
    ],
)
def test_command_line_text_is_converted(argument: str, name: str, expected: Any) -> None:
    """Text becomes JSON where that fits the annotation, and stays text where it does not."""
    assert parse_parameters(FILTERED, [argument])[name] == expected


@pytest.mark.parametrize(
    "arguments", [["freq_min"], ["freq_min=1", "freq_min=2"], ["freq_min=high"], ["nope=1"]]
)
def test_command_line_mistakes_are_refused(arguments: list[str]) -> None:
    """No equals sign, a name twice, text for a number and an unknown name are errors."""
    with pytest.raises(InvalidInputError) as caught:
        parse_parameters(FILTERED, arguments)
    assert caught.value.kind == "invalid-parameters"


def test_functions_that_cannot_be_recipes_are_refused() -> None:
    """A recipe takes inputs and output first, and its parameters by name."""

    def too_few(inputs: Any) -> None: ...

    def by_position(inputs: Any, output: Any, *rest: Any) -> None: ...

    for function in (too_few, by_position):
        with pytest.raises(InvalidInputError):
            read_signature(function)
