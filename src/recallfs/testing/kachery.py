"""A Kachery gateway, its bucket and a lab's resource, on loopback.

    python -m recallfs.testing.kachery --root FOLDER --port 0

serves the files below a folder and prints the URL for ``KACHERY_GATEWAY_URL``. It speaks what
kachery_cloud 0.4 speaks (``POST /api/gateway``), the look-up of kachery 2 (``POST
/api/findFile``) and what a client asks of ``KACHERY_RESOURCE_URL``.
"""

from __future__ import annotations

import hashlib
import json
import sys
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recallfs.digest.plain import hash_file
from recallfs.errors import InvalidInputError
from recallfs.testing.bucket import ServerWithBucket
from recallfs.testing.ed25519 import is_signed
from recallfs.testing.messages import Answer, Refused, Request

CLOCK_TOLERANCE_S = 30.0
UPLOAD_LIFETIME_S = 1800.0
LARGEST_UPLOAD_BYTES = 5_000_000_000


@dataclass
class Zone:
    """A zone of a gateway: one bucket and who may read it.

    Parameters
    ----------
    name : str
        Name of the zone; its bucket is named after it.
    token : str
        What kachery 2 asks for as ``Authorization: Bearer``; empty: anybody may read.
    """

    name: str
    token: str = ""

    @property
    def bucket(self) -> str:
        """Name of the bucket."""
        return f"kachery-{self.name}"


@dataclass
class Resource:
    """A computer of a lab that uploads its linked files when it is asked for them.

    Parameters
    ----------
    name : str
        Last part of the resource's URL.
    folder : Path
        Its ``KACHERY_CLOUD_DIR``: ``sha1/`` and ``linked_files/`` are looked at.
    upload_s : float
        Seconds that an upload takes.
    """

    name: str
    folder: Path
    upload_s: float = 0.0
    uploads: dict[str, float] = field(default_factory=dict)


