"""Documents of the program itself."""

from __future__ import annotations

from collections.abc import Mapping

from recallfs.cli.schemas.shapes import (
    COUNT,
    FLAG,
    NUMBER,
    SHA256,
    TEXT,
    Schema,
    list_of,
    object_of,
    one_of,
)

_SHELL: Mapping[str, Schema] = {"shell": one_of("bash", "zsh", "fish")}

SCHEMAS: Mapping[str, Schema] = {
    "completion": object_of(**_SHELL, script=TEXT),
    "demo": object_of(
        sha256_before=SHA256,
        exact=FLAG,
        kept_bytes=COUNT,
        openings=list_of(
            object_of(reader=TEXT, freed_bytes=COUNT, source=TEXT, seconds=NUMBER, sha256=SHA256)
        ),
    ),
}
