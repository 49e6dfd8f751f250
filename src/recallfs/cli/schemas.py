"""What each command prints with ``--json``, as JSON Schema.

docs/reference/json/ and its page are generated from here, and a test holds every command's output
against its schema.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Schema = dict[str, Any]

_TEXT: Schema = {"type": "string"}
_COUNT: Schema = {"type": "integer", "minimum": 0}
_NUMBER: Schema = {"type": "number"}
_FLAG: Schema = {"type": "boolean"}
_SHA256: Schema = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
_SHA256_IF_KNOWN: Schema = {"type": "string", "pattern": "^([0-9a-f]{64})?$"}
_MOMENT: Schema = {"type": "string", "description": "ISO 8601, UTC"}
_URL: Schema = {"type": "string", "pattern": "^recall://"}
_ANYTHING: Schema = {}
_STATE: Schema = {"enum": ["resident", "released", "missing", "dirty", "conflict", "lost"]}


def _object(optional: Mapping[str, Schema] | None = None, **fields: Schema) -> Schema:
    return {
        "type": "object",
        "properties": {**fields, **(optional or {})},
        "required": list(fields),
    }


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def _map(values: Schema) -> Schema:
    return {"type": "object", "additionalProperties": values}


def _or_null(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


ERROR = _object(
    error=_TEXT,
    kind=_TEXT,
    message=_TEXT,
    details={"type": "object"},
    exit_code={"type": "integer", "minimum": 1},
)
"""What any command prints when it fails as a whole."""

_FAILED = _list(ERROR)
_FAILED_FILES = _list({**ERROR, "properties": {"url": _URL, **ERROR["properties"]}})
_FILES: Mapping[str, Schema] = {"files": _COUNT, "size_bytes": _COUNT}
_LEVELS_AND_FAILED = ("exact", "content", "tolerance", "failed")
_SHARE = _object(**_FILES, share=_NUMBER, low=_NUMBER, high=_NUMBER)
_ESTIMATE = _object(expected={"type": "integer"}, low=_COUNT, high=_COUNT)
_AMOUNT = _object(files=_COUNT, size_bytes=_COUNT)
_STATES = _map(_AMOUNT)
_RECALLS = _list(_object(source=_TEXT, files=_COUNT, size_bytes=_COUNT, seconds=_NUMBER))

_STORE = _object(
    name=_TEXT,
    root=_TEXT,
    vault=_TEXT,
    states=_STATES,
    recipes=_map(_STATES),
    last_used=_object(week=_AMOUNT, month=_AMOUNT, quarter=_AMOUNT, year=_AMOUNT, older=_AMOUNT),
    largest_idle=_list(_object(url=_URL, size_bytes=_COUNT)),
    proved_and_resident=_AMOUNT,
    releasable=_AMOUNT,
    derived_and_unproved=_AMOUNT,
    proofs_failed=_COUNT,
    in_trash=_object(files=_COUNT, size_bytes=_COUNT, due=_AMOUNT, next_purge=_or_null(_MOMENT)),
    kept=_object(
        sidecars_bytes=_COUNT,
        skeletons_bytes=_COUNT,
        residuals_bytes=_COUNT,
        vault_sidecars_bytes=_COUNT,
        vault_skeletons_bytes=_COUNT,
        vault_residuals_bytes=_COUNT,
        is_estimate=_FLAG,
    ),
    disk=_object(free_bytes=_COUNT, size_bytes=_COUNT),
    recalls=_RECALLS,
    recalls_lately=_RECALLS,
    failures_lately=_list(_object(at=_MOMENT, what=_TEXT, url=_URL, who=_TEXT, message=_TEXT)),
    warnings=_list(_TEXT),
)
_CACHE = _object(folder=_TEXT, files=_COUNT, size_bytes=_COUNT, limit_bytes=_COUNT)
_OWN_CACHE = _object(
    folder=_TEXT, files=_COUNT, size_bytes=_COUNT, limit_bytes=_COUNT, unverified=_AMOUNT
)
_CACHES = {"own": _OWN_CACHE, "shared": _or_null(_CACHE)}
_FINDING = _object(
    id=_TEXT,
    severity={"enum": ["error", "warning", "note"]},
    area=_TEXT,
    store=_or_null(_TEXT),
    place=_TEXT,
    problem=_TEXT,
    meaning=_TEXT,
    remedy=_TEXT,
    fixable=_FLAG,
    fixed=_FLAG,
    done=_or_null(_TEXT),
    failure=_or_null(_TEXT),
)
_DECISION = _object(
    url=_URL,
    verdict={"enum": ["release", "skip", "refuse"]},
    kind=_TEXT,
    reason=_TEXT,
    evidence=_TEXT,
    frees_bytes={"type": "integer"},
    expected_s=_or_null(_NUMBER),
    unused_s=_NUMBER,
)
_RELEASED = _object(
    url=_URL, size_bytes=_COUNT, freed_bytes=_COUNT, purge_after=_MOMENT, inode_watched=_FLAG
)
_RECORD = _object(
    url=_URL,
    state=_STATE,
    parts=_or_null(_object(size_bytes=_COUNT, check=_TEXT, is_verified=_FLAG)),
    store_id=_TEXT,
    entry={"type": "object", "required": ["id", "path", "size_bytes", "sha256", "sha1"]},
    incarnations=_list({"type": "object"}),
    copies=_list(
        _object(
            source=_TEXT,
            location=_TEXT,
            failure_domain=_TEXT,
            content_addressed=_FLAG,
            verified_at={"type": "string", "description": "ISO 8601, UTC; empty for never"},
            counts=_FLAG,
            why_not=_TEXT,
        )
    ),
    derivations=_list({"type": "object"}),
    proofs=_list({"type": "object"}),
    revocations=_list({"type": "object"}),
    pins=_list({"type": "object"}),
    release=_or_null({"type": "object"}),
    skeleton=_or_null({"type": "object"}),
    dandi_etag=_TEXT,
    residual=_or_null({"type": "object"}),
    recalls=_list({"type": "object"}),
    objects=_or_null({"type": "object"}),
    failure=_or_null(
        _object(
            at=_MOMENT,
            by=_TEXT,
            recipe=_TEXT,
            version=_TEXT,
            source_digest=_TEXT,
            environment_id=_TEXT,
            kind=_TEXT,
            message=_TEXT,
            objects=_list({"type": "object"}),
            missing=_list(_TEXT),
            exception=_TEXT,
            log=_TEXT,
            expected=_TEXT,
        )
    ),
)
_ENVIRONMENT: Mapping[str, Schema] = {
    "id": _SHA256,
    "label": _TEXT,
    "store": _TEXT,
    "python": _TEXT,
    "packages": _COUNT,
    "files": _COUNT,
    "released": _COUNT,
    "interpreter": _or_null(_TEXT),
    "flags": _list(_TEXT),
}
_NAMED = _object(id=_SHA256, label=_TEXT)
_DIFFERENCES = _list(_object(what=_TEXT, one=_or_null(_TEXT), other=_or_null(_TEXT)))

_RUN = _object(
    run=_TEXT,
    recipe=_TEXT,
    status={"enum": ["made", "there", "taken", "failed"]},
    outputs=_map(_TEXT),
    key=_or_null(_TEXT),
    seconds=_or_null(_NUMBER),
    cpu_seconds=_or_null(_NUMBER),
    peak_memory_bytes=_or_null(_COUNT),
    source=_TEXT,
    warnings=_list(_TEXT),
    error=_or_null(ERROR),
)
_ON_DISK: Mapping[str, Schema] = {"files": _COUNT, "size_bytes": _COUNT, "disk_bytes": _COUNT}
_SPANS = _object(
    **{name: _object(**_ON_DISK) for name in ("month", "quarter", "year", "two_years", "older")}
)
_TOLD = _object(count=_COUNT, first=_list(_object(path=_TEXT, why=_TEXT)))
_WORK: Mapping[str, Schema] = {
    "states": _STATES,
    "runs": _COUNT,
    "seconds": _NUMBER,
    "cpu_seconds": _NUMBER,
    "unknown_costs": _COUNT,
    "peak_memory_bytes": _COUNT,
}
_WORK_BY = _object(recipe=_TEXT, value=_TEXT, **_WORK)
_PARAMETER = _object(required=_FLAG, default=_ANYTHING)

_SHELL: Mapping[str, Schema] = {"shell": {"enum": ["bash", "zsh", "fish"]}}

SCHEMAS: Mapping[str, Schema] = {
    "init": _object(
        name=_TEXT,
        root=_TEXT,
        id=_TEXT,
        vault=_TEXT,
        config=_TEXT,
        registered=_FLAG,
        warnings=_list(_TEXT),
    ),
    "add": _object(
        added=_list(_object(url=_URL, size_bytes=_COUNT, sha256=_SHA256_IF_KNOWN, id=_TEXT)),
        unchanged=_COUNT,
        failed=_FAILED,
        warnings=_list(_TEXT),
    ),
    "run": {
        "anyOf": [
            _object(
                outputs=_map(_URL),
                executed=_FLAG,
                key=_TEXT,
                seconds=_NUMBER,
                cpu_seconds=_or_null(_NUMBER),
                peak_memory_bytes=_or_null(_COUNT),
                source=_TEXT,
                warnings=_list(_TEXT),
            ),
            {
                **_object(
                    runs=_list(_RUN),
                    made=_COUNT,
                    there=_COUNT,
                    taken=_COUNT,
                    failed=_COUNT,
                    seconds=_NUMBER,
                ),
                "description": "of a sweep and with --batch",
            },
        ]
    },
    "graph": _object(
        url=_URL,
        files=_list(
            _object(
                entry=_TEXT,
                url=_URL,
                state={"enum": [*_STATE["enum"], "unverified", "unreadable", "forgotten"]},
                size_bytes=_or_null(_COUNT),
                made_by=_or_null(_TEXT),
            )
        ),
        derivations=_list(
            _object(
                id=_TEXT,
                recipe=_TEXT,
                version=_TEXT,
                parameters=_map(_ANYTHING),
                inputs=_map(_TEXT),
            )
        ),
    ),
    "survey": {
        "anyOf": [
            _object(
                roots=_list(_TEXT),
                at=_MOMENT,
                **_ON_DISK,
                folder_count=_COUNT,
                folders=_list(
                    _object(path=_TEXT, **_ON_DISK, last_modified=_TEXT, last_accessed=_TEXT)
                ),
                modified=_SPANS,
                accessed=_SPANS,
                access_times=_list(
                    _object(
                        path=_TEXT,
                        file_system=_TEXT,
                        is_network=_FLAG,
                        kept={"enum": ["always", "daily", "never"]},
                    )
                ),
                kinds=_list(_object(kind=_TEXT, folders=_COUNT, **_ON_DISK)),
                other_endings=_list(_object(ending=_TEXT, **_ON_DISK)),
                nwb=_object(
                    looked_into=_COUNT,
                    unread=_COUNT,
                    versions=_map(_COUNT),
                    writers=_map(_COUNT),
                    types=_map(_COUNT),
                ),
                stores=_list(
                    _object(
                        root=_TEXT,
                        name=_TEXT,
                        catalogued=_object(**_ON_DISK),
                        with_recipe=_object(**_ON_DISK),
                        proved=_object(**_ON_DISK),
                        problem=_TEXT,
                    )
                ),
                hard_links=_object(**_ON_DISK, more_names=_COUNT),
                sparse=_object(**_ON_DISK),
                symbolic_links=_COUNT,
                special_files=_COUNT,
                vanished=_COUNT,
                unreadable=_TOLD,
                other_file_systems=_TOLD,
                seconds=_NUMBER,
            ),
            {
                **_object(
                    tables=_list(
                        _object(
                            table=_TEXT,
                            files=_COUNT,
                            size_bytes=_COUNT,
                            there_files=_COUNT,
                            there_bytes=_COUNT,
                            last_access={**_TEXT, "description": "ISO 8601, UTC; empty for none"},
                            recipes=_list(_TEXT),
                            adopted_files=_COUNT,
                            released_files=_COUNT,
                            attempts=_COUNT,
                            matched=_COUNT,
                            deleted=_COUNT,
                        )
                    )
                ),
                "description": "with --spyglass",
            },
        ]
    },
    "adopt": {
        "anyOf": [
            _object(outputs=_map(_URL), key=_TEXT, is_new=_FLAG),
            {
                **_object(
                    files=_list(
                        _object(
                            run=_TEXT,
                            recipe=_TEXT,
                            status={"enum": ["bound", "there", "missing", "failed"]},
                            outputs=_map(_TEXT),
                            key=_or_null(_TEXT),
                            error=_or_null(ERROR),
                            optional={"notes": _list(_TEXT)},
                        )
                    ),
                    bound=_COUNT,
                    there=_COUNT,
                    missing=_COUNT,
                    failed=_COUNT,
                ),
                "description": "with --batch or --spyglass",
            },
        ]
    },
    "trial": _object(
        population=_object(**_FILES, left_out=_map(_COUNT)),
        files=_list(
            _object(
                url=_URL,
                recipe=_TEXT,
                environment=_TEXT,
                size_bytes=_COUNT,
                outcome={"enum": ["exact", "content", "tolerance", "failed"]},
                seconds=_NUMBER,
                kept_bytes=_COUNT,
                error=_or_null(ERROR),
                reason=_TEXT,
            )
        ),
        groups=_list(
            _object(
                **_FILES,
                by={"enum": ["all", "environment", "recipe"]},
                name=_TEXT,
                outcomes=_object(**dict.fromkeys(_LEVELS_AND_FAILED, _SHARE)),
            )
        ),
        reasons=_list(_object(reason=_TEXT, files=_COUNT, example=_URL)),
        frees_bytes=_object(**dict.fromkeys(_LEVELS_AND_FAILED[:3], _ESTIMATE)),
        hours=_NUMBER,
    ),
    "digest": _object(
        files=_list(
            _object(
                **{
                    "path": _TEXT,
                    "size_bytes": _COUNT,
                    "sha256": _or_null(_SHA256),
                    "sha1": _or_null(_TEXT),
                    "dandi-etag": _or_null(_TEXT),
                    "h5c1": _or_null(_TEXT),
                    "fdm1": _or_null(_TEXT),
                    "files": _or_null(_list(_object(path=_TEXT, kind=_TEXT, digest=_TEXT))),
                    "objects": _or_null(_list({"type": "object", "required": ["path", "digest"]})),
                }
            )
        )
    ),
    "diff": _object(
        one=_TEXT,
        other=_TEXT,
        verdict={
            "enum": [
                "identical bytes",
                "same content, other layout",
                "within tolerance",
                "different",
            ]
        },
        rules=_TEXT,
        compared=_COUNT,
        differing=_COUNT,
        differences=_list({"type": "object", "required": ["path", "what", "attribute"]}),
    ),
    "get": {
        "anyOf": [
            _object(
                files=_list(
                    _object(
                        url=_URL,
                        path=_TEXT,
                        size_bytes=_COUNT,
                        sha256=_SHA256,
                        source=_TEXT,
                        method=_TEXT,
                        seconds=_NUMBER,
                        level=_TEXT,
                        is_cached=_FLAG,
                    )
                ),
                failed=_FAILED,
                warnings=_list(_TEXT),
            ),
            # with --slice
            _object(
                {"values": _ANYTHING},
                url=_TEXT,
                path=_TEXT,
                dtype=_TEXT,
                shape=_list(_COUNT),
                requests=_COUNT,
                fetched_bytes=_COUNT,
                check=_TEXT,
            ),
        ]
    },
    "status": {
        "anyOf": [
            _object(
                stores=_list({"anyOf": [_STORE, _object(name=_TEXT, root=_TEXT, error=ERROR)]}),
                cache=_object(**_CACHES),
            ),
            {
                **_object(
                    by=_TEXT,
                    stores=_list(
                        {
                            "anyOf": [
                                _object(name=_TEXT, root=_TEXT, work=_list(_WORK_BY)),
                                _object(name=_TEXT, root=_TEXT, error=ERROR),
                            ]
                        }
                    ),
                ),
                "description": "with --by",
            },
        ]
    },
    "cache show": _object(**_CACHES, problem=_or_null(_TEXT)),
    "cache clear": _AMOUNT,
    "show": _RECORD,
    "warm": _object(
        files=_list(
            _object(
                url=_URL,
                size_bytes=_COUNT,
                requests=_COUNT,
                fetched_bytes=_COUNT,
                check=_TEXT,
            )
        ),
        failed=_FAILED,
        log=_or_null(_TEXT),
    ),
    "bench run": _object(
        results=_TEXT,
        benchmarks=_COUNT,
        failed=_list(_TEXT),
        absent=_map(_TEXT),
        changes=_list(_TEXT),
    ),
    "bench machine": _object(
        name=_TEXT,
        version=_TEXT,
        os=_map(_ANYTHING),
        sys=_map(_ANYTHING),
        platform=_map(_ANYTHING),
        psutil=_map(_ANYTHING),
        cpuinfo=_map(_ANYTHING),
        builds=_map(_ANYTHING),
        cuda=_map(_ANYTHING),
        asv=_map(_ANYTHING),
    ),
    "bench report": _object(
        rows=_list(
            _object(
                group=_TEXT,
                case=_TEXT,
                method=_TEXT,
                median_s=_or_null(_NUMBER),
                samples=_COUNT,
                ratio=_or_null(_NUMBER),
                tracked=_map(_NUMBER),
            )
        ),
        files=_list(_TEXT),
    ),
    "bench export": _object(files=_list(_TEXT)),
    "bench compare": _object(
        changes=_list(
            _object(
                benchmark=_TEXT,
                case=_TEXT,
                before_s=_NUMBER,
                after_s=_NUMBER,
                ratio=_NUMBER,
                low=_NUMBER,
                high=_NUMBER,
                samples=_list(_COUNT),
                verdict={"enum": ["faster", "slower", "same", "too few samples"]},
            )
        ),
        differences=_list(_TEXT),
    ),
    "explain": _object(
        url=_URL,
        state=_STATE,
        size_bytes=_COUNT,
        action={"enum": ["open", "recall", "refuse"]},
        reason=_TEXT,
        steps=_list(_object(source=_TEXT, what=_TEXT, expected_s=_or_null(_NUMBER), is_sure=_FLAG)),
        cache=_or_null(_TEXT),
        answers=_list(
            _object(
                source=_TEXT,
                verdict={"enum": ["found", "absent", "unavailable", "wrong", "local"]},
                what=_TEXT,
                size_bytes=_or_null(_COUNT),
                expected_s=_or_null(_NUMBER),
                asked_s=_NUMBER,
            )
        ),
        parts=_object(is_partial=_FLAG, reason=_TEXT, check=_TEXT, is_verified=_FLAG),
    ),
    "prove": _object(
        proved=_list(
            _object(
                url=_URL,
                proof=_TEXT,
                level=_TEXT,
                method=_TEXT,
                seconds=_NUMBER,
                valid_until=_MOMENT,
                size_bytes=_COUNT,
                kept_bytes=_COUNT,
                residual_bytes=_COUNT,
                frees_bytes={"type": "integer"},
                note=_TEXT,
            )
        ),
        failed=_FAILED_FILES,
        skipped=_list(
            _object(
                url=_URL,
                size_bytes=_COUNT,
                status={"enum": ["proved already", "expected failure", "no recipe on record"]},
                reason=_TEXT,
            )
        ),
        left=_AMOUNT,
        stopped=_or_null(ERROR),
    ),
    "release": {
        "anyOf": [
            _object(
                decisions=_list(_DECISION),
                released=_list(_RELEASED),
                failed=_FAILED,
                freed_bytes=_COUNT,
                in_trash_bytes=_COUNT,
                frees_later=_list(_object(on=_TEXT, size_bytes=_COUNT)),
                warnings=_list(_TEXT),
            ),
            {**_object(freed_bytes=_COUNT, failed=_FAILED), "description": "with --purge"},
        ]
    },
    "push": _object(
        target=_TEXT,
        files=_list(
            _object(
                url=_URL,
                size_bytes=_COUNT,
                status={"enum": ["copied", "there", "skipped"]},
                location=_TEXT,
                seconds=_NUMBER,
                reason=_TEXT,
            )
        ),
        failed=_FAILED,
        copied_bytes=_COUNT,
    ),
    "undo": _object(restored=_list(_URL), failed=_FAILED),
    "revoke": _object(
        revoked=_list(_object(url=_URL, state=_STATE, proofs=_list(_TEXT), is_proved=_FLAG)),
        why=_TEXT,
        dry_run=_FLAG,
    ),
    "drill": _object(
        files=_list(
            _object(
                url=_URL,
                recipe=_TEXT,
                size_bytes=_COUNT,
                source=_TEXT,
                level=_TEXT,
                seconds=_NUMBER,
                error=_or_null(ERROR),
                revoked=_list(_TEXT),
            )
        ),
        shares=_list(
            _object(recipe=_TEXT, drilled=_COUNT, came_back=_COUNT, low=_NUMBER, high=_NUMBER)
        ),
    ),
    "forget": _object(forgotten=_list(_URL)),
    "mount": _object(store=_TEXT, mountpoint=_TEXT, log=_TEXT),
    "unmount": _object(unmounted=_TEXT),
    "pin": _object(pinned=_list(_URL)),
    "unpin": _object(unpinned=_list(_URL)),
    "env list": _object(environments=_list(_object(**_ENVIRONMENT))),
    "env show": _object(**_ENVIRONMENT, content={"type": "object"}, problem=_TEXT),
    "try-environments": _object(
        url=_URL,
        tried=_list(
            _object(
                environment=_SHA256,
                label=_TEXT,
                seconds=_NUMBER,
                proof=_or_null(_TEXT),
                level=_or_null(_TEXT),
                error=_or_null(ERROR),
                differences=_DIFFERENCES,
            )
        ),
    ),
    "env diff": _object(one=_NAMED, other=_NAMED, differences=_DIFFERENCES),
    "env export": _object(id=_SHA256, label=_TEXT, format=_TEXT, text=_TEXT),
    "env restore": _object(
        id=_SHA256, label=_TEXT, python=_TEXT, is_new=_FLAG, differences=_DIFFERENCES
    ),
    "env remove": _object(id=_SHA256, label=_TEXT, removed=_TEXT),
    "recipes": _object(
        recipes=_list(
            _object(
                name=_TEXT,
                version=_TEXT,
                outputs=_list(_TEXT),
                parameters=_map(_PARAMETER),
                seeded=_FLAG,
                module=_TEXT,
                source_digest=_TEXT,
                code=_or_null(_object(commit=_or_null(_TEXT), dirty=_or_null(_FLAG))),
                work=_or_null(_object(**_WORK)),
            )
        ),
        unregistered=_map(_object(**_WORK)),
        warnings=_list(_TEXT),
    ),
    "catalog audit": _object(
        events=_list(
            _object(
                at=_MOMENT,
                who=_TEXT,
                action=_TEXT,
                store=_TEXT,
                url=_URL,
                entry_id=_TEXT,
                why=_TEXT,
                evidence=_TEXT,
                details={"type": "object"},
            )
        )
    ),
    "catalog rebuild": _map(
        _object(
            entries=_COUNT,
            states=_map(_COUNT),
            damaged=_list(_TEXT),
            superseded=_list(_TEXT),
            only_in_vault=_list(_TEXT),
        )
    ),
    "verify": _object(
        entries=_COUNT,
        read_bytes=_COUNT,
        deep=_FLAG,
        mismatches=_list(
            _object(
                url=_URL,
                part={
                    "enum": [
                        "file",
                        "sidecar",
                        "trash",
                        "skeleton",
                        "residual",
                        "environment",
                        "vault",
                        "parts",
                    ]
                },
                place=_TEXT,
                expected=_TEXT,
                actual=_TEXT,
            )
        ),
        copies=_list(
            _object(
                url=_URL,
                source=_TEXT,
                location=_TEXT,
                verdict={"enum": ["right", "wrong", "missing", "unavailable"]},
                what=_TEXT,
                verified_at={"type": "string", "description": "ISO 8601, UTC; empty for never"},
                read_bytes=_COUNT,
            )
        ),
    ),
    "completion": _object(**_SHELL, script=_TEXT),
    "demo": _object(
        sha256_before=_SHA256,
        exact=_FLAG,
        kept_bytes=_COUNT,
        openings=_list(
            _object(reader=_TEXT, freed_bytes=_COUNT, source=_TEXT, seconds=_NUMBER, sha256=_SHA256)
        ),
    ),
    "doctor": _object(healthy=_FLAG, stores=_list(_TEXT), findings=_list(_FINDING)),
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
