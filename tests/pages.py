"""Pages of documentation as programs: their code blocks, and what runs them.

A page says in HTML comments what its blocks need:

- ``<!-- lab: released dandi -->``: what is there when the first block begins (`page_lab.STAGES` and
  `page_lab.SERVICES`); without it nothing is, not even a store. With
  ``<!-- lab: default-sources -->`` public services are not turned off as in other tests.
- ``<!-- services: NAME -->``, right before a block: `make test-services` runs it, with that service
  (`page_lab.CHOICES`).
- ``<!-- neighbours: NAME -->``: `make test-services` runs it where that package is
  (tests/neighbours/page.py).
- ``<!-- spyglass -->``: `make test-spyglass` runs it, with all others of the page
  (tests/integrations/spyglass/test_pages.py).
- ``<!-- not run: REASON -->``: it cannot run in a test.

A block with ``title="output"`` is what the block before it prints; the commands of one with
``title="crontab"`` are run; one with any other title is a file of that name. In ``console`` blocks
lines after ``$`` are commands, and what follows is what they print. ``...`` stands for any text. A
command that is shown with an ``error:`` has to fail.
"""

from __future__ import annotations

import contextlib
import doctest
import io
import os
import re
import shlex
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tomlkit

from recallfs.cli.app import main
from recallfs.config import load_config

REPOSITORY = Path(__file__).parent.parent

SHELL = ("sh", "bash", "console")

TARGETS = {
    "": "make test",
    "services": "make test-services",
    "neighbours": "make test-services",
    "spyglass": "make test-spyglass",
    "not run": "",
}
"""What runs the blocks with each note."""

_FENCE = re.compile(
    r"(?P<notes>(?:^[ ]*<!--[^>]*-->\n+)*)"
    r"^(?P<indent>[ ]*)```(?P<language>\w*)(?P<rest>[^\n]*)\n(?P<text>.*?)^(?P=indent)```[ ]*$",
    re.MULTILINE | re.DOTALL,
)
_NOTE = re.compile(r"<!-- (not run|services|neighbours|spyglass)(?:: (.*?))? -->")
_CRON = re.compile(r"(?:[\d*/,-]+ +){5}(?P<command>\S.*)")
_PLACES = re.compile(
    r"(?:(?<=file://)|(?<![\w.:/}>~-]))/(?=(data|nas|backup|fast|scratch|srv|mnt|other|var|etc)\b)"
)
_UNASKED = {"--yes", "--dry-run", "--plan-out", "--purge"}
"""Without these, it asks whether to go on; the reader of a page says yes."""

_FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: str
    line: int
    language: str
    title: str
    text: str
    note: str = ""
    need: str = ""

    @property
    def place(self) -> str:
        """Where it is, for messages."""
        return f"{self.page}:{self.line}"

    @property
    def target(self) -> str:
        """What runs it; nothing does if it is empty."""
        return TARGETS[self.note]


def pages() -> list[str]:
    """List all pages with code, by their paths below the repository."""
    found = [*(REPOSITORY / "docs").rglob("*.md"), REPOSITORY / "README.md"]
    names = sorted(str(path.relative_to(REPOSITORY)) for path in found)
    return [name for name in names if "```" in (REPOSITORY / name).read_text("utf-8")]


def blocks_of(page: str) -> list[Block]:
    """Return the blocks of a page, in order."""
    text = (REPOSITORY / page).read_text("utf-8")
    found = []
    for match in _FENCE.finditer(text):
        note, need = next(iter(_NOTE.findall(match["notes"])), ("", ""))
        title = re.search(r'title="(.*?)"', match["rest"])
        found.append(
            Block(
                page,
                text.count("\n", 0, match.start("indent")) + 1,
                match["language"],
                title[1] if title else "",
                textwrap.dedent(match["text"]),
                note,
                need,
            )
        )
    fences = re.findall(r"^ *```", text, re.MULTILINE)
    assert len(fences) == 2 * len(found), f"{page} has a fence that does not end"
    return found


def unrun(names: Iterable[str]) -> dict[str, list[Block]]:
    """Return the blocks of pages that nothing runs, by why."""
    found: dict[str, list[Block]] = {}
    for block in (block for name in names for block in blocks_of(name)):
        if not block.target:
            found.setdefault(block.need, []).append(block)
    return found


def needs_of(page: str) -> list[str]:
    """Return the words of a page's ``lab`` comment."""
    found = re.search(r"<!-- lab: (.*?) -->", (REPOSITORY / page).read_text("utf-8"))
    return found[1].split() if found else []


