"""The real DANDI client reads from the loopback server, and writes to it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from asking import ask, run_client
from recallfs.testing.archive import dandi_etag, part_sizes
from recallfs.testing.dandi import DandiServer
from recallfs.testing.dandisets import zarr_checksum

# A client that knows the instance without asking for it.
CLIENT = """
import json, logging, sys
from pathlib import Path
logging.disable(logging.CRITICAL)
from dandi.consts import DandiInstance
from dandi.dandiapi import DandiAPIClient
instance = DandiInstance("lab", None, sys.argv[1])
client = DandiAPIClient(dandi_instance=instance)
"""


@pytest.fixture
def dandi() -> Iterator[DandiServer]:
    """Give a running archive."""
    with DandiServer() as server:
        yield server


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Give a zarr with files on three levels."""
    folder = tmp_path / "x.zarr"
    for name, text in {".zgroup": "{}", "0/0": "a", "0/1/0": "bb", "01": "ccc"}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def run(server: DandiServer, home: Path, code: str, *arguments: object, **variables: str) -> Any:
    """Run code with a client, and return what it prints as JSON in its last line."""
    output = run_client(CLIENT + code, server.api_url, *arguments, home=home, **variables)
    return json.loads(output.splitlines()[-1])


def test_the_client_looks_up(dandi: DandiServer, data: Path, tmp_path: Path) -> None:
    """Newest version, path, prefix, glob, pages, id and digests are read as they were put in."""
    dandiset = dandi.add_dandiset()
    asset = dandi.add_asset(dandiset, "sub-1/data.nwb", data)
    dandi.add_asset(dandiset, "sub-2/data.nwb", data)
    version = dandi.publish(dandiset)
    code = """
client.page_size = 1
dandiset = client.get_dandiset("000001")
asset = dandiset.get_asset_by_path("sub-1/data.nwb")
print(json.dumps([
    dandiset.version_id,
    asset.identifier,
    asset.size,
    asset.get_raw_digest(),
    asset.get_raw_digest("dandi:sha2-256"),
    asset.get_content_url(),
    asset.get_content_url(follow_redirects=True, strip_query=True),
    asset.get_content_url("blobs"),
    [each.path for each in dandiset.get_assets(order="-path")],
    [each.path for each in dandiset.get_assets_by_glob("*2/*")],
    client.get_asset(asset.identifier).as_readable().url,
    [str(each) for each in dandiset.get_versions(order="created")],
    [each.identifier for each in client.get_dandisets()],
    str(dandiset.get_version("draft").status),
]))
"""
    got = run(dandi, tmp_path, code)
    blob = dandi.asset(asset).blob
    assert blob is not None
    bare = f"{dandi.bucket.url}/{dandi.bucket_key(asset)}"
    assert got == [
        version,
        asset,
        3_000_000,
        blob.etag,
        blob.sha256,
        f"{dandi.api_url}/assets/{asset}/download/",
        bare,
        bare,
        ["sub-2/data.nwb", "sub-1/data.nwb"],
        ["sub-2/data.nwb"],
        bare,
        ["draft", version],
        [dandiset],
        "VersionStatus.PUBLISHED",
    ]


def test_the_client_downloads(dandi: DandiServer, data: Path, folder: Path, tmp_path: Path) -> None:
    """It downloads a version with a file and a zarr by URL, and finds all digests right."""
    dandiset = dandi.add_dandiset()
    dandi.add_asset(dandiset, "sub-1/data.nwb", data)
    dandi.add_zarr(dandiset, "sub-1/x.zarr", folder)
    version = dandi.publish(dandiset)
    code = """
from dandi.download import download
download([f"{sys.argv[1]}/dandisets/{sys.argv[2]}/versions/{sys.argv[3]}/"], ".")
client.get_dandiset(sys.argv[2]).get_asset_by_path("sub-1/data.nwb").download("plain")
print(json.dumps(0))
"""
    run(dandi, tmp_path, code, dandiset, version)
    got = tmp_path / dandiset / "sub-1"
    assert (got / "data.nwb").read_bytes() == data.read_bytes()
    assert (tmp_path / "plain").read_bytes() == data.read_bytes()
    assert (got / "x.zarr" / "0" / "1" / "0").read_text() == "bb"
    files = [path for path in (got / "x.zarr").rglob("*") if path.is_file()]
    assert len(files) == 4
    assert "DANDI:000001" in (tmp_path / dandiset / "dandiset.yaml").read_text()


