"""What happens, as events for programs that watch: standard logging, under the name ``recallfs``.

Nothing is printed unless it is asked for: by the configuration (``[log]``, or variables such as
``RECALLFS_LOG__LEVEL=info``), or by a program's own handlers.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

LEVELS = ("debug", "info", "warning", "error")
FORMATS = ("text", "json")

_logger = logging.getLogger("recallfs")
# Else the standard library prints warnings of a logger that nobody has configured.
_logger.addHandler(logging.NullHandler())
_PASSWORD = re.compile(r"(?<=://)[^/@\s]+@")
_ours: logging.Handler | None = None


def event(name: str, *, is_failure: bool = False, **fields: Any) -> None:
    """Tell of something that happened.

    Parameters
    ----------
    name : str
        What: ``recall``, ``fetch``, ``release``, and so on.
    is_failure : bool
        Whether it is a warning.
    **fields
        JSON-able facts: ``store``, ``path``, ``entry``, ``source``, ``seconds``, ``bytes``,
        ``kind``, ``message``.
    """
    level = logging.WARNING if is_failure else logging.INFO
    if _logger.isEnabledFor(level):
        _logger.log(level, "%s", name, extra={"recallfs": {"event": name, **fields}})


def configure(level: str | None, form: str = "text", file: Path | None = None) -> None:
    """Write events to a file, or to standard error; None for `level` ends that.

    Parameters
    ----------
    level : {"debug", "info", "warning", "error"}, optional
    form : {"text", "json"}
    file : Path, optional
        Appended to. Several processes may: each line is written at once.
    """
    global _ours  # noqa: PLW0603 - there is one logger of this name in a process
    if _ours is not None:
        _logger.removeHandler(_ours)
        _ours.close()
        _ours = None
    if level is None:
        return
    _ours = logging.FileHandler(file, delay=True) if file else logging.StreamHandler(sys.stderr)
    _ours.setFormatter(_Formatter(form))
    _logger.addHandler(_ours)
    _logger.setLevel(level.upper())


class _Formatter(logging.Formatter):
    """One line an event; passwords in URLs are left out."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self._form = form

    def format(self, record: logging.LogRecord) -> str:
        fields = getattr(record, "recallfs", {"event": record.getMessage()})
        at = datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds")
        level = record.levelname.lower()
        if self._form == "json":
            line = json.dumps({"at": at, "level": level, **fields}, default=str)
        else:
            rest = " ".join(
                f"{key}={json.dumps(value, ensure_ascii=False, default=str)}"
                for key, value in fields.items()
                if key != "event"
            )
            line = f"{at} {level} {fields['event']} {rest}".rstrip()
        return _PASSWORD.sub("***@", line)
