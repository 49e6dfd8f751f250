"""Documents of what a store holds, and in which state."""

from __future__ import annotations

from collections.abc import Mapping

from recallfs.cli.schemas.shapes import (
    AMOUNT,
    COUNT,
    ERROR,
    FAILED,
    FILES,
    FLAG,
    MOMENT,
    MOMENT_IF_ANY,
    NUMBER,
    OBJECT,
    SHA256_IF_KNOWN,
    STATE,
    STATES,
    TEXT,
    URL,
    WORK,
    Schema,
    described,
    list_of,
    map_of,
    object_of,
    one_of,
    or_null,
)

_RECALLS = list_of(object_of(source=TEXT, **FILES, seconds=NUMBER))
_STORE = object_of(
    name=TEXT,
    root=TEXT,
    vault=TEXT,
    states=STATES,
    recipes=map_of(STATES),
    last_used=object_of(week=AMOUNT, month=AMOUNT, quarter=AMOUNT, year=AMOUNT, older=AMOUNT),
    largest_idle=list_of(object_of(url=URL, size_bytes=COUNT)),
    proved_and_resident=AMOUNT,
    releasable=AMOUNT,
    derived_and_unproved=AMOUNT,
    proofs_failed=COUNT,
    in_trash=object_of(**FILES, due=AMOUNT, next_purge=or_null(MOMENT)),
    kept=object_of(
        sidecars_bytes=COUNT,
        skeletons_bytes=COUNT,
        residuals_bytes=COUNT,
        vault_sidecars_bytes=COUNT,
        vault_skeletons_bytes=COUNT,
        vault_residuals_bytes=COUNT,
        is_estimate=FLAG,
    ),
    disk=object_of(free_bytes=COUNT, size_bytes=COUNT),
    recalls=_RECALLS,
    recalls_lately=_RECALLS,
    failures_lately=list_of(object_of(at=MOMENT, what=TEXT, url=URL, who=TEXT, message=TEXT)),
    warnings=list_of(TEXT),
)
_FAILED_STORE = object_of(name=TEXT, root=TEXT, error=ERROR)
_CACHE: Mapping[str, Schema] = {"folder": TEXT, **FILES, "limit_bytes": COUNT}
_CACHES = {
    "own": object_of(**_CACHE, unverified=AMOUNT),
    "shared": or_null(object_of(**_CACHE)),
}
_FINDING = object_of(
    id=TEXT,
    severity=one_of("error", "warning", "note"),
    area=TEXT,
    store=or_null(TEXT),
    place=TEXT,
    problem=TEXT,
    meaning=TEXT,
    remedy=TEXT,
    fixable=FLAG,
    fixed=FLAG,
    done=or_null(TEXT),
    failure=or_null(TEXT),
)
_RECORD = object_of(
    url=URL,
    state=STATE,
    parts=or_null(object_of(size_bytes=COUNT, check=TEXT, is_verified=FLAG)),
    store_id=TEXT,
    entry={"type": "object", "required": ["id", "path", "size_bytes", "sha256", "sha1"]},
    incarnations=list_of(OBJECT),
    copies=list_of(
        object_of(
            source=TEXT,
            location=TEXT,
            failure_domain=TEXT,
            content_addressed=FLAG,
            verified_at=MOMENT_IF_ANY,
            counts=FLAG,
            why_not=TEXT,
        )
    ),
    derivations=list_of(OBJECT),
    proofs=list_of(OBJECT),
    revocations=list_of(OBJECT),
    pins=list_of(OBJECT),
    release=or_null(OBJECT),
    skeleton=or_null(OBJECT),
    dandi_etag=TEXT,
    residual=or_null(OBJECT),
    recalls=list_of(OBJECT),
    objects=or_null(OBJECT),
    failure=or_null(
        object_of(
            at=MOMENT,
            by=TEXT,
            recipe=TEXT,
            version=TEXT,
            source_digest=TEXT,
            environment_id=TEXT,
            kind=TEXT,
            message=TEXT,
            objects=list_of(OBJECT),
            missing=list_of(TEXT),
            exception=TEXT,
            log=TEXT,
            expected=TEXT,
        )
    ),
)
_WORK_BY = object_of(recipe=TEXT, value=TEXT, **WORK)

SCHEMAS: Mapping[str, Schema] = {
    "init": object_of(
        name=TEXT,
        root=TEXT,
        id=TEXT,
        vault=TEXT,
        config=TEXT,
        registered=FLAG,
        warnings=list_of(TEXT),
    ),
    "add": object_of(
        added=list_of(object_of(url=URL, size_bytes=COUNT, sha256=SHA256_IF_KNOWN, id=TEXT)),
        unchanged=COUNT,
        failed=FAILED,
        warnings=list_of(TEXT),
    ),
    "status": {
        "anyOf": [
            object_of(
                stores=list_of({"anyOf": [_STORE, _FAILED_STORE]}),
                cache=object_of(**_CACHES),
            ),
            described(
                "with --by",
                object_of(
                    by=TEXT,
                    stores=list_of(
                        {
                            "anyOf": [
                                object_of(name=TEXT, root=TEXT, work=list_of(_WORK_BY)),
                                _FAILED_STORE,
                            ]
                        }
                    ),
                ),
            ),
        ]
    },
    "show": _RECORD,
    "cache show": object_of(**_CACHES, problem=or_null(TEXT)),
    "cache clear": AMOUNT,
    "catalog audit": object_of(
        events=list_of(
            object_of(
                at=MOMENT,
                who=TEXT,
                action=TEXT,
                store=TEXT,
                url=URL,
                entry_id=TEXT,
                why=TEXT,
                evidence=TEXT,
                details=OBJECT,
            )
        )
    ),
    "catalog rebuild": map_of(
        object_of(
            entries=COUNT,
            states=map_of(COUNT),
            damaged=list_of(TEXT),
            superseded=list_of(TEXT),
            only_in_vault=list_of(TEXT),
        )
    ),
    "verify": object_of(
        entries=COUNT,
        read_bytes=COUNT,
        deep=FLAG,
        mismatches=list_of(
            object_of(
                url=URL,
                part=one_of(
                    "file",
                    "sidecar",
                    "trash",
                    "skeleton",
                    "residual",
                    "environment",
                    "vault",
                    "parts",
                ),
                place=TEXT,
                expected=TEXT,
                actual=TEXT,
            )
        ),
        copies=list_of(
            object_of(
                url=URL,
                source=TEXT,
                location=TEXT,
                verdict=one_of("right", "wrong", "missing", "unavailable"),
                what=TEXT,
                verified_at=MOMENT_IF_ANY,
                read_bytes=COUNT,
            )
        ),
    ),
    "doctor": object_of(healthy=FLAG, stores=list_of(TEXT), findings=list_of(_FINDING)),
}
