"""What Tab offers."""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout

import pytest

from conftest import Lab
from mirrored import released_file
from recallfs.cli.app import main
from terminals import Terminal


@pytest.fixture
def stocked(lab: Lab) -> Lab:
    """Give a store with a released file in a folder, and a resident one."""
    released_file(lab, "sub-1/far.bin")
    released_file(lab, "sub-1/far-2.bin", b"2" * 50_000)
    return lab


def complete(*words: str) -> list[str]:
    """Ask for completions of the last word, as click's script for bash does."""
    out, err = io.TextIOWrapper(io.BytesIO(), "utf-8"), io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("_RECALL_COMPLETE", "bash_complete")
        patch.setenv("COMP_WORDS", " ".join(("recall", *words)))
        patch.setenv("COMP_CWORD", str(len(words)))
        with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as ended:
            main([])
    assert (ended.value.code, err.getvalue()) == (0, "")
    out.seek(0)
    return [line.partition(",")[2] for line in out.read().splitlines() if line]


def test_commands_options_and_stores(stocked: Lab) -> None:
    """Names of commands, options and stores are completed."""
    assert complete("re") == ["revoke", "release", "recipes"]
    assert complete("release", "--min") == ["--min-size"]
    assert complete("status", "l") == ["lab"]


def test_addresses(stocked: Lab) -> None:
    """Stores, folders and files are completed, released ones too, and so cut at the colon."""
    assert complete("get", "recall://") == ["recall://lab/"]
    assert complete("get", "recall://lab/") == ["recall://lab/sub-1/"]
    both = ["recall://lab/sub-1/far-2.bin", "recall://lab/sub-1/far.bin"]
    assert complete("get", "recall://lab/sub-1/fa") == both
    # What bash really asks: also of commands that take one file, and before another word.
    for command in ("get", "explain"):
        assert complete(command, "recall", ":", "//lab/sub-1/far.") == ["//lab/sub-1/far.bin"]
        assert complete(command, "recall", ":") == ["", "//"]
    first = ("recall", ":", "//lab/sub-1/far.bin")
    assert complete("diff", *first, "recall", ":", "//l") == ["//lab/"]
    assert complete("diff", *first, "recall://l") == ["recall://lab/"]
    assert complete("get", "recall://nostore/") == []


def test_a_broken_configuration_is_no_traceback(lab: Lab) -> None:
    """Tab offers nothing then, and prints nothing."""
    lab.config.write_text("[stores\n")
    try:
        assert complete("get", "recall://") == []
        assert complete("status", "") == []
    finally:
        lab.write_config()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_scripts(shell: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Each shell gets a script for both programs; where the shell is there, it accepts it."""
    assert main(["completion", shell]) == 0
    script = capfd.readouterr().out
    assert "recall" in script
    assert "recallfs" in script
    program = shutil.which(shell)
    if program is not None:
        check = [program, "--no-execute"] if shell == "fish" else [program, "-n"]
        assert subprocess.run(check, input=script, text=True, check=False).returncode == 0


SHELLS = {
    "bash": (["bash", "--norc", "--noprofile", "-i"], 'eval "$(recall completion bash)"'),
    "zsh": (
        ["zsh", "-f", "-i"],
        'autoload -Uz compinit; compinit -u; eval "$(recall completion zsh)"',
    ),
    "fish": (["fish", "--no-config", "-i"], "recall completion fish | source"),
}


@pytest.mark.services
@pytest.mark.parametrize("shell", SHELLS)
def test_pressing_tab(shell: str, stocked: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """In each shell, on a terminal, Tab completes a command and a released file's address."""
    start, load = SHELLS[shell]
    for name in ("recall", "recallfs"):
        program = stocked.base / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m recallfs "$@"\n')
        program.chmod(0o755)
    monkeypatch.setenv("PATH", str(stocked.base / "bin"), prepend=":")
    monkeypatch.setenv("HOME", str(stocked.base))
    monkeypatch.setenv("TERM", "dumb")
    with Terminal(start) as terminal:
        terminal.type(f"{load}; echo lo''aded\n")
        terminal.expect("loaded")
        terminal.type("recall verif\t")
        terminal.expect("verify ")
        terminal.type("\x15recallfs explain recall://lab/sub-1/far.\t")  # Ctrl-U
        terminal.expect("recall://lab/sub-1/far.bin")
