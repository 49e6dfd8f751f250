"""Restrictions as they are typed on the command line: a table, and which of its rows.

``TABLE`` or ``TABLE & CONDITION``. Nothing of it is run as code.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from recallfs.errors import InvalidInputError
from recallfs.integrations.spyglass.database import load_table, told_plainly
from recallfs.integrations.spyglass.declared import declared_tables
from recallfs.resolve.stores import Stores

_FORM = (
    "write TABLE or TABLE & CONDITION, such as "
    '\'v1.SpikeSortingRecording & {"nwb_file_name": "x_.nwb"}\''
)


def parse(stores: Stores, text: str) -> Any:
    """Return the DataJoint query that a restriction stands for.

    Parameters
    ----------
    text : str
        The table is ``package.module:Class``, or the name of a class whose rows a recipe declares,
        with a part of its module's name before it where there are several:
        ``v1.SpikeSortingRecording``. The condition is a JSON object or SQL, as after ``WHERE``. In
        JSON, a column that the table has not may be one of a table that it refers to.

    Raises
    ------
    InvalidInputError
        It is malformed, no such table is known, or no such column.
    SourceError, AccessError
        The database does not answer, or denies it.
    """
    name, ampersand, condition = (part.strip() for part in text.partition("&"))
    if not name or (ampersand and not condition):
        raise InvalidInputError(f"{text!r} is no restriction; {_FORM}.")
    table = load_table(name if ":" in name else _declared(stores, name))
    with told_plainly():
        query = table()
        if not condition:
            return query
        if condition[0] not in "{[":
            return query & condition
        return _restricted(query, _columns(condition))


def _declared(stores: Stores, name: str) -> str:
    """Return the full name of a table that is named by its class only."""
    known = declared_tables(stores)
    found = [full for full in known if _is_named(full, name)]
    if len(found) == 1:
        return found[0]
    if found:
        raise InvalidInputError(f"{name} may be {' or '.join(found)}; write which one you mean.")
    among = f"; recipes declare {', '.join(known)}" if known else ""
    raise InvalidInputError(
        f"no recipe declares a table named {name}{among}. Write any other as "
        "'package.module:Class'."
    )


def _is_named(full: str, name: str) -> bool:
    """Tell whether ``a.b.c:Class`` goes by ``Class``, or by ``b.Class``."""
    module, _, qualified = full.partition(":")
    if name == qualified:
        return True
    version, _, rest = name.partition(".")
    return rest == qualified and version in module.split(".")


def _columns(condition: str) -> dict[str, Any]:
    try:
        value = json.loads(condition)
    except ValueError as error:
        raise InvalidInputError(
            f"{condition!r} is not JSON ({error}); write for example "
            '{"nwb_file_name": "x_.nwb"}, or SQL.'
        ) from error
    plain = (str, int, float, bool)
    if not isinstance(value, dict) or not all(isinstance(item, plain) for item in value.values()):
        raise InvalidInputError(
            f"{condition!r} is not one JSON object of columns with texts and numbers; write for "
            'example {"nwb_file_name": "x_.nwb"}, or SQL.'
        )
    return value


def _restricted(query: Any, columns: Mapping[str, Any]) -> Any:
    """Restrict a query by columns of its own and of tables upstream.

    DataJoint itself passes over columns that a table has not, and would give all its rows.
    """
    own = {name: value for name, value in columns.items() if name in query.heading.names}
    above = {name: value for name, value in columns.items() if name not in own}
    result = query & own if own else query
    if not above:
        return result
    for name, value in above.items():
        chain = _chain(query, name)
        upstream = chain[-1] & {name: value}
        for below in reversed(chain[:-1]):
            upstream = below & upstream.proj()
        result = result & upstream.proj()
    return result


def _chain(query: Any, column: str) -> list[Any]:
    """Return the tables from a parent of a query's up to the nearest that has a column."""
    import datajoint

    waiting: list[tuple[Any, list[Any]]] = [(query, [])]
    seen: set[str] = set()
    while waiting:
        table, chain = waiting.pop(0)
        if chain and column in table.heading.names:
            return chain
        for name in _parents(table):
            if name not in seen:
                seen.add(name)
                parent = datajoint.FreeTable(query.connection, name)
                waiting.append((parent, [*chain, parent]))
    raise InvalidInputError(
        f"neither {query.full_table_name} nor a table that it refers to has a column {column!r}; "
        f"its own are {', '.join(query.heading.names)}."
    )


def _parents(table: Any) -> Iterator[str]:
    for name, edge in table.parents(foreign_key_info=True):
        if all(column == other for column, other in edge["attr_map"].items()):
            yield name
