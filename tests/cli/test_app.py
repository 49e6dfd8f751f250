"""The command line as a whole: help, JSON, exit codes, interrupts, and its page."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click
import pytest

from actors import run_main
from conftest import TESTS, Lab, sha256
from mirrored import CONTENT, configure_mirror, released_file
from processes import start
from recallfs.cli.app import COMMANDS, main, program
from recallfs.errors import KINDS, RecallError

REPOSITORY = TESTS.parent


def get_command(name: str) -> click.Command:
    command = program.get_command(click.Context(program), name)
    assert command is not None
    return command


def run(capfd: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Run the command line in this process."""
    code = main(list(arguments))
    captured = capfd.readouterr()
    return code, captured.out, captured.err


@pytest.fixture
def stocked(lab: Lab) -> Lab:
    """Give a store with a released and a resident file."""
    released_file(lab, "far.bin")
    lab.add("near.bin", CONTENT)
    return lab


# -- help and page ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_an_example(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Each command loads, and its help has an example that names the command and would parse."""
    code, out, err = run(capfd, name, "--help")
    assert (code, err) == (0, "")
    found = re.search(r"Example:\s+recall (.*?)(?:\n\n|\n  -|\Z)", out, re.DOTALL)
    assert found is not None, out
    assert found[1].split()[0] == name
    command: Any = get_command(name)
    if not isinstance(command, click.Group):
        context = click.Context(command, info_name=name)
        words = subprocess.run(
            ["sh", "-c", f'printf "%s\\n" {" ".join(found[1].split()[1:])}'],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.splitlines()
        command.parse_args(context, [word for word in words if word])


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_json_and_a_place_in_the_page(name: str) -> None:
    """Each command takes ``--json`` and has a section in docs/reference/cli.md."""
    command: Any = get_command(name)
    leaves = [command]
    if isinstance(command, click.Group):
        leaves = list(command.commands.values())
    for leaf in leaves:
        assert any("--json" in parameter.opts for parameter in leaf.params), leaf.name
    page = (REPOSITORY / "docs/reference/cli.md").read_text("utf-8")
    assert f"\n## recall {name}\n" in page


def test_page_is_up_to_date() -> None:
    """docs/reference/cli.md is what the commands say of themselves."""
    script = REPOSITORY / "scripts" / "gen-cli-docs"
    done = subprocess.run([sys.executable, script, "--check"], capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (0, b"")


# -- JSON ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ("init", "BASE/second", "--name", "second"),
        ("add", "ROOT"),
        ("run", "text", "-o", "recall://lab/out.txt"),
        ("get", "recall://lab/far.bin"),
        ("status",),
        ("show", "recall://lab/far.bin"),
        ("explain", "recall://lab/far.bin"),
        ("release", "recall://lab/near.bin", "--dry-run"),
        ("release", "--purge"),
        ("undo", "recall://lab"),
        ("forget", "recall://lab/near.bin", "--yes"),
        ("pin", "recall://lab/near.bin"),
        ("unpin", "recall://lab/near.bin"),
        ("recipes",),
        ("catalog", "rebuild"),
    ],
    ids=lambda words: " ".join(words[:2]),
)
def test_json_is_one_document(
    stocked: Lab, arguments: tuple[str, ...], capfd: pytest.CaptureFixture[str]
) -> None:
    """With ``--json`` standard output is one JSON document and nothing else."""
    words = [
        w.replace("BASE", str(stocked.base)).replace("ROOT", str(stocked.root)) for w in arguments
    ]
    code, out, err = run(capfd, *words, "--json")
    assert isinstance(json.loads(out), dict)
    assert code == (KINDS["not-recallable"].exit_code if "undo" in words else 0)
    assert "Traceback" not in err


def test_json_of_a_proof(lab: Lab) -> None:
    """`prove --json` says level, method and what is kept."""
    lab.derive("a.txt", "text")
    (proved,) = lab.cli_json("prove", "recall://lab/a.txt", "--hide", "aside")["proved"]
    assert (proved["level"], proved["size_bytes"]) == ("exact", 25000)


