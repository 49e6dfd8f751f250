"""What each command prints with ``--json``, as JSON Schema.

docs/reference/json/ and its page are generated from here, and a test holds every command's output
against its schema.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from recallfs.cli.schemas import bench, evidence, making, program, reading, releasing, storage
from recallfs.cli.schemas.shapes import ERROR, Schema

__all__ = ["ERROR", "SCHEMAS", "document", "strict"]

SCHEMAS: Mapping[str, Schema] = {
    **storage.SCHEMAS,
    **making.SCHEMAS,
    **evidence.SCHEMAS,
    **releasing.SCHEMAS,
    **reading.SCHEMAS,
    **program.SCHEMAS,
    **bench.SCHEMAS,
}
"""Schema of each command's document, by the command's words."""


def document(command: str) -> Schema:
    """Return the whole schema of a command's output: its own document, or an error."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"recall {command} --json",
        "$comment": (
            "Stable: within one major version fields are added, and none is removed or changes "
            "its meaning. Readers pass over fields that they do not know."
        ),
        "anyOf": [SCHEMAS[command], {"$ref": "#/$defs/error"}],
        "$defs": {"error": ERROR},
    }


def strict(schema: Any) -> Any:
    """Return a schema that allows no field beyond those it names; for tests."""
    if isinstance(schema, list):
        return [strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {
        key: {name: strict(value) for name, value in item.items()}
        if key in ("properties", "$defs")
        else strict(item)
        for key, item in schema.items()
    }
    if "properties" in closed:
        closed["additionalProperties"] = False
    return closed
