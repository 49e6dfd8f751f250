"""Edges of single commands: early interrupts, names given twice, what is skipped or missing."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from conftest import Lab
from mirrored import released_file
from recallfs.values import format_size


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Let children be interrupted, as those of a test run in the background are not."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_early_interrupt_is_quiet(lab: Lab, interruptible: None) -> None:
    """Ctrl-C at any moment after Python itself has started ends without a traceback of ours."""
    codes = set()
    for delay_ms in range(20, 400, 25):
        process = subprocess.Popen(
            [sys.executable, "-m", "recallfs", "recipes"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        time.sleep(delay_ms / 1000)
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=30)
        for place in ("recallfs/cli", "recallfs/__main__"):  # Python's own start may show others
            assert place not in error, error
        codes.add(process.returncode)
    assert 130 in codes


def test_missing_configuration_is_said(lab: Lab) -> None:
    """Where RECALLFS_CONFIG names a file that is not there, the error says so."""
    lab.environment["RECALLFS_CONFIG"] = str(lab.base / "typo.toml")
    for words in (("status",), ("get", "recall://lab/x"), ("get", "/nowhere/x")):
        done = lab.cli(*words, check=False)
        assert f"RECALLFS_CONFIG names {lab.base / 'typo.toml'}, and no file" in done.stderr
    assert "typo.toml" in lab.cli_json("status", check=False)["message"]


def test_a_root_has_one_name(lab: Lab) -> None:
    """A second name for a registered root is refused; repeating `init` without one is not."""
    done = lab.cli("init", str(lab.root), "--name", "other", check=False)
    assert done.returncode == 70
    assert "is the store 'lab' already" in done.stderr
    assert "other" not in lab.config.read_text()
    lab.config.write_text(lab.config.read_text().replace("[stores.lab]", "[stores.named]"))
    assert lab.cli_json("init", str(lab.root))["name"] == "named"
    lab.write_config()


def test_parent_of_a_store_is_refused(lab: Lab) -> None:
    """A folder with a store below it cannot become one, however deep that is."""
    (lab.base / "deep/deeper").mkdir(parents=True)
    done = lab.cli("init", str(lab.base / "deep/deeper/inner"), "--name", "inner")
    done = lab.cli("init", str(lab.base / "deep"), check=False)
    assert done.returncode == 11
    assert f"{lab.base / 'deep/deeper/inner'} inside" in done.stderr
    assert not (lab.base / "deep/.recall").exists()


def test_what_is_skipped_is_said(lab: Lab) -> None:
    """Symlinks and special files are counted by `add`; a symlink that is named is one of them."""
    (lab.root / "a.bin").write_bytes(b"a")
    (lab.root / "one").symlink_to("a.bin")
    (lab.root / "two").symlink_to("nowhere")
    os.mkfifo(lab.root / "pipe")
    done = lab.cli("add", str(lab.root))
    assert "skipped 2 symlinks; only regular files" in done.stderr
    assert "skipped 1 special file;" in done.stderr
    document = lab.cli_json("add", str(lab.root / "one"))
    assert document["added"] == []
    assert len(document["warnings"]) == 1


def test_accepting_a_changed_input_warns(lab: Lab) -> None:
    """Who accepts another input is told what was made from the earlier one."""
    lab.released()
    lab.derive("here.h5", factor=3.0)
    (lab.root / "raw.h5").write_bytes(b"another recording")
    (warning,) = lab.cli_json("add", str(lab.root / "raw.h5"))["warnings"]
    assert "2 files were made from what it held before" in warning
    assert "1 of them are not here and can no longer be recomputed" in warning
    assert lab.cli_json("add", str(lab.root / "raw.h5"))["warnings"] == []


def test_missing_input_is_named(lab: Lab) -> None:
    """A recipe that is run without an input it reads names the option to add."""
    done = lab.cli("run", "double", "-o", "recall://lab/x.h5", check=False)
    assert done.returncode == 60
    line = done.stderr.splitlines()[0]
    assert "it wants an input named 'raw' (given: none); add -i raw=URL" in line


@pytest.mark.parametrize("value", ["nan", "inf", "0", "-0.1", "1.01", "101%", "0%", "5%%", "a"])
def test_impossible_skeleton_limits_are_refused(lab: Lab, value: str) -> None:
    """A limit that is no fraction is refused, 'not a number' too."""
    released_file(lab, "a.bin")
    words = ("release", "recall://lab", "--max-skeleton", value, "--dry-run")
    done = lab.cli(*words, check=False)
    assert done.returncode == 10
    assert "--max-skeleton cannot be" in done.stderr


@pytest.mark.parametrize("value", ["0.00001", "0.001%"])
def test_skeleton_limits_are_parts_or_percents(lab: Lab, value: str) -> None:
    """A limit is taken as a fraction and in percent, as a refusal says it."""
    place = lab.derive()
    lab.prove()
    words = ("release", str(place), "--dry-run")
    (decision,) = lab.cli_json(*words, "--max-skeleton", value, check=False)["decisions"]
    assert decision["kind"] == "skeleton-too-large"
    (decision,) = lab.cli_json(*words, "--max-skeleton", "100%")["decisions"]
    assert decision["verdict"] == "release"


@pytest.mark.parametrize("hold", ["0s", "7d"])
def test_a_release_frees_what_it_said(lab: Lab, hold: str) -> None:
    """Plan and result name the same bytes, less what is kept; what warns is said once."""
    place = lab.derive()
    size = format_size(place.stat().st_size)
    lab.prove()
    done = lab.cli("release", str(place), "--hold", hold, "--yes")
    (frees,) = re.findall(r"^1 of 1 file can be released, (.+) net\.$", done.stdout, re.MULTILINE)
    (result,) = re.findall(r"^Released 1 file\. Freed now: (.+)\.$", done.stdout, re.MULTILINE)
    assert frees != size
    assert result.split(": ")[-1] == frees
    assert done.stderr.count("is on the same disk as the store") == 1
