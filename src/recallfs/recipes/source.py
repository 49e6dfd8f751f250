"""A digest of the code that makes a file: the recipe and what it uses of its own module.

Two runs are the same derivation only if the code is the same, and version numbers are forgotten.
The digest is taken of source text, not of byte code, so it is the same under every Python.
"""

from __future__ import annotations

import ast
import inspect
import linecache
import sys
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

from recallfs.errors import InvalidInputError
from recallfs.values import canonical_json

_SCHEME = "recallfs-source-1"
_COMPOUND = (ast.If, ast.Try, ast.With)


def source_digest(function: Callable[..., Any]) -> str:
    """Digest a function's source and, transitively, what it uses of its own module.

    Parameters
    ----------
    function : callable
        Defined at the top level of a module whose source can be read.

    Returns
    -------
    str
        BLAKE3, 64 hexadecimal digits; the same in every process and Python version.

    Raises
    ------
    InvalidInputError
        If the source cannot be read.

    Notes
    -----
    Covered are functions and classes of the same module by their text, constants made of JSON
    values by their value, and other module-level names by the statements that assign them.
    The recipe decorator itself is left out: raising a time limit makes no other file. What is
    imported from other modules is not covered; the environment and the recipe's version speak for
    that.
    """
    import blake3

    text = _module_source(function)
    # Not str.splitlines: a form feed ends no line for the parser.
    lines = [f"{line}\n" for line in text.split("\n")]
    tree = ast.parse(text)
    root = _find(tree, function)
    definitions = _definitions(tree)
    parts: dict[str, list[str]] = {}
    waiting = [root]
    while waiting:
        for name in sorted(_names(waiting.pop())):
            if name in parts or name == function.__name__ or name not in definitions:
                continue
            value = function.__globals__.get(name)
            if _is_plain(value):
                parts[name] = [_stable_repr(value)]
                continue
            parts[name] = [_text_of(node, lines) for node in definitions[name]]
            waiting.extend(definitions[name])
    content = {
        "scheme": _SCHEME,
        "function": _text_of(root, lines, without_recipe=True),
        "parts": parts,
    }
    return blake3.blake3(canonical_json(content)).hexdigest()


def _module_source(function: Callable[..., Any]) -> str:
    """Return the source of the function's module, as `inspect` would find it."""
    path = inspect.getsourcefile(function)
    module = sys.modules.get(function.__module__)
    lines = linecache.getlines(path, module.__dict__ if module else None) if path else []
    if not lines:
        raise InvalidInputError(
            f"the source of {function.__qualname__} cannot be read; define recipes in a module "
            "that is a file.",
            details={"function": function.__qualname__},
        )
    return "".join(lines).replace("\r\n", "\n")


def _find(tree: ast.Module, function: Callable[..., Any]) -> ast.stmt:
    first_line = function.__code__.co_firstlineno
    for node in ast.walk(tree):
        if (
            isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
            and node.name == function.__name__
            and first_line in (node.lineno, *(d.lineno for d in node.decorator_list))
        ):
            return node
    raise InvalidInputError(
        f"{function.__qualname__} is not in the source of its module; reload the module.",
        details={"function": function.__qualname__},
    )


def _definitions(tree: ast.Module) -> dict[str, list[ast.stmt]]:
    """Map each name that the module defines (not imports) to the statements that do."""
    found: dict[str, list[ast.stmt]] = {}
    for statement in _statements(tree.body):
        for name in _defined(statement):
            found.setdefault(name, []).append(statement)
    return found


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Walk the statements that run at import, into ``if``, ``try`` and ``with``."""
    for statement in body:
        if isinstance(statement, _COMPOUND):
            for field in ("body", "orelse", "finalbody"):
                yield from _statements(getattr(statement, field, []))
            for handler in getattr(statement, "handlers", []):
                yield from _statements(handler.body)
        else:
            yield statement


def _defined(statement: ast.stmt) -> list[str]:
    if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return [statement.name]
    if isinstance(statement, (ast.Assign, ast.AnnAssign, ast.AugAssign)):
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        return [
            node.id
            for target in targets
            for node in ast.walk(target)
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
        ]
    return []


def _names(statement: ast.stmt) -> set[str]:
    return {node.id for node in ast.walk(statement) if isinstance(node, ast.Name)}


def _text_of(node: ast.stmt, lines: list[str], *, without_recipe: bool = False) -> str:
    decorators = getattr(node, "decorator_list", [])
    if without_recipe:
        decorators = [decorator for decorator in decorators if not _is_recipe(decorator)]
        kept = [line for d in decorators for line in lines[d.lineno - 1 : d.end_lineno]]
        text = "".join(kept + lines[node.lineno - 1 : node.end_lineno])
    else:
        first = min([node.lineno, *(decorator.lineno for decorator in decorators)])
        text = "".join(lines[first - 1 : node.end_lineno])
    return textwrap.dedent(text).strip("\n")


def _is_recipe(decorator: ast.expr) -> bool:
    called = decorator.func if isinstance(decorator, ast.Call) else decorator
    name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
    return name == "recipe"


def _is_plain(value: Any) -> bool:
    """Tell whether a value is made of JSON values (or tuples, sets and bytes) all through."""
    if isinstance(value, (list, tuple, set, frozenset)):
        return all(_is_plain(item) for item in value)
    if isinstance(value, dict):
        return all(_is_plain(key) and _is_plain(item) for key, item in value.items())
    return type(value) in (bool, int, float, str, bytes)


def _stable_repr(value: Any) -> str:
    """Return a repr that does not depend on hash order or on the kind of sequence."""
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_stable_repr, value))}]"
    if isinstance(value, (set, frozenset)):
        return f"{{{', '.join(sorted(map(_stable_repr, value)))}}}"
    if isinstance(value, dict):
        items = (f"{_stable_repr(key)}: {_stable_repr(item)}" for key, item in value.items())
        return f"{{{', '.join(items)}}}"
    return repr(value)
