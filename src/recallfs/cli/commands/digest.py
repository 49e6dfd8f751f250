"""``recall digest``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from recallfs.cli.output import byte_bar, print_json, print_table, say
from recallfs.digest.hdf5 import ContentDigest, content_digest
from recallfs.digest.rules import KNOWN, Rules, find_rules
from recallfs.digest.stream import digest_file
from recallfs.errors import InvalidInputError
from recallfs.values import Digests

BYTES = ("sha256", "sha1", "dandi-etag")
SCHEMES = (*BYTES, "h5c1")


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
    help="Only this digest; can be repeated. By default all, h5c1 for HDF5 files.",
)
@click.option(
    "--rules",
    "rules_name",
    default="strict",
    show_default=True,
    metavar="RULES",
    help=f"What h5c1 leaves out: {', '.join(KNOWN)}, or a TOML file of your own.",
)
@click.option("--objects", is_flag=True, help="Show the digest of each HDF5 object, too.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    files: tuple[Path, ...],
    schemes: tuple[str, ...],
    rules_name: str,
    objects: bool,
    as_json: bool,
) -> None:
    """Digest files: their bytes, and the content of HDF5 files. Needs no store.

    The content digest `h5c1` is equal for files that hold the same, whatever their chunks,
    compression, order of writing or library version.

    Example: recall digest recording.nwb --rules nwb
    """
    rules = find_rules(rules_name)
    rows = []
    for path in files:
        if not path.is_file():
            raise InvalidInputError(f"{path} is not there, or is no file.", kind="invalid-path")
        rows.append(_digested(path, schemes, rules, quiet=as_json))
    if as_json:
        print_json({"files": rows})
        return
    for row in rows:
        say(f"{row['path']} ({row['size_bytes']:,} bytes)")
        print_table(["", ""], [[scheme, row[scheme]] for scheme in SCHEMES if row.get(scheme)])
        if objects and row["objects"] is not None:
            print_table(
                ["object", "kind", "digest"],
                [[item["path"], item["kind"], item["digest"]] for item in row["objects"]],
            )


def _digested(path: Path, schemes: tuple[str, ...], rules: Rules, *, quiet: bool) -> dict[str, Any]:
    wanted = schemes or (SCHEMES if has_signature(path) else BYTES)
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
    }
