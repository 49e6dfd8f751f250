"""``recall push --to kachery``: by the real client, read back, and no hang, secret or damage."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator

import pytest

from archives import CONTENT, corrupted, in_client, kachery_of
from conftest import Lab
from recallfs.cli.app import main
from recallfs.testing.kachery import KacheryServer
from recallfs.testing.misbehaviour import Fault

URL = "recall://lab/sub-1/a ü.nwb"
PATH = "sub-1/a ü.nwb"


@pytest.fixture
def kachery(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Iterator[KacheryServer]:
    """Serve a gateway that the lab uses, with a client's keys and a file to push."""
    with kachery_of(lab, monkeypatch) as server:
        in_client("import kachery_cloud; kachery_cloud.get_client_id(generate_if_missing=True)")
        lab.add(PATH, CONTENT)
        yield server


def refused(lab: Lab) -> str:
    """Push, which must fail, and return what was said."""
    done = lab.cli("push", URL, "--to", "kachery", check=False)
    assert done.returncode != 0
    said = done.stdout + done.stderr
    assert "Traceback" not in said
    assert "ignature=" not in said
    assert (lab.root / PATH).read_bytes() == CONTENT
    assert lab.cli_json("show", URL)["copies"] == []
    return said


def test_pushed_and_loaded_by_the_client(lab: Lab, kachery: KacheryServer) -> None:
    """What was pushed is loaded by the real client, is a copy on record, and comes back."""
    before = (lab.root / PATH).stat()
    keys = {path.name: path.read_bytes() for path in (lab.base / "kachery").glob("*.pem")}
    lab.cli("push", URL, "--to", "kachery")
    after = (lab.root / PATH).stat()
    assert (before.st_ino, before.st_mode, before.st_nlink) == (
        after.st_ino, after.st_mode, after.st_nlink,
    )  # fmt: skip
    # The client left nothing of its own: no memory of digests, no cache, no other keys.
    assert {p.name: p.read_bytes() for p in (lab.base / "kachery").iterdir() if p.is_file()} == keys
    (copy,) = lab.cli_json("show", URL)["copies"]
    assert copy["source"] == "kachery"
    assert copy["content_addressed"]
    assert copy["verified_at"]
    code = (
        "import sys, kachery_cloud; print(kachery_cloud.load_file(sys.argv[1], dest=sys.argv[2]))"
    )
    in_client(code, copy["location"], lab.base / "loaded")
    assert (lab.base / "loaded").read_bytes() == CONTENT
    assert lab.cli_json("push", URL, "--to", "kachery")["files"][0]["status"] == "there"
    assert lab.cli_json("verify", "--remote", URL, check=False)["mismatches"] == []
    lab.write_config("[release]\ncopies = 1\n")
    lab.cli("release", URL, "--yes", "--hold", "0s")
    lab.cli("release", "--purge")
    assert not (lab.root / PATH).exists()
    lab.cli("get", URL)
    assert (lab.root / PATH).read_bytes() == CONTENT


def test_the_client_s_memory_is_not_trusted(lab: Lab, kachery: KacheryServer) -> None:
    """A digest that the client remembers for other bytes of the same size and time is not used."""
    place = lab.root / PATH
    other = lab.base / "other"
    other.write_bytes(corrupted(lab.root / PATH).read_bytes())
    (lab.root / f"{PATH}-corrupt").unlink()
    content, status = place.read_bytes(), place.stat()
    place.write_bytes(other.read_bytes())
    os.utime(place, ns=(status.st_atime_ns, status.st_mtime_ns))
    code = (
        "import sys; from kachery_cloud.store_file_local import _compute_file_hash as take;"
        "print(take(sys.argv[1], 'sha1'))"
    )
    in_client(code, place)
    place.write_bytes(content)
    os.utime(place, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert in_client(code, place) != lab.entry(PATH).sha1
    lab.cli("push", URL, "--to", "kachery")
    assert any(lab.entry(PATH).sha1 in key for key in kachery.bucket.objects)


def test_no_keys(lab: Lab, kachery: KacheryServer) -> None:
    """Without keys one is told how to get some."""
    for path in (lab.base / "kachery").glob("*.pem"):
        path.unlink()
    assert "`kachery-cloud-init` makes and registers some" in refused(lab)


def test_unregistered(lab: Lab, kachery: KacheryServer) -> None:
    """A client that the gateway does not know is told to register."""
    kachery.clients = set()
    assert "does not know this client" in refused(lab)


def test_malformed_keys(lab: Lab, kachery: KacheryServer) -> None:
    """Keys that are none are said to be so."""
    (lab.base / "kachery" / "private.pem").write_text("-----BEGIN NOTHING-----\nx\n-----END-----\n")
    assert "are malformed" in refused(lab)


@pytest.mark.parametrize("offset_s", [3600.0, -60.0])
def test_clock(lab: Lab, kachery: KacheryServer, offset_s: float) -> None:
    """A clock that is too far off for a signature is named as the reason."""
    kachery.clock_offset_s = offset_s
    said = refused(lab)
    assert "set the clock" in said


def test_other_bytes_there(lab: Lab, kachery: KacheryServer) -> None:
    """Wrong bytes under the right name are told, and are no copy."""
    wrong = corrupted(lab.root / PATH)
    kachery.add_file(wrong, sha1=lab.entry(PATH).sha1)
    wrong.rename(lab.base / "wrong")
    kachery.add_file(lab.base / "wrong", sha1=lab.entry(PATH).sha1)
    assert "holds other bytes" in refused(lab)


@pytest.mark.parametrize(
    "fault", [Fault(method="PUT", stall=True), Fault(method="PUT", status=500)]
)
def test_broken_bucket(lab: Lab, kachery: KacheryServer, fault: Fault) -> None:
    """A bucket that stalls or refuses ends in an error in time, without the presigned URL."""
    lab.write_config('[sources.kachery]\ntotal_timeout = "4s"\n')
    kachery.bucket.fail(fault)
    start = time.monotonic()
    said = refused(lab)
    assert time.monotonic() - start < 10
    assert "?" not in said


def test_corrupted_on_the_way(lab: Lab, kachery: KacheryServer) -> None:
    """What reads back as other bytes is no copy."""
    kachery.bucket.fail(Fault(method="GET", flip_at=(17,)))
    assert "sha256" in refused(lab)


def test_client_that_is_not_installed(
    lab: Lab,
    kachery: KacheryServer,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Without the client pushing says what to install; looking up goes on without it."""
    monkeypatch.setitem(sys.modules, "kachery_cloud", None)
    assert main(["push", URL, "--to", "kachery"]) == 10
    assert "recallfs[kachery]" in capfd.readouterr().err
    kept = lab.root.joinpath(PATH).rename(lab.base / "kept")
    kachery.add_file(kept)
    assert main(["get", URL]) == 0
    assert (lab.root / PATH).read_bytes() == CONTENT
