"""Outputs of recipes: files, and folders whose every file is an output by itself.

A recipe declares a folder by a name that ends in ``/``. What a run writes below it is named
``<declared name><path below the folder>``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from recallfs.digest.listing import list_folder
from recallfs.values import Derivation, OutputRef

NAME_LENGTH = 256
"""Characters that an output's name has at most, with the path below its folder."""


def is_folder(name: str) -> bool:
    """Tell whether a recipe declared this output as a folder."""
    return name.endswith("/")


def declared_name(name: str) -> str:
    """Return the declared output that a file is, or lies in."""
    folder, separator, _ = name.partition("/")
    return folder + separator


def declared_names(names: Iterable[str]) -> tuple[str, ...]:
    """Return the declared outputs of which these are files, each once."""
    return tuple(dict.fromkeys(map(declared_name, names)))


def path_below(name: str) -> str:
    """Return the path below its folder of a file; empty for an output that is a file."""
    return name.partition("/")[2]


def output_path(name: str, targets: Mapping[str, str]) -> str:
    """Return the store path of a file, given those of the declared outputs."""
    target = targets[declared_name(name)]
    return f"{target}/{path_below(name)}" if path_below(name) else target


def folder_path(name: str, path: str) -> str:
    """Return the store path of a file's declared output, given the file's own."""
    below = path_below(name)
    return path.removesuffix(f"/{below}") if below else path


def written_files(outputs: Mapping[str, Path]) -> dict[str, Path]:
    """List what a run wrote.

    Parameters
    ----------
    outputs : Mapping of str to Path
        Place of each declared output.

    Returns
    -------
    dict of str to Path
        Every file by its name; those of a folder in path order.

    Raises
    ------
    InvalidInputError
        Something in a folder is no regular file.
    """
    found: dict[str, Path] = {}
    for name, place in outputs.items():
        if is_folder(name):
            found.update({name + path: file for path, file in list_folder(place).items()})
        else:
            found[name] = place
    return found


def leading_names(names: Iterable[str]) -> frozenset[str]:
    """Return the outputs that every record of a derivation names: files, and each folder's first.

    A record that named each file of a folder would grow with the folder, and all of them together
    with its square. These few say which outputs to ask the recipe for.
    """
    ordered = sorted(names, key=str.encode)
    return frozenset({declared_name(name): name for name in reversed(ordered)}.values())


def gives_several(derivation: Derivation) -> bool:
    """Tell whether a run gives more files than one."""
    # The record of a folder's first file names no other file.
    names = [item.name for item in derivation.outputs]
    return len(names) > 1 or any(path_below(name) for name in names)


def recorded_outputs(references: Iterable[OutputRef], own: str) -> tuple[OutputRef, ...]:
    """Return the outputs that the record of one of them names: itself and the leading ones."""
    given = tuple(references)
    named = {own, *leading_names(item.name for item in given)}
    return tuple(item for item in given if item.name in named)


def in_commit_order(names: Iterable[str]) -> list[str]:
    """Order outputs so that a run that is cut short is seen to be: the leading ones come last.

    Every record names them; as long as they are not there, the derivation is not complete.
    """
    given = list(names)
    leading = leading_names(given)
    return sorted(given, key=lambda name: name in leading)
