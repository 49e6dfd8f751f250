"""What a user who may not write to the store does in the tests."""

from __future__ import annotations

import hashlib
import json
import os
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from budget_actors import become
from recallfs.errors import RecallError


def as_user(user: int, home: str, report: str, action: Callable[..., Any], *arguments: Any) -> None:
    """Do something as another user, and write down what it gave or the error."""
    import h5py  # noqa: F401 - before the rights to read our libraries are gone

    become(user)
    os.environ.update(HOME=home, XDG_CACHE_HOME=f"{home}/.cache")
    try:
        told = {"gave": action(*arguments)}
    except RecallError as error:
        told = {"error": error.to_json()}
    except Exception:  # noqa: BLE001 - the test shows it
        told = {"failed": traceback.format_exc()}
    Path(report).write_text(json.dumps(told))


def look(url: str) -> dict[str, Any]:
    """List, describe and read by fsspec."""
    import fsspec

    file_system = fsspec.filesystem("recall")
    names = file_system.ls(url.rpartition("/")[0], detail=False)
    info = file_system.info(url)
    with file_system.open(url) as file:
        digest = hashlib.sha256(file.read()).hexdigest()
    return {
        "names": names,
        "state": info["state"],
        "size": info["size"],
        "sha256": digest,
        "local": file_system.open_local(url),
    }


def recall_it(url: str) -> dict[str, Any]:
    """Recall a file, and say where from and where to."""
    from recallfs.resolve.recall import recall
    from recallfs.resolve.stores import stores_in_reach

    stores = stores_in_reach()
    store, path = stores.resolve(url)
    done = recall(stores, store, path)
    digest = hashlib.sha256(done.path.read_bytes()).hexdigest()
    mode = done.path.stat().st_mode & 0o7777
    return {"source": done.source, "path": str(done.path), "sha256": digest, "mode": mode}


def explain(url: str) -> dict[str, Any]:
    """Say what opening a file would do."""
    from recallfs.resolve.chain import plan_for
    from recallfs.resolve.stores import stores_in_reach

    stores = stores_in_reach()
    store, path = stores.resolve(url)
    entry = store.catalog.entry_at(path)
    assert entry is not None
    return plan_for(stores, store, entry).to_json()


def read_plainly(path: str, mode: str) -> list[float]:
    """Open a plain path with h5py, with the readers' patches installed."""
    import h5py

    import recallfs

    recallfs.install()
    with h5py.File(path, mode) as file:
        return [float(value) for value in file["data"][0, :3]]


def recall_all(urls: list[str]) -> list[str]:
    """Recall several files, one after the other; say where each came from."""
    return [str(recall_it(url)["source"]) for url in urls]


def spoil_and_recall(url: str, how: str) -> dict[str, Any]:
    """Spoil what is in the cache, then recall it again."""
    place = Path(recall_it(url)["path"])
    status = place.stat()
    place.chmod(0o600)
    content = bytearray(place.read_bytes())
    content[len(content) // 2] ^= 1
    if how == "changed":
        place.write_bytes(content)
        os.utime(place, ns=(status.st_atime_ns, status.st_mtime_ns))
    elif how == "touched":
        os.utime(place)
    elif how == "link":
        other = place.with_name("other")
        other.write_bytes(content)
        place.unlink()
        place.symlink_to(other)
    elif how == "gone":
        place.unlink()
    return recall_it(url)


def peek(path: str) -> str:
    """Try to read a file."""
    try:
        return str(len(Path(path).read_bytes()))
    except PermissionError:
        return "forbidden"


def values_of_group(path: Path) -> None:
    """Go through the values of ``/inner``, with the readers wrapped."""
    import h5py

    import recallfs

    recallfs.install()
    with h5py.File(path, "r") as file:
        assert [value.shape for value in file["inner"].values()]
