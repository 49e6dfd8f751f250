"""``recall add --from-dandi``: a dandiset in the catalog without a byte downloaded."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from archives import CONTENT, corrupted, dandi_of, in_client, token_variable
from conftest import Lab
from recallfs.cli.app import main
from recallfs.testing.dandi import DandiServer
from recallfs.testing.misbehaviour import Fault

needs_client = pytest.mark.skipif(
    sys.version_info < (3, 11), reason="the DANDI client needs Python 3.11"
)


@pytest.fixture
def dandi(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Iterator[DandiServer]:
    """Serve an archive that the lab uses."""
    with dandi_of(lab, monkeypatch) as server:
        yield server


@pytest.fixture
def dandiset(lab: Lab, dandi: DandiServer) -> str:
    """Give a dandiset with two files, one of an odd name, and a zarr asset."""
    folder = lab.base / "served"
    (folder / "z.zarr" / "0").mkdir(parents=True)
    (folder / "z.zarr" / "0" / "0").write_bytes(b"chunk")
    (folder / "z.zarr" / ".zarray").write_text("{}")
    for name in ("a", "b"):
        (folder / name).write_bytes(CONTENT + name.encode())
    identifier = dandi.add_dandiset()
    dandi.add_asset(identifier, "sub-1/a.nwb", folder / "a")
    dandi.add_asset(identifier, "sub-2/b ü.nwb", folder / "b")
    dandi.add_zarr(identifier, "sub-2/z.zarr", folder / "z.zarr")
    return identifier


ALL = ["sub-1/a.nwb", "sub-2/b ü.nwb", "sub-2/z.zarr/.zarray", "sub-2/z.zarr/0/0"]


def add(*words: str, capfd: pytest.CaptureFixture[str], code: int = 0) -> str:
    """Run the command here and return what it printed, on either stream."""
    assert main(["add", *words]) == code
    said = capfd.readouterr()
    assert "Traceback" not in said.err
    return said.out + said.err


def paths(lab: Lab) -> list[str]:
    return sorted(entry.path for entry in lab.store.catalog.entries_below(""))


def test_nothing_is_downloaded(
    lab: Lab, dandi: DandiServer, dandiset: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """Every file becomes an entry, zarr assets as folders, and the bucket is not asked for any."""
    said = add("--from-dandi", dandiset, "--to", "recall://lab/archive", capfd=capfd)
    assert "Catalogued 4 files" in said
    assert paths(lab) == [f"archive/{path}" for path in ALL]
    assert not dandi.bucket.log
    assert not list(lab.root.glob("archive/**/*"))
    lab.cli("get", "recall://lab/archive/sub-1/a.nwb")
    assert (lab.root / "archive/sub-1/a.nwb").read_bytes() == CONTENT + b"a"


@pytest.mark.namespaces
def test_other_commands_cope(lab: Lab, dandi: DandiServer, dandiset: str) -> None:
    """Entries that were never here are listed, shown, examined and read like released ones."""
    dandi.knows_sha256 = False
    (lab.base / "served" / "c").write_bytes(CONTENT + b"c")
    dandi.add_asset(dandiset, "sub-3/c.nwb", lab.base / "served" / "c")
    lab.cli("add", "--from-dandi", dandiset, "--to", "recall://lab")
    assert lab.cli_json("status")["stores"][0]["states"]["released"]["files"] == 5
    found = {item["id"] for item in lab.cli_json("doctor", check=False)["findings"]}
    assert found <= {"vault-same-disk", "hdf5-version"}
    lab.cli("verify", "recall://lab")
    lab.cli("verify", "--deep", "recall://lab")
    lab.cli("catalog", "rebuild", "lab")
    for path in ("sub-1/a.nwb", "sub-3/c.nwb", "sub-2/z.zarr/0/0"):
        assert "released" in lab.cli("show", f"recall://lab/{path}").stdout
        lab.cli_json("show", f"recall://lab/{path}")
        lab.cli("explain", f"recall://lab/{path}")
    files = fsspec.filesystem("recall", skip_instance_cache=True)
    assert files.ls("recall://lab/sub-2", detail=False) == ["lab/sub-2/b ü.nwb", "lab/sub-2/z.zarr"]
    assert files.info("recall://lab/sub-3/c.nwb")["size"] == len(CONTENT) + 1
    assert files.cat("recall://lab/sub-2/z.zarr/0/0") == b"chunk"
    assert files.cat("recall://lab/sub-3/c.nwb") == CONTENT + b"c"
    lab.cli("verify", "--deep", "recall://lab")


def test_glob(lab: Lab, dandiset: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Only matching paths are taken, also inside zarr assets; none at all is said."""
    add("--from-dandi", dandiset, "--to", "recall://lab", "--path", "sub-1/*", capfd=capfd)
    assert paths(lab) == ALL[:1]
    add("--from-dandi", dandiset, "--to", "recall://lab", "--path", "sub-2/z.zarr/0/*", capfd=capfd)
    assert paths(lab) == [ALL[0], ALL[3]]
    add("--from-dandi", dandiset, "--to", "recall://lab", "--path", "*.zarr", capfd=capfd)
    assert paths(lab) == [ALL[0], *ALL[2:]]
    said = add(
        "--from-dandi", dandiset, "--to", "recall://lab", "--path", "sub-9/*", capfd=capfd, code=10
    )
    assert "no file that matches" in said


