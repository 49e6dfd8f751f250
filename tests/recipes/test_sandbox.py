"""Hidden folders are absent for a recipe by every way in, and untouched for everyone else."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from recallfs.errors import RecomputeError
from recallfs.recipes.executors import ProcessExecutor
from recallfs.recipes.job import Job
from recallfs.recipes.sandbox import can_hide

pytestmark = [
    pytest.mark.services,
    pytest.mark.skipif(sys.platform != "linux", reason="hiding needs Linux"),
]
MakeJob = Callable[..., Job]
NOBODY = 65534

# Tries each way to the original that an over-eager recipe, or a path in a file, may take.
SEARCHES = """
@recipe(name="made", version="1")
def made(inputs, output, *, original: str, others: list[str] = []):
    import glob, json, os
    ways = [original, *others]
    ways += [way + original for way in glob.glob("/proc/*/root")]
    ways += [way + original for way in glob.glob("/proc/*/task/*/root")]
    for start in [".", "/proc/self/cwd", *glob.glob("/proc/*/cwd"), *glob.glob("/proc/*/fd/*")]:
        for up in range(12):
            ways.append(start + "/" + "../" * up + os.path.basename(original))
    seen = []
    for way in ways:
        try:
            with open(way) as file:
                if "original bytes" in file.read():
                    seen.append(way)
        except OSError:
            pass
    read = {name: path.read_text() for name, path in inputs.items()}
    with open("/proc/self/status") as file:
        rights = [line.split()[1] for line in file if line.startswith("CapEff")]
    told = {"seen": seen, "read": read, "tried": len(ways), "rights": rights}
    output.write_text(json.dumps(told))
"""


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Return a store's root with an original and an input."""
    return _fill(tmp_path / "store")


def _fill(root: Path) -> Path:
    (root / "deep" / "er").mkdir(parents=True)
    (root / "original.nwb").write_text("original bytes")
    (root / "deep" / "er" / "raw.nwb").write_text("raw bytes")
    return root


def _tell(job: Job) -> dict[str, Any]:
    ProcessExecutor().execute(job)
    told: dict[str, Any] = json.loads(job.outputs["output"].read_text())
    return told


def _search(make_job: MakeJob, store: Path, *others: Path, **fields: Any) -> dict[str, Any]:
    parameters = {"original": str(store / "original.nwb"), "others": list(map(str, others))}
    return _tell(make_job(SEARCHES, parameters=parameters, **{"hide": (store,), **fields}))


def test_searching_recipe_finds_it_when_it_is_not_hidden(make_job: MakeJob, store: Path) -> None:
    """The recipe of these tests does find the original where it is in sight."""
    assert str(store / "original.nwb") in _search(make_job, store, hide=())["seen"]


def test_original_is_absent_by_every_way(make_job: MakeJob, store: Path, tmp_path: Path) -> None:
    """Its path, links from elsewhere and other processes' root folders lead to nothing."""
    (tmp_path / "file-link.nwb").symlink_to(store / "original.nwb")
    (tmp_path / "folder-link").symlink_to(store)
    others = [tmp_path / "file-link.nwb", tmp_path / "folder-link" / "original.nwb"]
    raw = store / "deep" / "er" / "raw.nwb"
    told = _search(make_job, store, *others, inputs={"raw": raw})
    assert told["seen"] == []
    assert told["tried"] > 50
    assert told["read"] == {"raw": "raw bytes"}
    assert (store / "original.nwb").read_text() == "original bytes"


def test_scratch_and_code_inside_a_hidden_folder_still_work(make_job: MakeJob, store: Path) -> None:
    """Staging below the store's root is the usual case: no way leads up from there."""
    control = store / "control"
    control.mkdir()
    # '..' from a folder that was entered before it was covered would lead past this one.
    (control / "original.nwb").write_text("original bytes")
    told = _search(make_job, store, control / "original.nwb", folder=control)
    assert told["seen"] == []
    assert (control / "scratch" / "out.bin").exists()


def test_store_that_is_a_link(make_job: MakeJob, store: Path, tmp_path: Path) -> None:
    """A root that is configured by a link is hidden where it really is."""
    link = tmp_path / "link"
    link.symlink_to(store)
    raw = link / "deep" / "er" / "raw.nwb"
    told = _search(make_job, store, link / "original.nwb", hide=(link,), inputs={"raw": raw})
    assert told["seen"] == []
    assert told["read"] == {"raw": "raw bytes"}


