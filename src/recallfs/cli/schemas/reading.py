"""Documents of how files come back and are opened."""

from __future__ import annotations

from collections.abc import Mapping

from recallfs.cli.schemas.shapes import (
    ANYTHING,
    COUNT,
    FAILED,
    FLAG,
    NUMBER,
    SHA256,
    STATE,
    TEXT,
    URL,
    Schema,
    list_of,
    object_of,
    one_of,
    or_null,
)

SCHEMAS: Mapping[str, Schema] = {
    "get": {
        "anyOf": [
            object_of(
                files=list_of(
                    object_of(
                        url=URL,
                        path=TEXT,
                        size_bytes=COUNT,
                        sha256=SHA256,
                        source=TEXT,
                        method=TEXT,
                        seconds=NUMBER,
                        level=TEXT,
                        is_cached=FLAG,
                    )
                ),
                failed=FAILED,
                warnings=list_of(TEXT),
            ),
            # with --slice
            object_of(
                {"values": ANYTHING},
                url=TEXT,
                path=TEXT,
                dtype=TEXT,
                shape=list_of(COUNT),
                requests=COUNT,
                fetched_bytes=COUNT,
                check=TEXT,
            ),
        ]
    },
    "explain": object_of(
        url=URL,
        state=STATE,
        size_bytes=COUNT,
        action=one_of("open", "recall", "refuse"),
        reason=TEXT,
        steps=list_of(object_of(source=TEXT, what=TEXT, expected_s=or_null(NUMBER), is_sure=FLAG)),
        cache=or_null(TEXT),
        answers=list_of(
            object_of(
                source=TEXT,
                verdict=one_of("found", "absent", "unavailable", "wrong", "local"),
                what=TEXT,
                size_bytes=or_null(COUNT),
                expected_s=or_null(NUMBER),
                asked_s=NUMBER,
            )
        ),
        parts=object_of(is_partial=FLAG, reason=TEXT, check=TEXT, is_verified=FLAG),
    ),
    "warm": object_of(
        files=list_of(
            object_of(
                url=URL,
                size_bytes=COUNT,
                requests=COUNT,
                fetched_bytes=COUNT,
                check=TEXT,
            )
        ),
        failed=FAILED,
        log=or_null(TEXT),
    ),
    "mount": object_of(store=TEXT, mountpoint=TEXT, log=TEXT),
    "unmount": object_of(unmounted=TEXT),
}
