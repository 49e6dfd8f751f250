"""The Kachery server is what the real client takes it for, and what the protocol says."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from asking import Reply, ask, run_client
from recallfs.testing.ed25519 import is_signed
from recallfs.testing.kachery import KacheryServer
from recallfs.testing.misbehaviour import Fault

STORE = """
import sys, kachery_cloud as kc
from kachery_cloud.get_client_id import get_client_id
get_client_id(generate_if_missing=True)
print(kc.store_file(sys.argv[1], label="data.nwb"))
"""
LOAD = """
import sys, kachery_cloud as kc
from kachery_cloud.get_client_id import get_client_id
get_client_id(generate_if_missing=True)
path = kc.load_file(sys.argv[1])
print(path)
"""
LINK = "import sys, kachery_cloud as kc; print(kc.link_file(sys.argv[1]))"
INFO = """
import json, sys, kachery_cloud as kc
from kachery_cloud.get_client_id import get_client_id
from kachery_cloud.init import get_client_info
get_client_id(generate_if_missing=True)
print(json.dumps([kc.load_file_info(uri) for uri in sys.argv[1:]] + [get_client_info()]))
"""


@pytest.fixture
def kachery() -> Iterator[KacheryServer]:
    """Give a running gateway."""
    with KacheryServer() as server:
        yield server


def sha1(path: Path) -> str:
    """Digest a file."""
    return hashlib.sha1(path.read_bytes()).hexdigest()  # noqa: S324 - the name Kachery gives


def find(server: KacheryServer, name: str, **more: Any) -> Any:
    """Look a file up as nobody in particular."""
    payload = {"type": "findFile", "hashAlg": "sha1", "hash": name, "timestamp": now_ms(), **more}
    return ask(f"{server.url}/api/gateway", "POST", json_body={"payload": payload})


def now_ms() -> int:
    """Return the time as the protocol wants it."""
    return int(time.time() * 1000)


def client_id(key: Ed25519PrivateKey) -> str:
    """Public key, as a client names itself."""
    raw = serialization.PublicFormat.Raw
    return key.public_key().public_bytes(serialization.Encoding.Raw, raw).hex()


def signed(server: KacheryServer, key: Ed25519PrivateKey, **payload: Any) -> Reply:
    """Send a signed request."""
    payload.setdefault("timestamp", now_ms())
    text = json.dumps(payload, separators=(",", ":"), sort_keys=True)
    digest = hashlib.sha1(text.encode()).digest()  # noqa: S324 - as the protocol has it
    message = {
        "payload": payload,
        "fromClientId": client_id(key),
        "signature": key.sign(digest).hex(),
    }
    return ask(f"{server.url}/api/gateway", "POST", json_body=message)


def test_the_client_stores_and_loads(kachery: KacheryServer, data: Path, tmp_path: Path) -> None:
    """What one client stores another one loads, and storing again sends no bytes."""
    uri = run_client(STORE, data, home=tmp_path, **kachery.environment(tmp_path / "one")).strip()
    assert uri == f"sha1://{sha1(data)}?label=data.nwb"
    run_client(STORE, data, home=tmp_path, **kachery.environment(tmp_path / "one"))
    loaded = run_client(LOAD, uri, home=tmp_path, **kachery.environment(tmp_path / "two")).strip()
    assert Path(loaded).read_bytes() == data.read_bytes()
    assert Path(loaded).is_relative_to(tmp_path / "two" / "sha1")
    assert [each.method for each in kachery.bucket.log] == ["PUT", "GET"]
    assert kachery.bucket.objects[kachery.key(sha1(data))].path.stat().st_size == 3_000_000


def test_the_client_looks_up(kachery: KacheryServer, data: Path, tmp_path: Path) -> None:
    """The client reads found, not found and itself from the answers."""
    name = kachery.add_file(data)
    environment = kachery.environment(tmp_path / "one")
    output = run_client(INFO, f"sha1://{name}", f"sha1://{'0' * 40}", home=tmp_path, **environment)
    found, missing, client = json.loads(output)
    assert (found["found"], found["size"], missing) == (True, 3_000_000, None)
    assert found["objectKey"] == f"sha1/{name[:2]}/{name[2:4]}/{name[4:6]}/{name}"
    assert client["found"]
    assert len(client["client"]["clientId"]) == 64


def test_the_client_gets_linked_files(kachery: KacheryServer, data: Path, tmp_path: Path) -> None:
    """A file that was only linked is not found until the lab's resource is asked for it."""
    lab = kachery.environment(tmp_path / "lab")
    uri = run_client(LINK, data, home=tmp_path, **lab).strip()
    reader = kachery.environment(tmp_path / "reader")
    assert run_client(LOAD, uri, home=tmp_path, **reader).strip() == "None"
    resource = kachery.add_resource("lab", tmp_path / "lab")
    loaded = run_client(LOAD, uri, home=tmp_path, KACHERY_RESOURCE_URL=resource, **reader)
    assert Path(loaded.splitlines()[-1]).read_bytes() == data.read_bytes()


