"""Errors: what they are to code that knows only Python's, and that they survive a journey."""

from __future__ import annotations

import ast
import copy
import errno
import json
import pickle
import re
from pathlib import Path

import pytest

import recallfs
from recallfs import errors
from recallfs.errors import (
    KINDS,
    AccessError,
    CatalogError,
    ConflictError,
    EnvironmentMismatchError,
    IntegrityError,
    InvalidInputError,
    LockedError,
    NotRecallableError,
    RecallError,
    RecipeFailedError,
    RecomputeError,
    SchemaVersionError,
    SourceError,
    SourceRateLimitError,
    SourceTimeoutError,
)

SOURCE_FILES = sorted(Path(recallfs.__file__).parent.rglob("*.py"))
BASES: dict[type[RecallError], tuple[type[BaseException], ...]] = {
    InvalidInputError: (ValueError,),
    NotRecallableError: (OSError,),
    SourceError: (OSError,),
    SourceTimeoutError: (SourceError, TimeoutError),
    SourceRateLimitError: (SourceError,),
    AccessError: (PermissionError,),
    IntegrityError: (OSError,),
    RecomputeError: (RecallError,),
    RecipeFailedError: (RecomputeError,),
    EnvironmentMismatchError: (RecomputeError,),
    ConflictError: (FileExistsError,),
    CatalogError: (RecallError,),
    LockedError: (CatalogError,),
    SchemaVersionError: (CatalogError,),
}
ERRNOS: dict[type[RecallError], int] = {
    NotRecallableError: errno.EIO,
    SourceError: errno.EIO,
    SourceTimeoutError: errno.ETIMEDOUT,
    SourceRateLimitError: errno.EAGAIN,
    AccessError: errno.EACCES,
    IntegrityError: errno.EIO,
    ConflictError: errno.EEXIST,
}
CLASSES: list[type[RecallError]] = [RecallError, *BASES]


def test_every_class_is_tried() -> None:
    """The table above leaves no public error class out."""
    public = {
        item
        for item in vars(errors).values()
        if isinstance(item, type)
        and issubclass(item, RecallError)
        and not item.__name__.startswith("_")
    }
    assert public == set(CLASSES)


@pytest.mark.parametrize("cls", BASES, ids=lambda cls: cls.__name__)
def test_each_error_is_what_plain_code_expects(cls: type[RecallError]) -> None:
    """An error is caught by the built-in class that says the same, and has its errno."""
    error = cls("no luck")
    assert isinstance(error, BASES[cls])
    assert isinstance(error, RecallError)
    assert getattr(error, "errno", None) == ERRNOS.get(cls)


@pytest.mark.parametrize("cls", BASES)
def test_no_error_is_file_not_found(cls: type[RecallError]) -> None:
    """No error of ours is a FileNotFoundError, which zarr would fill with zeros."""
    assert not issubclass(cls, FileNotFoundError)


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
@pytest.mark.parametrize("travel", ["pickle", "copy", "json"])
def test_errors_cross_processes(cls: type[RecallError], travel: str) -> None:
    """Class, message, kind, details and errno are the same after pickle, copy and JSON."""
    details = {"path": "a/b", "answers": [{"source": "m", "kind": "absent"}], "n": 3}
    before = cls("it is gone: ω", kind="relied-on", details=details)
    if travel == "pickle":
        after = pickle.loads(pickle.dumps(before))  # noqa: S301 - our own bytes
    elif travel == "copy":
        after = copy.deepcopy(before)
    else:
        after = RecallError.from_json(json.loads(json.dumps(before.to_json())))
    assert type(after) is cls
    assert str(after) == "it is gone: ω"
    assert (after.kind, after.exit_code, after.details) == ("relied-on", 75, details)
    assert getattr(after, "errno", None) == ERRNOS.get(cls)


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"error": "OSError", "kind": "no-such-kind", "message": None, "details": None},
        {"error": ["x"], "kind": ["x"], "message": 3, "details": "text"},
    ],
)
def test_nonsense_from_another_process_is_still_an_error_of_ours(data: dict[str, object]) -> None:
    """What a child process wrote, or half wrote, is never trusted to be well formed."""
    error = RecallError.from_json(data)
    assert type(error) is RecallError
    assert error.kind == "invalid-input"
    assert error.details == {}


def test_exit_codes_are_unique_and_leave_room_for_the_shell() -> None:
    """Each kind has a code of its own, none of which means something to a shell."""
    codes = [kind.exit_code for kind in KINDS.values()]
    assert len(set(codes)) == len(codes)
    assert all(10 <= code < 100 for code in codes)
    assert all(re.fullmatch(r"[a-z0-9-]+", kind) for kind in KINDS)


def test_released_numbers_do_not_change() -> None:
    """A sample of kinds, one per class, has the numbers that scripts rely on."""
    expected = {
        "invalid-input": 10,
        "not-recallable": 20,
        "source-unavailable": 30,
        "access-denied": 40,
        "digest-mismatch": 50,
        "recipe-failed": 60,
        "conflict": 70,
        "catalog-damaged": 80,
    }
    assert {kind: KINDS[kind].exit_code for kind in expected} == expected


def test_each_class_and_its_default_kind_agree() -> None:
    """A class's default kind lies in the ten numbers of that class."""
    tens = {
        InvalidInputError: 1,
        NotRecallableError: 2,
        SourceError: 3,
        AccessError: 4,
        IntegrityError: 5,
        RecomputeError: 6,
        ConflictError: 7,
        CatalogError: 8,
    }
    for cls in BASES:
        top = next(base for base in cls.__mro__ if base in tens)
        assert cls("x").exit_code // 10 == tens[top]


def _literal_kinds() -> set[str]:
    """Find the kinds that calls of our error classes name, and the classes' own."""
    found = set()
    names = {cls.__name__ for cls in CLASSES}
    for path in SOURCE_FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", None) in names:
                given = [word.value for word in node.keywords if word.arg == "kind"]
            elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "default_kind":
                given = [node.value]
            else:
                continue
            for value in given:
                choices = [value.body, value.orelse] if isinstance(value, ast.IfExp) else [value]
                found |= {one.value for one in choices if isinstance(one, ast.Constant)}
    return {kind for kind in found if isinstance(kind, str)}


def test_every_kind_written_in_the_code_is_known() -> None:
    """No `kind="…"` in the code would end in a KeyError instead of an error."""
    found = _literal_kinds()
    assert {"digest-mismatch", "damaged-record", "no-space"} <= found
    assert found <= set(KINDS)


def test_every_known_kind_is_used() -> None:
    """No kind is documented that nothing raises."""
    elsewhere = "".join(
        path.read_text(encoding="utf-8") for path in SOURCE_FILES if path.name != "errors.py"
    )
    quoted = set(re.findall(r"[\"']([a-z0-9-]+)[\"']", elsewhere))
    assert set(KINDS) - quoted - _literal_kinds() == set()


def test_an_unknown_kind_is_a_mistake_at_once() -> None:
    """A misspelt kind fails where it is raised, not in the handler."""
    with pytest.raises(KeyError):
        RecallError("x", kind="no-such-kind")