# -- bad input ----------------------------------------------------------------------------------

BAD = [
    (("get", "recall://nostore/x"), "unknown-store"),
    (("get", "recall://lab/nothing"), "unknown-entry"),
    (("get", "recall://lab/../x"), "invalid-path"),
    (("get", "recall://lab/*.zip"), "unknown-entry"),
    (("get", "/nowhere/x"), "not-a-store"),
    (("show", "recall://lab/nothing"), "unknown-entry"),
    (("explain", "recall://lab/nothing"), "unknown-entry"),
    (("status", "nostore"), "unknown-store"),
    (("add", "recall://lab/nothing"), "invalid-path"),
    (("run", "nothing", "-o", "recall://lab/x"), "unknown-recipe"),
    (("run", "text", "-o", "recall://lab/x", "-p", "wrods=1"), "invalid-parameters"),
    (("run", "text", "-o", "recall://lab/x", "-p", "words"), "invalid-parameters"),
    (("run", "pair", "-o", "recall://lab/x"), "invalid-input"),
    (("run", "failing", "-o", "recall://lab/x"), "recipe-failed"),
    (("run", "failing", "-o", "recall://lab/x", "-p", "how=kill"), "recipe-killed"),
    (("release", "recall://lab", "--older-than", "soon"), "invalid-input"),
    (("release", "recall://lab", "--min-size", "-1"), "invalid-input"),
    (("forget", "recall://lab/nothing", "--yes"), "unknown-entry"),
    (("pin", "recall://lab/nothing"), "unknown-entry"),
    (("undo", "recall://lab/far.bin"), "not-recallable"),
    (("catalog", "rebuild", "nostore"), "unknown-store"),
    (("init", "ROOT/inner"), "invalid-path"),
    (("init", "ROOT/near.bin"), "invalid-path"),
]


