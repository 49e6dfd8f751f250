"""`python -m recallfs SCRIPT` and ``%load_ext recallfs``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import pytest

import recallfs
from conftest import Lab
from mirrored import released_hdf5
from recallfs.cli.app import COMMANDS
from recallfs.readers import company, is_installed
from recallfs.readers.script import is_script
from recallfs.readers.telling import Teller

SCRIPT = """
import multiprocessing, sys
import h5py
import beside
def read(path):
    with h5py.File(path, "r") as file:
        return int(file["group/data"][7])
if __name__ == "__main__":
    with multiprocessing.get_context("fork").Pool(2) as pool:
        print(pool.map(read, sys.argv[1:2] * 2), sys.argv[2:], __file__ == sys.argv[0])
    sys.exit(beside.CODE)
"""


def run(*arguments: str | Path, isolated: bool = False) -> subprocess.CompletedProcess[str]:
    """Run ``python -m recallfs`` with arguments."""
    options = ["-I"] if isolated else []
    return subprocess.run(
        [sys.executable, *options, "-m", "recallfs", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )


def test_script_reads_a_released_file(lab: Lab) -> None:
    """A script runs as the main program, with its arguments, its folder and its exit code."""
    released_hdf5(lab, "far.h5")
    script = lab.base / "script.py"
    script.write_text(SCRIPT)
    (lab.base / "beside.py").write_text("CODE = 7\n")
    done = run(script, lab.root / "far.h5", "--flag", "get")
    assert (done.returncode, done.stdout) == (7, "[7, 7] ['--flag', 'get'] True\n"), done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("recallfs: recall://lab/far.h5 was released: ")


def test_isolated_python(lab: Lab) -> None:
    """With ``-I`` too, where neither the folder of the script nor the user's variables count."""
    released_hdf5(lab, "far.h5")
    script = lab.base / "script"
    script.write_text("import sys, h5py\nprint(h5py.File(sys.argv[1])['group/data'][3])\n")
    done = run(script, lab.root / "far.h5", isolated=True)
    assert (done.returncode, done.stdout) == (0, "3\n"), done.stderr


def test_script_that_cannot_be_run(lab: Lab) -> None:
    """A script that is not there, or is no Python, is refused in one sentence."""
    data = lab.base / "data.nwb"
    data.write_bytes(b"\x89HDF\r\n\x1a\n\0\0")
    for word, said in ((lab.base / "none.py", "there is no script"), (data, "no Python script")):
        done = run(word)
        assert done.returncode == 10
        assert said in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_commands_win_over_files(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is called as a command is not taken for a script."""
    monkeypatch.chdir(lab.base)
    for name in ("status", "other"):
        Path(name).touch()
    words = ("status", "other", "none", "none.py", "status.py", ".")
    told = {word: is_script(word, tuple(COMMANDS)) for word in words}
    assert [word for word in words if told[word]] == ["other", "none.py", "status.py"]


def test_errors_of_a_script_are_its_own(lab: Lab) -> None:
    """An exception in a script ends it with its traceback, as Python would."""
    script = lab.base / "script.py"
    script.write_text("raise KeyError('mine')\n")
    done = run(script)
    assert done.returncode == 1
    assert "KeyError: 'mine'" in done.stderr


def test_extension_of_a_notebook() -> None:
    """Loading the extension wraps the readers, unloading it unwraps them."""
    recallfs.load_ipython_extension(None)
    assert is_installed()
    recallfs.unload_ipython_extension(None)
    assert not is_installed()


class _Handle:
    def __init__(self) -> None:
        self.shown: list[str] = []

    def update(self, bar: Any) -> None:
        self.shown.append(repr(bar) + bar._repr_html_())


def test_bar_in_a_notebook(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a notebook a recall is one bar, which says what happens and fills up."""
    handle = _Handle()

    def display(bar: Any, *, display_id: bool) -> _Handle:
        handle.update(bar)
        return handle

    shell = SimpleNamespace(kernel=object())
    ipython = SimpleNamespace(get_ipython=lambda: shell)
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(
        sys.modules,
        "IPython.display",
        SimpleNamespace(display=display),
    )
    assert company.shell() is shell
    released_hdf5(lab, "far.h5")
    recallfs.install()
    try:
        with h5py.File(lab.root / "far.h5", "r"):
            pass
    finally:
        recallfs.uninstall()
    assert handle.shown[0].startswith("recallfs: recall://lab/far.h5 was released: ")
    assert 'value="0.000"' in handle.shown[0]
    assert handle.shown[-1].endswith('<progress max="1" value="1.000"></progress> done</div>')


def test_bar_of_what_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bar whose recall failed says so, and shows names as text, never as HTML."""
    handle = _Handle()
    show = SimpleNamespace(display=lambda *_, **__: handle)
    monkeypatch.setitem(sys.modules, "IPython.display", show)
    teller = Teller(100, object())
    teller.announce("<b>first</b>")
    teller.announce("second")
    teller.progress(50)
    teller.__exit__(OSError, OSError("away"), None)
    assert "&lt;b&gt;first" in handle.shown[-1]
    assert "second" not in "".join(handle.shown)
    assert 'value="0.500"' in handle.shown[-1]
    assert handle.shown[-1].endswith("failed</div>")
