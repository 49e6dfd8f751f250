"""What other processes and users do with the cache in the tests."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from reader_actors import recall_it
from recallfs.atomic import set_fault_hook
from recallfs.cache.cache import Cache
from recallfs.config import CacheSettings
from recallfs.testing.faults import kill_at


def hold_open(path: str, ready: str) -> None:
    """Keep a file open for reading."""
    with Path(path).open("rb"):
        Path(ready).touch()
        time.sleep(60)


def keep_killed(folder: str, entry: Any, content: bytes, moment: str) -> None:
    """Put a file into a cache, and be killed while at it."""
    cache = Cache(CacheSettings(Path(folder)))
    with cache.lock(entry), cache.staging(len(content)) as scratch:
        (scratch / "data").write_bytes(content)
        if moment == "staged":
            os.kill(os.getpid(), 9)
        set_fault_hook(kill_at("record.written"))
        cache.keep(entry, scratch / "data", entry.sha256)


def keep_many(folder: str, entries: list[Any], content: bytes) -> None:
    """Put several files into a cache."""
    cache = Cache(CacheSettings(Path(folder)))
    for entry in entries:
        with cache.lock(entry), cache.staging(len(content)) as scratch:
            (scratch / "data").write_bytes(content)
            cache.keep(entry, scratch / "data", entry.sha256)


def plant(path: str, content: str, mode: int = 0o444) -> str:
    """Put a file into one's own part of a shared cache, by hand."""
    place = Path(path)
    for folder in (place.parents[3], place.parents[2], place.parents[1], place.parent):
        folder.mkdir(exist_ok=True)
        folder.chmod(0o755)
    place.unlink(missing_ok=True)
    place.write_text(content)
    place.chmod(mode)
    return path


def plant_special(path: str, kind: str) -> str:
    """Put something that is no regular file there."""
    place = Path(plant(path, ""))
    place.unlink()
    if kind == "fifo":
        os.mkfifo(place)
    elif kind == "link":
        place.symlink_to("/etc/hostname")
    else:
        place.mkdir()
    return path


def change_in_place(path: str, content: str) -> str:
    """Write over a file of one's own, and give it its time back."""
    place = Path(path)
    status = place.stat()
    place.chmod(0o644)
    place.write_text(content)
    place.chmod(0o444)
    os.utime(place, ns=(status.st_atime_ns, status.st_mtime_ns))
    return path


def recall_twice(url: str) -> list[Any]:
    """Recall a file, and again."""
    return [recall_it(url), recall_it(url)]


def clear(unused_s: float) -> int:
    """Clear the caches of the configuration; return how many files are gone."""
    from recallfs.resolve.stores import stores_in_reach

    return Cache(stores_in_reach().config.cache).clear(unused_s=unused_s).files


def make_folder(path: str, mode: int) -> str:
    """Make a folder of one's own."""
    Path(path).mkdir()
    Path(path).chmod(mode)
    return path
