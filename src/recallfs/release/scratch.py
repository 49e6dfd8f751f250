"""Private folders for proofs: in the store, or on a disk that the caller names."""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from recallfs.atomic import is_full, no_space
from recallfs.catalog.holder import Holder
from recallfs.catalog.store import Store, find_root
from recallfs.errors import AccessError, InvalidInputError

_PREFIX = "recallfs-"


def check_scratch(folder: Path) -> Path:
    """Make sure that a folder can be worked in; return its real path.

    Raises
    ------
    InvalidInputError
        Kind ``invalid-path``: it is not there, or belongs to a store.
    AccessError
        The caller may not write to it.
    """
    place = Path(os.path.realpath(folder))
    if not place.is_dir():
        raise InvalidInputError(
            f"the scratch folder {folder} is not there; make it first.", kind="invalid-path"
        )
    root = find_root(place)
    if root is not None:
        raise InvalidInputError(
            f"the scratch folder {folder} is in the store at {root}; name one outside, or leave "
            "--scratch out to work in the store's own.",
            kind="invalid-path",
        )
    if not os.access(place, os.W_OK | os.X_OK):
        raise AccessError(f"you cannot write to the scratch folder {folder}.")
    return place


@contextmanager
def private_folder(store: Store, scratch: Path | None) -> Iterator[Path]:
    """Make a folder for one proof, in the store's staging or in `scratch`; it is gone afterwards.

    Raises
    ------
    SourceError
        Kind ``no-space`` if the disk is full.
    """
    if scratch is None:
        with store.staging() as folder:
            yield folder
        return
    with own_folder(scratch) as folder:
        yield folder


@contextmanager
def own_folder(scratch: Path) -> Iterator[Path]:
    """Make a folder that only the caller can read, in one that many may use.

    Its name says which process made it, so that `sweep` knows it when that is dead.
    """
    folder = scratch / f"{_PREFIX}{Holder.current().token()}-{uuid.uuid4().hex}"
    try:
        folder.mkdir(mode=0o700)
        yield folder
    except OSError as error:
        if is_full(error):
            raise no_space(error, scratch) from error
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def sweep(scratch: Path) -> int:
    """Remove what dead processes of this computer left in a folder; return how many."""
    swept = 0
    with contextlib.suppress(OSError):
        for folder in list(scratch.iterdir()):
            holder = Holder.from_token(folder.name.removeprefix(_PREFIX))
            is_ours = folder.name.startswith(_PREFIX) and not folder.is_symlink()
            if is_ours and holder is not None and holder.is_known_dead():
                shutil.rmtree(folder, ignore_errors=True)
                swept += not folder.exists()
    return swept
