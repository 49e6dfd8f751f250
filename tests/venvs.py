"""Virtual environments for tests, made of what is installed: no index is asked."""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
import venv
from collections.abc import Mapping
from pathlib import Path

import numpy as np


def make_venv(folder: Path, *, numpy: str = "") -> Path:
    """Make an environment that has all that this one has; returns its interpreter.

    Parameters
    ----------
    numpy : str
        Version that its NumPy, a copy, says it is.
    """
    venv.create(folder, symlinks=True, with_pip=False)
    site = next(folder.glob("lib/python*/site-packages"))
    here = sysconfig.get_paths()["purelib"]
    (site / "rest.pth").write_text(f"import site; site.addsitedir({here!r})\n")
    if numpy:
        source = Path(np.__file__).parent
        told_by = [source / name for name in ("version.py", "_version.py")]
        # With what it was compiled to, or each environment would compile all of it again.
        copied = shutil.ignore_patterns("tests", "version.*")
        shutil.copytree(source, site / "numpy", ignore=copied, copy_function=_link)
        for file in filter(Path.is_file, told_by):
            own = site / "numpy" / file.name
            own.unlink(missing_ok=True)  # it may be a link to the other's
            own.write_text(file.read_text().replace(np.__version__, numpy))
        if (source.parent / "numpy.libs").is_dir():
            (site / "numpy.libs").symlink_to(source.parent / "numpy.libs")
        (site / f"numpy-{numpy}.dist-info").mkdir()
    return folder / "bin" / "python"


def recall(python: Path, *arguments: str, path: str = "") -> subprocess.CompletedProcess[str]:
    """Run the command line with an interpreter."""
    environment: Mapping[str, str] = {**os.environ, **({"PATH": path} if path else {})}
    return subprocess.run(
        [python, "-m", "recallfs", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # on another disk
        shutil.copy2(source, target)


def neighbours() -> Path:
    """Return the interpreter of an environment with libraries that ours cannot have beside it."""
    script = Path(__file__).parent.parent / "scripts" / "neighbours"
    made = subprocess.run([script], capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    return Path(made.stdout.strip())


def told_by_neighbours(name: str, *arguments: str, folder: Path) -> str:
    """Run a script of tests/neighbours in a folder; return the line that it prints last."""
    done = subprocess.run(
        [neighbours(), "-W", "ignore", "-m", f"neighbours.{name}", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]