class KacheryServer(ServerWithBucket):
    """A gateway; `bucket` is its object store, on another port.

    Parameters
    ----------
    host : str, optional
        ``127.0.0.1`` or ``::1``.
    port : int, optional
        Port of the gateway; 0: one that is free.

    Attributes
    ----------
    bucket : BucketServer
        Where the bytes are, with a log and faults of its own.
    clock_offset_s : float
        How far the gateway's clock is ahead of this computer's, seconds.
    clients : set of str or None
        Ids of the registered clients, who alone may upload. None: whoever signs.

    Notes
    -----
    The gateway believes a client's sha1 and compares nothing but the size, as the real one does:
    wrong bytes can be stored under a right name.
    """

    def __init__(self, *, host: str = "127.0.0.1", port: int = 0) -> None:
        super().__init__(host=host, port=port)
        self.clock_offset_s = 0.0
        self.clients: set[str] | None = None
        self.zones = {"default": Zone("default")}
        self._resources: dict[str, Resource] = {}
        self._urls: dict[str, tuple[str, int]] = {}
        self._change = threading.RLock()

    def environment(self, folder: Path, *, zone: str = "default") -> dict[str, str]:
        """Variables with which a real client uses this gateway.

        Parameters
        ----------
        folder : Path
            ``KACHERY_CLOUD_DIR``: the client's keys and cache.
        zone : str, optional
            Name of the zone.
        """
        return {
            "KACHERY_GATEWAY_URL": self.url,
            "KACHERY_CLOUD_DIR": str(folder),
            "KACHERY_ZONE": zone,
        }

    def add_zone(self, name: str, *, token: str = "") -> Zone:
        """Add a zone; with a token, kachery 2 gives its files to bearers only."""
        zone = self.zones[name] = Zone(name, token)
        return zone

    def add_file(self, path: Path, *, zone: str = "default", sha1: str = "") -> str:
        """Offer a file and return its sha1.

        Parameters
        ----------
        path : Path
            Served as it is when it is asked for.
        zone : str, optional
            Name of the zone.
        sha1 : str, optional
            Name to store it under. Default: the right one.
        """
        sha1 = sha1 or hash_file(path, "sha1")
        self.bucket.add(self.key(sha1, zone=zone), path, private=True)
        return sha1

    def key(self, sha1: str, *, zone: str = "default") -> str:
        """Key of an object in the bucket server, which is also the path of its URL."""
        return f"{self._zone(zone).bucket}/{_object_key(sha1)}"

    def remove(self, sha1: str, *, zone: str = "default") -> None:
        """Delete an object; the gateway goes on to hand out its URL for a while."""
        del self.bucket.objects[self.key(sha1, zone=zone)]

    def add_resource(self, name: str, folder: Path, *, upload_s: float = 0.0) -> str:
        """Add a resource and return its URL, for ``KACHERY_RESOURCE_URL``.

        Parameters
        ----------
        name : str
            Name of the resource.
        folder : Path
            The ``KACHERY_CLOUD_DIR`` whose files it uploads when it is asked to.
        upload_s : float, optional
            Seconds that an upload takes.
        """
        self._resources[name] = Resource(name, folder, upload_s)
        return f"{self.url}/r/{name}"

    def answer(self, request: Request) -> Answer:
        """Answer what a gateway and a resource are asked."""
        if request.method != "POST":
            return Answer(404, b"The page could not be found\n")
        if request.path == "/api/gateway":
            return self._gateway(request)
        if request.path == "/api/findFile":
            return self._find_2(request)
        if request.path.startswith("/r/"):
            return self._resource(request)
        return Answer(404, b"The page could not be found\n")

    def now_s(self) -> float:
        """Seconds since the epoch by the gateway's clock."""
        return time.time() + self.clock_offset_s

    def _gateway(self, request: Request) -> Answer:
        message = request.json()
        payload: Any = message.get("payload") if isinstance(message, dict) else None
        if not _is_request(payload):
            return Answer(400, f"Invalid request: {json.dumps(message)}".encode())
        if abs(self.now_s() - payload["timestamp"] / 1000) > CLOCK_TOLERANCE_S:
            # Thrown outside of the gateway's own handler, so that its host answers.
            return Answer(500, b"A server error has occurred\n\nFUNCTION_INVOCATION_FAILED\n")
        client = message.get("fromClientId") or ""
        if client and not message.get("signature"):
            raise _error("No signature provided with fromClientId")
        if client and not _is_signed(payload, client, message["signature"]):
            raise _error("Invalid signature")
        kind = payload["type"]
        zone = payload.get("zone") or "default"
        if kind == "findFile":
            return Answer.json({"type": kind, **self._find(payload["hash"], zone)})
        if kind == "getClientInfo":
            return Answer.json({"type": kind, **self._about(payload["clientId"])})
        if kind == "getZoneInfo":
            known = payload["zoneName"] in self.zones
            more = {"kacheryGatewayUrl": self.url} if known else {}
            return Answer.json({"type": kind, "found": known, **more})
        if not client:
            raise _error("No verified client ID or user ID")
        if self.clients is not None and client not in self.clients:
            raise _error(f"Client not found: {client}")
        if kind == "initiateFileUpload":
            return Answer.json({"type": kind, **self._initiate(payload, zone)})
        if kind == "finalizeFileUpload":
            self._finalize(payload, zone)
            return Answer.json({"type": kind})
        self.bucket.objects.pop(self.key(payload["hash"], zone=zone), None)
        return Answer.json({"type": kind, "success": True})

    def _find(self, sha1: str, zone: str) -> dict[str, Any]:
        key = self.key(sha1, zone=zone)
        with self._change:
            stored = self.bucket.objects.get(key)
            url, size = self._urls.get(key, ("", 0))
            # The gateway remembers the URL for half its life, and does not look again till then.
            is_hit = self.bucket.is_fresh(url)
            if not is_hit:
                if stored is None:
                    return {"found": False}
                url, size = self.bucket.presign(key), stored.path.stat().st_size
                self._urls[key] = url, size
        return {
            "found": True,
            "size": size,
            "bucketUri": f"wasabi://{self._zone(zone).bucket}?region=us-east-1",
            "objectKey": _object_key(sha1),
            "url": url,
            "cacheHit": is_hit,
        }

    def _about(self, client: str) -> dict[str, Any]:
        if self.clients is not None and client not in self.clients:
            return {"found": False}
        about = {"clientId": client, "label": "loopback", "ownerId": "loopback"}
        return {"found": True, "client": {**about, "timestampCreated": 0}}

    def _initiate(self, payload: Mapping[str, Any], zone: str) -> dict[str, Any]:
        if payload["size"] > LARGEST_UPLOAD_BYTES:
            raise _error(f"File too large: {payload['size']} > {LARGEST_UPLOAD_BYTES}")
        key = self.key(payload["hash"], zone=zone)
        if key in self.bucket.objects:
            return {"alreadyExists": True}
        return {
            "alreadyExists": False,
            "objectKey": _object_key(payload["hash"]),
            "signedUploadUrl": self.bucket.presign(
                key, method="PUT", lifetime_s=UPLOAD_LIFETIME_S, query={"private": ""}
            ),
        }

    def _finalize(self, payload: Mapping[str, Any], zone: str) -> None:
        key = f"{self._zone(zone).bucket}/{payload['objectKey']}"
        stored = self.bucket.objects.get(key)
        if stored is None:
            raise _error("Unable to get object metadata")
        size = stored.path.stat().st_size
        if size != payload["size"]:
            del self.bucket.objects[key]
            raise _error(f"Unexpected object size: {size} <> {payload['size']}")

    def _find_2(self, request: Request) -> Answer:
        message = request.json()
        wanted = {"type": str, "hashAlg": str, "hash": str, "zoneName": str}
        if not _has(message, wanted) or message["type"] != "findFileRequest":
            return Answer.json({"error": "Invalid request"}, 400)
        if message["hashAlg"] != "sha1" or not _is_sha1(message["hash"]):
            return Answer.json({"error": "Invalid hash"}, 400)
        zone = self.zones.get(message["zoneName"])
        if zone is None:
            return Answer.json({"error": f"Zone not found: {message['zoneName']}"}, 400)
        token = request.headers.get("authorization", "").partition(" ")[2]
        if token and token != zone.token:
            return Answer.json({"error": "Unauthorized - no user for token"}, 401)
        if zone.token and not token:
            text = "User API token must be provided when zone does not allow public download"
            return Answer.json({"error": text}, 401)
        found = self._find(message["hash"], zone.name)
        return Answer.json({"type": "findFileResponse", **found})

    def _resource(self, request: Request) -> Answer:
        message = request.json()
        wanted = {"type": str, "resourceName": str, "request": dict}
        if not _has(message, wanted) or message["type"] != "requestFromClient":
            return Answer.json({"message": "invalid request"}, 400)
        resource = self._resources.get(message["resourceName"])
        if resource is None:
            text = f"resource not found: {message['resourceName']}"
            return Answer.json({"message": text}, 404)
        answer = {"type": "responseToClient", "requestId": uuid.uuid4().hex[:10]}
        asked = message["request"]
        if not _has(asked, {"type": str, "uri": str}) or asked["type"] != "fileUpload":
            error = "Invalid kachery resource request"
            return Answer.json({**answer, "response": {}, "error": error})
        scheme, _, sha1 = asked["uri"].partition("://")
        if scheme != "sha1" or not _is_sha1(sha1):
            error = "Error handling request: Invalid URI"
            return Answer.json({**answer, "response": {}, "error": error})
        patience_s = min(10.0, asked.get("timeoutMsec", 10_000) / 1000)
        status = self._upload(resource, sha1, message.get("zone") or "default", patience_s)
        return Answer.json({**answer, "response": {"type": "fileUpload", "status": status}})

    def _upload(
        self, resource: Resource, sha1: str, zone: str, patience_s: float
    ) -> dict[str, Any]:
        path = _local_file(resource.folder, sha1)
        if path is None:
            return {"status": "not-found"}
        size = path.stat().st_size
        with self._change:
            began_s = resource.uploads.setdefault(sha1, time.monotonic())
        left_s = began_s + resource.upload_s - time.monotonic()
        self.stopping.wait(max(0.0, min(left_s, patience_s)))
        done = time.monotonic() - began_s
        if done < resource.upload_s:
            sent = int(size * done / resource.upload_s)
            return {"status": "running", "size": size, "bytesUploaded": sent}
        # The resource names what it uploads by the sha1 it finds, as the client that it runs does.
        self.add_file(path, zone=zone)
        return {"status": "completed", "size": size, "bytesUploaded": size}

    def _zone(self, name: str) -> Zone:
        if name not in self.zones:
            raise _error(f"Zone not found: {name}")
        return self.zones[name]