def test_a_resource_takes_its_time(kachery: KacheryServer, data: Path, tmp_path: Path) -> None:
    """An upload is running, then completed; what is not there is not found, and names count."""
    lab = kachery.environment(tmp_path / "lab")
    uri = run_client(LINK, data, home=tmp_path, **lab).strip()
    url = kachery.add_resource("lab", tmp_path / "lab", upload_s=3.0)

    def status(uri: str, name: str = "lab") -> Any:
        request = {"type": "fileUpload", "uri": uri, "timeoutMsec": 100}
        body = {"type": "requestFromClient", "resourceName": name, "request": request}
        return ask(url, "POST", json_body=body)

    answer = status(uri).json()
    assert answer["response"]["status"]["status"] == "running"
    time.sleep(3.0)
    done = status(uri).json()["response"]["status"]
    assert (done["status"], done["size"]) == ("completed", 3_000_000)
    assert status(f"sha1://{'1' * 40}").json()["response"]["status"] == {"status": "not-found"}
    assert "Invalid URI" in status("sha1://x").json()["error"]
    assert status(uri, "other").status == 404
    assert find(kachery, sha1(data)).json()["found"]


def test_lookups_need_no_signature(kachery: KacheryServer, data: Path) -> None:
    """An unsigned look-up gives a URL that serves ranges; the second is remembered."""
    name = kachery.add_file(data)
    first, second = find(kachery, name).json(), find(kachery, name).json()
    assert (first["cacheHit"], second["cacheHit"]) == (False, True)
    assert first["url"] == second["url"]
    part = ask(first["url"], headers={"Range": "bytes=5-9"})
    assert (part.status, part.body) == (206, data.read_bytes()[5:10])
    assert part.headers["ETag"] == f'"{hashlib.md5(data.read_bytes()).hexdigest()}"'  # noqa: S324
    assert find(kachery, "0" * 40).json() == {"type": "findFile", "found": False}


def test_requests_are_checked(kachery: KacheryServer, data: Path) -> None:
    """Malformed, unsigned, wrongly signed and untimely requests get the gateway's errors."""
    key = Ed25519PrivateKey.generate()
    name = sha1(data)
    upload = {"type": "initiateFileUpload", "size": 3, "hashAlg": "sha1", "hash": name}
    assert signed(kachery, key, **upload).json()["signedUploadUrl"]
    text = ask(f"{kachery.url}/api/gateway", "POST", json_body={"payload": {"type": "x"}})
    assert (text.status, text.body[:16]) == (400, b"Invalid request:")
    unsigned = find(kachery, name, type="initiateFileUpload", size=3)
    assert (unsigned.status, unsigned.body[:29]) == (500, b"Error: No verified client ID ")
    message = {"payload": {**upload, "timestamp": now_ms()}, "fromClientId": client_id(key)}
    wrong = {**message, "signature": key.sign(b"something else").hex()}
    forged = ask(f"{kachery.url}/api/gateway", "POST", json_body=wrong)
    assert (forged.status, forged.body) == (500, b"Error: Invalid signature")
    assert signed(kachery, key, **{**upload, "size": 6_000_000_000}).status == 500
    kachery.clients = set()
    assert signed(kachery, key, **upload).body.startswith(b"Error: Client not found")


@pytest.mark.parametrize("ahead_s", [-3600, -31, -29, 29, 31, 3600])
def test_the_clock_matters(kachery: KacheryServer, data: Path, ahead_s: float) -> None:
    """A clock that is more than 30 s off is refused, look-ups without a signature included."""
    kachery.clock_offset_s = ahead_s
    reply = find(kachery, kachery.add_file(data))
    assert reply.status == (200 if abs(ahead_s) < 30 else 500)


def test_zones(kachery: KacheryServer, data: Path, tmp_path: Path) -> None:
    """A file is found in its zone alone; a zone that is unknown is an error, not an absence."""
    kachery.add_zone("lab")
    name = kachery.add_file(data, zone="lab")
    assert find(kachery, name, zone="lab").json()["found"]
    assert not find(kachery, name).json()["found"]
    unknown = find(kachery, name, zone="nowhere")
    assert (unknown.status, unknown.body) == (500, b"Error: Zone not found: nowhere")
    environment = kachery.environment(tmp_path / "one", zone="lab")
    loaded = run_client(LOAD, f"sha1://{name}", home=tmp_path, **environment).strip()
    assert Path(loaded).read_bytes() == data.read_bytes()


