"""Running the suite of a checkout by asv, in this very environment, with every sample kept."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from recallfs.bench.extras import require
from recallfs.bench.machine import describe_environment, describe_machine, digest_of
from recallfs.bench.results import Results, reduce_asv
from recallfs.errors import InvalidInputError

SELECTIONS = ("quick", "usual", "large")
CONFIGURATION = "asv.conf.json"
ONLINE = re.compile(
    r"(?P<api>https?://.+)/dandisets/(?P<dandiset>\d+)/versions/(?P<version>[^/]+)/assets/."
)
"""The API's URL of an asset of a dandiset."""


def find_suite(start: Path) -> Path:
    """Return the folder ``benchmarks`` of the checkout that a folder is in.

    Raises
    ------
    InvalidInputError
        If it is in none.
    """
    package = Path(__file__).resolve().parents[3]  # an editable installation knows its checkout
    for folder in (start, *start.parents, package):
        if (folder / "benchmarks" / CONFIGURATION).is_file():
            return folder / "benchmarks"
        if folder.name == "benchmarks" and (folder / CONFIGURATION).is_file():
            return folder
    raise InvalidInputError(
        "the benchmarks are not part of the installed package: go to a checkout of recallfs and "
        "try again."
    )


def digest_configuration(suite: Path) -> dict[str, str]:
    """Return the SHA-256 of each file that says what is measured and how."""
    files = [suite / CONFIGURATION, *sorted(suite.glob("suite/**/*.py"))]
    return {
        str(path.relative_to(suite)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def changes_since(before: Results, now: Results) -> list[str]:
    """Say what makes the figures of two runs hard to compare; nothing if they were made alike."""
    told = []
    changed = sorted(
        name
        for name in {*before.configuration, *now.configuration}
        if before.configuration.get(name) != now.configuration.get(name)
    )
    if changed:
        told.append(f"what is measured has changed: {', '.join(changed)}")
    if before.machine_id != now.machine_id:
        told.append(
            f"the computer is another one, or was changed: {before.machine['name']} then, "
            f"{now.machine['name']} now"
        )
    if before.environment_id != now.environment_id:
        then, today = before.environment["packages"], now.environment["packages"]
        names = sorted(name for name in {*then, *today} if then.get(name) != today.get(name))
        told.append(f"packages have changed: {', '.join(names) or 'Python itself'}")
    if (before.selection, before.online) != (now.selection, now.online):
        told.append(f"the selection was {before.selection!r}, and is {now.selection!r}")
    return told


def absent_peers(suite: Path) -> dict[str, str]:
    """Return the peers that are not installed, each with what brings it."""
    if not (suite / "suite" / "peers.py").exists():
        return {}
    done = subprocess.run(
        [sys.executable, "-m", "suite.peers"], cwd=suite, capture_output=True, text=True, check=True
    )
    found: dict[str, str] = json.loads(done.stdout)
    return found


def run_suite(
    suite: Path,
    *,
    pattern: str = "",
    selection: str = "quick",
    online: str = "",
    quiet: bool = False,
) -> Results:
    """Run benchmarks; what asv prints goes to standard error.

    Parameters
    ----------
    suite : Path
        As of `find_suite`.
    pattern : str
        Only the benchmarks whose names this regular expression finds.
    selection : str
        One of `SELECTIONS`.
    online : str
        API's URL of an asset of a real dandiset, which is read instead of loopback's files; only
        remote reading, if `pattern` says nothing.
    quiet : bool
        Whether nothing is shown while it runs.

    Raises
    ------
    InvalidInputError
        If asv is not installed, or ran nothing, or `pattern` is no regular expression, or `online`
        no such URL.
    """
    require("asv")
    try:
        re.compile(pattern)
    except re.error as error:
        raise InvalidInputError(f"{pattern!r} is not a regular expression: {error}.") from None
    if online and not ONLINE.match(online):
        raise InvalidInputError(
            f"{online} is not a URL such as https://api.dandiarchive.org/api/dandisets/000123/"
            "versions/draft/assets/ID/."
        )
    if online and not pattern:
        pattern = "remote_"  # the rest has files of its own
    machine, environment = describe_machine(), describe_environment()
    name, commit = machine["name"], _commit(suite)
    with tempfile.TemporaryDirectory(prefix="recallfs-bench-") as folder:
        # A home of its own: asv keeps names of machines there, and clients of servers their keys.
        home = Path(folder)
        (home / ".asv-machine.json").write_text(json.dumps(machine["asv"]))
        (home / CONFIGURATION).write_text(json.dumps(_configuration(suite, home)))
        command = [sys.executable, "-m", "asv", "run", "--config", str(home / CONFIGURATION)]
        # Forked from one process that has imported the suite: hundreds of others would each take
        # longer to do so than what they measure.
        command += ["--launch-method", "forkserver"]
        command += ["--python=same", "--record-samples", "--show-stderr", "--machine", name]
        command += ["--set-commit-hash", commit]
        command += ["--bench", pattern] if pattern else []
        code, said = _run_apart(command, _variables(home, selection, online), quiet=quiet)
        written = [
            path for path in (home / "results").glob("*/*.json") if path.name != "machine.json"
        ]
        if not written:
            last = said.strip().splitlines()[-5:]
            raise InvalidInputError(
                f"asv measured nothing{f' for {pattern!r}' if pattern else ''}; "
                + (f"it said: {' '.join(last)}" if last else "what it said is above."),
                details={"exit_code": code},
            )
        samples, failed = reduce_asv(json.loads(written[0].read_text("utf-8")))
        if not samples:
            raise InvalidInputError(
                f"all {len(failed)} benchmarks failed or were left out, so there is nothing to "
                "keep; what asv said is above.",
                details={"failed": failed},
            )
    return Results(
        timestamp=datetime.now(timezone.utc).strftime("%Y-%m-%d-%H-%M-%S"),
        commit_hash=commit,
        selection=selection,
        configuration=digest_configuration(suite),
        machine=machine,
        environment=environment,
        machine_id=digest_of(machine),
        environment_id=digest_of(environment),
        results=samples,
        absent=absent_peers(suite),
        failed=failed,
        online=online,
        pattern=pattern,
    )


def _run_apart(
    command: Sequence[str], variables: Mapping[str, str], *, quiet: bool
) -> tuple[int, str]:
    """Return the exit code, and what is said if it is quiet; no process is left of it."""
    with subprocess.Popen(
        command,
        env=variables,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE if quiet else sys.stderr.fileno(),
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            said, _ = process.communicate()
        finally:
            # What asv started, too: an interrupt reaches this process alone.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    return process.returncode, said or ""


def _configuration(suite: Path, home: Path) -> dict[str, Any]:
    """Return the suite's own configuration of asv, with all that is written below `home`."""
    configuration: dict[str, Any] = json.loads((suite / CONFIGURATION).read_text("utf-8"))
    return configuration | {
        "repo": str((suite / configuration["repo"]).resolve()),
        "benchmark_dir": str((suite / configuration["benchmark_dir"]).resolve()),
        "results_dir": str(home / "results"),
        "env_dir": str(home / "env"),
        "html_dir": str(home / "html"),
    }


def _variables(home: Path, selection: str, online: str) -> dict[str, str]:
    settings: dict[str, Any] = {
        "HOME": str(home),
        "BENCHMARK_SELECTION": selection,
        "BENCHMARK_ONLINE": online,
    }
    # What a reader configured for himself is not what is measured.
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RECALLFS_")}
    return {**kept, **settings}


def _commit(suite: Path) -> str:
    """Return the commit that is checked out; asv wants one."""
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"],  # noqa: S607 - whichever git there is
            cwd=suite,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        raise InvalidInputError(
            f"{suite} is not in a git repository, and asv needs one: clone recallfs and try again."
        ) from None
    return done.stdout.strip()
