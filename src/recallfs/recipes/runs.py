"""Many runs of recipes at once: sweeps over parameters, and files that list runs."""

from __future__ import annotations

import csv
import io
import itertools
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from recallfs.errors import AccessError, InvalidInputError
from recallfs.recipes.model import Recipe, parse_parameters, validate_parameters
from recallfs.values import display_name

_PLACEHOLDER = re.compile(r"\{\{|\}\}|\{([^{}]*)\}")
_FIELDS = ("recipe", "outputs", "inputs", "parameters")
_COLUMN = re.compile(r"(recipe|output)|(output|input|parameter)\.(.+)")


@dataclass(frozen=True)
class Run:
    """One run that is wanted.

    Parameters
    ----------
    label : str
        What tells it apart from the others: its swept parameters, or its line.
    recipe : str
    outputs, inputs : Mapping of str to str
        Addresses by name; the only output of a recipe may have the empty name.
    parameters : Mapping of str to JSON value
        As `validate_parameters` returns them.
    """

    label: str
    recipe: str
    outputs: Mapping[str, str]
    inputs: Mapping[str, str]
    parameters: Mapping[str, Any]


def sweep(
    recipe: Recipe,
    outputs: Mapping[str, str],
    inputs: Mapping[str, str],
    arguments: Sequence[str],
) -> list[Run]:
    """Make a run of each combination of values.

    Parameters
    ----------
    outputs : Mapping of str to str
        Where there is more than one combination, ``{name}`` stands for the value of the parameter
        ``name``, as it was written; ``{{`` and ``}}`` for braces.
    arguments : sequence of str
        Such as ``freq_min=300,600``; see `values_of`.

    Returns
    -------
    list of Run
        The last parameter changes fastest. One, if nothing is swept.

    Raises
    ------
    InvalidInputError
        Kind ``invalid-parameters``; kind ``invalid-path`` for an output that is not named apart.
    """
    choices = []
    for argument in arguments:
        name, equals, text = argument.partition("=")
        values = values_of(text) if equals else [text]
        choices.append([(name, equals, value) for value in values])
    swept = [options[0][0] for options in choices if len(options) > 1]
    runs = []
    for combination in itertools.product(*choices):
        texts = {name: _written(value) for name, _, value in combination}
        parameters = parse_parameters(recipe, ["".join(parts) for parts in combination])
        named = {name: _filled(url, texts) for name, url in outputs.items()} if swept else outputs
        label = ", ".join(f"{name}={texts[name]}" for name in swept)
        runs.append(Run(label, recipe.name, named, inputs, parameters))
    return runs


def values_of(text: str) -> list[str]:
    """Split the values of a parameter at commas.

    A value that begins with ``[``, ``{`` or ``"`` is read as JSON to its end, so that commas in it
    separate nothing: ``[1,2]`` is one list, ``[1,2],[3,4]`` two, ``"a,b"`` one text.

    Raises
    ------
    InvalidInputError
        Kind ``invalid-parameters``: nothing between two commas, or broken JSON beside one.

    Examples
    --------
    >>> values_of("300,600")
    ['300', '600']
    >>> values_of('"a,b",[1,2]')
    ['"a,b"', '[1,2]']
    """
    if "," not in text:
        return [text]
    values = []
    rest: str | None = text
    while rest is not None:
        if rest[:1] in ("[", "{", '"'):
            try:
                _, end = json.JSONDecoder().raw_decode(rest)
            except (ValueError, RecursionError):
                _refuse(f"{rest!r} begins like JSON and is none; quote a text as JSON: '\"a,b\"'.")
            if rest[end : end + 1] not in ("", ","):
                _refuse(f"{rest!r}: after {rest[:end]} there must be a comma or nothing.")
            value, rest = rest[:end], rest[end + 1 :] if rest[end:] else None
        else:
            value, comma, following = rest.partition(",")
            rest = following if comma else None
        if not value:
            _refuse(f"{text!r} has an empty value; write '\"\"' for an empty text.")
        values.append(value)
    return values


def _written(value: str) -> str:
    """Return a value's text for the name of a file: that of a JSON string is its content."""
    if value.startswith('"'):
        try:
            found = json.loads(value)
        except ValueError:
            return value
        return found if isinstance(found, str) else value
    return value


def _filled(url: str, texts: Mapping[str, str]) -> str:
    def replacement(match: re.Match[str]) -> str:
        if match[0] in ("{{", "}}"):
            return match[0][0]
        name = match[1]
        if name not in texts:
            known = ", ".join(texts)
            _refuse(f"{url}: {{{name}}} is no parameter of this sweep (given: {known}).")
        if "/" in texts[name]:
            _refuse(f"{url}: the value {texts[name]!r} of {name} cannot be part of a file's name.")
        return texts[name]

    return _PLACEHOLDER.sub(replacement, url)