@dataclass
class Runner:
    """Runs the blocks of one page, one after the other, below a folder of its own.

    ``/data``, ``/nas`` and other places that pages speak of are folders below `base`; `words` says
    what else stands for something here, and `sql` runs statements where a page speaks to a server.
    """

    base: Path
    setenv: Callable[[str, str], None]
    words: dict[str, str] = field(default_factory=dict)
    names: dict[str, Any] = field(default_factory=dict)
    sql: Callable[[list[str]], None] | None = None
    output: str = ""

    def real(self, text: str) -> str:
        """Put our folders into a text of a page."""
        text = _PLACES.sub(lambda _: f"{self.base}/", text)
        for word, real in self.words.items():
            text = text.replace(word, real)
        return text

    def shown(self, text: str) -> str:
        """Put a page's folders back into what was printed."""
        return text.replace(f"{self.base}/", "/").replace(str(self.base), "/")

    def run(self, block: Block) -> None:
        """Run a block, and compare what it prints with what is shown."""
        if block.title == "output":
            self._compare(block, block.text, self.output)
        elif block.title == "crontab":
            self._crontab(block)
        elif block.title:
            place = Path(self.real(block.title)).expanduser()
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(self.real(block.text), encoding="utf-8")
            if place.name == "config.toml":
                load_config(place)
            if block.language == "python":
                compile(block.text, block.place, "exec")
            if place.suffix == ".service":
                self._checked(block, f"systemd-analyze verify {place}")
        elif block.language in SHELL:
            self._shell(block)
        elif block.language == "python":
            self._python(block)
        elif block.language == "toml":
            self.configure(self.real(block.text))
        elif block.language == "sql":
            assert self.sql is not None, f"{block.place}: no server"
            self.sql([part.strip() for part in self.real(block.text).split(";") if part.strip()])
        else:
            raise AssertionError(f"{block.place}: what is this block?")

    def configure(self, text: str) -> None:
        """Lay a piece of configuration over the one that is there, and check the whole."""
        path = Path(os.environ["RECALLFS_CONFIG"])
        document = _parse(path.read_text("utf-8")) if path.exists() else {}
        _lay(document, _parse(text))
        path.write_text(tomlkit.dumps(document), encoding="utf-8")
        load_config()

    def _crontab(self, block: Block) -> None:
        for line in block.text.splitlines():
            found = _CRON.fullmatch(line)
            assert found, f"{block.place}: {line}"
            self._checked(block, self.real(found["command"]))

    def _checked(self, block: Block, command: str) -> None:
        code, output = self._command(command)
        assert code == 0, f"{block.place}: {command}\nexit code {code}\n{output}"

    def _shell(self, block: Block) -> None:
        printed = []
        for command, wanted in _commands(block):
            code, output = self._command(self.real(command))
            printed.append(output)
            is_refusal = "error:" in (wanted or "")
            assert (code != 0) == is_refusal, (
                f"{block.place}: {command}\nexit code {code}\n{output}"
            )
            if wanted is not None:
                self._compare(block, wanted, output)
        self.output = "".join(printed)

    def _command(self, line: str) -> tuple[int, str]:
        words = shlex.split(line, comments=True)
        if words[0] == "export":
            name, _, value = words[1].partition("=")
            self.setenv(name, str(Path(value).expanduser()))
            return 0, ""
        if words[0] == "cd":
            os.chdir(Path(words[1]).expanduser())
            return 0, ""
        if words[0] in ("recall", "recallfs") and not re.search(
            r"[|<>&;]|\$\w", line.split(" #", maxsplit=1)[0]
        ):
            output = io.StringIO()
            asks = words[1] in ("release", "forget") and not _UNASKED & set(words)
            before = dict(os.environ)  # a command may change it: its process ends with it
            with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
                code = main([*words[1:], "--yes"] if asks else words[1:])
            if os.environ != before:
                os.environ.clear()
                os.environ.update(before)
            return code, self.shown(output.getvalue())
        done = subprocess.run(
            ["sh", "-ec", line], capture_output=True, text=True, check=False, timeout=120
        )
        return done.returncode, self.shown(done.stdout + done.stderr)

    def _python(self, block: Block) -> None:
        output = io.StringIO()
        text = self.real(block.text)
        if text.startswith(">>>"):
            parsed = doctest.DocTestParser().get_doctest(
                text, self.names, block.place, block.page, block.line
            )
            runner = doctest.DocTestRunner(optionflags=_FLAGS)
            runner.run(parsed, out=output.write, clear_globs=False)
            self.names.update(parsed.globs)
            assert not runner.failures, f"{block.place}\n{output.getvalue()}"
            return
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            exec(compile(text, block.place, "exec"), self.names)  # noqa: S102 - pages of ours
        self.output = self.shown(output.getvalue())

    @staticmethod
    def _compare(block: Block, wanted: str, got: str) -> None:
        checker = doctest.OutputChecker()
        got = "\n".join(line.rstrip() for line in got.strip().splitlines())
        assert checker.check_output(wanted.strip() + "\n", got + "\n", _FLAGS), (
            f"{block.place} shows\n{wanted}\nand this is printed:\n{got}"
        )


def _commands(block: Block) -> Iterator[tuple[str, str | None]]:
    """Yield a shell block's commands, each with the output that is shown, if any."""
    lines = block.text.replace("\\\n", " ").splitlines()
    if block.language != "console":
        for line in lines:
            if line.strip() and not line.strip().startswith("#"):
                yield line.strip(), None
        return
    at = 0
    while at < len(lines):
        assert lines[at].startswith("$ "), f"{block.place}: {lines[at]}"
        command, at = lines[at][2:], at + 1
        shown = []
        while at < len(lines) and not lines[at].startswith("$ "):
            shown.append(lines[at])
            at += 1
        yield command, "\n".join(shown) if any(shown) else None


def _parse(text: str) -> dict[str, Any]:
    return tomlkit.parse(text).unwrap()


def _lay(under: dict[str, Any], over: Mapping[str, Any]) -> None:
    for key, value in over.items():
        if isinstance(value, dict) and isinstance(under.get(key), dict):
            _lay(under[key], value)
        elif isinstance(value, list) and key == "mirror":
            named = {item["name"]: item for item in (*under.get(key, []), *value)}
            under[key] = list(named.values())
        else:
            under[key] = value


def program_folder(base: Path) -> Path:
    """Make a folder with ``recall``, ``python`` and ``sudo`` as a shell finds them."""
    folder = base / "bin"
    folder.mkdir()
    for name in ("recall", "recallfs"):
        (folder / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" -m recallfs "$@"\n')
        (folder / name).chmod(0o755)
    (folder / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (folder / "python").chmod(0o755)
    (folder / "sudo").write_text('#!/bin/sh\nexec "$@"\n')  # who needs it here is root already
    (folder / "sudo").chmod(0o755)
    return folder
