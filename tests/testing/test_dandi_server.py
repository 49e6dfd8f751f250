"""The DANDI server answers as the archive does, over plain HTTP."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from asking import Reply, ask
from recallfs.errors import InvalidInputError
from recallfs.testing.archive import part_sizes
from recallfs.testing.dandi import DandiServer
from recallfs.testing.http import write_sparse
from recallfs.testing.misbehaviour import Fault


@pytest.fixture
def dandi() -> Iterator[DandiServer]:
    """Give a running archive."""
    with DandiServer() as server:
        yield server


def get(server: DandiServer, path: str, token: str = "") -> Reply:
    """GET a path of the API."""
    headers = {"Authorization": f"token {token}"} if token else {}
    return ask(f"{server.api_url}{path}", headers=headers)


def by_digest(server: DandiServer, algorithm: str, value: str) -> Reply:
    """Look a blob up by digest, as nobody in particular."""
    body = {"algorithm": f"dandi:{algorithm}", "value": value}
    return ask(f"{server.api_url}/blobs/digest/", "POST", json_body=body)


def sha256(path: Path) -> str:
    """Digest a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_instance_tells_of_itself(dandi: DandiServer) -> None:
    """The API's info and the web page's look-up lead to the same URL."""
    info = get(dandi, "/info/").json()
    assert info["services"]["api"]["url"] == dandi.api_url
    redirect = ask(f"{dandi.url}/server-info")
    assert (redirect.status, redirect.headers["Location"]) == (302, f"{dandi.api_url}/info/")
    assert ask(f"{dandi.api_url}/nothing/").status == 404
    without_slash = ask(f"{dandi.api_url}/dandisets?page=1")
    assert (without_slash.status, without_slash.headers["Location"]) == (
        301,
        "/api/dandisets/?page=1",
    )


def test_an_asset_is_found_by_path_and_downloaded(dandi: DandiServer, data: Path) -> None:
    """Path, metadata, both content URLs and the download lead to the same bytes."""
    dandiset = dandi.add_dandiset()
    asset = dandi.add_asset(dandiset, "sub-1/data.nwb", data)
    version = f"/dandisets/{dandiset}/versions/draft"
    (found,) = get(dandi, f"{version}/assets/?path=SUB-1/d").json()["results"]
    assert (found["asset_id"], found["size"], found["zarr"]) == (asset, 3_000_000, None)
    metadata = get(dandi, f"{version}/assets/{asset}/").json()
    assert metadata == get(dandi, f"/assets/{asset}/").json()
    assert metadata["digest"]["dandi:sha2-256"] == sha256(data)
    assert metadata["contentSize"] == 3_000_000
    download, bare = metadata["contentUrl"]
    assert download == f"{dandi.api_url}/assets/{asset}/download/"
    assert bare == f"{dandi.bucket.url}/{dandi.bucket_key(asset)}"
    blob = found["blob"]
    assert bare.endswith(f"/blobs/{blob[:3]}/{blob[3:6]}/{blob}")
    part = ask(bare, headers={"Range": "bytes=7-8"})
    assert (part.status, part.body) == (206, data.read_bytes()[7:9])
    redirect = ask(download)
    assert redirect.status == 302
    signed = ask(redirect.headers["Location"])
    assert signed.body == data.read_bytes()
    assert signed.headers["ETag"] == f'"{metadata["digest"]["dandi:dandi-etag"]}"'
    assert signed.headers["Content-Disposition"] == 'attachment; filename="data.nwb"'
    # A GET is what was signed.
    assert ask(redirect.headers["Location"], "HEAD").status == 403


