"""Documents of what would come back, and what shows it."""

from __future__ import annotations

from collections.abc import Mapping

from recallfs.cli.schemas.shapes import (
    AMOUNT,
    BALANCE,
    COUNT,
    ERROR,
    FILES,
    FLAG,
    MOMENT,
    MOMENT_IF_ANY,
    NUMBER,
    SHA256,
    STATE,
    TEXT,
    URL,
    Schema,
    described,
    list_of,
    map_of,
    object_of,
    one_of,
    or_null,
)

_FAILED_FILES = list_of({**ERROR, "properties": {"url": URL, **ERROR["properties"]}})
_LEVELS_AND_FAILED = ("exact", "content", "tolerance", "failed")
_SHARE = object_of(**FILES, share=NUMBER, low=NUMBER, high=NUMBER)
_ESTIMATE = object_of(expected=BALANCE, low=COUNT, high=COUNT)
_ON_DISK: Mapping[str, Schema] = {**FILES, "disk_bytes": COUNT}
_SPANS = object_of(
    **{name: object_of(**_ON_DISK) for name in ("month", "quarter", "year", "two_years", "older")}
)
_TOLD = object_of(count=COUNT, first=list_of(object_of(path=TEXT, why=TEXT)))

SCHEMAS: Mapping[str, Schema] = {
    "survey": {
        "anyOf": [
            object_of(
                roots=list_of(TEXT),
                at=MOMENT,
                **_ON_DISK,
                folder_count=COUNT,
                folders=list_of(
                    object_of(path=TEXT, **_ON_DISK, last_modified=TEXT, last_accessed=TEXT)
                ),
                modified=_SPANS,
                accessed=_SPANS,
                access_times=list_of(
                    object_of(
                        path=TEXT,
                        file_system=TEXT,
                        is_network=FLAG,
                        kept=one_of("always", "daily", "never"),
                    )
                ),
                kinds=list_of(object_of(kind=TEXT, folders=COUNT, **_ON_DISK)),
                other_endings=list_of(object_of(ending=TEXT, **_ON_DISK)),
                nwb=object_of(
                    looked_into=COUNT,
                    unread=COUNT,
                    versions=map_of(COUNT),
                    writers=map_of(COUNT),
                    types=map_of(COUNT),
                ),
                stores=list_of(
                    object_of(
                        root=TEXT,
                        name=TEXT,
                        catalogued=object_of(**_ON_DISK),
                        with_recipe=object_of(**_ON_DISK),
                        proved=object_of(**_ON_DISK),
                        problem=TEXT,
                    )
                ),
                hard_links=object_of(**_ON_DISK, more_names=COUNT),
                sparse=object_of(**_ON_DISK),
                symbolic_links=COUNT,
                special_files=COUNT,
                vanished=COUNT,
                unreadable=_TOLD,
                other_file_systems=_TOLD,
                seconds=NUMBER,
            ),
            described(
                "with --spyglass",
                object_of(
                    tables=list_of(
                        object_of(
                            table=TEXT,
                            files=COUNT,
                            size_bytes=COUNT,
                            there_files=COUNT,
                            there_bytes=COUNT,
                            last_access=MOMENT_IF_ANY,
                            recipes=list_of(TEXT),
                            adopted_files=COUNT,
                            released_files=COUNT,
                            attempts=COUNT,
                            matched=COUNT,
                            deleted=COUNT,
                        )
                    )
                ),
            ),
        ]
    },
    "trial": object_of(
        population=object_of(**FILES, left_out=map_of(COUNT)),
        files=list_of(
            object_of(
                url=URL,
                recipe=TEXT,
                environment=TEXT,
                size_bytes=COUNT,
                outcome=one_of(*_LEVELS_AND_FAILED),
                seconds=NUMBER,
                kept_bytes=COUNT,
                error=or_null(ERROR),
                reason=TEXT,
                derivation_id=TEXT,
            )
        ),
        groups=list_of(
            object_of(
                **FILES,
                by=one_of("all", "environment", "recipe"),
                name=TEXT,
                outcomes=object_of(**dict.fromkeys(_LEVELS_AND_FAILED, _SHARE)),
            )
        ),
        reasons=list_of(object_of(reason=TEXT, files=COUNT, example=URL)),
        frees_bytes=object_of(**dict.fromkeys(_LEVELS_AND_FAILED[:3], _ESTIMATE)),
        hours=NUMBER,
    ),
    "prove": object_of(
        proved=list_of(
            object_of(
                url=URL,
                proof=TEXT,
                level=TEXT,
                method=TEXT,
                seconds=NUMBER,
                valid_until=MOMENT,
                size_bytes=COUNT,
                kept_bytes=COUNT,
                residual_bytes=COUNT,
                frees_bytes=BALANCE,
                note=TEXT,
            )
        ),
        failed=_FAILED_FILES,
        skipped=list_of(
            object_of(
                url=URL,
                size_bytes=COUNT,
                status=one_of("proved already", "expected failure", "no recipe on record"),
                reason=TEXT,
            )
        ),
        left=AMOUNT,
        stopped=or_null(ERROR),
    ),
    "drill": object_of(
        files=list_of(
            object_of(
                url=URL,
                recipe=TEXT,
                size_bytes=COUNT,
                source=TEXT,
                level=TEXT,
                seconds=NUMBER,
                error=or_null(ERROR),
                revoked=list_of(TEXT),
            )
        ),
        shares=list_of(
            object_of(recipe=TEXT, drilled=COUNT, came_back=COUNT, low=NUMBER, high=NUMBER)
        ),
    ),
    "revoke": object_of(
        revoked=list_of(object_of(url=URL, state=STATE, proofs=list_of(TEXT), is_proved=FLAG)),
        why=TEXT,
        dry_run=FLAG,
    ),
    "digest": object_of(
        files=list_of(
            object_of(
                **{
                    "path": TEXT,
                    "size_bytes": COUNT,
                    "sha256": or_null(SHA256),
                    "sha1": or_null(TEXT),
                    "dandi-etag": or_null(TEXT),
                    "h5c1": or_null(TEXT),
                    "fdm1": or_null(TEXT),
                    "files": or_null(list_of(object_of(path=TEXT, kind=TEXT, digest=TEXT))),
                    "objects": or_null(list_of({"type": "object", "required": ["path", "digest"]})),
                }
            )
        )
    ),
    "diff": object_of(
        one=TEXT,
        other=TEXT,
        verdict=one_of(
            "identical bytes", "same content, other layout", "within tolerance", "different"
        ),
        rules=TEXT,
        compared=COUNT,
        differing=COUNT,
        differences=list_of({"type": "object", "required": ["path", "what", "attribute"]}),
    ),
}
