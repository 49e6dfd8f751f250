"""Which commit code stands at, and what was changed since: asked of Git, which runs nothing else.

A repository's own configuration can name programs (hooks, file monitors, filters, drivers for
differences). None of them is run: what Git would start is switched off by settings that stand above
the repository's.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

DIFF_BYTES = 1024 * 1024
"""A difference is kept up to this size."""

_COMMIT = re.compile(r"[0-9a-f]{40,64}")
_PATIENCE_S = 5.0
_OFF = {
    "core.fsmonitor": "false",
    "core.hooksPath": os.devnull,
    "core.untrackedCache": "false",
    "diff.external": "",
    "protocol.allow": "never",
}
"""Settings under which Git starts no program and fetches nothing."""


@dataclass(frozen=True)
class Revision:
    """State of a work tree.

    Parameters
    ----------
    root : Path
        Of the work tree.
    commit : str or None
        None before the first commit.
    dirty : bool or None
        Whether anything differs from the commit; None if Git cannot tell, or is not installed.
    diff : bytes
        What differs, for ``git apply``; with it new Python files below the place asked for.
    is_whole : bool
        False if `diff` was cut off.
    """

    root: Path
    commit: str | None
    dirty: bool | None = None
    diff: bytes = b""
    is_whole: bool = True


def revision_of(folder: Path, *, with_diff: bool = False) -> Revision | None:
    """Return the revision of the code in a folder; None if it is not in a Git work tree.

    Parameters
    ----------
    folder : Path
        Python files in or below it that Git does not know count as changes.
    with_diff : bool
        Whether to read what was changed, up to `DIFF_BYTES`.

    Notes
    -----
    Takes some 10 ms, and at most a few seconds. Nothing is written.
    """
    folder = Path(os.path.realpath(folder))
    root = next((each for each in (folder, *folder.parents) if (each / ".git").exists()), None)
    if root is None:
        return None
    git = shutil.which("git")
    variables = None if git is None else _variables(git, root)
    if git is None or variables is None:
        return Revision(root, _commit_on_disk(root))
    status = _ask(
        git, root, variables, "status", "--porcelain=v2", "--branch", "-z",
        "--untracked-files=no", "--ignore-submodules=all",
    )  # fmt: skip
    new = _ask(
        git, root, variables, "ls-files", "--others", "--exclude-standard", "-z", "--",
        f":(top,glob){os.fspath(folder.relative_to(root) / '**' / '*.py')}",
    )  # fmt: skip
    if status is None or new is None:
        return Revision(root, _commit_on_disk(root))
    lines = status.decode("utf-8", "surrogateescape").split("\0")
    head = next((line[13:] for line in lines if line.startswith("# branch.oid ")), "")
    commit = head if _COMMIT.fullmatch(head) else None
    unknown = sorted(name for name in os.fsdecode(new).split("\0") if name)
    dirty = commit is None or bool(unknown) or any(line and line[0] != "#" for line in lines)
    if not (dirty and with_diff):
        return Revision(root, commit, dirty)
    diff = _diff(git, root, variables) if commit else b""
    whole = diff is not None
    content = (diff or b"") + b"".join(_as_new(root, name) for name in unknown)
    return Revision(root, commit, True, content[:DIFF_BYTES], whole and len(content) <= DIFF_BYTES)


def _diff(git: str, root: Path, variables: Mapping[str, str]) -> bytes | None:
    return _ask(
        git, root, variables, "diff", "HEAD", "--binary", "--full-index", "--no-color",
        "--no-ext-diff", "--no-textconv", "--no-renames", "--ignore-submodules=all",
        "--src-prefix=a/", "--dst-prefix=b/",
    )  # fmt: skip


def _as_new(root: Path, name: str) -> bytes:
    """Write a file that Git does not know as a difference that makes it."""
    try:
        lines = (root / name).read_bytes()[:DIFF_BYTES].split(b"\n")
    except OSError:
        return b""
    ends = lines[-1] == b""
    lines = lines[:-1] if ends else lines
    file = os.fsencode(name)
    text = b"diff --git a/%b b/%b\nnew file mode 100644\n" % (file, file)
    if not lines:
        return text
    text += b"--- /dev/null\n+++ b/%b\n@@ -0,0 +1,%d @@\n" % (file, len(lines))
    text += b"".join(b"+%b\n" % line for line in lines)
    return text if ends else text + b"\\ No newline at end of file\n"


def _variables(git: str, root: Path) -> dict[str, str] | None:
    """Return the environment variables for Git: its own, and every program switched off."""
    variables = {name: text for name, text in os.environ.items() if not name.startswith("GIT_")}
    variables |= {
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_CEILING_DIRECTORIES": os.fspath(root.parent),
        "LC_ALL": "C",
    }
    # The code is run whoever owns it, so that it is another's does not hinder.
    settings = {**_OFF, "safe.directory": os.fspath(root)}
    listed = _ask(git, root, variables | _as_variables(settings), "config", "--list", "-z")
    if listed is None:
        return None
    names = (item.partition("\n")[0] for item in os.fsdecode(listed).split("\0"))
    drivers = {name.rpartition(".")[0] for name in names if name.startswith("filter.")}
    for driver in drivers:
        settings |= {f"{driver}.{key}": "" for key in ("clean", "smudge", "process")}
        settings[f"{driver}.required"] = "false"
    return variables | _as_variables(settings)


def _as_variables(settings: Mapping[str, str]) -> dict[str, str]:
    variables = {"GIT_CONFIG_COUNT": str(len(settings))}
    for number, (name, value) in enumerate(settings.items()):
        variables |= {f"GIT_CONFIG_KEY_{number}": name, f"GIT_CONFIG_VALUE_{number}": value}
    return variables


def _ask(git: str, root: Path, variables: Mapping[str, str], *arguments: str) -> bytes | None:
    """Return what Git prints; None if it fails, takes too long or prints too much."""
    try:
        process = subprocess.Popen(
            [git, "--no-pager", "-C", os.fspath(root), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=variables,
        )
    except OSError:
        return None
    # In a seeded worker the clock that subprocess looks at stands still.
    alarm = threading.Timer(_PATIENCE_S, process.kill)
    alarm.start()
    try:
        with process:
            assert process.stdout is not None  # noqa: S101 - it is a pipe
            content = process.stdout.read(DIFF_BYTES + 1)
            if len(content) > DIFF_BYTES:
                process.kill()
    finally:
        alarm.cancel()
    return content if process.returncode == 0 and len(content) <= DIFF_BYTES else None


def _commit_on_disk(root: Path) -> str | None:
    """Return the commit that a work tree stands at, without running Git."""
    git = root / ".git"
    try:
        head = (git / "HEAD").read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return None
    reference = head.removeprefix("ref:").strip()
    if reference == head:
        return head if _COMMIT.fullmatch(head) else None
    return _resolve_reference(git, reference)


def _resolve_reference(git: Path, reference: str) -> str | None:
    try:
        return (git / reference).read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError):
        pass
    try:
        packed = (git / "packed-refs").read_text("utf-8", "replace")
    except OSError:
        return None
    for line in packed.splitlines():
        commit, _, name = line.partition(" ")
        if name == reference:
            return commit
    return None