def test_a_blob_is_found_by_digest(dandi: DandiServer, data: Path) -> None:
    """By dandi-etag at once, by sha256 once it was computed, by nothing else."""
    dandi.knows_sha256 = False
    dandiset = dandi.add_dandiset()
    asset = dandi.add_asset(dandiset, "data.nwb", data)
    digest = get(dandi, f"/assets/{asset}/").json()["digest"]
    assert set(digest) == {"dandi:dandi-etag"}
    assert by_digest(dandi, "sha2-256", sha256(data)).status == 404
    assert by_digest(dandi, "sha2-256", "").status == 404
    early = by_digest(dandi, "dandi-etag", digest["dandi:dandi-etag"]).json()
    assert (early["size"], early["sha256"]) == (3_000_000, None)
    dandi.compute_sha256()
    late = by_digest(dandi, "sha2-256", sha256(data)).json()
    assert late == {**early, "sha256": sha256(data)}
    assert by_digest(dandi, "sha1", "0" * 40).status == 400
    assert set(get(dandi, f"/assets/{asset}/").json()["digest"]) == set(digest) | {"dandi:sha2-256"}


def test_drafts_change_and_versions_do_not(dandi: DandiServer, data: Path, tmp_path: Path) -> None:
    """A changed draft has a new asset; the published version and the old id keep the old bytes."""
    dandiset = dandi.add_dandiset()
    old = dandi.add_asset(dandiset, "data.nwb", data)
    version = dandi.publish(dandiset)
    assert re.fullmatch(r"0\.\d{6}\.\d{4}", version)
    assert dandi.publish(dandiset) != version
    (tmp_path / "other").write_bytes(b"other")
    new = dandi.change_draft(dandiset, "data.nwb", tmp_path / "other")

    def asset_of(version: str) -> Any:
        path = f"/dandisets/{dandiset}/versions/{version}/assets/"
        return get(dandi, path).json()["results"][0]["asset_id"]

    assert (asset_of("draft"), asset_of(version)) == (new, old)
    assert "datePublished" in get(dandi, f"/assets/{old}/").json()
    assert "datePublished" not in get(dandi, f"/assets/{new}/").json()
    assert get(dandi, f"/dandisets/{dandiset}/versions/draft/assets/{old}/").status == 404
    assert get(dandi, f"/dandisets/{dandiset}/versions/9.9.9/assets/").status == 404
    about = get(dandi, f"/dandisets/{dandiset}/").json()
    assert about["most_recent_published_version"]["version"].startswith("0.")
    assert about["draft_version"]["status"] == "Valid"
    dandi.remove_asset(dandiset, "data.nwb")
    assert get(dandi, f"/dandisets/{dandiset}/versions/draft/assets/").json()["count"] == 0
    with pytest.raises(InvalidInputError):
        dandi.change_draft(dandiset, "data.nwb", data)


def test_pages_globs_and_folders(dandi: DandiServer, tmp_path: Path) -> None:
    """Lists come in pages, filtered without regard to case; folders are listed level by level."""
    dandiset = dandi.add_dandiset()
    for number in range(5):
        (tmp_path / f"{number}").write_bytes(bytes([number]))
        dandi.add_asset(dandiset, f"sub-{number % 2}/ses/{number}.nwb", tmp_path / f"{number}")
    base = f"/dandisets/{dandiset}/versions/draft/assets/"
    first = get(dandi, f"{base}?page_size=2&order=-path").json()
    assert (first["count"], first["previous"]) == (5, None)
    assert [each["path"][-5] for each in first["results"]] == ["3", "1"]
    second = ask(first["next"]).json()
    assert (second["count"], len(second["results"])) == (None, 2)
    assert ask(second["next"]).json()["next"] is None
    assert get(dandi, f"{base}?page=2").status == 404
    assert get(dandi, f"{base}?glob=SUB-0/*.nwb").json()["count"] == 3
    assert get(dandi, f"{base}?glob=*.txt").json()["count"] == 0
    assert "metadata" in get(dandi, f"{base}?metadata=true").json()["results"][0]
    folders = get(dandi, f"{base}paths/?path_prefix=sub-1").json()["results"]
    assert [(each["path"], each["aggregate_files"]) for each in folders] == [("sub-1/ses", 2)]
    (leaf, _) = get(dandi, f"{base}paths/?path_prefix=sub-1/ses/").json()["results"]
    assert leaf["asset"]["url"].startswith(dandi.bucket.url)
    assert get(dandi, f"{base}paths/?path_prefix=nothing").status == 404


