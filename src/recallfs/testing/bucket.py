"""A loopback object store that speaks as much of S3 as Kachery and DANDI use.

Objects have URLs ``<url>/<bucket>/<key>``. A private object is given only for a presigned URL,
whose signature is good for one method, one object, some time and, where a test wants that, some
requests. Errors come as S3's XML. Presigned GET does not allow HEAD, and a request with both a
signature and an ``Authorization`` header is refused, both as there.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import shutil
import tempfile
import threading
import time
import urllib.parse
from dataclasses import dataclass, field
from email.utils import formatdate
from pathlib import Path

from recallfs.digest.plain import hash_file
from recallfs.testing.http import Server
from recallfs.testing.messages import PIECE_BYTES, Answer, Refused, Request


@dataclass
class Stored:
    """One object.

    Parameters
    ----------
    path : Path
        Its bytes.
    etag : str
        Without quotes.
    modified_s : float
        Seconds since the epoch.
    private : bool
        Whether a signature is needed.
    """

    path: Path
    etag: str
    modified_s: float
    private: bool


@dataclass
class _Signature:
    method: str
    key: str
    query: frozenset[tuple[str, str]]
    deadline_s: float
    lifetime_s: float
    uses_left: int | None


@dataclass
class _Upload:
    key: str
    private: bool
    parts: dict[int, Path] = field(default_factory=dict)


class BucketServer(Server):
    """An object store.

    Parameters
    ----------
    folder : Path
        Where uploaded objects are kept.
    host, port : optional
        As of `Server`.

    Attributes
    ----------
    url_lifetime_s : float
        How long URLs live that are presigned from now on, seconds.
    url_max_uses : int or None
        After so many requests such a URL is expired, too.
    """

    def __init__(self, folder: Path, *, host: str = "127.0.0.1", port: int = 0) -> None:
        super().__init__(host=host, port=port)
        self.url_lifetime_s = 3600.0
        self.url_max_uses: int | None = None
        self.objects: dict[str, Stored] = {}
        self._folder = folder
        self._signatures: dict[str, _Signature] = {}
        self._uploads: dict[str, _Upload] = {}
        self._change = threading.RLock()

    def add(self, key: str, path: Path, *, etag: str = "", private: bool = False) -> Stored:
        """Offer a file, which stays where it is.

        Parameters
        ----------
        key : str
            ``<bucket>/<key>``.
        path : Path
            Served as it is when it is asked for.
        etag : str, optional
            Default: the md5 of the bytes, as after one PUT.
        private : bool, optional
            Whether a signature is needed.
        """
        stored = Stored(path, etag or hash_file(path, "md5"), path.stat().st_mtime, private)
        self.objects[key] = stored
        return stored

    def object_url(self, key: str) -> str:
        """URL of an object without a signature."""
        return f"{self.url}/{urllib.parse.quote(key)}"

    def presign(
        self,
        key: str,
        *,
        method: str = "GET",
        lifetime_s: float | None = None,
        query: dict[str, str] | None = None,
    ) -> str:
        """URL of an object that is good for a while.

        Parameters
        ----------
        key : str
            ``<bucket>/<key>``; need not exist.
        method : str, optional
            The one method it is good for.
        lifetime_s : float, optional
            Seconds. Default: `url_lifetime_s`.
        query : dict of str to str, optional
            More parameters, which are signed, too.
        """
        lifetime_s = self.url_lifetime_s if lifetime_s is None else lifetime_s
        token = secrets.token_hex(32)
        parameters = {
            **(query or {}),
            "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
            "X-Amz-Credential": "LOOPBACK/20200101/us-east-1/s3/aws4_request",
            "X-Amz-Date": time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()),
            "X-Amz-Expires": str(max(1, round(lifetime_s))),
            "X-Amz-SignedHeaders": "host",
            "X-Amz-Signature": token,
        }
        self._signatures[token] = _Signature(
            method,
            key,
            frozenset(parameters.items()),
            time.monotonic() + lifetime_s,
            lifetime_s,
            self.url_max_uses,
        )
        return f"{self.object_url(key)}?{urllib.parse.urlencode(parameters)}"

    def is_fresh(self, url: str) -> bool:
        """Whether a presigned URL has more than half of its time, and a request, left."""
        query = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(url).query))
        signature = self._signatures.get(query.get("X-Amz-Signature", ""))
        return (
            signature is not None
            and signature.deadline_s - time.monotonic() > signature.lifetime_s / 2
            and signature.uses_left != 0
        )

    def begin_upload(self, key: str, *, private: bool = False) -> str:
        """Begin an upload in parts and return its id."""
        upload_id = secrets.token_hex(16)
        self._uploads[upload_id] = _Upload(key, private)
        return upload_id

    def answer(self, request: Request) -> Answer:
        """Answer GET and HEAD of objects, PUT of objects and parts, POST of a finished upload."""
        key = request.path.lstrip("/")
        with self._change:
            signed = self._check(request, key)
        if request.method in ("GET", "HEAD"):
            return self._get(request, key, signed=signed)
        if not signed:
            raise _refused(403, "AccessDenied", "Access Denied")
        if request.method == "PUT":
            return self._put(request, key)
        if request.method == "POST" and "uploadId" in request.query:
            return self._complete(request, key)
        raise _refused(405, "MethodNotAllowed", "The specified method is not allowed")

    def _check(self, request: Request, key: str) -> bool:
        token = request.query.get("X-Amz-Signature")
        if token is None:
            return False
        if "authorization" in request.headers:
            raise _refused(400, "InvalidArgument", "Only one auth mechanism allowed")
        signature = self._signatures.get(token)
        asked = frozenset(request.query.items())
        if signature is None or (signature.method, signature.key, signature.query) != (
            request.method,
            key,
            asked,
        ):
            raise _refused(403, "SignatureDoesNotMatch", "The signature does not match")
        if time.monotonic() > signature.deadline_s or signature.uses_left == 0:
            raise _refused(403, "AccessDenied", "Request has expired")
        if signature.uses_left is not None:
            signature.uses_left -= 1
        return True

    def _get(self, request: Request, key: str, *, signed: bool) -> Answer:
        stored = self.objects.get(key)
        if stored is None:
            raise _refused(404, "NoSuchKey", "The specified key does not exist.")
        if stored.private and not signed:
            raise _refused(403, "AccessDenied", "Access Denied")
        headers = {"Last-Modified": formatdate(stored.modified_s, usegmt=True)}
        if shown := request.query.get("response-content-disposition"):
            headers["Content-Disposition"] = shown
        return Answer(
            body=stored.path,
            content_type="application/octet-stream",
            etag=stored.etag,
            headers=headers,
        )

    def _put(self, request: Request, key: str) -> Answer:
        # S3 wants the length beforehand; a client that does not know it is refused.
        if "content-length" not in request.headers:
            raise _refused(501, "NotImplemented", "Transfer-Encoding is not implemented")
        place = self._folder / secrets.token_hex(16)
        md5 = hashlib.md5(usedforsecurity=False)
        with place.open("wb") as file:
            while piece := request.body.read(PIECE_BYTES):
                md5.update(piece)
                file.write(piece)
        if place.stat().st_size != int(request.headers["content-length"]):
            place.unlink()
            raise _refused(400, "IncompleteBody", "The body is shorter than Content-Length")
        upload = self._uploads.get(request.query.get("uploadId", ""))
        if upload is not None:
            upload.parts[int(request.query["partNumber"])] = place
        else:
            private = "private" in request.query
            self.objects[key] = Stored(place, md5.hexdigest(), time.time(), private)
        return Answer(headers={"ETag": f'"{md5.hexdigest()}"'})

    def _complete(self, request: Request, key: str) -> Answer:
        upload = self._uploads.get(request.query["uploadId"])
        if upload is None or upload.key != key:
            raise _refused(404, "NoSuchUpload", "The specified upload does not exist.")
        wanted = [
            (int(number), etag)
            for number, etag in re.findall(
                r"<PartNumber>(\d+)</PartNumber>\s*<ETag>\W*([0-9a-f]{32})\W*</ETag>",
                request.body.read().decode().replace("&quot;", '"'),
            )
        ]
        have = [(number, hash_file(path, "md5")) for number, path in sorted(upload.parts.items())]
        if wanted != have or not have:
            raise _refused(400, "InvalidPart", "One or more of the parts could not be found.")
        place = self._folder / secrets.token_hex(16)
        with place.open("wb") as file:
            for number, _ in have:
                with upload.parts[number].open("rb") as part:
                    shutil.copyfileobj(part, file, PIECE_BYTES)
                upload.parts[number].unlink()
        joined = hashlib.md5(
            b"".join(bytes.fromhex(etag) for _, etag in have), usedforsecurity=False
        )
        etag = f"{joined.hexdigest()}-{len(have)}"
        self.objects[key] = Stored(place, etag, time.time(), upload.private)
        del self._uploads[request.query["uploadId"]]
        text = (
            '<?xml version="1.0" encoding="UTF-8"?>\n'
            '<CompleteMultipartUploadResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            f"<Key>{key}</Key><ETag>&quot;{etag}&quot;</ETag></CompleteMultipartUploadResult>"
        )
        return Answer(body=text.encode(), content_type="application/xml")


class ServerWithBucket(Server):
    """A server whose object store, `bucket`, is on another port.

    Parameters
    ----------
    host, port : optional
        As of `Server`.
    """

    def __init__(self, *, host: str = "127.0.0.1", port: int = 0) -> None:
        super().__init__(host=host, port=port)
        # Held until `stop`, or until the last reference goes.
        self._scratch = tempfile.TemporaryDirectory(prefix="recallfs-bucket-")
        self.bucket = BucketServer(Path(self._scratch.name), host=host)

    def start(self) -> None:
        """Serve, and the bucket, too."""
        self.bucket.start()
        super().start()

    def stop(self) -> None:
        """Stop, and the bucket, too; what was uploaded is gone."""
        super().stop()
        self.bucket.stop()
        self._scratch.cleanup()


def _refused(status: int, code: str, message: str) -> Refused:
    text = (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f"<Error><Code>{code}</Code><Message>{message}</Message></Error>"
    )
    return Refused(Answer(status, text.encode(), "application/xml"))