def read_batch(path: Path, usual: str | None, find: Callable[[str], Recipe]) -> list[Run]:
    """Read a file that lists runs, one a line.

    Parameters
    ----------
    path : Path
        ``.csv``: a line of column names, then a line for each run. Columns are ``recipe``,
        ``output`` (or ``output.NAME``), ``input.NAME`` and ``parameter.NAME``; parameters are
        written as on the command line, without sweeps, and an empty cell is not given.
        ``.jsonl``: an object a line, with the keys ``recipe``, ``outputs`` (an address, or an
        object of them), ``inputs`` and ``parameters`` (objects).
    usual : str, optional
        Recipe of the lines that name none.
    find : callable
        Gives a recipe by its name.

    Raises
    ------
    InvalidInputError
        What is wrong with the file, with all lines that are wrong.
    AccessError
        It may not be read.
    """
    if path.suffix not in (".csv", ".jsonl"):
        raise InvalidInputError(f"{path}: a list of runs is a .csv or a .jsonl file.")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except PermissionError as error:
        raise AccessError(f"{path} may not be read: {error.strerror}.") from error
    except OSError as error:
        raise InvalidInputError(f"{path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"{path} is not UTF-8 text: {error}.") from error
    lines = _csv_lines(path, text) if path.suffix == ".csv" else _json_lines(text)
    runs: list[Run] = []
    problems: list[str] = []
    for number, make in lines:
        try:
            runs.append(make(f"line {number}", usual, find))
        except InvalidInputError as error:
            problems.append(f"line {number}: {error.message}")
    if problems:
        raise refusal(str(path), problems)
    if not runs:
        raise InvalidInputError(f"{path} lists no run.")
    return runs


def refusal(what: str, problems: Sequence[str]) -> InvalidInputError:
    """Make the error that names all that is wrong with some runs."""
    # A line for each: names in them may hold line breaks of their own.
    shown = "\n  ".join(map(display_name, problems[:10]))
    more = f"\n  and {len(problems) - 10:,} more" if len(problems) > 10 else ""
    return InvalidInputError(
        f"{what}: nothing was run, because of:\n  {shown}{more}",
        details={"problems": list(problems)},
    )


_Maker = Callable[[str, "str | None", Callable[[str], Recipe]], Run]


def _csv_lines(path: Path, text: str) -> Iterator[tuple[int, _Maker]]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        unknown = [name for name in header if not _COLUMN.fullmatch(name)]
        if unknown or len(set(header)) != len(header):
            raise InvalidInputError(
                f"{path}: the first line names the columns: recipe, output or output.NAME, "
                f"input.NAME, parameter.NAME, each once; {', '.join(map(repr, unknown or header))} "
                "cannot be used."
            )
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield reader.line_num, _csv_maker(header, cells)
    except csv.Error as error:
        raise InvalidInputError(f"{path}, line {reader.line_num}: {error}.") from error


def _csv_maker(header: Sequence[str], cells: Sequence[str]) -> _Maker:
    def make(label: str, usual: str | None, find: Callable[[str], Recipe]) -> Run:
        if len(cells) != len(header):
            raise InvalidInputError(
                f"it has {len(cells)} cells, and there are {len(header)} columns."
            )
        given: dict[str, dict[str, str]] = {"output": {}, "input": {}, "parameter": {}}
        name = usual
        for column, cell in zip(header, (cell.strip() for cell in cells), strict=True):
            kind, _, key = column.partition(".")
            if not cell:
                continue
            if kind == "recipe":
                name = cell
            else:
                given[kind][key] = cell
        recipe = find(_named(name))
        arguments = [f"{key}={value}" for key, value in given["parameter"].items()]
        parameters = parse_parameters(recipe, arguments)
        return Run(label, recipe.name, given["output"], given["input"], parameters)

    return make


def _json_lines(text: str) -> Iterator[tuple[int, _Maker]]:
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield number, _json_maker(line)


def _json_maker(line: str) -> _Maker:
    def make(label: str, usual: str | None, find: Callable[[str], Recipe]) -> Run:
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InvalidInputError(f"it is not JSON ({error}).") from None
        if not isinstance(value, dict) or set(value) - set(_FIELDS):
            raise InvalidInputError(f"it must be an object with keys of {', '.join(_FIELDS)}.")
        outputs = value.get("outputs", {})
        recipe = find(_named(value.get("recipe", usual)))
        return Run(
            label,
            recipe.name,
            {"": outputs} if isinstance(outputs, str) else _addresses(outputs, "outputs"),
            _addresses(value.get("inputs", {}), "inputs"),
            validate_parameters(recipe, _mapping(value.get("parameters", {}), "parameters")),
        )

    return make


def _named(name: Any) -> str:
    if not isinstance(name, str) or not name:
        raise InvalidInputError("it names no recipe, and the command line names none either.")
    return name


def _mapping(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidInputError(f"its {what} must be an object.")
    return value


def _addresses(value: Any, what: str) -> dict[str, str]:
    if not all(isinstance(item, str) for item in _mapping(value, what).values()):
        raise InvalidInputError(f"its {what} must be addresses by name.")
    return dict(value)


def _refuse(problem: str) -> NoReturn:
    raise InvalidInputError(problem, kind="invalid-parameters")