def test_inputs_behind_hidden_links_are_found(
    make_job: MakeJob, store: Path, tmp_path: Path
) -> None:
    """An input whose path leads through links that are hidden themselves can be read."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "raw.nwb").write_text("raw elsewhere")
    (store / "folder").symlink_to(elsewhere)
    (store / "file.nwb").symlink_to("folder/raw.nwb")
    (tmp_path / "outside.nwb").symlink_to("store/file.nwb")
    inputs = {
        "by_folder": store / "folder" / "raw.nwb",
        "by_file": store / "file.nwb",
        "from_outside": tmp_path / "outside.nwb",
    }
    assert set(_search(make_job, store, inputs=inputs)["read"].values()) == {"raw elsewhere"}


def test_nested_hiding_and_exposing(make_job: MakeJob, store: Path) -> None:
    """A folder that is hidden inside an exposed one stays hidden."""
    (store / "deep" / "vault").mkdir()
    (store / "deep" / "vault" / "copy.nwb").write_text("original bytes")
    told = _search(
        make_job,
        store,
        store / "deep" / "vault" / "copy.nwb",
        hide=(store / "deep" / "vault", store),
        expose=(store / "deep",),
        inputs={"raw": store / "deep" / "er" / "raw.nwb"},
    )
    assert told["seen"] == []
    assert told["read"] == {"raw": "raw bytes"}


def test_inputs_are_read_only_and_the_cover_forgets(make_job: MakeJob, store: Path) -> None:
    """A recipe can neither change an exposed input nor leave anything in a hidden folder."""
    raw = store / "deep" / "er" / "raw.nwb"
    job = make_job(
        """
        @recipe(name="made", version="1")
        def made(inputs, output):
            import json, os
            raw = inputs["raw"]
            try:
                raw.write_text("changed")
                errors = []
            except OSError as error:
                errors = [error.strerror]
            (raw.parent / "extra").write_text("x")
            output.write_text(json.dumps(errors))
        """,
        hide=(store,),
        inputs={"raw": raw},
    )
    ProcessExecutor().execute(job)
    assert json.loads(job.outputs["output"].read_text()) == ["Read-only file system"]
    assert raw.read_text() == "raw bytes"
    assert not (raw.parent / "extra").exists()


def test_process_ids_and_proc_agree(make_job: MakeJob, store: Path) -> None:
    """Libraries that look themselves up in /proc find themselves."""
    job = make_job(
        """
        @recipe(name="made", version="1")
        def made(inputs, output):
            import os
            assert os.readlink("/proc/self") == str(os.getpid())
            assert os.path.exists("/proc/cpuinfo")
            output.write_text("fine")
        """,
        hide=(store,),
    )
    ProcessExecutor().execute(job)


def test_killed_recipe_is_told_as_without_hiding(make_job: MakeJob, store: Path) -> None:
    """Signals keep their meaning though the recipe runs among process ids of its own."""
    job = make_job(
        """
        @recipe(name="made", version="1")
        def made(inputs, output):
            import os
            os.abort()
        """,
        hide=(store,),
    )
    with pytest.raises(RecomputeError, match="SIGABRT") as caught:
        ProcessExecutor().execute(job)
    assert caught.value.kind == "recipe-killed"


@pytest.mark.parametrize("fields", [{"expose": ("store",)}, {"hide": ("/",)}])
def test_contradictions_are_refused(
    make_job: MakeJob, store: Path, fields: dict[str, tuple[str, ...]]
) -> None:
    """What is hidden and exposed at once, and the root of all, is refused; nothing runs."""
    paths = {name: tuple(store.parent / path for path in value) for name, value in fields.items()}
    with pytest.raises(RecomputeError) as caught:
        _search(make_job, store, **paths)
    assert caught.value.kind == "cannot-hide"


def test_what_does_not_exist_needs_no_hiding(make_job: MakeJob, tmp_path: Path) -> None:
    """A vault that is not there yet does not stop a proof."""
    told = _search(make_job, tmp_path / "missing")
    assert told["seen"] == []


def test_single_files_read_as_empty(make_job: MakeJob, store: Path) -> None:
    """A file can be hidden by itself; its neighbours stay in sight."""
    told = _search(
        make_job,
        store,
        hide=(store / "original.nwb",),
        inputs={"raw": store / "deep" / "er" / "raw.nwb"},
    )
    assert told["seen"] == []
    assert told["read"] == {"raw": "raw bytes"}


UNCOVER = """
@recipe(name="made", version="1")
def made(inputs, output, *, original: str):
    import ctypes, os, subprocess, sys
    folder = os.path.dirname(original)
    attempt = (
        "import ctypes, errno, os, sys; libc = ctypes.CDLL(None, use_errno=True);"
        "done = libc.umount2(os.fsencode(sys.argv[1]), 2);"
        "print('unmounted' if done == 0 else errno.errorcode[ctypes.get_errno()],"
        "os.path.exists(sys.argv[2]))"
    )
    # By this process, and by one that would have all of root's rights.
    libc = ctypes.CDLL(None, use_errno=True)
    own = libc.umount2(os.fsencode(folder), 2) or os.path.exists(original)
    words = [sys.executable, "-c", attempt, folder, original]
    child = subprocess.run(words, capture_output=True, text=True).stdout
    output.write_text(f"{own} {child}")
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="others have no rights at all")
def test_root_cannot_take_a_cover_away(make_job: MakeJob, store: Path) -> None:
    """Neither a recipe that root runs nor what it starts may unmount what hides the original."""
    job = make_job(UNCOVER, parameters={"original": str(store / "original.nwb")}, hide=(store,))
    ProcessExecutor().execute(job)
    assert job.outputs["output"].read_text() == "-1 EPERM False\n"