def test_repeated(
    lab: Lab, dandi: DandiServer, dandiset: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """Catalogued again, what is unchanged is passed over, and what a draft changed is said."""
    words = ("--from-dandi", dandiset, "--to", "recall://lab")
    add(*words, capfd=capfd)
    before = {path: lab.entry(path) for path in ALL}
    assert "Catalogued 0 files" in add(*words, capfd=capfd)
    dandi.change_draft(dandiset, ALL[0], corrupted(lab.base / "served" / "a"))
    said = add(*words, capfd=capfd, code=1)
    assert "has other bytes now" in said
    assert {path: lab.entry(path) for path in ALL} == before


def test_published_version_is_known_by_a_later_one(
    lab: Lab, dandi: DandiServer, dandiset: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """Without a version the newest published one is taken; the same bytes get another place."""
    add("--from-dandi", f"{dandiset}@draft", "--to", "recall://lab", capfd=capfd)
    version = dandi.publish(dandiset)
    said = add("--from-dandi", dandiset, "--to", "recall://lab", capfd=capfd)
    assert f"{dandiset}@{version}" in said
    copies = lab.cli_json("show", "recall://lab/sub-1/a.nwb")["copies"]
    assert [copy["content_addressed"] for copy in copies] == [False, True]
    assert all(copy["verified_at"] == "" for copy in copies)


def test_conflicts(
    lab: Lab, dandi: DandiServer, dandiset: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """What stands at a path stays: an entry with other bytes, and a file nobody catalogued."""
    (lab.root / "sub-2").mkdir()
    lab.add(ALL[0], b"mine")
    (lab.root / ALL[1]).write_bytes(b"not in the catalog")
    said = add("--from-dandi", dandiset, "--to", "recall://lab", capfd=capfd, code=1)
    assert "is an entry with other bytes already" in said
    assert "is not in the catalog" in said
    assert (lab.root / ALL[0]).read_bytes() == b"mine"
    assert paths(lab) == [ALL[0], *ALL[2:]]


def test_same_bytes_here_already(
    lab: Lab, dandiset: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """A file that is here with the same bytes gets the archive on record as a copy."""
    lab.add(ALL[0], CONTENT + b"a")
    add("--from-dandi", dandiset, "--to", "recall://lab", capfd=capfd)
    assert lab.entry(ALL[0]).state.value == "resident"
    copies = lab.cli_json("show", f"recall://lab/{ALL[0]}")["copies"]
    assert [copy["source"] for copy in copies] == ["dandi"]


@pytest.mark.parametrize("path", ["../out.nwb", "sub-1/../../out.nwb", ".recall/x", "a//b.nwb"])
def test_paths_that_are_none(
    lab: Lab, dandi: DandiServer, dandiset: str, path: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """An asset whose path leaves the store, or is none, is refused; the others are catalogued."""
    dandi.add_asset(dandiset, path, lab.base / "served" / "a")
    add("--from-dandi", dandiset, "--to", "recall://lab/in", capfd=capfd, code=1)
    assert paths(lab) == [f"in/{each}" for each in ALL]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("999999",), "has no dandiset 999999"),
        (("000001@0.1.2",), "has no version 0.1.2; its newest is draft"),
        (("no-dandiset",), "is no dandiset; write six digits"),
        (("000001", "some/path"), "either PATH or --from-dandi"),
    ],
)
@pytest.mark.usefixtures("dandiset")
def test_refused(
    lab: Lab, words: tuple[str, ...], said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """What does not exist is refused in one sentence, and nothing is catalogued."""
    assert said in add("--from-dandi", *words, "--to", "recall://lab", capfd=capfd, code=10)
    assert paths(lab) == []


def test_archive_that_is_none(
    lab: Lab,
    dandi: DandiServer,
    dandiset: str,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A web page, and an instance that nobody knows, are said in one sentence."""
    dandi.fail(Fault(html=True))
    assert "web page" in add("--from-dandi", dandiset, "--to", "recall://lab", capfd=capfd, code=30)
    monkeypatch.setenv("DANDI_INSTANCE", "dandi-sandbx")
    said = add("--from-dandi", dandiset, "--to", "recall://lab", capfd=capfd, code=30)
    assert "did you mean 'dandi-sandbox'" in said
    monkeypatch.setenv("RECALLFS_SOURCES__DANDI__ENABLED", "false")
    assert "turned off" in add(
        "--from-dandi", dandiset, "--to", "recall://lab", capfd=capfd, code=10
    )


def test_embargoed(
    lab: Lab, dandi: DandiServer, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An embargoed dandiset needs the token, whose variable is named."""
    file = lab.base / "secret"
    file.write_bytes(CONTENT)
    dandiset = dandi.add_dandiset(embargoed=True)
    dandi.add_asset(dandiset, "a.nwb", file)
    words = ("--from-dandi", dandiset, "--to", "recall://lab")
    assert f"set {token_variable(dandi)}" in add(*words, capfd=capfd, code=40)
    monkeypatch.setenv(token_variable(dandi), "wrong-token")
    said = add(*words, capfd=capfd, code=40)
    assert "does not accept" in said
    assert "wrong-token" not in said
    monkeypatch.setenv(token_variable(dandi), dandi.token)
    add(*words, "--json", capfd=capfd)
    assert paths(lab) == ["a.nwb"]


def test_interrupted(lab: Lab, dandi: DandiServer, capfd: pytest.CaptureFixture[str]) -> None:
    """A listing that breaks off half-way keeps what was catalogued; the next one goes on."""
    file = lab.base / "one"
    file.write_bytes(CONTENT)
    dandiset = dandi.add_dandiset()
    for number in range(210):
        dandi.add_asset(dandiset, f"sub-{number:03}/a.nwb", file)
    words = ("--from-dandi", dandiset, "--to", "recall://lab")
    dandi.fail(Fault(where="*/assets/", skip=1, times=1, status=429, retry_after="0"))
    dandi.fail(Fault(where="*/assets/", skip=2, status=403))
    add(*words, capfd=capfd, code=40)
    assert 200 <= len(paths(lab)) < 210
    dandi.heal()
    add(*words, capfd=capfd)
    assert len(paths(lab)) == 210


@pytest.mark.parametrize("kill_at", ["record.renamed", "catalog.recorded"])
def test_killed(lab: Lab, dandiset: str, kill_at: str) -> None:
    """Killed at each step, a second run makes it whole."""
    lab.cli("add", "--from-dandi", dandiset, "--to", "recall://lab", kill_at=kill_at, check=False)
    lab.cli("add", "--from-dandi", dandiset, "--to", "recall://lab")
    assert paths(lab) == ALL
    lab.cli("verify", "recall://lab")


@needs_client
def test_as_the_client_lists_it(
    lab: Lab, dandi: DandiServer, dandiset: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """What the DANDI client lists is what is catalogued: paths, sizes and digests."""
    add("--from-dandi", dandiset, "--to", "recall://lab", capfd=capfd)
    code = """
import json, sys
from dandi.dandiapi import DandiAPIClient
from dandi.consts import DandiInstance
client = DandiAPIClient(dandi_instance=DandiInstance("loopback", None, sys.argv[1]))
listed = {}
for asset in client.get_dandiset(sys.argv[2], "draft").get_assets():
    if asset.asset_type.name == "ZARR":
        for file in asset.iterfiles():
            listed[f"{asset.path}/{file}"] = [file.size, file.digest.value]
    else:
        digests = asset.get_raw_metadata()["digest"]
        listed[asset.path] = [asset.size, digests["dandi:sha2-256"]]
print(json.dumps(listed))
"""
    listed = json.loads(in_client(code, dandi.api_url, dandiset))
    ours = {}
    for path in paths(lab):
        record = lab.cli_json("show", f"recall://lab/{path}")
        ours[path] = [
            record["entry"]["size_bytes"],
            record["entry"]["sha256"] or record["dandi_etag"],
        ]
    assert listed == ours
    assert sorted(listed) == ALL


@needs_client
def test_what_the_client_uploaded(
    lab: Lab, dandi: DandiServer, capfd: pytest.CaptureFixture[str]
) -> None:
    """A file that the DANDI client uploaded is catalogued and comes back."""
    place = lab.base / "up" / "sub-1" / "a.txt"
    place.parent.mkdir(parents=True)
    place.write_bytes(CONTENT)
    dandiset = dandi.add_dandiset()
    code = """
import sys
from pathlib import Path
from dandi.dandiapi import DandiAPIClient
from dandi.consts import DandiInstance
instance = DandiInstance("loopback", None, sys.argv[1])
client = DandiAPIClient(dandi_instance=instance, token=sys.argv[2])
dandiset = client.get_dandiset(sys.argv[3], "draft")
dandiset.upload_raw_asset(Path(sys.argv[4]), {"path": "sub-1/a.txt"})
"""
    in_client(code, dandi.api_url, dandi.token, dandiset, place)
    add("--from-dandi", dandiset, "--to", "recall://lab", capfd=capfd)
    lab.cli("get", "recall://lab/sub-1/a.txt")
    assert (lab.root / "sub-1/a.txt").read_bytes() == CONTENT


def test_here_by_default(
    lab: Lab, dandiset: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without --to the files go where the caller is; that must be in a store."""
    (lab.root / "here").mkdir()
    monkeypatch.chdir(lab.root / "here")
    add("--from-dandi", dandiset, "--path", "sub-1/*", capfd=capfd)
    assert paths(lab) == ["here/sub-1/a.nwb"]
    monkeypatch.chdir(Path("/"))
    assert "is in no store" in add("--from-dandi", dandiset, capfd=capfd, code=17)
