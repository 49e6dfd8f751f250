"""``recall digest``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from recallfs.cli.output import byte_bar, print_json, print_table, say
from recallfs.digest.folder import folder_digest
from recallfs.digest.hdf5 import ContentDigest, content_digest
from recallfs.digest.listing import list_folder
from recallfs.digest.rules import KNOWN, Rules, find_rules
from recallfs.digest.stream import digest_file
from recallfs.errors import InvalidInputError
from recallfs.hdf5.access import has_signature
from recallfs.values import Digests

BYTES = ("sha256", "sha1", "dandi-etag")
FILE_SCHEMES = (*BYTES, "h5c1")
SCHEMES = (*FILE_SCHEMES, "fdm1")


@click.command(name="digest")
@click.argument(
    "files",
    metavar="FILE...",
    nargs=-1,
    required=True,
    type=click.Path(path_type=Path),
)
@click.option(
    "--scheme",
    "schemes",
    multiple=True,
    type=click.Choice(SCHEMES),
    help="Only this digest; can be repeated. By default all, h5c1 for HDF5 files, fdm1 for "
    "folders.",
)
@click.option(
    "--rules",
    "rules_name",
    default="strict",
    show_default=True,
    metavar="RULES",
    help=f"What h5c1 and fdm1 leave out: {', '.join(KNOWN)}, or a TOML file of your own.",
)
@click.option(
    "--objects", is_flag=True, help="Show the digest of each HDF5 object or file of a folder."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    files: tuple[Path, ...],
    schemes: tuple[str, ...],
    rules_name: str,
    objects: bool,
    as_json: bool,
) -> None:
    """Digest files: their bytes, and the content of HDF5 files and folders. Needs no store.

    The content digest `h5c1` is equal for files that hold the same, whatever their chunks,
    compression, order of writing or library version. That of a folder, `fdm1`, goes by the content
    of HDF5, JSON and NumPy files in it and by the bytes of the others.

    Example: recall digest recording.nwb --rules nwb
    """
    rules = find_rules(rules_name)
    rows = []
    for path in files:
        if path.is_dir():
            rows.append(_digested_folder(path, schemes, rules, quiet=as_json))
        elif path.is_file():
            rows.append(_digested(path, schemes, rules, quiet=as_json))
        else:
            raise InvalidInputError(
                f"{path} is not there, or is neither file nor folder.", kind="invalid-path"
            )
    if as_json:
        print_json({"files": rows})
        return
    for row in rows:
        say(f"{row['path']} ({row['size_bytes']:,} bytes)")
        print_table(["", ""], [[scheme, row[scheme]] for scheme in SCHEMES if row.get(scheme)])
        for heading, items in (("object", row["objects"]), ("file", row["files"])):
            if objects and items is not None:
                rest = [[item["path"], item["kind"], item["digest"]] for item in items]
                print_table([heading, "kind", "digest"], rest)


def _digested(path: Path, schemes: tuple[str, ...], rules: Rules, *, quiet: bool) -> dict[str, Any]:
    if "fdm1" in schemes:
        raise InvalidInputError(f"{path} is a file; fdm1 is for folders.")
    wanted = schemes or (FILE_SCHEMES if has_signature(path) else BYTES)
    content: ContentDigest | None = None
    digests: Digests | None = None
    if set(wanted) & set(BYTES):
        with byte_bar(f"digesting {path.name}", path.stat().st_size, quiet=quiet) as progress:
            digests = digest_file(path, progress=progress, dandi_etag="dandi-etag" in wanted)
    if "h5c1" in wanted:
        with byte_bar(f"reading {path.name}", 0, quiet=quiet) as progress:
            content = content_digest(path, rules, progress=progress)
    found = {
        "sha256": digests and digests.sha256,
        "sha1": digests and digests.sha1,
        "dandi-etag": digests and digests.dandi_etag,
        "h5c1": content and str(content),
        "fdm1": None,
    }
    return {
        "path": str(path),
        "size_bytes": path.stat().st_size,
        **{scheme: value if scheme in wanted else None for scheme, value in found.items()},
        "objects": content
        and [
            {"path": name, **item.to_json(), "digest": item.digest}
            for name, item in content.objects.items()
        ],
        "files": None,
    }


def _digested_folder(
    folder: Path, schemes: tuple[str, ...], rules: Rules, *, quiet: bool
) -> dict[str, Any]:
    others = [scheme for scheme in schemes if scheme != "fdm1"]
    if others:
        raise InvalidInputError(f"{folder} is a folder; {others[0]} is for files.")
    size_bytes = sum(path.stat().st_size for path in list_folder(folder).values())
    with byte_bar(f"reading {folder.name}", size_bytes, quiet=quiet) as progress:
        found = folder_digest(folder, rules, progress=progress)
    return {
        "path": str(folder),
        "size_bytes": size_bytes,
        **dict.fromkeys(FILE_SCHEMES),
        "fdm1": str(found),
        "objects": None,
        "files": [{"path": name, **vars(item)} for name, item in found.files.items()],
    }