TOUCH = """
@recipe(name="made", version="1")
def made(inputs, output, *, original: str):
    import os
    told = []
    for change in (lambda: os.chmod(original, 0o640), lambda: os.utime(original, (1, 1))):
        try:
            change()
            told.append("done")
        except OSError as error:
            told.append(error.strerror)
    output.write_text(str(told))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root owns what hides a file")
def test_what_hides_a_file_cannot_be_changed(make_job: MakeJob, store: Path) -> None:
    """Root's recipe that sets the mode of a hidden file does not set that of the null device."""
    hidden = store / "original.nwb"
    before = Path(os.devnull).stat()
    try:
        job = make_job(TOUCH, parameters={"original": str(hidden)}, hide=(hidden,))
        ProcessExecutor().execute(job)
        after = Path(os.devnull).stat()
    finally:
        Path(os.devnull).chmod(stat.S_IMODE(before.st_mode))
    assert (after.st_mode, after.st_mtime_ns) == (before.st_mode, before.st_mtime_ns)
    assert job.outputs["output"].read_text() == str(["Read-only file system"] * 2)


def test_hiding_is_possible_here() -> None:
    """The probe agrees with the tests of this module."""
    assert can_hide() is True


def test_refusal_of_the_kernel_is_an_error(make_job: MakeJob, store: Path, tmp_path: Path) -> None:
    """Where no mounts of its own are to be had, the recipe is not run at all."""
    job = make_job(SEARCHES, hide=(store,), parameters={"original": str(store / "original.nwb")})
    # In a user namespace one may set its own limits: here, no further mount namespaces.
    command = ["unshare", "-Ur", "sh", "-c", 'echo 0 > "$0" && exec "$@"']
    command += ["/proc/sys/user/max_mnt_namespaces", sys.executable, "-c", SCRIPT]
    done = _run_script(command, job, tmp_path)
    assert done["error"]["kind"] == "cannot-hide"
    assert "CAP_SYS_ADMIN" in done["error"]["message"]
    assert done["can_hide"] is False
    assert not job.outputs["output"].exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a folder twice")
