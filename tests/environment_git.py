"""A Git work tree for tests."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path


def commit_all(folder: Path) -> str:
    """Commit all that is in a folder, if anything is new; returns the commit."""
    who = {
        f"GIT_{role}_{key}": "a@b" for role in ("AUTHOR", "COMMITTER") for key in ("NAME", "EMAIL")
    }
    variables = {**os.environ, **who, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}

    def git(*words: str) -> str:
        done = subprocess.run(
            ["git", "-C", folder, *words], env=variables, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    if not (folder / ".git").exists():
        git("init", "-q")
        (folder / ".gitignore").write_text("__pycache__/\n")
    git("add", ".")
    if git("status", "--porcelain"):
        git("commit", "-qm", "all")
    return git("rev-parse", "HEAD")