def test_the_client_reads_what_is_embargoed(dandi: DandiServer, data: Path, tmp_path: Path) -> None:
    """With the owner's token it downloads, without or with another's it is refused."""
    dandiset = dandi.add_dandiset(embargoed=True)
    dandi.add_asset(dandiset, "data.nwb", data)
    code = """
import os, requests
def status(token):
    os.environ["LAB_API_KEY"] = token
    client = DandiAPIClient(dandi_instance=instance)
    try:
        if token:
            client.dandi_authenticate()
        client.get_dandiset("000001", "draft").get_asset_by_path("data.nwb").download("got")
    except requests.HTTPError as error:
        return error.response.status_code
print(json.dumps([status(token) for token in sys.argv[2:]]))
"""
    tokens = ["", "wrong", dandi.add_user("other"), dandi.token]
    assert run(dandi, tmp_path, code, *tokens) == [401, 401, 403, None]
    assert (tmp_path / "got").read_bytes() == data.read_bytes()
    # The token went to the API and never on to the bucket.
    assert any(each.authorization for each in dandi.log)
    assert not any(each.authorization for each in dandi.bucket.log)


def test_the_client_uploads(dandi: DandiServer, folder: Path, tmp_path: Path) -> None:
    """It uploads a file in two parts and a zarr, publishes them, and uploads no blob twice."""
    dandiset = dandi.add_dandiset()
    local = tmp_path / dandiset
    (local / "sub-1").mkdir(parents=True)
    (local / "dandiset.yaml").write_text("identifier: DANDI:000001\nname: x\ndescription: y\n")
    big = local / "sub-1" / "big.nwb"
    with big.open("wb") as file:
        file.truncate(65 << 20)
        file.write(b"start")
    shutil.copytree(folder, local / "sub-1" / "x.zarr")
    code = """
from dandi.upload import upload, UploadExisting, UploadValidation
from dandi.files import dandi_file
upload([sys.argv[2]], dandi_instance=instance, validation=UploadValidation.SKIP,
       allow_any_path=True, existing=UploadExisting.FORCE)
client.dandi_authenticate()
dandiset = client.get_dandiset("000001", "draft")
file = dandi_file(Path(sys.argv[2], "sub-1/big.nwb"), Path(sys.argv[2]))
file.upload(dandiset, {"path": "again.nwb"})
print(json.dumps([dandiset.publish().version_id, client.server_schema_version]))
"""
    version, _ = run(dandi, tmp_path, code, local, LAB_API_KEY=dandi.token)
    listing = f"{dandi.api_url}/dandisets/{dandiset}/versions/{version}/assets/?metadata=true"
    found = {each["path"]: each for each in ask(listing).json()["results"]}
    assert set(found) == {"again.nwb", "sub-1/big.nwb", "sub-1/x.zarr"}
    assert found["again.nwb"]["blob"] == found["sub-1/big.nwb"]["blob"]
    about = found["sub-1/big.nwb"]["metadata"]
    assert about["digest"]["dandi:dandi-etag"] == dandi_etag(big)
    assert ask(about["contentUrl"][1]).body == big.read_bytes()
    assert found["sub-1/x.zarr"]["metadata"]["digest"]["dandi:dandi-zarr-checksum"].endswith(
        "-4--8"
    )
    parts = [each for each in dandi.bucket.log if each.method == "PUT" and "/blobs/" in each.path]
    assert len(parts) == 2


def test_digests_are_those_of_dandi(tmp_path: Path) -> None:
    """Parts, dandi-etag and zarr checksum equal those of the packages that define them."""
    small = tmp_path / "small"
    small.write_bytes(b"a" * ((64 << 20) + 1))
    sizes = [1, 64 << 20, (64 << 20) + 1, 6 * 10**9, 10_000 * (64 << 20), 3 * 10**12]
    files = {"b": ("0" * 32, 1), "a/c": ("1" * 32, 2), "a/b/c": ("2" * 32, 3), "a-": ("3" * 32, 4)}
    code = """
import json, sys
from pathlib import Path
from dandischema.digests.dandietag import DandiETag, PartGenerator
from zarr_checksum.tree import ZarrChecksumTree
path, sizes, files = sys.argv[1], json.loads(sys.argv[2]), json.loads(sys.argv[3])
tree = ZarrChecksumTree()
for name, (md5, size) in files.items():
    tree.add_leaf(Path(name), size, md5)
parts = [[len(p), p.initial_part_size, p.final_part_size]
         for p in map(PartGenerator.for_file_size, sizes)]
print(json.dumps([DandiETag.from_file(path).as_str(), str(tree.process()), parts]))
"""
    output = run_client(code, small, json.dumps(sizes), json.dumps(files), home=tmp_path)
    ours = [[len(parts), parts[0], parts[-1]] for parts in map(part_sizes, sizes)]
    assert json.loads(output) == [dandi_etag(small), zarr_checksum(files), ours]
