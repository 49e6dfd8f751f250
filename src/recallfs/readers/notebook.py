"""``%load_ext recallfs``: the readers are wrapped in a notebook, and a recall shows a bar."""

from __future__ import annotations

from typing import Any

from recallfs.readers.patches import install, uninstall


def load_ipython_extension(_shell: Any) -> None:
    """Do what ``%load_ext recallfs`` means."""
    install()


def unload_ipython_extension(_shell: Any) -> None:
    """Do what ``%unload_ext recallfs`` means."""
    uninstall()
