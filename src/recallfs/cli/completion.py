"""What a shell offers when Tab is pressed: stores, and the files that the catalog knows."""

from __future__ import annotations

from typing import Any

import click
from click.shell_completion import BashComplete, CompletionItem, add_completion_class

from recallfs.errors import RecallError

_SCHEME = "recall://"
_MOST = 200


class _Bash(BashComplete):
    """Completion for bash, which cuts words at colons: ``recall``, ``:``, ``//lab/a.nwb``."""

    _there = ""
    """The part of the word that bash keeps, and so must not be given again."""

    def get_completion_args(self) -> tuple[list[str], str]:
        """Return the words before the cursor, put together again, and the one at it."""
        args, incomplete = super().get_completion_args()
        words: list[str] = []
        is_cut = False
        for word in (*args, incomplete):
            if words and (word == ":" or is_cut):
                words[-1] += word
            else:
                words.append(word)
            is_cut = word == ":"
        if is_cut or (args and args[-1] == ":"):
            self._there = words[-1][: words[-1].rindex(":") + 1]
        return words[:-1], words[-1]

    def format_completion(self, item: CompletionItem[str]) -> str:
        """Write one offer as click's script for bash reads it."""
        return f"{item.type},{item.value.removeprefix(self._there)}"


def join_words_of_bash() -> None:
    """Have addresses completed by bash, too."""
    add_completion_class(_Bash)


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
    if not incomplete.startswith(_SCHEME):
        items = [CompletionItem(incomplete, type="file")]
        is_begun = incomplete and _SCHEME.startswith(incomplete)
        return items + ([CompletionItem(_SCHEME)] if is_begun else [])
    name, slash, path = incomplete.removeprefix(_SCHEME).partition("/")
    try:
        if not slash:
            stores = complete_store(_context, _parameter, name)
            return [CompletionItem(f"{_SCHEME}{store}/", type="plain") for store in stores]
        return [f"{_SCHEME}{name}/{found}" for found in _below(name, path)]
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
