"""SQLite on a real network file system: sshfs, which serves a folder by the SFTP protocol."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.services

SCRIPT = """
set -e
mkdir "$1/far" "$1/mnt"
printf '#!/bin/sh\\nexec /usr/lib/openssh/sftp-server\\n' > "$1/ssh"
chmod 755 "$1/ssh"
sshfs -o ssh_command="$1/ssh" anyhost:"$1/far" "$1/mnt"
shift
"$@"
"""

CODE = """
import sys
from pathlib import Path
from recallfs.catalog.database import Catalog
from recallfs.catalog.store import create_store
from recallfs.mounts import file_system
from recallfs.resolve.commit import add_existing
from recallfs.testing import load
from recallfs.testing.records import STORE_ID

if __name__ == "__main__":
    base = Path(sys.argv[1])
    print(file_system(base / "mnt" / "lab"))
    store = create_store(base / "mnt" / "lab", "lab", vault=base / "vault")
    (store.root / "notes.txt").write_text("kept")
    add_existing(store, ["notes.txt"])
    print([entry.path for entry in store.catalog.entries_below("")])
    with store.catalog._database.engine.connect() as connection:
        print(connection.exec_driver_sql("PRAGMA journal_mode").scalar())
    url = f"sqlite:///{store.root}/.recall/catalog.sqlite"
    names = ("one", "two", "three")
    print(load.in_processes(load.work, [(url, name, str(base), 1.0) for name in names]))
    expected = set()
    for name in names:
        lines = (base / name).read_text().splitlines()[1:]
        expected |= {line.split(" ", 1)[1] for line in lines}
    shared = Catalog(url, STORE_ID)
    print({entry.path for entry in shared.entries_below("")} == expected != set())
    shared.close()
    store.catalog.close()
    print(sorted(path.name for path in (store.root / ".recall").glob("catalog.sqlite*")))
"""


def test_a_catalog_far_away_keeps_a_rollback_journal(tmp_path: Path) -> None:
    """On a network mount a store is made and used without a write-ahead log, by several at once."""
    place = tmp_path / "code.py"
    place.write_text(CODE)
    # What serves the mount ends with the first process of a PID namespace of its own.
    private = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    if os.getuid() != 0:
        private.append("--map-root-user")
    done = subprocess.run(
        [*private, "sh", "-c", SCRIPT, "sh", tmp_path, sys.executable, place, tmp_path],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={**os.environ, "RECALLFS_CONFIG": str(tmp_path / "config.toml")},
    )
    assert done.returncode == 0, done
    lines = done.stdout.splitlines()
    assert "kind='fuse.sshfs'" in lines[0]
    assert "is_network=True" in lines[0]
    assert lines[1:] == ["['notes.txt']", "delete", "[0, 0, 0]", "True", "['catalog.sqlite']"]
