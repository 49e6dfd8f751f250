"""Holders: a process is called dead only if it surely is."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from catalog_actors import start_time_of
from processes import start
from recallfs.catalog import holder
from recallfs.catalog.holder import Holder, user_name


def test_this_process_is_alive() -> None:
    """A process never takes itself for dead, in any spelling."""
    me = Holder.current()
    assert me.pid == os.getpid()
    assert not me.is_known_dead()
    assert not Holder.parse(str(me)).is_known_dead()


def test_a_child_is_alive_until_it_ends(tmp_path: Path) -> None:
    """Another process is alive while it runs, and dead when killed, also before it is reaped."""
    said = tmp_path / "said"
    process = start(start_time_of, str(said))
    deadline = time.monotonic() + 60
    while not said.exists():
        assert time.monotonic() < deadline
        time.sleep(0.005)
    child = Holder.parse(said.read_text())
    assert child.pid == process.pid
    assert not child.is_known_dead()
    process.kill()
    process.join(60)
    assert child.is_known_dead()


def test_a_zombie_is_dead() -> None:
    """A process that ended but was not waited for holds nothing."""
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    try:
        stat = Path(f"/proc/{child.pid}/stat")
        started = stat.read_text().rpartition(")")[2].split()[19]
        as_holder = replace(Holder.current(), pid=child.pid, started=started)
        deadline = time.monotonic() + 60
        while stat.read_text().rpartition(")")[2].split()[0] != "Z":
            assert time.monotonic() < deadline
            time.sleep(0.005)
        assert as_holder.is_known_dead()
    finally:
        child.wait()


def test_a_reused_process_id_is_another_process() -> None:
    """The same number with another start time means that the earlier process has ended."""
    me = Holder.current()
    assert replace(me, started=str(int(me.started) - 1)).is_known_dead()


def test_after_a_reboot_all_are_dead() -> None:
    """A holder of an earlier boot of this computer has ended, even if its number is in use."""
    me = Holder.current()
    name = me.host.partition("/")[0]
    assert replace(me, host=f"{name}/earlier-boot").is_known_dead()


@pytest.mark.parametrize(
    "text",
    ["", "|", "||", "x", "x|y|z", "elsewhere/boot|1|1", "|0|0", "h|²|1", "h|-1|1", "h|٣|1"],
)
def test_of_others_nothing_is_known(text: str) -> None:
    """Other hosts' processes and nonsense are never called dead."""
    assert not Holder.parse(text).is_known_dead()


def test_text_and_tokens_are_read_back() -> None:
    """Both spellings give the same process; text after them does not matter."""
    me = Holder.current()
    assert Holder.parse(str(me)) == me
    assert Holder.parse(f"{me}|more|of it") == me
    token = me.token()
    assert "/" not in token
    assert Holder.from_token(token) == me
    assert Holder.from_token(f"{token}-{'0' * 32}") == me


def test_a_token_of_an_earlier_boot_is_dead() -> None:
    """What a process left behind before a reboot can be swept away."""
    me = Holder.current()
    name = me.host.partition("/")[0]
    earlier = Holder.from_token(replace(me, host=f"{name}/earlier").token())
    assert earlier is not None
    assert earlier.is_known_dead()


@pytest.mark.parametrize(
    "token", ["", "a", "notes.txt", "a-b-c-d", "a-b-1-2", "-" * 9, "0" * 32, "a-b-²-d"]
)
def test_other_names_are_no_tokens(token: str) -> None:
    """Files that are not ours, or another host's, are left alone."""
    assert Holder.from_token(token) is None
    me = Holder.current()
    assert Holder.from_token(replace(me, host="elsewhere/boot").token()) is None


def test_a_name_with_spaces_and_brackets_does_not_confuse(tmp_path: Path) -> None:
    """The start time is found behind a command name such as ``a) (b``."""
    script = tmp_path / "a) R 1 (b"
    script.symlink_to("/bin/sleep")
    child = subprocess.Popen([script, "60"])
    try:
        deadline = time.monotonic() + 60
        stat = Path(f"/proc/{child.pid}/stat")
        while "a) R 1 (b" not in stat.read_text():
            assert time.monotonic() < deadline
            time.sleep(0.005)
        ticks = os.sysconf("SC_CLK_TCK")
        uptime = float(Path("/proc/uptime").read_text().split()[0])
        started = holder._start_time(child.pid)
        assert started is not None
        assert 0 <= uptime - int(started) / ticks < 3600
        assert not replace(Holder.current(), pid=child.pid, started=started).is_known_dead()
    finally:
        child.kill()
        child.wait()


IN_A_NAMESPACE = """
import sys
from recallfs.catalog.holder import Holder
outer = Holder.parse(sys.argv[1])
assert not outer.is_known_dead(), "an outer process was called dead"
assert Holder.from_token(sys.argv[2]) is None, "an outer process's folder would be swept"
me = Holder.current()
assert not me.is_known_dead(), "this process called itself dead"
print(me)
"""


@pytest.mark.services
@pytest.mark.parametrize("with_proc", [True, False])
def test_a_sandbox_does_not_call_outer_processes_dead(tmp_path: Path, with_proc: bool) -> None:
    """In a PID namespace, where outer ids mean others or nobody, nothing is taken over."""
    script = tmp_path / "script.py"
    script.write_text(IN_A_NAMESPACE)
    me = Holder.current()
    done = subprocess.run(
        [
            "unshare",
            *([] if os.getuid() == 0 else ["-Ur"]),
            "-pf",
            *(["--mount-proc"] if with_proc else []),
            *(sys.executable, str(script), str(me), me.token()),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    inner = Holder.parse(done.stdout.strip())
    assert inner.pid < 10
    # And the other way round: its number is another process here.
    assert not inner.is_known_dead()


AFTER_A_FORK = """
import ctypes, os
from recallfs.catalog.holder import Holder
before = Holder.current()
new_users = 0 if os.getuid() == 0 else 0x10000000
assert ctypes.CDLL(None).unshare(0x20000000 | new_users) == 0
child = os.fork()
if child == 0:
    ok = Holder.current().host != before.host and not before.is_known_dead()
    os._exit(0 if ok else 1)
assert os.waitpid(child, 0)[1] == 0
assert Holder.current() == before
"""


@pytest.mark.services
def test_a_fork_into_a_namespace_notices() -> None:
    """What the parent knew of its namespace is not believed by a child in another."""
    done = subprocess.run(
        [sys.executable, "-c", AFTER_A_FORK],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_the_acting_user_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The audit trail names user and host, also for a user id without a name."""
    monkeypatch.setenv("LOGNAME", "ana")
    assert user_name() == f"ana@{os.uname().nodename}"


@pytest.mark.services
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_hidden_process_is_not_dead() -> None:
    """Where /proc hides other users' processes, none of them is taken for dead; gone ones are."""
    ask = (
        "import sys; from recallfs.catalog.holder import Holder;"
        "print(*(Holder.parse(text).is_known_dead() for text in sys.argv[1:]))"
    )
    gone = subprocess.Popen(["true"])
    alive = Holder.current()
    ended = replace(alive, pid=gone.pid)
    gone.wait()
    script = (
        "mount -t proc -o hidepid=2 proc /proc && "
        'exec setpriv --reuid=61001 --regid=61001 --clear-groups "$@"'
    )
    command = ["unshare", "--mount", "sh", "-c", script, "sh", sys.executable, "-c", ask]
    done = subprocess.run([*command, str(alive), str(ended)], capture_output=True, check=False)
    assert done.stdout.decode().split() == ["False", "True"], done
