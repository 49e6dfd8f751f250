"""The files of a folder, in one order and with nothing among them that is no file."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from recallfs.errors import InvalidInputError
from recallfs.values import display_name


def list_folder(folder: Path) -> dict[str, Path]:
    """List all regular files below a folder.

    Parameters
    ----------
    folder : Path

    Returns
    -------
    dict of str to Path
        By their path below the folder (``/`` between names), in the order of its UTF-8 bytes.
        Empty folders leave no trace.

    Raises
    ------
    InvalidInputError
        Kind ``invalid-path``: it is no folder; or something below it is a symbolic link, a special
        file or has a name that is not UTF-8.
    """
    if not folder.is_dir():
        raise _refused(folder, "is no folder")
    found: dict[str, Path] = {}
    waiting = [(folder, "")]
    while waiting:
        place, prefix = waiting.pop()
        with os.scandir(place) as items:
            for item in items:
                path, name = Path(item.path), f"{prefix}{item.name}"
                try:
                    name.encode()
                except UnicodeEncodeError:
                    raise _refused(path, "has a name that is not UTF-8; rename it") from None
                mode = item.stat(follow_symlinks=False).st_mode
                if stat.S_ISDIR(mode):
                    waiting.append((path, f"{name}/"))
                elif stat.S_ISREG(mode):
                    found[name] = path
                elif stat.S_ISLNK(mode):
                    raise _refused(path, "is a symbolic link; put the file itself there")
                else:
                    raise _refused(path, "is a special file; only regular files can be kept")
    return {name: found[name] for name in sorted(found, key=str.encode)}


def _refused(path: Path, why: str) -> InvalidInputError:
    return InvalidInputError(
        f"{display_name(str(path))} {why}.",
        kind="invalid-path",
        details={"path": display_name(str(path))},
    )
