"""Documents of how files are made: recipes, runs and what they ran in."""

from __future__ import annotations

from collections.abc import Mapping

from recallfs.cli.schemas.shapes import (
    ANYTHING,
    COUNT,
    ERROR,
    FLAG,
    NUMBER,
    OBJECT,
    SHA256,
    SPENT,
    STATE,
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

_NAMED: Mapping[str, Schema] = {"id": SHA256, "label": TEXT}
_ENVIRONMENT: Mapping[str, Schema] = {
    **_NAMED,
    "store": TEXT,
    "python": TEXT,
    "packages": COUNT,
    "files": COUNT,
    "released": COUNT,
    "interpreter": or_null(TEXT),
    "flags": list_of(TEXT),
}
_DIFFERENCES = list_of(object_of(what=TEXT, one=or_null(TEXT), other=or_null(TEXT)))
_RUN = object_of(
    run=TEXT,
    recipe=TEXT,
    status=one_of("made", "there", "taken", "failed"),
    outputs=map_of(TEXT),
    key=or_null(TEXT),
    **{**SPENT, "seconds": or_null(NUMBER)},
    source=TEXT,
    warnings=list_of(TEXT),
    error=or_null(ERROR),
)
_PARAMETER = object_of(required=FLAG, default=ANYTHING)

SCHEMAS: Mapping[str, Schema] = {
    "run": {
        "anyOf": [
            object_of(
                outputs=map_of(URL),
                executed=FLAG,
                key=TEXT,
                **SPENT,
                source=TEXT,
                warnings=list_of(TEXT),
            ),
            described(
                "of a sweep and with --batch",
                object_of(
                    runs=list_of(_RUN),
                    made=COUNT,
                    there=COUNT,
                    taken=COUNT,
                    failed=COUNT,
                    seconds=NUMBER,
                ),
            ),
        ]
    },
    "adopt": {
        "anyOf": [
            object_of(outputs=map_of(URL), key=TEXT, is_new=FLAG),
            described(
                "with --batch or --spyglass",
                object_of(
                    files=list_of(
                        object_of(
                            run=TEXT,
                            recipe=TEXT,
                            status=one_of("bound", "there", "missing", "failed"),
                            outputs=map_of(TEXT),
                            key=or_null(TEXT),
                            error=or_null(ERROR),
                            optional={"notes": list_of(TEXT)},
                        )
                    ),
                    bound=COUNT,
                    there=COUNT,
                    missing=COUNT,
                    failed=COUNT,
                ),
            ),
        ]
    },
    "graph": object_of(
        url=URL,
        files=list_of(
            object_of(
                entry=TEXT,
                url=URL,
                state={"enum": [*STATE["enum"], "unverified", "unreadable", "forgotten"]},
                size_bytes=or_null(COUNT),
                made_by=or_null(TEXT),
            )
        ),
        derivations=list_of(
            object_of(
                id=TEXT,
                recipe=TEXT,
                version=TEXT,
                parameters=map_of(ANYTHING),
                inputs=map_of(TEXT),
            )
        ),
    ),
    "recipes": object_of(
        recipes=list_of(
            object_of(
                name=TEXT,
                version=TEXT,
                outputs=list_of(TEXT),
                parameters=map_of(_PARAMETER),
                seeded=FLAG,
                module=TEXT,
                source_digest=TEXT,
                code=or_null(object_of(commit=or_null(TEXT), dirty=or_null(FLAG))),
                work=or_null(object_of(**WORK)),
            )
        ),
        unregistered=map_of(object_of(**WORK)),
        warnings=list_of(TEXT),
    ),
    "env list": object_of(environments=list_of(object_of(**_ENVIRONMENT))),
    "env show": object_of(**_ENVIRONMENT, content=OBJECT, problem=TEXT),
    "env diff": object_of(
        one=object_of(**_NAMED), other=object_of(**_NAMED), differences=_DIFFERENCES
    ),
    "env export": object_of(**_NAMED, format=TEXT, text=TEXT),
    "env restore": object_of(**_NAMED, python=TEXT, is_new=FLAG, differences=_DIFFERENCES),
    "env remove": object_of(**_NAMED, removed=TEXT),
    "try-environments": object_of(
        url=URL,
        tried=list_of(
            object_of(
                environment=SHA256,
                label=TEXT,
                seconds=NUMBER,
                proof=or_null(TEXT),
                level=or_null(TEXT),
                error=or_null(ERROR),
                differences=_DIFFERENCES,
            )
        ),
    ),
}
