"""Spyglass and other DataJoint pipelines: their analysis files are released and come back.

``install()`` makes Spyglass ask recallfs for files that are gone; `survey`, `adopt`, `prove` and
`release` take DataJoint queries; `rows` declares what a table's file is made from. Spyglass and
DataJoint are imported when they are needed, not before.
"""

from __future__ import annotations

from recallfs.integrations.spyglass.adoption import Result, adopt, prove, release
from recallfs.integrations.spyglass.backend import RecallBackend, install, is_installed, uninstall
from recallfs.integrations.spyglass.rows import rows
from recallfs.integrations.spyglass.survey import TableAmount, survey
from recallfs.integrations.spyglass.writing import create, writing_to

__all__ = [
    "RecallBackend",
    "Result",
    "TableAmount",
    "adopt",
    "create",
    "install",
    "is_installed",
    "prove",
    "release",
    "rows",
    "survey",
    "uninstall",
    "writing_to",
]
