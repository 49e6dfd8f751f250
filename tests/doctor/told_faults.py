"""Causes of the faults that the doctor tells of and leaves to people."""

from __future__ import annotations

import json
import os
import shutil
import time
from datetime import timedelta

import time_machine

from actors import hold_lease_and_staging, wait_for
from conftest import Lab
from doctor.causing import Cause, flip, skeleton, write_file
from mirrored import CONTENT, configure_mirror, released_file
from processes import start
from recallfs.catalog.database import Intent
from recallfs.catalog.store import create_store
from recallfs.catalog.vaulted import vault_place


def config_missing(lab: Lab) -> None:
    lab.config.unlink()


def config_invalid(lab: Lab) -> None:
    lab.write_config("[relese]\n")


def root_twice(lab: Lab) -> None:
    lab.write_config(f'[stores.again]\nroot = "{lab.root}"\n')


def recipes_broken(lab: Lab) -> None:
    (lab.base / "broken_recipes.py").write_text("import no_such_module_at_all\n")
    text = lab.config.read_text().replace('"lab_recipes"', '"broken_recipes", "lab_recipes"')
    lab.config.write_text(text.replace("paths = [", f'paths = ["{lab.base}", '))


def root_gone(lab: Lab) -> None:
    lab.root.rename(lab.base / "moved")


def not_a_store(lab: Lab) -> None:
    shutil.rmtree(lab.root)
    lab.root.mkdir()


def store_unusable(lab: Lab) -> None:
    (lab.root / ".recall/store.toml").write_text("format = [")


def store_copied(lab: Lab) -> None:
    lab.store.catalog.close()
    shutil.copytree(lab.root, lab.base / "copy")
    lab.write_config(f'[stores.copy]\nroot = "{lab.base / "copy"}"\n')


def store_nested(lab: Lab) -> None:
    inner = create_store(lab.base / "inner", "inner", vault=lab.base / "inner-vault")
    inner.catalog.close()
    inner.root.rename(lab.root / "inner")
    lab.write_config(f'[stores.inner]\nroot = "{lab.root / "inner"}"\n')


def sidecar_newer(lab: Lab) -> None:
    write_file(lab)
    path = lab.store.sidecar_path(lab.entry("a.bin").id)
    path.write_text(path.read_text().replace('"rsc1"', '"rsc9"', 1))


def file_missing(lab: Lab) -> None:
    configure_mirror(lab)
    write_file(lab).unlink()


def file_lost(lab: Lab) -> None:
    write_file(lab).unlink()


def file_changed(lab: Lab) -> None:
    write_file(lab).write_bytes(CONTENT[::-1])


def file_unreadable(lab: Lab) -> None:
    """Let somebody be about to release a file: it cannot be read just then."""
    place = write_file(lab)
    os.utime(place)
    process = start(hold_lease_and_staging, "file", "a.bin", str(lab.base / "ready"))
    wait_for(lab.base / "ready", process)
    lab.environment["HOLDER"] = str(process.pid)


def path_occupied(lab: Lab) -> None:
    released_file(lab, "a.bin")
    (lab.root / "a.bin").write_bytes(b"somebody's")


def not_recallable(lab: Lab) -> None:
    released_file(lab, "a.bin")
    lab.write_config()


def evidence_expired(lab: Lab) -> None:
    lab.write_config('[release]\nproof_validity = "2s"\n')
    lab.derive("a.txt", "text")
    lab.prove("a.txt")
    lab.release("a.txt")
    time.sleep(2)


def recipe_gone(lab: Lab) -> None:
    lab.released()
    lab.config.write_text(lab.config.read_text().replace('"lab_recipes"', ""))


def interpreter_gone(lab: Lab) -> None:
    lab.released()
    for path in (lab.root / ".recall/environments").iterdir():
        content = json.loads(path.read_bytes())
        path.write_text(json.dumps({**content, "executable": "/opt/gone/python"}))


def trash_unnamed(lab: Lab) -> None:
    (lab.root / ".recall/trash/0123").write_text("perhaps the last copy")


def trash_overdue(lab: Lab) -> None:
    released_file(lab, "a.bin", hold="1s")
    time.sleep(1)


def vault_unreachable(lab: Lab) -> None:
    released_file(lab, "a.bin")
    (lab.base / "vault").rename(lab.base / "unmounted")


def evidence_lost(lab: Lab) -> None:
    lab.released()
    flip(skeleton(lab))
    flip(vault_place(lab.store, skeleton(lab)))


def mirror_unreachable(lab: Lab) -> None:
    configure_mirror(lab).rmdir()


def cache_unusable(lab: Lab) -> None:
    (lab.base / "file").touch()
    lab.write_config(f'[cache]\nfolder = "{lab.base / "file"}"\n')


def cache_shared_unusable(lab: Lab) -> None:
    lab.write_config(f'[cache]\nshared_folder = "{lab.base / "no-such-folder"}"\n')


def mirror_in_store(lab: Lab) -> None:
    configure_mirror(lab, f"file://{lab.root}")


def staging_foreign(lab: Lab) -> None:
    folder = lab.root / ".recall/staging" / "of-another-computer"
    folder.mkdir()
    os.utime(folder, (1, 1))


def intent_foreign(lab: Lab) -> None:
    write_file(lab)
    entry = lab.entry("a.bin")
    intent = Intent(entry.id, "pin", entry.path, {}, "elsewhere/boot|12|34")
    lab.store.catalog.intend([intent])


def aside_foreign(lab: Lab) -> None:
    write_file(lab)
    entry = lab.entry("a.bin")
    (lab.root / "a.bin").rename(lab.root / ".recall/aside" / f"ab-cd-12-34-{entry.id}")


def clock_set_back(lab: Lab) -> None:
    with time_machine.travel(time.time() + timedelta(days=30).total_seconds()):
        write_file(lab)


def group_cannot_write(lab: Lab) -> None:
    lab.root.chmod(0o2775)
    (lab.root / ".recall/trash").chmod(0o755)


TOLD: dict[str, Cause] = {
    "config-missing": config_missing,
    "config-invalid": config_invalid,
    "root-twice": root_twice,
    "recipes-broken": recipes_broken,
    "root-gone": root_gone,
    "not-a-store": not_a_store,
    "store-unusable": store_unusable,
    "store-copied": store_copied,
    "store-nested": store_nested,
    "sidecar-newer": sidecar_newer,
    "file-missing": file_missing,
    "file-lost": file_lost,
    "file-changed": file_changed,
    "file-unreadable": file_unreadable,
    "path-occupied": path_occupied,
    "not-recallable": not_recallable,
    "evidence-expired": evidence_expired,
    "recipe-gone": recipe_gone,
    "interpreter-gone": interpreter_gone,
    "trash-unnamed": trash_unnamed,
    "trash-overdue": trash_overdue,
    "vault-unreachable": vault_unreachable,
    "evidence-lost": evidence_lost,
    "cache-unusable": cache_unusable,
    "cache-shared-unusable": cache_shared_unusable,
    "mirror-unreachable": mirror_unreachable,
    "mirror-in-store": mirror_in_store,
    "staging-foreign": staging_foreign,
    "intent-foreign": intent_foreign,
    "aside-foreign": aside_foreign,
    "clock-set-back": clock_set_back,
    "group-cannot-write": group_cannot_write,
}
