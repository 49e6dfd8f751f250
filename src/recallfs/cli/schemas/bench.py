"""Documents of measuring, and of what was measured."""

from __future__ import annotations

from collections.abc import Mapping

from recallfs.cli.schemas.shapes import (
    ANYTHING,
    COUNT,
    NUMBER,
    TEXT,
    Schema,
    list_of,
    map_of,
    object_of,
    one_of,
    or_null,
)

SCHEMAS: Mapping[str, Schema] = {
    "bench run": object_of(
        results=TEXT,
        benchmarks=COUNT,
        failed=list_of(TEXT),
        absent=map_of(TEXT),
        changes=list_of(TEXT),
    ),
    "bench machine": object_of(
        name=TEXT,
        version=TEXT,
        os=map_of(ANYTHING),
        sys=map_of(ANYTHING),
        platform=map_of(ANYTHING),
        psutil=map_of(ANYTHING),
        cpuinfo=map_of(ANYTHING),
        builds=map_of(ANYTHING),
        cuda=map_of(ANYTHING),
        asv=map_of(ANYTHING),
    ),
    "bench report": object_of(
        rows=list_of(
            object_of(
                group=TEXT,
                case=TEXT,
                method=TEXT,
                median_s=or_null(NUMBER),
                samples=COUNT,
                ratio=or_null(NUMBER),
                tracked=map_of(NUMBER),
            )
        ),
        files=list_of(TEXT),
    ),
    "bench export": object_of(files=list_of(TEXT)),
    "bench compare": object_of(
        changes=list_of(
            object_of(
                benchmark=TEXT,
                case=TEXT,
                before_s=NUMBER,
                after_s=NUMBER,
                ratio=NUMBER,
                low=NUMBER,
                high=NUMBER,
                samples=list_of(COUNT),
                verdict=one_of("faster", "slower", "same", "too few samples"),
            )
        ),
        differences=list_of(TEXT),
    ),
}
