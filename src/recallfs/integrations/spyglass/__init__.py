"""Spyglass and other DataJoint pipelines: their analysis files are released and come back.

``install()`` makes Spyglass ask recallfs for files that are gone; `survey`, `adopt`, `trial`,
`prove` and `release` take DataJoint queries; `rows` declares what a table's file is made from;
`create` and `writing_to` are for recipes. What is named here is loaded when it is used, Spyglass
later still.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from recallfs.integrations.spyglass.adoption import Result, Trial, adopt, prove, release, trial
    from recallfs.integrations.spyglass.amounts import TableAmount, survey
    from recallfs.integrations.spyglass.backend import (
        RecallBackend,
        install,
        is_installed,
        uninstall,
    )
    from recallfs.integrations.spyglass.upstream import rows
    from recallfs.integrations.spyglass.writing import create, writing_to

__all__ = [
    "RecallBackend",
    "Result",
    "TableAmount",
    "Trial",
    "adopt",
    "create",
    "install",
    "is_installed",
    "prove",
    "release",
    "rows",
    "survey",
    "trial",
    "uninstall",
    "writing_to",
]

_PLACES = {
    "RecallBackend": "backend",
    "Result": "adoption",
    "TableAmount": "amounts",
    "Trial": "adoption",
    "adopt": "adoption",
    "create": "writing",
    "install": "backend",
    "is_installed": "backend",
    "prove": "adoption",
    "release": "adoption",
    "rows": "upstream",
    "survey": "amounts",
    "trial": "adoption",
    "uninstall": "backend",
    "writing_to": "writing",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_PLACES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