def test_embargo(dandi: DandiServer, data: Path) -> None:
    """Only the owner sees an embargoed dandiset; its bare URL is closed, its signed one open."""
    dandiset = dandi.add_dandiset(embargoed=True)
    asset = dandi.add_asset(dandiset, "data.nwb", data)
    other = dandi.add_user("other")
    paths = [
        f"/dandisets/{dandiset}/",
        f"/dandisets/{dandiset}/versions/draft/assets/",
        f"/dandisets/{dandiset}/versions/draft/assets/{asset}/",
        f"/assets/{asset}/",
        f"/assets/{asset}/download/",
    ]
    for path in paths:
        statuses = [get(dandi, path, token).status for token in ("", other, dandi.token)]
        assert statuses == [401, 403, 302 if path.endswith("download/") else 200], path
    assert get(dandi, "/dandisets/").json()["count"] == 0
    assert get(dandi, "/dandisets/", dandi.token).json()["count"] == 1
    bare = get(dandi, f"/assets/{asset}/", dandi.token).json()["contentUrl"][1]
    assert ask(bare).status == 403
    signed = get(dandi, f"/assets/{asset}/download/", dandi.token).headers["Location"]
    assert ask(signed).body == data.read_bytes()
    assert ask(signed, headers={"Authorization": "token x"}).status == 400
    with pytest.raises(InvalidInputError):
        dandi.publish(dandiset)


def test_a_wrong_token_is_refused_everywhere(dandi: DandiServer, data: Path) -> None:
    """Even what is public is not given to somebody whose token is wrong."""
    dandiset = dandi.add_dandiset()
    dandi.add_asset(dandiset, "data.nwb", data)
    for path in ("/auth/token/", f"/dandisets/{dandiset}/", "/info/"):
        reply = get(dandi, path, "wrong")
        assert (reply.status, reply.json()) == (401, {"detail": "Invalid token."})
    assert get(dandi, "/auth/token/").status == 401
    assert get(dandi, "/auth/token/", dandi.token).json() == dandi.token


def test_zarrs(dandi: DandiServer, tmp_path: Path) -> None:
    """A zarr is listed in pages, by a prefix that is plain text, and its files redirect."""
    folder = tmp_path / "x.zarr"
    for name, text in {".zgroup": "{}", "0/0": "a", "0/1": "bb", "01/0": "ccc"}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    dandiset = dandi.add_dandiset()
    asset = dandi.add_zarr(dandiset, "x.zarr", folder)
    about = get(dandi, f"/assets/{asset}/info/").json()
    assert (about["blob"], about["size"]) == (None, 8)
    zarr = f"/zarr/{about['zarr']}"
    checksum = get(dandi, f"{zarr}/").json()["checksum"]
    assert about["metadata"]["digest"] == {"dandi:dandi-zarr-checksum": checksum}
    assert checksum.endswith("-4--8")
    first = get(dandi, f"{zarr}/files/?limit=3").json()
    assert [each["Key"] for each in first["results"]] == [".zgroup", "0/0", "0/1"]
    assert first["results"][1]["ETag"] == hashlib.md5(b"a").hexdigest()  # noqa: S324
    rest = ask(first["next"]).json()
    assert ([each["Key"] for each in rest["results"]], rest["next"]) == (["01/0"], None)
    keys = [each["Key"] for each in get(dandi, f"{zarr}/files/?prefix=0/").json()["results"]]
    assert keys == ["0/0", "0/1", "01/0"]
    redirect = get(dandi, f"{zarr}/files/?prefix=0/1&download=true")
    assert (redirect.status, ask(redirect.headers["Location"]).body) == (302, b"bb")
    head = ask(f"{dandi.api_url}{zarr}/files/?prefix=0/1", "HEAD")
    assert ask(head.headers["Location"], "HEAD").headers["Content-Length"] == "2"
    assert ask(f"{about['metadata']['contentUrl'][1]}0/1").body == b"bb"
    assert get(dandi, f"/assets/{asset}/download/").status == 400
    assert get(dandi, f"/zarr/?dandiset={dandiset}&name=x.zarr").json()["count"] == 1


