"""Where stores are: gone, moved, copied, or one inside another."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from recallfs.catalog.store import Store, find_root
from recallfs.config import Config
from recallfs.doctor.faults import Finding
from recallfs.values import CONTROL_FOLDER


def check_root(config: Config, name: str, root: Path) -> Iterator[Finding]:
    """Check that a store's root is there and is a store's."""
    if root.is_dir():
        if find_root(root) != root:
            problem = f"{root / CONTROL_FOLDER} is not there, or is not a store's."
            yield Finding("not-a-store", str(root), problem, name)
        return
    problem = "The folder is not there."
    moved = _moved_to(name, root)
    if moved is not None:
        problem += (
            f" A store named {name!r} is at {moved}: if that is the one, write "
            f'root = "{moved}" under [stores.{name}] in {config.path}.'
        )
    yield Finding("root-gone", str(root), problem, name)


def _moved_to(name: str, root: Path) -> Path | None:
    """Look for the store beside its old place, and beside the nearest folder that is left."""
    import tomlkit
    from tomlkit.exceptions import TOMLKitError

    folder = next((place for place in root.parents if place.is_dir()), None)
    if folder is None:
        return None
    for found in sorted(folder.glob(f"*/{CONTROL_FOLDER}/store.toml")):
        try:
            values = tomlkit.parse(found.read_text(encoding="utf-8")).unwrap()
        except (OSError, UnicodeDecodeError, TOMLKitError):
            continue
        if values.get("name") == name:
            return found.parent.parent
    return None


def check_places(open_stores: Mapping[str, Store]) -> Iterator[Finding]:
    """Check that each store is in one place, and none inside another."""
    by_id: dict[str, dict[Path, str]] = {}
    for name, store in open_stores.items():
        by_id.setdefault(store.id, {}).setdefault(store.root, name)
    for identifier, roots in by_id.items():
        if len(roots) > 1:
            problem = f"{' and '.join(map(str, roots))} both have the id {identifier}."
            yield Finding("store-copied", ", ".join(roots.values()), problem)
    for name, store in open_stores.items():
        outer = find_root(Path(os.path.dirname(store.root)))  # noqa: PTH120 - also of '/'
        if outer is not None and outer != store.root:
            yield Finding("store-nested", str(store.root), f"It is inside {outer}.", name)
        configured = {other.root for other in open_stores.values()}
        for inner in inner_stores(store.root):
            if inner not in configured:
                yield Finding("store-nested", str(inner), f"It is inside {store.root}.", name)


def inner_stores(root: Path) -> Iterator[Path]:
    """Iterate over the roots of other stores below a folder; links are not followed."""
    for place, folders, _files in os.walk(root):
        if CONTROL_FOLDER in folders:
            folders.remove(CONTROL_FOLDER)
            if Path(place) != root and find_root(Path(place)) == Path(place):
                folders.clear()
                yield Path(place)
