"""Users other than the owner of a store, and what they do in processes of their own."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

import reader_actors
from conftest import Lab
from processes import start

ANA, BEN = 64321, 64322


def as_user(lab: Lab, user: int, action: Callable[..., Any], *arguments: Any) -> Any:
    """Do something as another user; return what it gave, or the error as JSON."""
    home = lab.base / f"home-{user}"
    if not home.exists():
        home.mkdir(mode=0o700)
        os.chown(home, user, user)
    report = home / "report"
    report.unlink(missing_ok=True)
    process = start(
        reader_actors.as_user,
        user,
        str(home),
        str(report),
        action,
        *arguments,
        output=lab.base / "output",
    )
    process.join(100)
    assert report.exists(), (lab.base / "output.err").read_text()
    told = json.loads(report.read_text())
    assert "failed" not in told, told.get("failed")
    return told.get("gave", told.get("error"))
