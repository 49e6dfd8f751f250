"""Mirrors over SSH, with a real server on loopback."""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import Lab, sha256
from recallfs.catalog import records
from recallfs.errors import ConflictError, SourceError
from recallfs.release.copies import recheck
from recallfs.release.push import push, push_target
from recallfs.resolve.commit import add_existing
from recallfs.resolve.recall import recall
from recallfs.sources.upload import PARTIAL_FOLDER

pytestmark = pytest.mark.services


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path, subprocess.Popen[bytes]]]:
    """Run an SSH server that lets this user in by a key."""
    pytest.importorskip("paramiko")
    folder = tmp_path / "sshd"
    folder.mkdir(mode=0o700)
    for name in ("host", "user"):
        words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
        subprocess.run(words, check=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (folder / "config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder / 'host'}\n"
        f"AuthorizedKeysFile {folder / 'user.pub'}\nPidFile none\nStrictModes no\nUsePAM no\n"
        "PasswordAuthentication no\nPermitRootLogin yes\nSubsystem sftp internal-sftp\n"
    )
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # sshd wants it, and only systemd makes it
    program = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin") or "sshd"
    process = subprocess.Popen(
        [program, "-D", "-f", str(folder / "config")], start_new_session=True
    )
    for _ in range(200):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.02)
    yield f"ssh://{getpass.getuser()}@127.0.0.1:{port}{tmp_path}/mirror", folder / "user", process
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.mark.parametrize("layout", ["path", "sha256"])
def test_mirror_over_ssh(
    lab: Lab, server: tuple[str, Path, subprocess.Popen[bytes]], layout: str
) -> None:
    """Files are pushed, found there, verified, never written over, and come back."""
    url, key, process = server
    mirror = lab.base / "mirror"
    mirror.mkdir()
    options = {"key_filename": str(key), "look_for_keys": False, "allow_agent": False}
    table = ", ".join(f"{name} = {json.dumps(value)}" for name, value in options.items())
    lab.write_config(
        f'[[sources.mirror]]\nname = "far"\nurl = "{url}"\nlayout = "{layout}"\n'
        f'options = {{ {table} }}\nanswer_timeout = "10s"\n'
    )
    contents = {"a b.bin": os.urandom(2_000_000), "ü/c.bin": b"c" * 1000, "empty": b""}
    for name, content in contents.items():
        (lab.root / name).parent.mkdir(exist_ok=True)
        (lab.root / name).write_bytes(content)
    add_existing(lab.store, contents)
    target = push_target(lab.stores, "mirror:far")
    for _ in range(2):
        said = [push(lab.stores, lab.store, lab.entry(name), target).status for name in contents]
    assert said == ["there"] * 3
    assert not (mirror / PARTIAL_FOLDER).exists()
    for name in contents:
        (checked,) = recheck(lab.stores, lab.store, lab.entry(name))
        assert checked.verdict == "right"
        digest = sha256(lab.root / name)
        (lab.root / name).unlink()
        assert recall(lab.stores, lab.store, name).source == "mirror:far"
        assert sha256(lab.root / name) == digest
    (copy,) = records.load(lab.store, lab.entry("a b.bin").id).copies
    there = Path("/" + copy.location.partition("://")[2].partition("/")[2])
    there.write_bytes(b"other")
    with pytest.raises(ConflictError):
        push(lab.stores, lab.store, lab.entry("a b.bin"), target)
    assert there.read_bytes() == b"other"
    # fsspec keeps a connection for each thread; one that has ended is made anew.
    record = records.load(lab.store, lab.entry("ü/c.bin").id)
    holdings = {item.location: item for item in target.copies(lab.store, record)}
    remote = holdings[record.copies[0].location].remote
    for _ in range(2):
        with remote.read(0, None) as stream:
            assert stream.readinto(memoryview(bytearray(10))) == 10
        end_sessions(process)
    (lab.root / "ü/c.bin").unlink()
    process.kill()
    process.wait()
    with pytest.raises(SourceError, match="mirror:far"):
        recall(lab.stores, lab.store, "ü/c.bin")


def end_sessions(process: subprocess.Popen[bytes]) -> None:
    """End the connections that a server holds, but not the server."""
    ended = 0
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = status.read_text(errors="replace").rpartition(")")[2].split()
            if int(fields[1]) == process.pid:
                os.kill(int(status.parent.name), signal.SIGKILL)
                ended += 1
    assert ended
    time.sleep(0.2)
