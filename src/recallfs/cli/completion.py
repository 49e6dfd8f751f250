"""What a shell offers when Tab is pressed: stores, and the files that the catalog knows."""

from __future__ import annotations

from typing import Any

import click
from click.shell_completion import CompletionItem

from recallfs.errors import RecallError

_SCHEME = "recall://"
_MOST = 200


def complete_store(_context: click.Context, _parameter: Any, incomplete: str) -> list[Any]:
    """Offer the names of stores."""
    from recallfs.config import load_config

    try:
        return [name for name in load_config().stores if name.startswith(incomplete)]
    except (RecallError, OSError):
        return []


def complete_address(_context: click.Context, _parameter: Any, incomplete: str) -> list[Any]:
    """Offer addresses of files and folders, released files too; else the shell's own paths.

    Notes
    -----
    Opens the catalog without cleaning up, and reads one folder.
    """
    # bash cuts words at colons: of recall://lab it completes what follows the colon.
    head = "//" if incomplete.startswith("//") else _SCHEME
    if not incomplete.startswith(head):
        items = [CompletionItem(incomplete, type="file")]
        return items + ([_SCHEME] if incomplete and _SCHEME.startswith(incomplete) else [])
    name, slash, path = incomplete.removeprefix(head).partition("/")
    try:
        if not slash:
            stores = complete_store(_context, _parameter, name)
            return [CompletionItem(f"{head}{store}/", type="plain") for store in stores]
        return [f"{head}{name}/{found}" for found in _below(name, path)]
    except (RecallError, OSError):
        return []  # Tab is no time for errors


def _below(name: str, path: str) -> list[str]:
    from recallfs.catalog.store import open_store
    from recallfs.config import load_config

    settings = load_config().store_settings(name)
    store = open_store(settings.root, name=name, settings=settings)
    folder = path.rpartition("/")[0]
    try:
        entries, folders = store.catalog.children(folder)
    finally:
        store.catalog.close()
    prefix = f"{folder}/" if folder else ""
    found = [f"{prefix}{sub}/" for sub in folders] + [entry.path for entry in entries]
    return [item for item in found if item.startswith(path)][:_MOST]