def test_other_mounts_of_the_same_folder_are_covered(
    make_job: MakeJob, store: Path, tmp_path: Path
) -> None:
    """A store, or a part of it, that is mounted elsewhere too is hidden there as well."""
    whole, part = tmp_path / "who le", tmp_path / "part"
    whole.mkdir()
    part.mkdir()
    (store / "deep" / "copy.nwb").write_text("original bytes")
    others = [str(whole / "original.nwb"), str(part / "copy.nwb")]
    parameters = {"original": str(store / "original.nwb"), "others": others}
    shell = 'mount --bind "$0" "$1" && mount --bind "$0/deep" "$2" && shift 2 && exec "$@"'
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", shell]
    command += [str(store), str(whole), str(part), sys.executable, "-c", SCRIPT]
    for hide, is_seen in (((), True), ((store,), False)):
        job = make_job(SEARCHES, hide=hide, parameters=parameters)
        assert _run_script(command, job, tmp_path)["error"] is None
        seen = json.loads(job.outputs["output"].read_text())["seen"]
        assert set(others) <= set(seen) if is_seen else seen == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can share mounts")
def test_everyone_else_keeps_their_view(make_job: MakeJob, store: Path, tmp_path: Path) -> None:
    """Where mounts are shared, as systemd has them, a cover does not spread to the caller."""
    job = make_job(SEARCHES, hide=(store,), parameters={"original": str(store / "original.nwb")})
    shell = 'mount --make-rshared / && "$@" && cat "$0" >&2'
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", shell]
    command += [str(store / "original.nwb"), sys.executable, "-c", SCRIPT]
    assert _run_script(command, job, tmp_path)["error"] is None
    assert json.loads(job.outputs["output"].read_text())["seen"] == []


SCRIPT = """
import json, sys
from pathlib import Path
from recallfs.errors import RecallError
from recallfs.recipes.executors import ProcessExecutor
from recallfs.recipes.job import Job
from recallfs.recipes.sandbox import can_hide
job = Job.from_json(json.loads(Path(sys.argv[1]).read_text()))
error = None
try:
    ProcessExecutor().execute(job)
except RecallError as raised:
    error = raised.to_json()
print(json.dumps({"error": error, "can_hide": can_hide()}))
"""


def _run_script(command: list[str], job: Job, folder: Path) -> dict[str, Any]:
    """Run a job in a process that was started in a special way."""
    described = folder / "described.json"
    described.write_text(json.dumps(job.to_json()))
    done = subprocess.run(
        [*command, str(described)], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told


AS_NOBODY = """
import os, sys
from pathlib import Path
from recallfs.recipes.sandbox import _separate, cover
# The interpreter may lie in a home folder that others cannot enter: show it to them.
private = [Path(folder) for folder in sys.argv[2].split(":") if folder]
_separate(with_processes=False, with_users=False)
cover(private, [Path(sys.prefix), Path(sys.base_prefix), *map(Path, sys.path)])
os.setgroups([])
os.setgid(int(sys.argv[1]))
os.setuid(int(sys.argv[1]))
os.chdir("/")
os.execv(sys.executable, [sys.executable, "-c", *sys.argv[3:]])
"""


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """Return a temporary folder that every user can enter."""
    folder = Path(tempfile.mkdtemp(prefix="recallfs-open-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="otherwise all tests here run without rights")
def test_hiding_works_without_rights(make_job: MakeJob, open_folder: Path) -> None:
    """A user who is not root hides folders too, and gets nothing out of other processes."""
    store = _fill(open_folder / "store")
    control = store / "control"
    control.mkdir()
    (control / "original.nwb").write_text("original bytes")
    job = make_job(
        SEARCHES,
        folder=control,
        hide=(store,),
        inputs={"raw": store / "deep" / "er" / "raw.nwb"},
        parameters={"original": str(store / "original.nwb")},
    )
    os.chown(job.scratch, NOBODY, NOBODY)
    private = [
        f"/{path.parts[1]}"
        for path in (Path(sys.prefix), Path(sys.base_prefix))
        if not Path(f"/{path.parts[1]}").stat().st_mode & 0o001
    ]
    command = [sys.executable, "-c", AS_NOBODY, str(NOBODY), ":".join(private), SCRIPT]
    told = _run_script(command, job, open_folder)
    assert told == {"error": None, "can_hide": True}
    output = job.outputs["output"]
    assert output.stat().st_uid == NOBODY
    found = json.loads(output.read_text())
    assert found["seen"] == []
    assert found["read"] == {"raw": "raw bytes"}
    assert found["rights"] == ["0000000000000000"]
