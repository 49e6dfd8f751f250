"""Environments that conda made: what is kept of them, and building them again from a channel."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import platform
import shutil
import signal
import site
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from channels import create, write_package, write_python, write_tools
from conftest import Lab, sha256
from processes import run_with_own_mounts, start
from recallfs.catalog import records
from recallfs.config import EnvironmentSettings
from recallfs.environment import export
from recallfs.environment.capture import capture_environment, environment_id
from recallfs.environment.compare import flags
from recallfs.environment.restore import restore
from recallfs.errors import RecallError
from venvs import make_venv, recall

FORGE = "https://conda.anaconda.org/conda-forge"
OTHER = f"{np.__version__.split('.')[0]}.0.99"


def _restore_quietly(label: str) -> None:
    from recallfs.cli.app import main

    main(["env", "restore", label])


@pytest.mark.long
@pytest.mark.skipif(
    b"dist-packages" in Path(site.__file__).read_bytes(),
    reason="Debian's Python, of which conda's is made here, looks for packages in other folders",
)
def test_a_conda_environment_is_built_again_and_recalls(lab: Lab, index: str) -> None:
    """Proved in conda's, which is then gone: built from a mirror, it gives the original bytes.

    It came from a channel that is not allowed; the mirror has the same files. A package that pip
    installed beside conda's comes from the index. A build that was killed is begun again.
    """
    channel, mirror = lab.base / "channel", lab.base / "mirror"
    write_tools(channel, write_python(channel))
    x = create(channel, lab.base / "envs" / "X", "python", "labtools")
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    assert uv is not None
    added = ("pip", "install", "--quiet", "--python", x, "--default-index", index, "tiny")
    subprocess.run([uv, *added], check=True)
    lab.write_raw()
    words = ("run", "versioned", "-o", "recall://lab/x.h5", "-i", "raw=recall://lab/raw.h5")
    done = recall(x, *words)
    assert done.returncode == 0, done.stderr
    before = sha256(lab.root / "x.h5")
    lab.prove("x.h5")
    lab.release("x.h5")
    [(identifier, kept)] = records.environments(lab.store).items()
    assert kept["conda"]["labtools"] == "2.0=0"
    assert kept["conda_files"]["labtools"]["url"].startswith(channel.as_uri())
    assert kept["packages"]["tiny"] == "1.0"

    shutil.rmtree(lab.base / "envs")
    channel.rename(mirror)
    y = make_venv(lab.base / "Y", numpy=OTHER)
    built = lab.base / "built"
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes requests, and answers none
        stalled = f"http://127.0.0.1:{silent.getsockname()[1]}"
        lab.write_config(f'[environments]\nfolder = "{built}"\nchannels = ["{stalled}"]\n')
        process = start(_restore_quietly, kept["label"])
        deadline = time.monotonic() + 30
        while not list(built.glob(".building-*/downloads")):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    assert len(list(built.iterdir())) == 1
    lab.write_config(
        f'[environments]\nfolder = "{built}"\nindexes = ["{index}"]\n'
        f'channels = ["{mirror.as_uri()}"]\n'
    )
    refused = lab.cli("get", "recall://lab/x.h5", check=False)
    assert (refused.returncode, "recall env restore" in refused.stderr) == (65, True)
    told = lab.cli_json("env", "restore", kept["label"])
    place = built / identifier
    assert (told["is_new"], told["python"]) == (True, str(place / "bin" / "python"))
    differs = {each["what"] for each in told["differences"]}
    assert differs - {"recallfs"} == {"python's post-link script"}  # recallfs is a copy
    assert not (place / "ran").exists()
    assert list(built.iterdir()) == [place]
    assert (place / "etc" / "place").read_text() == f"{place}/etc\n"
    assert "tiny==1.0" in (place / "requirements.txt").read_text()
    [listed] = lab.cli_json("env", "list")["environments"]
    assert listed["interpreter"] == told["python"]
    assert "labtools" not in str(listed["flags"])
    assert lab.cli_json("env", "show", kept["label"])["problem"] == ""
    assert lab.cli("env", "remove", kept["label"], check=False).returncode == 75

    done = recall(y, "get", "recall://lab/x.h5", "--json")
    assert json.loads(done.stdout)["files"][0]["source"] == "recompute", done.stderr
    assert sha256(lab.root / "x.h5") == before
    # What it says of itself is what was on record, whichever mirror it came from.
    code = (
        "import json; from recallfs.environment.capture import capture_environment; "
        "print(json.dumps(capture_environment()))"
    )
    own = subprocess.run([told["python"], "-c", code], capture_output=True, check=True)
    assert json.loads(own.stdout)["conda_files"] == kept["conda_files"]
    lab.cli("env", "remove", kept["label"])
    assert list(built.iterdir()) == []


@pytest.mark.parametrize("form", ["conda", "mamba", "one line"])
def test_where_conda_got_its_packages_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    """URL and hash are read in each form that a record is written in; no token is kept."""
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    meta = tmp_path / "conda-meta"
    meta.mkdir()
    paths = {"paths": [{"_path": "a", "sha256": "2" * 64, "url": "of a file"}]}
    first = {"name": "first", "paths_data": paths, "link": {"url": "", "md5": "9"}}
    first |= {"md5": "3" * 32, "sha256": "1" * 64, "channel": "x"}
    first |= {"url": "https://me:word@host/t/secret/lab/noarch/first-1-0.conda?k=secret"}
    second = {"url": f"{FORGE}/linux-64/second-1.0-h1_0.tar.bz2", "md5": "4" * 32, "sha256": None}
    indent = {"conda": 2, "mamba": 4, "one line": None}[form]
    (meta / "first-1-0.json").write_text(json.dumps(first, indent=indent))
    (meta / "second-1.0-h1_0.json").write_text(json.dumps(second, indent=indent))
    (meta / "broken-1.0-0.json").write_text("{\n  no json")
    (meta / "history").write_text("==> cmd <==\n")
    told = capture_environment()
    assert told["conda"] == {"broken": "1.0=0", "first": "1=0", "second": "1.0=h1_0"}
    assert told["conda_files"] == {
        "broken": {},
        "first": {"url": "https://host/lab/noarch/first-1-0.conda", "sha256": "1" * 64},
        "second": {"url": f"{FORGE}/linux-64/second-1.0-h1_0.tar.bz2", "md5": "4" * 32},
    }
    assert export.conda(told).count("\n  - https://host/lab\n") == 1
    older = {name: value for name, value in told.items() if name != "conda_files"}
    assert environment_id(older) == environment_id(told)
    assert "\n  - conda-forge\n" in export.conda(older)


def test_an_older_record_is_completed(lab: Lab) -> None:
    """Where packages came from is added to a record that lacks it; its label stays."""
    older = {"python": "3.11", "name": "lfp", "conda": {"numpy": "1.0=0"}}
    told = {**older, "conda_files": {"numpy": {"url": "u"}}, "name": "other"}
    records.save_environment(lab.store, "e", older)
    label = records.environment(lab.store, "e")["label"]
    records.save_environment(lab.store, "e", older)
    records.save_environment(lab.store, "e", told)
    assert records.environments(lab.store)["e"] == {**told, "name": "lfp", "label": label}


def test_what_condas_packages_tell_of_their_making_is_no_remark() -> None:
    """A package that conda built tells of a folder that was its builder's; an editable one is."""
    direct = {
        "my-lab": {"url": "file:///home/conda/feedstock_root", "editable": False},
        "mine": {"url": "file:///code", "editable": True},
    }
    told = {"conda": {"my_lab": "1=0", "mine": "1=0"}, "direct": direct}
    assert flags(told) == ["mine (editable)"]


