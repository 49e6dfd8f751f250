"""How others read the same files, which of them are here, and what to do about those that are not.

    python -m suite.peers

prints it as JSON.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent.parent
OTHERS = REPOSITORY / ".venv-peers" / "bin" / "python"
"""lindi wants zarr 2, which does not go with zarr 3: it has an environment of its own."""


def has(module: str) -> bool:
    """Tell whether a module is installed here."""
    return importlib.util.find_spec(module) is not None


def has_lindi() -> bool:
    """Tell whether `scripts/bench-peers` made the environment that has lindi."""
    return OTHERS.exists()


def spyglass_hasher(file: Path) -> Child:
    """Start Spyglass' hasher, alone: importing all of Spyglass wants a database."""
    place = hasher()
    require(place is not None, "spyglass-neuro")
    assert place is not None
    return Child(place.parents[5] / "bin" / "python", HASH_BY_SPYGLASS, place, file)


def hasher() -> Path | None:
    """Return the file of Spyglass' hasher in an installed spyglass-neuro, if there is one."""
    for environment in (".venv-spyglass", ".venv-peers"):
        for found in (REPOSITORY / environment).glob("lib/*/site-packages/spyglass/utils"):
            if (found / "nwb_hash.py").exists():
                return found / "nwb_hash.py"
    return None


def absent() -> dict[str, str]:
    """Return the peers that are not here, each with what brings it."""
    install = "install the extra: pip install 'recallfs[bench]'"
    wanted = {
        "fsspec's HTTP file system": (has("aiohttp"), install),
        "remfile": (has("remfile"), install),
        "lindi": (has_lindi(), "run scripts/bench-peers"),
        "Spyglass' hasher": (hasher() is not None, "run scripts/bench-peers"),
        "kachery_cloud": (has("kachery_cloud"), "pip install kachery-cloud"),
        "dandi's download": (has("dandi"), "pip install dandi, on Python 3.11 or newer"),
        "curl": (shutil.which("curl") is not None, "install curl"),
        "openssl": (shutil.which("openssl") is not None, "install openssl"),
    }
    return {name: what for name, (is_here, what) in wanted.items() if not is_here}


def require(is_here: bool, name: str) -> None:
    """Leave a benchmark out whose peer is not here; asv knows this error."""
    if not is_here:
        raise NotImplementedError(f"{name} is not installed")


class Child:
    """A peer in a process of another environment, which is told when to begin.

    Parameters
    ----------
    python : Path
        Interpreter of that environment.
    program : str
        Answers each line of JSON with ``done``, after a first line when it is ready.
    arguments : Path
        Of the program.
    """

    def __init__(self, python: Path, program: str, *arguments: Path) -> None:
        self._process = subprocess.Popen(
            [python, "-c", program, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONWARNINGS": "ignore"},
        )
        assert self._process.stdout is not None
        self._process.stdout.readline()

    def do(self, *words: Any) -> str:
        """Let it do something; return what it says when that is done."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(words) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer.startswith("done"):
            raise RuntimeError("a peer failed; its error is above")
        return answer.removeprefix("done").strip()

    def stop(self) -> None:
        """End it."""
        self._process.kill()
        self._process.communicate()


READ_BY_LINDI = """
import json, sys, lindi
from pynwb import NWBHDF5IO
print("ready", flush=True)
for line in sys.stdin:
    what, *rest = json.loads(line)
    if what == "open":
        file = lindi.LindiH5pyFile.from_lindi_file(sys.argv[1])
        data = NWBHDF5IO(file=file, mode="r").read().acquisition["e"].data
    else:
        values = data[rest[0]:rest[1]]
        assert values.shape[0] == rest[1] - rest[0]
    print("done", flush=True)
"""
HASH_BY_SPYGLASS = """
import importlib.util, json, pathlib, resource, sys
found = importlib.util.spec_from_file_location("nwb_hash", sys.argv[1])
module = importlib.util.module_from_spec(found)
found.loader.exec_module(module)
print("ready", flush=True)
for line in sys.stdin:
    module.NwbfileHasher(pathlib.Path(sys.argv[2]))
    status = pathlib.Path("/proc/self/status").read_text()
    print("done", int(status.split("VmHWM:")[1].split()[0]) * 1024, flush=True)
"""
MAKE_LINDI_JSON = """
import sys, lindi
made = lindi.LindiH5pyFile.from_hdf5_file(sys.argv[1], url=sys.argv[2])
made.write_lindi_file(sys.argv[3])
"""


def make_lindi_json(file: Path, url: str, target: Path) -> None:
    """Make the reference file system of a file that will be at a URL."""
    subprocess.run([OTHERS, "-c", MAKE_LINDI_JSON, file, url, target], check=True)


if __name__ == "__main__":
    print(json.dumps(absent()))
