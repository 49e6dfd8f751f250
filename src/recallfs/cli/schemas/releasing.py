"""Documents of what drops bytes, and what keeps them."""

from __future__ import annotations

from collections.abc import Mapping

from recallfs.cli.schemas.shapes import (
    BALANCE,
    COUNT,
    FAILED,
    FLAG,
    MOMENT,
    NUMBER,
    TEXT,
    URL,
    Schema,
    described,
    list_of,
    object_of,
    one_of,
    or_null,
)

_DECISION = object_of(
    url=URL,
    verdict=one_of("release", "skip", "refuse"),
    kind=TEXT,
    reason=TEXT,
    evidence=TEXT,
    frees_bytes=BALANCE,
    expected_s=or_null(NUMBER),
    unused_s=NUMBER,
)
_RELEASED = object_of(
    url=URL, size_bytes=COUNT, freed_bytes=COUNT, purge_after=MOMENT, inode_watched=FLAG
)

SCHEMAS: Mapping[str, Schema] = {
    "release": {
        "anyOf": [
            object_of(
                decisions=list_of(_DECISION),
                released=list_of(_RELEASED),
                failed=FAILED,
                freed_bytes=COUNT,
                in_trash_bytes=COUNT,
                frees_later=list_of(object_of(on=TEXT, size_bytes=COUNT)),
                warnings=list_of(TEXT),
            ),
            described("with --purge", object_of(freed_bytes=COUNT, failed=FAILED)),
        ]
    },
    "undo": object_of(restored=list_of(URL), failed=FAILED),
    "push": object_of(
        target=TEXT,
        files=list_of(
            object_of(
                url=URL,
                size_bytes=COUNT,
                status=one_of("copied", "there", "skipped"),
                location=TEXT,
                seconds=NUMBER,
                reason=TEXT,
            )
        ),
        failed=FAILED,
        copied_bytes=COUNT,
    ),
    "forget": object_of(forgotten=list_of(URL)),
    "pin": object_of(pinned=list_of(URL)),
    "unpin": object_of(unpinned=list_of(URL)),
}