def test_faults_and_expiry(dandi: DandiServer, data: Path) -> None:
    """The API and the bucket fail apart from each other, and signed URLs end."""
    dandiset = dandi.add_dandiset()
    asset = dandi.add_asset(dandiset, "data.nwb", data)
    dandi.fail(Fault(where="/api/blobs/*", status=429, retry_after="1", times=1))
    dandi.bucket.fail(Fault(where=f"/{dandi.bucket_key(asset)}", flip_at=(9,), times=1))
    assert by_digest(dandi, "sha2-256", sha256(data)).status == 429
    assert by_digest(dandi, "sha2-256", sha256(data)).status == 200
    dandi.bucket.url_lifetime_s = 0.3
    url = get(dandi, f"/assets/{asset}/download/").headers["Location"]
    assert ask(url).body[9] == data.read_bytes()[9] ^ 0xFF
    time.sleep(0.35)
    assert ask(url).status == 403


def test_files_may_be_large_but_not_empty(dandi: DandiServer, tmp_path: Path) -> None:
    """A sparse file is not read where its digests are given; an empty one is refused."""
    write_sparse(tmp_path / "big", 6 * 10**9)
    (tmp_path / "empty").touch()
    dandiset = dandi.add_dandiset()
    began = time.monotonic()
    etag = f"{'0' * 32}-90"
    asset = dandi.add_asset(dandiset, "big", tmp_path / "big", sha256="1" * 64, etag=etag)
    assert time.monotonic() - began < 5
    assert get(dandi, f"/assets/{asset}/").json()["contentSize"] == 6 * 10**9
    assert len(part_sizes(6 * 10**9)) == 90
    with pytest.raises(InvalidInputError):
        dandi.add_asset(dandiset, "empty", tmp_path / "empty")
    with pytest.raises(InvalidInputError):
        dandi.add_dandiset(dandiset)


def test_as_a_process(tmp_path: Path, data: Path) -> None:
    """Subfolders become drafts, folders that end in .zarr one asset; a taken port is told of."""
    draft = tmp_path / "root" / "000007"
    (draft / "sub-1" / "x.zarr" / "0").mkdir(parents=True)
    (draft / "sub-1" / "x.zarr" / "0" / "0").write_text("a")
    (draft / "sub-1" / "data.nwb").hardlink_to(data)
    command = [sys.executable, "-m", "recallfs.testing.dandi", "--root", str(tmp_path / "root")]
    with subprocess.Popen(
        [*command, "--token", "mine", "--host", "::1"], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assets = ask(f"{url}/dandisets/000007/versions/draft/assets/?order=path").json()["results"]
        token = ask(f"{url}/auth/token/", headers={"Authorization": "token mine"}).json()
        download = ask(f"{url}/assets/{assets[0]['asset_id']}/download/").headers["Location"]
        body = ask(download).body
        port = url.rpartition(":")[2].partition("/")[0]
        taken = [*command, "--host", "::1", "--port", port]
        second = subprocess.run(taken, capture_output=True, text=True, check=False)
        process.terminate()
        assert process.wait(10) == 0
    assert [each["path"] for each in assets] == ["sub-1/data.nwb", "sub-1/x.zarr"]
    assert (token, body) == ("mine", data.read_bytes())
    assert second.returncode == 2
    assert "in use" in second.stderr
    assert "Traceback" not in second.stderr


def test_the_documented_example_runs(tmp_path: Path) -> None:
    """The example of the page about the servers is a test that passes."""
    page = Path(__file__).parents[2] / "docs" / "reference" / "testing.md"
    (code,) = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)  # noqa: S102 - it is our own page
    names["test_a_corrupt_block_is_fetched_again"](tmp_path)
