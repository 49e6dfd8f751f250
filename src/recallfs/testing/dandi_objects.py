"""What assets of the DANDI API on loopback hold: blobs, their uploads, and zarrs."""

from __future__ import annotations

import urllib.parse
import uuid
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any

from recallfs.digest.plain import hash_file
from recallfs.testing.archive import Archive, part_sizes, refused
from recallfs.testing.dandisets import Blob, Upload, Zarr
from recallfs.testing.messages import Answer, Request

PAGE_SIZE = 100
PAGE_SIZE_LIMIT = 1000
LISTING_LIMIT = 1000


class Objects(Archive):
    """The part of the API that is about bytes; the server answers by it."""

    # --- blobs

    def _find_blob(self, request: Request, user: str) -> Answer:
        wanted = request.json()
        if not isinstance(wanted, dict) or not {"algorithm", "value"} <= set(wanted):
            return Answer.json({"algorithm": ["This field is required."]}, 400)
        fields = {"dandi:dandi-etag": "etag", "dandi:sha2-256": "sha256"}
        field = fields.get(wanted["algorithm"])
        if field is None:
            return Answer.json(f"Unsupported Digest Algorithm. Supported: {', '.join(fields)}", 400)
        for blob in self._blobs.values():
            if wanted["value"] and getattr(blob, field) == wanted["value"]:
                return Answer.json(blob.as_json())
        raise refused(404, "Not found.")

    def _initialize(self, request: Request, user: str) -> Answer:
        wanted = request.json()
        dandiset = self._seen(user, wanted["dandiset"])
        self._own(user, dandiset)
        size, digest = wanted["contentSize"], wanted["digest"]
        if size < 1:
            text = "Ensure this value is greater than or equal to 1."
            return Answer.json({"contentSize": [text]}, 400)
        if digest["algorithm"] != "dandi:dandi-etag":
            return Answer.json("Unsupported Digest Type", 400)
        for known in self._blobs.values():
            if known.etag == digest["value"]:
                answer = Answer.json("Blob already exists.", 409)
                answer.headers["Location"] = str(known.blob_id)
                return answer
        upload = Upload(uuid.uuid4(), dandiset, digest["value"], size)
        upload.multipart_id = self.bucket.begin_upload(upload.key, private=dandiset.embargoed)
        self._uploads[str(upload.upload_id)] = upload
        parts = [
            {
                "part_number": number,
                "size": part_size,
                "upload_url": self.bucket.presign(
                    upload.key,
                    method="PUT",
                    query={"uploadId": upload.multipart_id, "partNumber": str(number)},
                ),
            }
            for number, part_size in enumerate(part_sizes(size), 1)
        ]
        return Answer.json({"upload_id": str(upload.upload_id), "parts": parts})

    def _uploading(self, user: str, upload: str) -> Upload:
        found = self._uploads.get(upload)
        if found is None or user != found.dandiset.owner:
            raise (
                refused(404, "Not found.")
                if user
                else refused(401, "Authentication credentials were not provided.")
            )
        return found

    def _complete(self, request: Request, user: str, upload: str) -> Answer:
        found = self._uploading(user, upload)
        parts = sorted(request.json()["parts"], key=lambda part: int(part["part_number"]))
        body = "".join(
            f"<Part><PartNumber>{part['part_number']}</PartNumber><ETag>{part['etag']}</ETag></Part>"
            for part in parts
        )
        url = self.bucket.presign(found.key, method="POST", query={"uploadId": found.multipart_id})
        return Answer.json(
            {
                "complete_url": url,
                "body": '<?xml version="1.0" encoding="UTF-8"?>'
                f"<CompleteMultipartUpload>{body}</CompleteMultipartUpload>",
            }
        )

    def _validate(self, request: Request, user: str, upload: str) -> Answer:
        found = self._uploading(user, upload)
        stored = self.bucket.objects.get(found.key)
        if stored is None:
            return Answer.json(["Object does not exist."], 400)
        size = stored.path.stat().st_size
        if size != found.size:
            return Answer.json([f"Size {found.size} does not match actual size {size}."], 400)
        if stored.etag != found.etag:
            text = f"ETag {found.etag} does not match actual ETag {stored.etag}."
            return Answer.json([text], 400)
        blob = self._blob(found.etag, found.size)
        if blob is None:
            sha256 = hash_file(stored.path, "sha256") if self.knows_sha256 else ""
            blob = Blob(found.upload_id, found.etag, sha256, found.size)
            self._blobs[str(blob.blob_id)] = blob
        del self._uploads[upload]
        return Answer.json(blob.as_json())

    # --- zarrs

    def _zarr(self, user: str, zarr: str) -> Zarr:
        found = self._zarrs.get(zarr)
        if found is None:
            raise refused(404, "Not found.")
        dandiset = self._dandisets[found.dandiset]
        if dandiset.embargoed and user != dandiset.owner:
            raise refused(404, "Not found.")
        return found

    def _own_zarr(self, user: str, zarr: str) -> Zarr:
        found = self._zarr(user, zarr)
        self._own(user, self._dandisets[found.dandiset])
        return found

    def _list_zarrs(self, request: Request, user: str) -> Answer:
        found = []
        for each in self._zarrs.values():
            dandiset = self._dandisets[each.dandiset]
            wanted = (request.query.get("dandiset", each.dandiset), request.query.get("name"))
            if dandiset.embargoed and user != dandiset.owner:
                continue
            if wanted[0] == each.dandiset and wanted[1] in (None, each.name):
                found.append(each.as_json())
        return self._page(request, found)

    def _create_zarr(self, request: Request, user: str) -> Answer:
        wanted = request.json()
        self._own(user, self._seen(user, wanted["dandiset"]))
        for each in self._zarrs.values():
            if (each.dandiset, each.name) == (wanted["dandiset"], wanted["name"]):
                return Answer.json(["Zarr already exists"], 400)
        zarr = Zarr(uuid.uuid4(), wanted["name"], wanted["dandiset"])
        self._zarrs[str(zarr.zarr_id)] = zarr
        return Answer.json(zarr.as_json())

    def _get_zarr(self, request: Request, user: str, zarr: str) -> Answer:
        return Answer.json(self._zarr(user, zarr).as_json())

    def _list_files(self, request: Request, user: str, zarr: str) -> Answer:
        # Who may list is not asked here, as there; an embargoed object needs a signature anyway.
        found = self._zarrs.get(zarr)
        if found is None:
            raise refused(404, "Not found.")
        prefix = request.query.get("prefix", "").lstrip("/")
        if request.method == "HEAD":
            key = (found.key + prefix).rstrip("/")
            return Answer.redirect(self.bucket.presign(key, method="HEAD"))
        if request.query.get("download", "").lower() in ("true", "1"):
            return Answer.redirect(self.bucket.presign(found.key + prefix))
        limit = min(int(request.query.get("limit", LISTING_LIMIT)), LISTING_LIMIT)
        start = (found.key + prefix).rstrip("/")
        after = found.key + request.query.get("after", "").lstrip("/")
        keys = sorted(
            (key for key in list(self.bucket.objects) if key.startswith(start) and key > after),
            key=str.encode,
        )
        results = []
        for key in keys[:limit]:
            stored = self.bucket.objects[key]
            results.append(
                {
                    "Key": key.removeprefix(found.key),
                    "LastModified": _time(stored.modified_s),
                    "ETag": stored.etag,
                    "Size": stored.path.stat().st_size,
                }
            )
        following = None
        if len(keys) > limit:
            query = urllib.parse.urlencode({**request.query, "after": results[-1]["Key"]})
            following = f"{self.url}{request.path}?{query}"
        return Answer.json({"next": following, "results": results})

    def _upload_files(self, request: Request, user: str, zarr: str) -> Answer:
        found = self._own_zarr(user, zarr)
        private = {"private": ""} if self._dandisets[found.dandiset].embargoed else {}
        found.status, found.checksum = "Pending", None
        urls = [
            self.bucket.presign(found.key + file["path"], method="PUT", query=private)
            for file in request.json()
        ]
        return Answer.json(urls)

    def _delete_files(self, request: Request, user: str, zarr: str) -> Answer:
        found = self._own_zarr(user, zarr)
        found.status, found.checksum = "Pending", None
        for file in request.json():
            self.bucket.objects.pop(found.key + file["path"], None)
        return Answer(204)

    def _finalize_zarr(self, request: Request, user: str, zarr: str) -> Answer:
        found = self._own_zarr(user, zarr)
        if found.status != "Pending":
            return Answer.json("Zarr archive not in Pending state", 400)
        self._digest(found)
        return Answer(204)

    def _page(self, request: Request, items: Sequence[Any], *, counts_once: bool = False) -> Answer:
        try:
            page = int(request.query.get("page", 1))
            size = min(int(request.query.get("page_size", PAGE_SIZE)), PAGE_SIZE_LIMIT)
        except ValueError:
            raise refused(404, "Invalid page.") from None
        if page < 1 or size < 1 or (page > 1 and (page - 1) * size >= len(items)):
            raise refused(404, "Invalid page.")

        def link(number: int) -> str | None:
            if number < 1 or (number - 1) * size >= max(1, len(items)):
                return None
            query = {**request.query, "page": str(number)}
            return f"{self.url}{request.path}?{urllib.parse.urlencode(query)}"

        return Answer.json(
            {
                # Where counting is dear, only the first page has it.
                "count": None if counts_once and page > 1 else len(items),
                "next": link(page + 1),
                "previous": link(page - 1),
                "results": items[(page - 1) * size : page * size],
            }
        )


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat()
