"""Shapes that the documents of several commands are made of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
COUNT: Schema = {"type": "integer", "minimum": 0}
NUMBER: Schema = {"type": "number"}
FLAG: Schema = {"type": "boolean"}
SHA256: Schema = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
SHA256_IF_KNOWN: Schema = {"type": "string", "pattern": "^([0-9a-f]{64})?$"}
MOMENT: Schema = {"type": "string", "description": "ISO 8601, UTC"}
MOMENT_IF_ANY: Schema = {"type": "string", "description": "ISO 8601, UTC; empty for never"}
URL: Schema = {"type": "string", "pattern": "^recall://"}
ANYTHING: Schema = {}
OBJECT: Schema = {"type": "object"}
BALANCE: Schema = {"type": "integer"}
"""Bytes that something frees; below zero where it takes more than it gives."""
FILES: Mapping[str, Schema] = {"files": COUNT, "size_bytes": COUNT}


def object_of(optional: Mapping[str, Schema] | None = None, **fields: Schema) -> Schema:
    """Return the schema of an object with these fields, and perhaps the optional ones."""
    return {
        "type": "object",
        "properties": {**fields, **(optional or {})},
        "required": list(fields),
    }


def list_of(items: Schema) -> Schema:
    """Return the schema of a list, each item of one schema."""
    return {"type": "array", "items": items}


def map_of(values: Schema) -> Schema:
    """Return the schema of an object with any names, each value of one schema."""
    return {"type": "object", "additionalProperties": values}


def one_of(*words: str) -> Schema:
    """Return the schema of a text that is one of these words."""
    return {"enum": list(words)}


def described(note: str, schema: Schema) -> Schema:
    """Return a schema that says when a document is of it."""
    return {**schema, "description": note}


def or_null(schema: Schema) -> Schema:
    """Return a schema that allows null besides."""
    return {"anyOf": [schema, {"type": "null"}]}


STATE = one_of("resident", "released", "missing", "dirty", "conflict", "lost")

ERROR = object_of(
    error=TEXT,
    kind=TEXT,
    message=TEXT,
    details=OBJECT,
    exit_code={"type": "integer", "minimum": 1},
)
"""What any command prints when it fails as a whole."""

FAILED = list_of(ERROR)
AMOUNT = object_of(**FILES)
STATES = map_of(AMOUNT)

SPENT: Mapping[str, Schema] = {
    "seconds": NUMBER,
    "cpu_seconds": or_null(NUMBER),
    "peak_memory_bytes": or_null(COUNT),
}
"""What a run cost, as far as it is known."""

WORK: Mapping[str, Schema] = {
    "states": STATES,
    "runs": COUNT,
    "seconds": NUMBER,
    "cpu_seconds": NUMBER,
    "unknown_costs": COUNT,
    "peak_memory_bytes": COUNT,
}
"""What the runs of a recipe made and cost."""
