"""What a mount needs, and what programs see of errors; no mount is made here."""

from __future__ import annotations

import errno
import os
import subprocess
import sys

import pytest

from conftest import Lab
from recallfs.errors import (
    AccessError,
    ConflictError,
    IntegrityError,
    InvalidInputError,
    NotRecallableError,
    RecipeFailedError,
    SourceError,
    SourceTimeoutError,
)
from recallfs.integrations.mount.failures import errno_of

_LOAD = """
import sys
{}
from recallfs.errors import InvalidInputError
from recallfs.integrations.mount.binding import load
try:
    load()
except InvalidInputError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("error", "number"),
    [
        (FileNotFoundError(errno.ENOENT, "gone"), errno.ENOENT),
        (InvalidInputError("nothing known", kind="unknown-entry"), errno.ENOENT),
        (InvalidInputError("no recipe", kind="unknown-recipe"), errno.EIO),
        (NotRecallableError("lost"), errno.EIO),
        (SourceTimeoutError("outage"), errno.EIO),
        (IntegrityError("mismatch"), errno.EIO),
        (RecipeFailedError("failed"), errno.EIO),
        (SourceError("full", kind="no-space"), errno.ENOSPC),
        (AccessError("not yours"), errno.EACCES),
        (ConflictError("there"), errno.EEXIST),
        (ConflictError("pinned", kind="pinned"), errno.EBUSY),
        (ZeroDivisionError(), errno.EIO),
    ],
)
def test_each_error_has_its_errno(error: Exception, number: int) -> None:
    """Only what never was is 'no such file'; outages and mismatches are I/O errors."""
    assert errno_of(error) == number


@pytest.mark.parametrize(
    ("before", "library", "said"),
    [
        ("sys.modules['mfusepy'] = None", "fuse3", "pip install 'recallfs[mount]'"),
        ("", "absent", "apt install fuse3"),
    ],
)
def test_what_is_missing_is_said_with_what_to_install(before: str, library: str, said: str) -> None:
    """Without the binding or libfuse 3 there is one sentence."""
    environment = {**os.environ, "FUSE_LIBRARY_NAME": library}
    command = [sys.executable, "-c", _LOAD.format(before)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert said in done.stdout
    assert done.stdout.count("\n") == 1


def test_a_mount_without_fusermount_says_what_to_install(lab: Lab) -> None:
    """The command itself says it, in one sentence, and leaves no process behind."""
    lab.environment["PATH"] = ""
    done = lab.cli("mount", str(lab.base), "--store", "lab", check=False)
    assert done.returncode == 10
    assert done.stderr.count("\n") == 1
    assert "install" in done.stderr