def test_kachery_2(kachery: KacheryServer, data: Path) -> None:
    """The look-up of kachery 2 wants its type, knows zones and asks for a token where it must."""
    kachery.add_zone("closed", token="secret")  # noqa: S106 - of this test
    name = kachery.add_file(data)
    kachery.add_file(data, zone="closed")
    wanted = {"type": "findFileRequest", "hashAlg": "sha1", "hash": name, "zoneName": "default"}

    def find_2(authorization: str = "", **more: str) -> Reply:
        headers = {"Authorization": authorization} if authorization else {}
        body = {**wanted, **more}
        return ask(f"{kachery.url}/api/findFile", "POST", headers=headers, json_body=body)

    found = find_2().json()
    assert (found["type"], found["found"], found["size"]) == ("findFileResponse", True, 3_000_000)
    assert ask(found["url"]).body == data.read_bytes()
    assert find_2(type="findFile").json() == {"error": "Invalid request"}
    assert find_2(hash="x").json() == {"error": "Invalid hash"}
    assert find_2(zoneName="nowhere").json() == {"error": "Zone not found: nowhere"}
    assert find_2(zoneName="closed").status == 401
    assert find_2("Bearer wrong", zoneName="closed").status == 401
    assert find_2("Bearer secret", zoneName="closed").json()["found"]


def test_urls_expire(kachery: KacheryServer, data: Path) -> None:
    """A URL is good for some requests or some time, for GET and for its object alone."""
    name = kachery.add_file(data)
    kachery.bucket.url_max_uses = 2
    url = find(kachery, name).json()["url"]
    assert [ask(url).status for _ in range(3)] == [200, 200, 403]
    again = find(kachery, name).json()["url"]
    assert again != url
    assert ask(again, "HEAD").status == 403
    assert ask(again.replace("X-Amz-Expires=3600", "X-Amz-Expires=9999")).status == 403
    assert ask(again.replace(name, "0" * 40)).status == 403
    assert ask(again.partition("?")[0]).status == 403
    assert ask(again, headers={"Authorization": "token x"}).status == 400
    assert ask(again).status == 200
    kachery.bucket.url_max_uses, kachery.bucket.url_lifetime_s = None, 0.3
    short = kachery.bucket.presign(kachery.key(name))
    assert ask(short).status == 200
    time.sleep(0.35)
    assert b"Request has expired" in ask(short).body


def test_a_deleted_file_is_still_told_of(kachery: KacheryServer, data: Path) -> None:
    """The gateway hands out a remembered URL of an object that is gone; the bucket says 404."""
    name = kachery.add_file(data)
    find(kachery, name)
    kachery.remove(name)
    found = find(kachery, name).json()
    assert (found["found"], found["size"]) == (True, 3_000_000)
    assert ask(found["url"]).status == 404


def test_uploads_are_believed(kachery: KacheryServer, data: Path) -> None:
    """Wrong bytes of the right size are kept under a sha1; those of a wrong size are not."""
    key = Ed25519PrivateKey.generate()
    about = {"hashAlg": "sha1", "hash": "a" * 40}
    begun = signed(kachery, key, type="initiateFileUpload", size=5, **about).json()
    url, object_key = begun["signedUploadUrl"], begun["objectKey"]
    assert ask(url, "PUT", body=b"wrong").status == 200
    finish = {"type": "finalizeFileUpload", "objectKey": object_key, **about}
    assert signed(kachery, key, size=5, **finish).json() == {"type": "finalizeFileUpload"}
    again = signed(kachery, key, type="initiateFileUpload", size=5, **about).json()
    assert again == {"type": "initiateFileUpload", "alreadyExists": True}
    assert ask(find(kachery, "a" * 40).json()["url"]).body == b"wrong"
    sized = signed(kachery, key, size=6, **finish)
    assert (sized.status, sized.body) == (500, b"Error: Unexpected object size: 5 <> 6")


def test_the_client_stores_no_empty_file(kachery: KacheryServer, tmp_path: Path) -> None:
    """It sends an empty file in chunks, without a length, and a bucket refuses that."""
    (tmp_path / "empty").touch()
    code = f"try:\n exec({STORE!r})\nexcept Exception as error:\n print(error)"
    environment = kachery.environment(tmp_path / "one")
    output = run_client(code, tmp_path / "empty", home=tmp_path, **environment)
    assert "Error uploading file to bucket (501)" in output


def test_the_gateway_lies(kachery: KacheryServer, data: Path) -> None:
    """A scripted size, and bytes under another name, come through."""
    name = kachery.add_file(data, sha1="b" * 40)
    kachery.fail(Fault(edit={"size": 7}))
    found = find(kachery, name).json()
    assert found["size"] == 7
    assert ask(found["url"]).body == data.read_bytes()


def test_signatures() -> None:
    """What the cryptography package signs is signed, and nothing else."""
    for _ in range(5):
        key = Ed25519PrivateKey.generate()
        public = bytes.fromhex(client_id(key))
        signature = key.sign(b"message")
        assert is_signed(public, b"message", signature)
        assert not is_signed(public, b"messagE", signature)
        assert not is_signed(public, b"message", signature[:63] + bytes([signature[63] ^ 1]))
        assert not is_signed(public[:31], b"message", signature)