def _is_request(payload: Any) -> bool:
    by_type: dict[str, dict[str, Any]] = {
        "findFile": {"hashAlg": str, "hash": str},
        "initiateFileUpload": {"size": int, "hashAlg": str, "hash": str},
        "finalizeFileUpload": {"objectKey": str, "size": int, "hashAlg": str, "hash": str},
        "deleteFile": {"hashAlg": str, "hash": str},
        "getClientInfo": {"clientId": str},
        "getZoneInfo": {"zoneName": str},
    }
    if not _has(payload, {"type": str, "timestamp": (int, float)}):
        return False
    fields = by_type.get(payload["type"])
    return fields is not None and _has(payload, fields)


def _has(value: Any, fields: Mapping[str, Any]) -> bool:
    return isinstance(value, dict) and all(
        isinstance(value.get(name), kind) for name, kind in fields.items()
    )


def _is_signed(payload: object, client: str, signature: str) -> bool:
    text = json.dumps(payload, separators=(",", ":"), sort_keys=True, ensure_ascii=False)
    hashed = hashlib.sha1(text.encode(), usedforsecurity=False).digest()
    try:
        return is_signed(bytes.fromhex(client), hashed, bytes.fromhex(signature))
    except ValueError:
        return False


def _object_key(sha1: str) -> str:
    return f"sha1/{sha1[:2]}/{sha1[2:4]}/{sha1[4:6]}/{sha1}"


def _is_sha1(text: str) -> bool:
    return len(text) == 40 and set(text) <= set("0123456789abcdef")


def _local_file(folder: Path, sha1: str) -> Path | None:
    stored = folder / _object_key(sha1)
    if stored.is_file():
        return stored
    link = folder / "linked_files" / _object_key(sha1)
    if not link.is_file():
        return None
    path = Path(json.loads(link.read_text())["path"])
    return path if path.is_file() else None


def _error(text: str) -> Refused:
    return Refused(Answer(500, f"Error: {text}".encode()))


def main(arguments: Sequence[str]) -> int:
    """Serve the files below a folder until the process is ended."""
    from recallfs.testing.command import parse, serve

    options = parse("recallfs.testing.kachery", __doc__, arguments)
    try:
        server = KacheryServer(host=options.host, port=options.port)
    except (InvalidInputError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    for path in sorted(options.root.rglob("*")) if options.root else ():
        if path.is_file():
            server.add_file(path)
    return serve(server, server.url, options, {"gateway": server, "bucket": server.bucket})


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