@dataclasses.dataclass
class _Conda:
    """A record of an environment with one package, and a channel that has it."""

    channel: Path
    settings: EnvironmentSettings
    content: dict[str, Any]

    @property
    def file(self) -> dict[str, str]:
        file: dict[str, str] = self.content["conda_files"]["labtools"]
        return file

    @property
    def package(self) -> Path:
        return next(self.channel.glob("*/*.conda"))

    @property
    def where(self) -> Path:
        return self.package.relative_to(self.channel)

    def refused(self, kind: str = "cannot-build") -> str:
        """Return why it is not built; nothing is left behind."""
        with pytest.raises(RecallError) as caught:
            restore("e", self.content, self.settings)
        assert caught.value.kind == kind
        assert "\n" not in caught.value.message
        folder = self.settings.folder
        assert folder is None or not folder.exists() or list(folder.iterdir()) == []
        return caught.value.message


@pytest.fixture
def conda(tmp_path: Path) -> _Conda:
    channel = tmp_path / "channel"
    place = write_package(channel, "labtools", "2.0", {"lib/a": b""})
    file = {"url": place.as_uri(), "sha256": sha256(place)}
    content = {
        "label": "ada_lfp_00",
        "python": platform.python_version(),
        "system": platform.system(),
        "machine": platform.machine(),
        "packages": {},
        "conda": {"labtools": "2.0=0"},
        "conda_files": {"labtools": file},
    }
    settings = EnvironmentSettings(tmp_path / "built", (), (channel.as_uri(),))
    return _Conda(channel, settings, content)