@pytest.mark.parametrize(("arguments", "kind"), BAD, ids=lambda v: v if isinstance(v, str) else "")
def test_bad_input_is_one_sentence(
    stocked: Lab, arguments: tuple[str, ...], kind: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """Bad input ends in the exit code of its kind and one line; with JSON in a document."""
    words = [word.replace("ROOT", str(stocked.root)) for word in arguments]
    code, out, err = run(capfd, *words)
    assert (code, out) == (KINDS[kind].exit_code, "")
    lines = err.split("--- end of the recipe's log ---")[0].strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert "  File " not in lines[0]
    code, out, err = run(capfd, *words, "--json")
    document = json.loads(out)
    assert (code, document["kind"]) == (KINDS[kind].exit_code, kind)
    assert RecallError.from_json(document).exit_code == code
    assert not list((stocked.store.control / "staging").iterdir())


@pytest.mark.parametrize(
    "arguments",
    [("nonsense",), ("get",), ("get", "--nonsense"), ("release",), ("run", "text"), ("init",)],
    ids=" ".join,
)
def test_misuse_is_exit_code_2(
    lab: Lab, arguments: tuple[str, ...], capfd: pytest.CaptureFixture[str]
) -> None:
    """A command line that cannot be understood ends with 2 and says how it is meant."""
    code, out, err = run(capfd, *arguments)
    assert (code, out) == (2, "")
    assert "Usage: recall" in err
    assert "Traceback" not in err


def test_broken_configuration_is_named(lab: Lab, capfd: pytest.CaptureFixture[str]) -> None:
    """A configuration that cannot be read ends any command with its own code."""
    lab.config.write_text("[stores\n")
    code, out, err = run(capfd, "status")
    assert (code, out) == (KINDS["invalid-config"].exit_code, "")
    assert str(lab.config) in err
    lab.write_config()


def test_some_failures_do_the_rest(stocked: Lab, capfd: pytest.CaptureFixture[str]) -> None:
    """Of many files those that can be had are brought back; the exit code is 1."""
    (stocked.root / "near.bin").write_bytes(b"changed")
    code, out, err = run(capfd, "get", "recall://lab")
    assert code == 1
    assert "recall://lab/far.bin" in out
    assert "recall://lab/near.bin was changed" in err
    assert (stocked.root / "far.bin").read_bytes() == CONTENT


# -- safety -------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["release", "forget"])
def test_nothing_is_dropped_unasked(
    lab: Lab, command: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """Without ``--yes`` and without a terminal nothing is dropped."""
    released_file(lab, "far.bin")
    configure_mirror(lab)
    lab.cli("get", "recall://lab/far.bin")
    done = lab.cli(command, "recall://lab/far.bin", check=False)
    assert done.returncode == 2
    assert "--yes" in done.stderr
    assert (lab.root / "far.bin").read_bytes() == CONTENT
    assert lab.cli(command, "recall://lab/far.bin", "--yes").returncode == 0
    assert not (lab.root / "far.bin").exists()


def test_names_cannot_drive_the_terminal(lab: Lab, capfd: pytest.CaptureFixture[str]) -> None:
    """Control characters in names reach the terminal in no command's output."""
    name = "a\x1b]0;owned\x07\x1b[2Jb\r[red]c.bin"
    released_file(lab, name)
    released_file(lab, "other.bin", b"2" * 50_000)
    for words in (
        ("show", f"recall://lab/{name}"),
        ("explain", f"recall://lab/{name}"),
        ("get", "recall://lab"),
        ("release", "recall://lab", "--dry-run"),
        ("pin", f"recall://lab/{name}"),
        ("forget", f"recall://lab/{name}", "--yes"),
        ("get", f"recall://lab/{name}"),
        ("get", f"recall://lab/no{name}"),
        ("run", name, "-o", f"recall://lab/{name}"),
    ):
        _, out, err = run(capfd, *words)
        text = out + err
        assert not set(text) & {"\x1b", "\x07", "\r"}, words
        assert "[red]c.bin" in text.replace("\n", ""), words


def test_closed_pipe_is_quiet(stocked: Lab) -> None:
    """A reader that goes away, as ``head`` does, gets no traceback."""
    done = subprocess.run(
        ["sh", "-c", f"{sys.executable} -m recallfs status | true"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""


# -- interrupts ---------------------------------------------------------------------------------


def _workers(lab: Lab) -> list[str]:
    """List processes that run a job of this lab."""
    found = []
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            text = place.read_bytes().decode("utf-8", "replace")
        except OSError:
            continue
        if str(lab.base) in text and "recallfs.recipes.worker" in text:
            found.append(text)
    return found


def interrupt(lab: Lab, *arguments: str) -> tuple[int | None, str]:
    """Run a command and interrupt it as soon as its recipe is at work."""
    output = lab.base / "output"
    process = start(run_main, arguments, environment=dict(os.environ), output=output)
    deadline = time.monotonic() + 30
    staging = lab.store.control / "staging"
    while time.monotonic() < deadline and not list(staging.glob("**/output-0")):
        time.sleep(0.02)
    assert _workers(lab)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGINT)
    process.join(20)
    return process.exitcode, output.with_suffix(".err").read_text()


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="looks for processes in /proc")
@pytest.mark.parametrize("command", ["run", "get"])
def test_interrupt_leaves_nothing(lab: Lab, command: str) -> None:
    """Ctrl-C while a recipe runs: exit code 130, staging empty, no worker left, no record."""
    if command == "run":
        words = ["run", "failing", "-o", "recall://lab/out", "-p", "how=sleep"]
    else:
        sleepy = lab.base / "sleepy"
        lab.derive("out", "sleepy", sleep_file=str(sleepy))
        (lab.root / "out").unlink()
        sleepy.touch()
        words = ["get", "recall://lab/out"]
    code, error = interrupt(lab, *words)
    assert code == 130
    assert error.strip().splitlines()[-1] == "interrupted; nothing was left half-done."
    assert "Traceback" not in error
    assert not lab.staged
    assert not _workers(lab)
    assert not (lab.root / "out").exists()
    assert not lab.store.catalog.intents()
    if command == "get":
        sleepy.unlink()
        lab.cli("get", "recall://lab/out")
        assert sha256(lab.root / "out") == lab.entry("out").sha256
