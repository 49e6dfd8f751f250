"""Causes of the faults that `recall doctor --fix` mends.

Each makes its fault in a lab. Most return the file of the tree whose bytes
must be right in the end.
"""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path

from actors import hold_intent
from conftest import Lab
from doctor.causing import Cause, flip, kill, skeleton, write_file
from mirrored import CONTENT, released_file
from processes import start
from recallfs.atomic import write_record
from recallfs.cache.cache import Cache
from recallfs.catalog import records
from recallfs.catalog.sidecar import encode
from recallfs.catalog.vaulted import vault_place
from recallfs.config import CacheSettings
from recallfs.release.pins import set_pin
from recallfs.resolve.commit import add_existing
from recallfs.resolve.presence import settle
from recallfs.values import State


def catalog_damaged(lab: Lab) -> Path:
    place = write_file(lab)
    lab.store.catalog.close()
    catalog = lab.root / ".recall/catalog.sqlite"
    catalog.write_bytes(b"no database at all" * 500)
    for suffix in ("-wal", "-shm"):
        Path(f"{catalog}{suffix}").unlink(missing_ok=True)
    return place


def catalog_empty(lab: Lab) -> Path:
    place = write_file(lab)
    lab.store.catalog.close()
    for path in (lab.root / ".recall").glob("catalog.sqlite*"):
        path.unlink()
    return place


def row_missing(lab: Lab) -> Path:
    place = write_file(lab)
    write_file(lab, "b.bin", b"other")
    lab.store.catalog.drop(lab.entry("a.bin").id)
    return place


def row_differs(lab: Lab) -> Path:
    place = write_file(lab)
    record = records.load(lab.store, lab.entry("a.bin").id)
    lab.store.catalog.put([replace(record, entry=replace(record.entry, path="elsewhere.bin"))])
    return place


def sidecar_missing(lab: Lab) -> Path:
    released_file(lab, "a.bin")
    lab.cli("get", "recall://lab/a.bin")
    lab.store.sidecar_path(lab.entry("a.bin").id).unlink()
    return lab.root / "a.bin"


def sidecar_damaged(lab: Lab) -> Path:
    released_file(lab, "a.bin")
    path = lab.store.sidecar_path(lab.entry("a.bin").id)
    path.write_bytes(path.read_bytes()[:-100])
    return lab.root / "a.bin"


def sidecar_superseded(lab: Lab) -> Path:
    place = write_file(lab)
    old = records.load(lab.store, lab.entry("a.bin").id)
    place.write_bytes(b"written over")
    add_existing(lab.store, ["a.bin"])
    write_record(lab.store.sidecar_path(old.entry.id), encode(old))
    return place


def sidecar_only_in_vault(lab: Lab) -> Path:
    write_file(lab, "b.bin", b"other")
    released_file(lab, "a.bin")
    entry = lab.entry("a.bin")
    lab.store.sidecar_path(entry.id).unlink()
    lab.store.catalog.drop(entry.id)
    return lab.root / "a.bin"


def write_leftover(lab: Lab) -> None:
    write_file(lab)
    folder = lab.store.sidecar_path(lab.entry("a.bin").id).parent
    (folder / ".new-1").write_text("{")
    os.utime(folder / ".new-1", (1, 1))


def file_touched(lab: Lab) -> Path:
    place = write_file(lab)
    os.utime(place)
    return place


def trash_stray(lab: Lab) -> Path:
    place = write_file(lab)
    place.rename(lab.store.trash_path(lab.entry("a.bin").id))
    return place


def trash_gone(lab: Lab) -> Path:
    released_file(lab, "a.bin", hold="7d")
    lab.store.trash_path(lab.entry("a.bin").id).unlink()
    return lab.root / "a.bin"


def vault_copy_missing(lab: Lab) -> Path:
    released_file(lab, "a.bin")
    vault_place(lab.store, lab.store.sidecar_path(lab.entry("a.bin").id)).unlink()
    return lab.root / "a.bin"


def vault_copy_behind(lab: Lab) -> Path:
    released_file(lab, "a.bin")
    copy = vault_place(lab.store, lab.store.sidecar_path(lab.entry("a.bin").id))
    earlier = copy.read_bytes()
    set_pin(lab.store, lab.entry("a.bin"), is_pinned=True)
    copy.write_bytes(earlier)
    return lab.root / "a.bin"


def vault_copy_damaged(lab: Lab) -> Path:
    released_file(lab, "a.bin")
    flip(vault_place(lab.store, lab.store.sidecar_path(lab.entry("a.bin").id)))
    return lab.root / "a.bin"


def evidence_missing(lab: Lab) -> Path:
    lab.released()
    skeleton(lab).unlink()
    return lab.root / "derived.h5"


def evidence_damaged(lab: Lab) -> Path:
    lab.released()
    flip(skeleton(lab))
    return lab.root / "derived.h5"


def staging_leftover(lab: Lab) -> None:
    kill(lab, "staging")


def lease_dead(lab: Lab) -> None:
    write_file(lab)
    kill(lab, "lease")


def intent_dead(lab: Lab) -> Path:
    place = write_file(lab)
    ready = lab.base / "ready"
    process = start(hold_intent, "a.bin", str(ready))
    process.join(30)
    assert process.exitcode == -signal.SIGKILL
    return place


def not_restored(lab: Lab) -> Path:
    place = write_file(lab)
    entry = lab.entry("a.bin")
    lab.store.catalog.add_event("recall", entry, "ben@host", {"not_restored": ["mode"]})
    place.chmod(0o400)
    assert settle(lab.store, entry) is State.RESIDENT
    return place


def aside_dead(lab: Lab) -> Path:
    place = write_file(lab)
    kill(lab, "aside")
    assert not place.exists()
    return place


def cache_over_limit(lab: Lab) -> None:
    cache = Cache(CacheSettings(lab.base / "own"))
    entry = lab.entry(write_file(lab).name)
    with cache.staging(entry.size_bytes) as scratch:
        (scratch / "data").write_bytes(CONTENT)
        path = cache.keep(entry, scratch / "data", entry.sha256)
    os.utime(cache.notes.of(path), (1, 1))
    lab.write_config(f'[cache]\nfolder = "{lab.base / "own"}"\nlimit = "10kB"\n')


MENDED: dict[str, Cause] = {
    "cache-over-limit": cache_over_limit,
    "catalog-damaged": catalog_damaged,
    "catalog-empty": catalog_empty,
    "row-missing": row_missing,
    "row-differs": row_differs,
    "sidecar-missing": sidecar_missing,
    "sidecar-damaged": sidecar_damaged,
    "sidecar-superseded": sidecar_superseded,
    "sidecar-only-in-vault": sidecar_only_in_vault,
    "write-leftover": write_leftover,
    "file-touched": file_touched,
    "not-restored": not_restored,
    "trash-stray": trash_stray,
    "trash-gone": trash_gone,
    "vault-copy-missing": vault_copy_missing,
    "vault-copy-behind": vault_copy_behind,
    "vault-copy-damaged": vault_copy_damaged,
    "evidence-missing": evidence_missing,
    "evidence-damaged": evidence_damaged,
    "staging-leftover": staging_leftover,
    "lease-dead": lease_dead,
    "intent-dead": intent_dead,
    "aside-dead": aside_dead,
}
