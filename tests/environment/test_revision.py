"""Which revision code is, and that asking runs nothing that a repository names."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from recallfs.environment.revision import DIFF_BYTES, revision_of

WHO = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "a"}
WHO["GIT_COMMITTER_EMAIL"] = "a@b"


def git(folder: Path, *words: str) -> str:
    """Run Git, with no configuration but the repository's."""
    variables = {**os.environ, **WHO, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    done = subprocess.run(
        ["git", "-C", folder, *words], env=variables, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Return a work tree with one commit."""
    folder = tmp_path / "code"
    folder.mkdir()
    git(folder, "init", "-q")
    (folder / "recipe.py").write_text("one = 1\n")
    (folder / "data.bin").write_bytes(b"data")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "first")
    return folder


def test_a_clean_tree(tree: Path) -> None:
    """Its commit is told, from folders below too; files that are not code change nothing."""
    (tree / "results.csv").write_text("not code")
    (tree / "sub").mkdir()
    for folder in (tree, tree / "sub"):
        found = revision_of(folder, with_diff=True)
        assert found is not None
        assert (found.commit, found.dirty, found.diff) == (
            git(tree, "rev-parse", "HEAD"),
            False,
            b"",
        )
    assert revision_of(tree.parent) is None


def test_changes_can_be_applied_again(tree: Path) -> None:
    """The kept difference makes a clean copy what the tree was, new files included."""
    (tree / "recipe.py").write_text("two = 2\n")
    (tree / "data.bin").write_bytes(b"\0\1\2")
    (tree / "new.py").write_text("a = 1\nb = 'é'")
    found = revision_of(tree, with_diff=True)
    assert found is not None
    assert found.dirty
    copy = tree.parent / "copy"
    git(tree, "clone", "-q", ".", str(copy))
    (tree.parent / "kept.diff").write_bytes(found.diff)
    git(copy, "apply", str(tree.parent / "kept.diff"))
    for name in ("recipe.py", "data.bin", "new.py"):
        assert (copy / name).read_bytes() == (tree / name).read_bytes()


def test_large_changes_are_cut_off_and_said_so(tree: Path) -> None:
    """What is too large is not kept whole, and is known not to be."""
    (tree / "new.py").write_text("x = 1\n" * DIFF_BYTES)
    found = revision_of(tree, with_diff=True)
    assert found is not None
    assert (found.dirty, found.is_whole) == (True, False)
    assert len(found.diff) <= DIFF_BYTES


def test_nothing_that_the_repository_names_is_run(tree: Path) -> None:
    """Hooks, file monitors, filters and drivers of the repository are not started."""
    trace = tree.parent / "was-run"
    program = tree.parent / "program"
    program.write_text(f"#!/bin/sh\ntouch {trace}\ncat\n")
    program.chmod(0o755)
    (tree / ".gitattributes").write_text("*.py filter=evil diff=evil\n*.bin diff=conv\n")
    git(tree, "add", ".gitattributes")
    git(tree, "commit", "-qm", "attributes")
    for key in (
        "core.fsmonitor",
        "filter.evil.clean",
        "filter.evil.process",
        "diff.evil.command",
        "diff.conv.textconv",
        "diff.external",
        "core.pager",
    ):
        git(tree, "config", key, str(program))
    git(tree, "config", "filter.evil.required", "true")
    (tree / ".git" / "hooks" / "post-index-change").write_text(program.read_text())
    (tree / ".git" / "hooks" / "post-index-change").chmod(0o755)
    trace.unlink(missing_ok=True)
    (tree / "recipe.py").write_text("two = 2\n")
    (tree / "data.bin").write_bytes(b"other")
    found = revision_of(tree, with_diff=True)
    assert not trace.exists()
    assert found is not None
    assert b"+two = 2" in found.diff
    # The trap works: Git by itself runs it.
    subprocess.run(["git", "-C", tree, "status"], capture_output=True, timeout=20, check=False)
    assert trace.exists()


def test_without_git_the_commit_is_told_all_the_same(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the program is missing, the commit is read and nothing is said of changes."""
    commit = git(tree, "rev-parse", "HEAD")
    monkeypatch.setenv("PATH", "/nowhere")
    found = revision_of(tree, with_diff=True)
    assert found is not None
    assert (found.commit, found.dirty, found.diff) == (commit, None, b"")
