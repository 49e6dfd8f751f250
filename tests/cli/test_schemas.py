"""What commands print with ``--json`` is what their schemas say, field by field."""

from __future__ import annotations

import json
import subprocess
import sys

import click
import jsonschema
import pytest

from conftest import TESTS, Lab
from mirrored import released_file
from recallfs.catalog import records
from recallfs.cli.app import COMMANDS, main, program
from recallfs.cli.schemas import ERROR, SCHEMAS, document, strict
from recallfs.environment.capture import environment_id


def check(command: str, words: tuple[str, ...], capfd: pytest.CaptureFixture[str]) -> int:
    """Run a command and hold its document against its schema, which allows no other field."""
    code = main([*command.split(), *words, "--json"])
    schema = strict(document(command))
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(json.loads(capfd.readouterr().out), schema)
    return code


def test_every_command_has_a_schema() -> None:
    """No command's document is without one, and none is of a command that is not there."""
    leaves = set()
    for name in COMMANDS:
        command = program.get_command(click.Context(program), name)
        if isinstance(command, click.Group):
            leaves |= {f"{name} {below}" for below in command.commands}
        else:
            leaves.add(name)
    assert leaves == set(SCHEMAS)


def test_schemas_are_up_to_date() -> None:
    """docs/reference/json holds what the code says."""
    script = TESTS.parent / "scripts" / "gen-json-docs"
    done = subprocess.run([sys.executable, script, "--check"], capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (0, b"")


@pytest.mark.namespaces
def test_documents_fit(lab: Lab, capfd: pytest.CaptureFixture[str]) -> None:
    """Each command's document, with something in every list, fits its schema."""
    lab.released("gone.h5")
    released_file(lab, "far.bin")
    (lab.root / "new.bin").write_bytes(b"new")
    derive = ("double", "-o", "recall://lab/d.h5", "-i", "raw=recall://lab/raw.h5", "-p")
    assert check("add", (str(lab.root),), capfd) == 0
    assert check("run", (*derive, "factor=3"), capfd) == 0
    assert (
        check(
            "run", ("double", "-o", "recall://lab/s{factor}.h5", *derive[3:], "factor=3,4"), capfd
        )
        == 0
    )
    assert check("prove", ("recall://lab/d.h5", "recall://lab/new.bin"), capfd) == 0
    assert check("prove", ("recall://lab/d.h5", "recall://lab/new.bin"), capfd) == 0  # skipped
    batch = lab.base / "made.csv"
    batch.write_text("recipe,output,input.raw\nfailing,recall://lab/new.bin,recall://lab/raw.h5\n")
    assert check("adopt", ("--batch", str(batch)), capfd) == 0
    adopted = ("recall://lab/new.bin", "--recipe", "failing", "-i", "raw=recall://lab/raw.h5")
    assert check("adopt", adopted, capfd) == 0
    assert check("prove", ("recall://lab/raw.h5", "recall://lab/new.bin"), capfd) == 1
    assert check("show", ("recall://lab/new.bin",), capfd) == 0
    # Where the kernel cannot hide originals, an error is printed.
    assert check("trial", ("recall://lab/d.h5", "recall://lab/new.bin"), capfd) in (0, 67)
    assert check("release", ("recall://lab", "--yes", "--hold", "1d"), capfd) == 1
    assert check("release", ("--purge",), capfd) == 0
    assert check("explain", ("recall://lab/d.h5",), capfd) == 0
    assert check("push", ("recall://lab", "--to", "mirror:copies"), capfd) == 0
    assert check("verify", ("--remote",), capfd) == 0
    assert check("undo", ("recall://lab/d.h5",), capfd) == 0
    assert check("warm", ("recall://lab/far.bin",), capfd) == 0
    assert check("get", ("recall://lab",), capfd) == 0
    assert check("get", ("recall://lab/raw.h5", "--slice", "/data[:2]"), capfd) == 0
    assert check("pin", ("recall://lab/d.h5",), capfd) == 0
    assert check("show", ("recall://lab/d.h5",), capfd) == 0
    assert check("show", ("recall://lab/far.bin",), capfd) == 0
    assert check("unpin", ("recall://lab/d.h5",), capfd) == 0
    assert check("status", (), capfd) == 0
    assert check("survey", (str(lab.root),), capfd) == 0
    assert check("recipes", (), capfd) == 0
    check_environments(lab, capfd)
    assert check("status", ("--by", "parameter:factor"), capfd) == 0
    assert check("graph", ("recall://lab/raw.h5",), capfd) == 0
    assert check("doctor", (), capfd) == 0
    (lab.root / "new.bin").write_bytes(b"old")
    assert check("add", (str(lab.root / "new.bin"),), capfd) == 0
    (lab.root / "new.bin").write_bytes(b"???")
    assert check("verify", ("--deep",), capfd) == 1
    assert check("doctor", ("--fix",), capfd) == 0
    assert check("catalog rebuild", (), capfd) == 0
    assert check("catalog audit", (), capfd) == 0
    assert check("cache show", (), capfd) == 0
    assert check("cache clear", (), capfd) == 0
    assert check("forget", ("recall://lab/new.bin", "--yes"), capfd) == 0
    lab.write_config(f'[stores.away]\nroot = "{lab.base / "nowhere"}"\n')
    assert check("status", (), capfd) == 1
    assert check("doctor", (), capfd) == 1
    assert check("init", (str(lab.base / "second"),), capfd) == 0


def check_environments(lab: Lab, capfd: pytest.CaptureFixture[str]) -> None:
    """Hold the documents about environments against their schemas."""
    known = records.environments(lab.store)
    name = next(iter(known))
    told = {**known[name], "packages": {}, "direct": {}}
    other = environment_id(told)
    records.save_environment(lab.store, other, told)
    extra = (
        f'[environments]\nfolder = "{lab.base}/built"\nindexes = ["http://127.0.0.1:9/simple"]\n'
    )
    lab.config.write_text(lab.config.read_text() + extra)
    assert check("env list", (), capfd) == 0
    assert check("env show", (name,), capfd) == 0
    assert check("env diff", (name, other), capfd) == 1
    assert check("env export", (name, "--format", "conda"), capfd) == 0
    assert check("env restore", (other,), capfd) == 0
    assert check("env remove", (other,), capfd) == 0


@pytest.mark.parametrize("command", ["get", "show", "verify", "status", "doctor"])
def test_errors_fit(lab: Lab, command: str, capfd: pytest.CaptureFixture[str]) -> None:
    """A command that fails as a whole prints an error, which its schema allows."""
    address = "nostore" if command in ("status", "doctor") else "recall://nostore/x"
    assert check(command, (address,), capfd) == 13


@pytest.mark.parametrize("words", [("get", "--nope"), ("release",), ("nope",), ("env", "nope")])
def test_misuse_fits(lab: Lab, words: tuple[str, ...]) -> None:
    """A misused command line is told as an error with ``--json``, and as text without."""
    done = lab.cli(*words, "--json", check=False)
    assert (done.returncode, done.stderr) == (2, "")
    said = json.loads(done.stdout)
    jsonschema.validate(said, strict(ERROR))
    assert (said["kind"], said["exit_code"]) == ("invalid-input", 2)
    done = lab.cli(*words, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"Error: {said['message']}" in done.stderr


def test_unknown_fields_would_be_noticed(lab: Lab, capfd: pytest.CaptureFixture[str]) -> None:
    """A schema that forgot a field would be noticed."""
    lab.add("a.bin", b"a")
    main(["show", "recall://lab/a.bin", "--json"])
    page = json.loads(capfd.readouterr().out)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**page, "surprise": 1}, strict(document("show")))