def test_a_record_that_lacks_what_is_needed_is_refused(conda: _Conda) -> None:
    """A record from before URLs were kept, one without a hash, one with an odd URL is refused."""
    del conda.file["sha256"]
    assert "does not hold a hash of labtools" in conda.refused()
    conda.file["url"] = "file:///../labtools"
    assert "does not hold where conda got labtools" in conda.refused()
    del conda.content["conda_files"]
    assert "does not hold where conda got labtools" in conda.refused()
    assert "conda env create" in conda.refused()


def test_an_environment_of_another_platform_is_refused(conda: _Conda) -> None:
    """One of a Mac is not built on another computer."""
    conda.content |= {"system": "Plan 9", "machine": "arm64"}
    assert f"it is for Plan 9, and this computer is {platform.system()}" in conda.refused()


def test_only_channels_that_are_allowed_are_used(conda: _Conda, tmp_path: Path) -> None:
    """Without channels nothing is built; what only another channel has is not to be had."""
    allowed, conda.settings = conda.settings, EnvironmentSettings(conda.settings.folder, ("i",))
    assert "environments.channels is not configured" in conda.refused("invalid-config")
    empty = (tmp_path / "empty").as_uri()
    conda.settings = dataclasses.replace(allowed, channels=(empty,))
    said = conda.refused()
    assert f"{empty}/{conda.where}: No such file or directory" in said
    assert f"It came from {conda.channel.as_uri()}" in said
    conda.settings = dataclasses.replace(allowed, channels=("http://127.0.0.1:9/c",))
    assert f"http://127.0.0.1:9/c/{conda.where}: Connection refused" in conda.refused()


def test_a_server_that_has_it_not_is_told(conda: _Conda, index: str) -> None:
    """A 404 is said with its URL; the next channel that is allowed has it."""
    conda.settings = dataclasses.replace(conda.settings, channels=(index,))
    assert f"{index}/{conda.where}: 404 " in conda.refused()
    channels = (index, conda.channel.as_uri())
    conda.settings = dataclasses.replace(conda.settings, channels=channels)
    assert "none of the packages on record brings a Python" in conda.refused()


def test_a_connection_that_breaks_off_is_told(conda: _Conda) -> None:
    """Of a file that ends early it is said where it ended, after a few tries."""
    answer = b"HTTP/1.0 200 OK\r\nContent-Length: 999\r\n\r\nearly"
    asked = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            for _ in range(3):
                connection, _ = server.accept()
                with connection:
                    asked.append(connection.recv(65536))
                    connection.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        channel = f"http://127.0.0.1:{server.getsockname()[1]}"
        conda.settings = dataclasses.replace(conda.settings, channels=(channel,))
        assert "the connection broke off after 5 of 999 bytes" in conda.refused()
        thread.join()
    assert b"User-Agent: recallfs" in asked[0]


@pytest.mark.parametrize("algorithm", ["sha256", "md5"])
def test_other_bytes_than_on_record_are_refused(conda: _Conda, algorithm: str) -> None:
    """A package with another hash is not unpacked, be it a file's or a server's."""
    content = conda.package.read_bytes()
    conda.file.pop("sha256")
    conda.file[algorithm] = hashlib.new(algorithm, content).hexdigest()
    assert "brings a Python" in conda.refused()  # it was unpacked
    conda.package.write_bytes(content + b"more")
    said = conda.refused()
    assert f"its {algorithm} is" in said
    assert f"not {conda.file[algorithm]} as on record" in said


def test_what_is_no_package_is_refused(conda: _Conda) -> None:
    """Bytes that are those on record, and no package, are said to be so in one sentence."""
    conda.package.write_bytes(b"no zip archive")
    conda.file["sha256"] = sha256(conda.package)
    assert "archive" in conda.refused()


def test_without_py_rattler_it_says_what_to_install(
    conda: _Conda, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The package that links packages of conda is optional."""
    monkeypatch.setitem(sys.modules, "rattler", None)
    said = conda.refused("invalid-input")
    assert "pip install 'recallfs[conda]'" in said


def test_what_pip_installed_from_a_folder_is_refused(conda: _Conda) -> None:
    """An editable install is refused at once, before anything is fetched."""
    conda.content["direct"] = {"mine": {"url": "file:///code", "editable": True}}
    conda.package.unlink()
    assert "no index holds mine (editable)" in conda.refused()


@pytest.mark.services
def test_a_full_disk_is_said(tmp_path: Path) -> None:
    """Full while a package is fetched or unpacked: which disk it is is said, nothing is left."""
    run_with_own_mounts("small_build.py", tmp_path)
