"""Uploads to Kachery, by its own client in a process that can be ended.

The client has no timeouts, prints presigned URLs and trusts its memory of a file's sha1; so it runs
apart, with a folder of its own, and what it says is not passed on.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from recallfs.errors import (
    AccessError,
    IntegrityError,
    InvalidInputError,
    SourceError,
    SourceTimeoutError,
)

LARGEST_BYTES = 5_000_000_000
"""What a presigned PUT takes."""

SLOWEST_BYTES_PER_S = 250_000
"""An upload that is slower is given up."""

START_S = 60.0
"""What an upload may take beside that: the client's start, its questions, its digests."""

_KEYS = ("private.pem", "public.pem")

# Tells what went wrong in words of ours: the client's own may hold a presigned URL.
_PROGRAM = """
import json, sys
def tell(**said):
    sys.__stdout__.write("\\n@" + json.dumps(said) + "\\n")
    sys.__stdout__.flush()
try:
    import kachery_cloud
    tell(uri=kachery_cloud.store_file(sys.argv[1], label=sys.argv[2]))
except BaseException as error:
    text = str(error)
    known = ("Client keys not found", "Client not found", "Invalid signature", "Zone not found",
             "File too large", "Problem in private key", "Problem in public key",
             "KACHERY_CLOUD_PRIVATE_KEY", "No verified client ID", "Unexpected object size",
             "FUNCTION_INVOCATION_FAILED", "not allowed", "permission", "already pending")
    tell(error=type(error).__name__, words=[word for word in known if word in text])
"""


def check_client() -> None:
    """Raise if the client is not installed.

    Raises
    ------
    InvalidInputError
        With what to install.
    """
    if importlib.util.find_spec("kachery_cloud") is None:
        raise InvalidInputError(
            "files are sent to Kachery by its own client, which is not installed; "
            "`pip install 'recallfs[kachery]'` brings it."
        )


def check_keys(folder: Path) -> None:
    """Raise if there are no keys to sign with.

    Raises
    ------
    AccessError
        With how to make some.
    """
    if os.environ.get("KACHERY_CLOUD_CLIENT_ID"):
        if os.environ.get("KACHERY_CLOUD_PRIVATE_KEY"):
            return
        raise AccessError("KACHERY_CLOUD_CLIENT_ID is set; KACHERY_CLOUD_PRIVATE_KEY must be, too.")
    if not all((folder / name).is_file() for name in _KEYS):
        raise AccessError(
            f"there are no keys in {folder} to sign uploads to Kachery with; `kachery-cloud-init` "
            "makes and registers some."
        )


def send(
    file: Path,
    sha1: str,
    *,
    folder: Path,
    gateway: str,
    zone: str,
    label: str,
    timeout_s: float | None = None,
) -> None:
    """Upload a file.

    Parameters
    ----------
    sha1 : str
        Of the file, taken by us.
    folder : Path
        Where the client's keys are; nothing is written there.
    timeout_s : float, optional
        By default what a slow line takes for a file of that size.

    Raises
    ------
    InvalidInputError
        The file is too large.
    AccessError
        Keys are missing, malformed or not registered; or the zone takes no uploads.
    SourceError
        It could not be sent; the client's own words are not repeated.
    """
    size_bytes = file.stat().st_size
    if size_bytes > LARGEST_BYTES:
        raise InvalidInputError(
            f"{file} has {size_bytes} bytes; Kachery takes files up to {LARGEST_BYTES}."
        )
    check_keys(folder)
    limit_s = timeout_s or START_S + size_bytes / SLOWEST_BYTES_PER_S
    with _stage(file, folder) as (link, private):
        said = _run(link, label, _variables(private, gateway, zone), limit_s)
    uri = said.get("uri")
    if not isinstance(uri, str):
        raise _failure(said, zone)
    if not uri.startswith(f"sha1://{sha1}"):
        raise IntegrityError(
            f"{file} was changed while it was sent to Kachery.",
            details={"expected": f"sha1 {sha1}", "actual": uri.partition("?")[0]},
        )


@contextlib.contextmanager
def _stage(file: Path, folder: Path) -> Iterator[tuple[Path, Path]]:
    """Give the client the file under a name that it never saw, and a folder with nothing but keys.

    It would else take the sha1 that it remembers for the file's name, size and time.
    """
    with tempfile.TemporaryDirectory(prefix="recallfs-kachery-") as scratch:
        private = Path(scratch) / "client"
        private.mkdir()
        for name in _KEYS:
            if (folder / name).is_file():
                (private / name).symlink_to((folder / name).absolute())
        link = Path(scratch) / "file"
        link.symlink_to(file.absolute())
        yield link, private


def _variables(private: Path, gateway: str, zone: str) -> dict[str, str]:
    # With the first of these it copies to a folder instead; the second has another folder used.
    unwanted = ("KACHERY_STORE_FILE_DIR", "KACHERY_CLOUD_USE_SANDBOX", "KACHERY_CLOUD_SANDBOX_DIR")
    kept = {name: value for name, value in os.environ.items() if name not in unwanted}
    return {
        **kept,
        "KACHERY_CLOUD_DIR": str(private),
        "KACHERY_GATEWAY_URL": gateway,
        "KACHERY_ZONE": zone,
    }


def _run(
    link: Path,
    label: str,
    variables: Mapping[str, str],
    limit_s: float,
) -> Mapping[str, object]:
    process = subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, str(link), label],
        env=dict(variables),
        cwd=link.parent,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with process:
        try:
            output, _ = process.communicate(timeout=limit_s)
        except subprocess.TimeoutExpired:
            raise SourceTimeoutError(
                f"the upload to Kachery was not done within {limit_s:.0f} s, and was given up.",
                details={"source": "kachery"},
            ) from None
        finally:
            process.kill()
    for line in reversed(output.splitlines()):
        if line.startswith("@"):
            said = json.loads(line[1:])
            return said if isinstance(said, dict) else {}
    return {}


def _failure(said: Mapping[str, object], zone: str) -> AccessError | SourceError:
    """Say in our words what the client said in its own."""
    listed = said.get("words")
    words = " ".join(listed) if isinstance(listed, list) else ""
    details = {"source": "kachery", "error": str(said.get("error", ""))}
    if "Zone not found" in words:
        return SourceError(f"the Kachery gateway knows no zone {zone!r}.", details=details)
    if "Client not found" in words or "No verified client ID" in words:
        return AccessError(
            "the Kachery gateway does not know this client; `kachery-cloud-init` registers it.",
            details=details,
        )
    if "Client keys not found" in words or "Problem in p" in words or "Invalid sig" in words:
        return AccessError(
            "the keys for uploads to Kachery are malformed or do not belong together; "
            "`kachery-cloud-init` in an empty KACHERY_CLOUD_DIR makes new ones.",
            details=details,
        )
    if "not allowed" in words or "permission" in words:
        return AccessError(
            f"the zone {zone} of Kachery takes no uploads from this client.", details=details
        )
    return SourceError(
        f"the Kachery client could not send the file ({details['error'] or 'it ended'}).",
        details={**details, "is_unknown": True},
    )
