"""How a mount begins and ends, also when it is killed, refused or in use."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jsonschema
import pytest

from conftest import sha256
from integrations.mount.conftest import Mount, run
from recallfs.cli.app import main
from recallfs.cli.schemas import document, strict
from recallfs.integrations.mount import point

pytestmark = pytest.mark.services


def test_what_cannot_be_mounted_is_refused_in_a_sentence(
    mount: Mount, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each refusal says what to do; nothing is mounted, and no process stays."""
    full, inside = mount.lab.base / "full", mount.lab.root / "inside"
    (full / "something").mkdir(parents=True)
    inside.mkdir()
    for place, said in (
        (full, "is not empty"),
        (full / "absent", "there is no folder"),
        (inside, "is inside the store"),
    ):
        assert main(["mount", str(place), "--store", "lab"]) == 10
        assert said in capsys.readouterr().err
    assert main(["mount", str(mount.place), "--store", "nope"]) == 13
    assert main(["unmount", str(mount.place)]) == 10
    capsys.readouterr()
    mount.start()
    assert main(["mount", str(mount.place), "--store", "lab"]) == 72
    assert "recall://lab is mounted at" in capsys.readouterr().err
    assert main(["unmount", str(mount.place), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    jsonschema.validate(printed, strict(document("unmount")))
    mount.wait_until_gone()


def test_a_killed_server_leaves_nothing_in_the_way(mount: Mount) -> None:
    """Its keeper unmounts; where that was killed too, the next start does."""
    mount.lab.write_raw()
    mount.start()
    os.kill(mount.pids()[0], signal.SIGKILL)
    mount.wait_until_gone()
    mount.start()
    server, keeper = mount.pids()
    os.kill(keeper, signal.SIGKILL)
    os.kill(server, signal.SIGKILL)
    while mount.pids() != (-1, -1):
        time.sleep(0.01)
    with pytest.raises(OSError, match=r"not connected|connection abort"):
        mount.place.stat()
    mount.start()
    assert sha256(mount.place / "raw.h5") == sha256(mount.lab.root / "raw.h5")


def test_interrupting_and_unmounting_while_a_recall_runs(
    mount: Mount, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-C ends one reader's wait; unmounting is refused, or lazy: the others get all bytes."""
    lab, go, count = mount.lab, tmp_path / "go", tmp_path / "count"
    go.touch()
    digest = sha256(lab.derive(recipe="waiting", count_file=str(count), wait_for=str(go)))
    lab.prove()
    lab.release()
    go.unlink()
    count.unlink()
    mount.start()
    shown = mount.place / "derived.h5"
    reader = subprocess.Popen(["sha256sum", shown], stdout=subprocess.PIPE, text=True)
    hasty = subprocess.Popen(["cat", shown], stdout=subprocess.DEVNULL)
    while not count.exists():
        time.sleep(0.01)
    hasty.send_signal(signal.SIGINT)
    assert hasty.wait(10) == -signal.SIGINT
    assert main(["unmount", str(mount.place)]) == 72
    assert "programs are using" in capsys.readouterr().err
    assert main(["unmount", "--lazy", str(mount.place)]) == 0
    assert list(mount.place.iterdir()) == []
    go.touch()
    assert reader.communicate()[0].split()[0] == digest
    assert len(count.read_text().splitlines()) == 1
    mount.wait_until_gone()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_mount_in_the_foreground(mount: Mount, number: signal.Signals) -> None:
    """The process unmounts and exits with 0, even while a file is open."""
    mount.lab.write_raw()
    command = [sys.executable, "-m", "recallfs", "mount", str(mount.place), "--foreground"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while point.mounted(mount.place) is None:
        assert process.poll() is None
        time.sleep(0.01)
    descriptor = os.open(mount.place / "raw.h5", os.O_RDONLY)
    process.send_signal(number)
    assert 'operation="unmount"' in process.communicate(timeout=20)[1]
    assert process.returncode == 0
    with contextlib.suppress(OSError):
        os.close(descriptor)
    mount.wait_until_gone()
    assert list(mount.place.iterdir()) == []


def test_a_store_mounted_over_itself(mount: Mount) -> None:
    """Paths stay what they were, and recalls and recipes see the files below the mount."""
    lab = mount.lab
    digest = lab.released()
    size = lab.entry("derived.h5").size_bytes
    lab.store.catalog.close()
    assert main(["mount", str(lab.root), "--store", "lab"]) == 0
    mount.place.rmdir()
    mount.place = lab.root
    assert (lab.root / "derived.h5").stat().st_size == size
    assert not (lab.root / ".recall").exists()
    assert sha256(lab.root / "derived.h5") == digest  # a recipe read raw.h5
    place = str(lab.root / "derived.h5")
    lab.cli("release", place, "--hold", "0s", "--max-skeleton", "1", "--yes")  # sees what is below
    assert os.getxattr(place, "user.recall.state") == b"released"
    lab.cli("get", "recall://lab/derived.h5")
    assert os.getxattr(place, "user.recall.state") == b"resident"
    assert lab.cli_json("status", "lab")["stores"]
    assert sha256(lab.root / "derived.h5") == digest
    (lab.root / "new").write_bytes(b"new")
    assert main(["unmount", str(lab.root)]) == 0
    mount.wait_until_gone()
    assert (lab.root / "new").read_bytes() == b"new"
    assert sha256(lab.root / "derived.h5") == digest
    run("test", "-d", lab.root / ".recall")
