"""The program ``recallfs`` (and ``recall``): commands are loaded when they are used."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import click

import recallfs
from recallfs.cli.output import print_json
from recallfs.errors import InvalidInputError, RecallError
from recallfs.values import display_name

COMMANDS = {
    "init": "make a folder the root of a store",
    "add": "catalog existing files",
    "survey": "show what lies in folders, without changing anything",
    "run": "run a recipe",
    "adopt": "put on record how a file was made elsewhere",
    "get": "bring files back",
    "warm": "fetch files, or what opens them, into the cache ahead of time",
    "status": "show what the stores hold",
    "show": "show all that is known of a file",
    "graph": "show what a file was made from, and what from it",
    "explain": "show what opening a file would do",
    "digest": "digest files, and the content of HDF5 files",
    "diff": "show how two HDF5 files differ",
    "trial": "try on a sample what could be proved, without recording anything",
    "prove": "prove that files can be recomputed exactly",
    "try-environments": "find the recorded environment that gives a file back",
    "revoke": "let proofs count no more",
    "release": "drop local bytes that can come back",
    "undo": "take a release back",
    "drill": "try whether released files come back",
    "forget": "drop files and their entries for good",
    "pin": "keep files resident",
    "unpin": "let files be released again",
    "push": "copy files to a mirror",
    "mount": "show a store as a folder in which any program opens released files",
    "unmount": "end a mount",
    "env": "show, compare and build the environments that recipes ran in",
    "recipes": "list the recipes that are registered",
    "catalog": "rebuild the catalog from the sidecars",
    "verify": "check files and records against their digests",
    "cache": "show and clear what is kept of files outside their stores",
    "doctor": "look for what is wrong, and mend it",
    "bench": "measure recallfs beside its peers",
    "completion": "make the shell complete commands and files",
    "demo": "see it work on an NWB recording made for it",
}


_MOUNTS = Path("/proc/self/mountinfo")


class _Commands(click.Group):
    """Loads a command's module when the command is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        place = "demo.command" if cmd_name == "demo" else f"commands.{cmd_name.replace('-', '_')}"
        module = importlib.import_module(f"recallfs.cli.{place}")
        command = module.command
        assert isinstance(command, click.Command)  # noqa: S101 - each module defines one
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(recallfs.__version__, prog_name="recallfs")
@click.pass_context
def program(context: click.Context) -> None:
    """Delete derived NWB/HDF5 files and go on as if they were there.

    Example: recall init /data/analysis --name analysis
    """
    if context.invoked_subcommand not in ("mount", "unmount") and _is_any_mounted():
        from recallfs.integrations.mount import apart

        apart.look_below()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Exit codes: 0 done; 1 some of the files were refused or failed; 2 the command was misused; 130
    interrupted; each error kind has its own, see docs/reference/errors.md.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    as_json = "--json" in given
    if "_RECALL_COMPLETE" in os.environ:
        from recallfs.cli.completion import join_words_of_bash

        join_words_of_bash()
    try:
        code = program.main(given, prog_name="recall", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except (KeyboardInterrupt, click.Abort):
        _complain("interrupted; nothing was left half-done.")
        return 130
    except click.ClickException as error:
        if as_json:
            misuse = InvalidInputError(error.format_message())
            print_json({**misuse.to_json(), "exit_code": error.exit_code})
        else:
            error.show()
        return error.exit_code
    except RecallError as error:
        error = _with_hint(error)
        if as_json:
            print_json(error.to_json())
        else:
            # Only what lists problems has line breaks of ours; others would be those of names.
            whole = f"error: {error}"
            for line in whole.split("\n") if "problems" in error.details else [whole]:
                _complain(line)
            _show_log(error)
        return error.exit_code
    except BrokenPipeError:
        # The reader of our output went away, as `head` does.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        _complain(f"error: {error.strerror or error}: {error.filename or ''}".rstrip(": "))
        return 1


def _is_any_mounted() -> bool:
    """Tell whether a store may be mounted over itself; `mounts` would take long to load."""
    try:
        return b" - fuse.recall " in _MOUNTS.read_bytes()
    except OSError:
        return False


def _complain(line: str) -> None:
    sys.stderr.write(display_name(line) + "\n")


def _with_hint(error: RecallError) -> RecallError:
    """Say that the configuration is not there, where that is why something is not known."""
    if error.kind == "not-a-store" and _is_any_mounted():
        from recallfs.integrations.mount import apart

        for place in apart.covered_roots():
            error.message += (
                f" The store at {place} is mounted over itself, and only root's commands reach it "
                f"there: read its files by their paths, or `recall unmount {place}` first."
            )
    named = os.environ.get("RECALLFS_CONFIG")
    if error.kind in ("unknown-store", "not-a-store") and named and not Path(named).exists():
        error.message += f" RECALLFS_CONFIG names {named}, and no file is there."
    return error


def _show_log(error: RecallError) -> None:
    log = error.details.get("log")
    if isinstance(log, str) and log.strip():
        sys.stderr.write("--- end of the recipe's log ---\n")
        for line in log.rstrip().splitlines()[-15:]:
            _complain(line)
