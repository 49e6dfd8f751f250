"""A DANDI API and its object store, on loopback.

    python -m recallfs.testing.dandi --root FOLDER --port 0

offers each subfolder ``000001`` of a folder as a draft and prints the URL of the API. What it
answers is what dandi-archive answers, as far as the client and `recallfs` ask; tokens, embargo,
uploads and zarr assets are among it.
"""

from __future__ import annotations

import re
import sys
import urllib.parse
import uuid
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from recallfs.errors import InvalidInputError
from recallfs.testing.archive import TOKEN, Archive, part_sizes, refused, sha256_of
from recallfs.testing.dandisets import Asset, Blob, Dandiset, Upload, Version, Zarr
from recallfs.testing.http import Answer, Refused, Request

PAGE_SIZE = 100
PAGE_SIZE_LIMIT = 1000
LISTING_LIMIT = 1000
# What clients may write; theirs must be among them if it is older than the server's.
SCHEMA_VERSIONS = [*(f"0.6.{patch}" for patch in range(11)), "0.7.0", "0.8.0"]
_ID = r"[0-9a-f-]{36}"
_DANDISET = r"/dandisets/(?P<dandiset>\d{6})"
_VERSION = _DANDISET + r"/versions/(?P<version>draft|\d+\.\d+\.\d+)"


class DandiServer(Archive):
    """The API of an archive; takes what `Archive` takes and is filled as that is."""

    def __init__(self, *, host: str = "127.0.0.1", port: int = 0, token: str = TOKEN) -> None:
        super().__init__(host=host, port=port, token=token)
        self._routes = [
            (method, re.compile(pattern + "/"), handler)
            for method, pattern, handler in self._table()
        ]

    def answer(self, request: Request) -> Answer:
        """Answer what an API is asked."""
        path = request.path
        if path in ("/server-info", "/server-info/"):
            return Answer.redirect(f"{self.api_url}/info/")
        if not path.startswith("/api/"):
            return Answer.json({"detail": "Not found."}, 404)
        if not path.endswith("/") and request.method in ("GET", "HEAD"):
            query = urllib.parse.urlencode(request.query)
            return Answer.redirect(f"{path}/" + (f"?{query}" if query else ""), 301)
        # A token that is wrong is refused even where none is needed.
        user = self._user(request)
        methods = []
        for method, pattern, handler in self._routes:
            match = pattern.fullmatch(path.removeprefix("/api"))
            if match is None:
                continue
            methods.append(method)
            if request.method == method or (request.method, method) == ("HEAD", "GET"):
                with self._change:
                    return handler(request, user, **match.groupdict())
        if methods:
            return Answer.json({"detail": f'Method "{request.method}" not allowed.'}, 405)
        return Answer.json({"detail": "Not found."}, 404)

    def _table(self) -> Iterable[tuple[str, str, Callable[..., Answer]]]:
        asset = rf"/assets/(?P<asset>{_ID})"
        upload = rf"/uploads/(?P<upload>{_ID})"
        zarr = rf"/zarr/(?P<zarr>{_ID})"
        return (
            ("GET", "/info", self._info),
            ("GET", "/auth/token", self._token),
            ("GET", "/dandisets", self._list_dandisets),
            ("POST", "/dandisets", self._create_dandiset),
            ("GET", _DANDISET, self._get_dandiset),
            ("GET", _DANDISET + "/versions", self._list_versions),
            ("GET", _VERSION, self._get_version_metadata),
            ("GET", _VERSION + "/info", self._get_version),
            ("POST", _DANDISET + "/versions/draft/publish", self._publish),
            ("GET", _VERSION + "/assets", self._list_assets),
            ("POST", _VERSION + "/assets", self._create_asset),
            ("GET", _VERSION + "/assets/paths", self._list_paths),
            ("GET", f"(?:{_VERSION})?{asset}", self._get_metadata),
            ("PUT", _VERSION + asset, self._replace_asset),
            ("DELETE", _VERSION + asset, self._delete_asset),
            ("GET", f"(?:{_VERSION})?{asset}/info", self._get_asset),
            ("GET", f"(?:{_VERSION})?{asset}/download", self._download),
            ("POST", "/blobs/digest", self._find_blob),
            ("POST", "/uploads/initialize", self._initialize),
            ("POST", upload + "/complete", self._complete),
            ("POST", upload + "/validate", self._validate),
            ("GET", "/zarr", self._list_zarrs),
            ("POST", "/zarr", self._create_zarr),
            ("GET", zarr, self._get_zarr),
            ("GET", zarr + "/files", self._list_files),
            ("POST", zarr + "/files", self._upload_files),
            ("DELETE", zarr + "/files", self._delete_files),
            ("POST", zarr + "/finalize", self._finalize_zarr),
        )

    # --- the instance and its dandisets

    def _info(self, request: Request, user: str) -> Answer:
        return Answer.json(
            {
                "schema_version": self.schema_version,
                "schema_url": f"{self.api_url}/schemas/",
                "allowed_schema_versions": SCHEMA_VERSIONS,
                "version": "0.13.0",
                "cli-minimal-version": "0.60.0",
                "cli-bad-versions": [],
                "services": {
                    "api": {"url": self.api_url},
                    "webui": {"url": self.url},
                    "jupyterhub": {"url": self.url},
                },
            }
        )

    def _token(self, request: Request, user: str) -> Answer:
        if not user:
            raise refused(401, "Authentication credentials were not provided.")
        return Answer.json(request.headers["authorization"].partition(" ")[2])

    def _list_dandisets(self, request: Request, user: str) -> Answer:
        seen = [
            self._about(dandiset)
            for dandiset in self._dandisets.values()
            if not dandiset.embargoed or dandiset.owner == user
        ]
        return self._page(request, seen)

    def _create_dandiset(self, request: Request, user: str) -> Answer:
        if not user:
            raise refused(401, "Authentication credentials were not provided.")
        identifier = self.add_dandiset(
            name=request.json()["name"],
            embargoed=request.query.get("embargo") == "true",
            owner=user,
        )
        return Answer.json(self._about(self._dandisets[identifier]))

    def _get_dandiset(self, request: Request, user: str, dandiset: str) -> Answer:
        return Answer.json(self._about(self._seen(user, dandiset)))

    def _about(self, dandiset: Dandiset) -> dict[str, Any]:
        published = dandiset.newest_published
        return {
            **dandiset.as_json(),
            "most_recent_published_version": published.as_json() if published else None,
            "draft_version": dandiset.draft.as_json(),
        }

    def _list_versions(self, request: Request, user: str, dandiset: str) -> Answer:
        versions = sorted(self._seen(user, dandiset).versions.values(), key=lambda v: v.created)
        if request.query.get("order", "").startswith("-"):
            versions.reverse()
        about = self._dandisets[dandiset].as_json()
        return self._page(request, [{**each.as_json(), "dandiset": about} for each in versions])

    def _get_version_metadata(
        self, request: Request, user: str, dandiset: str, version: str
    ) -> Answer:
        return Answer.json(self._metadata(dandiset, self._version(user, dandiset, version)))

    def _metadata(self, dandiset: str, version: Version) -> dict[str, Any]:
        return {
            "id": f"DANDI:{dandiset}/{version.identifier}",
            "url": f"{self.url}/dandiset/{dandiset}/{version.identifier}",
            "name": version.name,
            "version": version.identifier,
            "identifier": f"DANDI:{dandiset}",
            "schemaKey": "Dandiset",
            "schemaVersion": self.schema_version,
            "description": "Served by a loopback server.",
        }

    def _get_version(self, request: Request, user: str, dandiset: str, version: str) -> Answer:
        found = self._version(user, dandiset, version)
        return Answer.json(
            {
                **found.as_json(),
                "dandiset": self._dandisets[dandiset].as_json(),
                "asset_validation_errors": [],
                "version_validation_errors": [],
                "metadata": self._metadata(dandiset, found),
                "contact_person": "",
            }
        )

    def _publish(self, request: Request, user: str, dandiset: str) -> Answer:
        self._draft(user, dandiset, "draft")
        try:
            self.publish(dandiset)
        except InvalidInputError:
            return Answer.json("Operation only allowed on OPEN dandisets", 400)
        return Answer.json(None, 202)

    # --- assets

    def _list_assets(self, request: Request, user: str, dandiset: str, version: str) -> Answer:
        assets = list(self._version(user, dandiset, version).assets.values())
        order = request.query.get("order") or "created"
        field = order.lstrip("-")
        if field not in ("created", "modified", "path"):
            raise Refused(Answer.json({"order": ["Select a valid choice."]}, 400))
        assets.sort(key=lambda asset: str(getattr(asset, field)), reverse=order[0] == "-")
        if prefix := request.query.get("path", ""):
            assets = [each for each in assets if each.path.lower().startswith(prefix.lower())]
        if glob := request.query.get("glob", ""):
            pattern = re.compile(re.escape(glob).replace(r"\*", ".*"), re.IGNORECASE)
            assets = [each for each in assets if pattern.fullmatch(each.path)]
        with_metadata = request.query.get("metadata") == "true"
        return self._page(
            request,
            [each.as_json(self._full if with_metadata else None) for each in assets],
            counts_once=True,
        )

    def _list_paths(self, request: Request, user: str, dandiset: str, version: str) -> Answer:
        prefix = request.query.get("path_prefix", "").strip("/")
        prefix += "/" if prefix else ""
        children: dict[str, list[Asset]] = {}
        for path, asset in self._version(user, dandiset, version).assets.items():
            if path.startswith(prefix):
                name = path[len(prefix) :].partition("/")[0]
                children.setdefault(prefix + name, []).append(asset)
        if prefix and not children:
            raise refused(404, "Specified path not found.")
        about = []
        for path, assets in sorted(children.items()):
            is_file = assets[0].path == path
            shown = {"asset_id": assets[0].asset_id, "url": self._bare_url(assets[0])}
            about.append(
                {
                    "path": path,
                    "version": 1,
                    "aggregate_files": len(assets),
                    "aggregate_size": sum(asset.size for asset in assets),
                    "asset": shown if is_file else None,
                }
            )
        # Folders first.
        about.sort(key=lambda each: each["asset"] is not None)
        return self._page(request, about)

    def _create_asset(self, request: Request, user: str, dandiset: str, version: str) -> Answer:
        draft = self._draft(user, dandiset, version)
        metadata, blob, zarr = self._wanted(request)
        if metadata["path"] in draft.assets:
            return Answer.json("An asset with that path already exists", 409)
        asset = self._put(draft, metadata["path"], metadata, blob=blob, zarr=zarr)
        return Answer.json(asset.as_json(self._full))

    def _replace_asset(
        self, request: Request, user: str, dandiset: str, version: str, asset: str
    ) -> Answer:
        draft = self._draft(user, dandiset, version)
        old = self._asset(user, asset, dandiset, version)
        metadata, blob, zarr = self._wanted(request)
        if metadata["path"] != old.path and metadata["path"] in draft.assets:
            return Answer.json("An asset with that path already exists", 409)
        del draft.assets[old.path]
        new = self._put(draft, metadata["path"], metadata, blob=blob, zarr=zarr)
        return Answer.json(new.as_json(self._full))

    def _wanted(self, request: Request) -> tuple[dict[str, Any], Blob | None, Zarr | None]:
        wanted = request.json()
        metadata = wanted.get("metadata", {})
        if ("blob_id" in wanted) == ("zarr_id" in wanted):
            text = "Exactly one of blob_id or zarr_id must be specified."
            raise Refused(Answer.json({"blob_id": [text]}, 400))
        if not metadata.get("path"):
            raise Refused(Answer.json({"metadata": ["No path specified in metadata."]}, 400))
        blob = self._blobs.get(wanted.get("blob_id", ""))
        zarr = self._zarrs.get(wanted.get("zarr_id", ""))
        if blob is None and zarr is None:
            raise refused(404, "Not found.")
        return metadata, blob, zarr

    def _delete_asset(
        self, request: Request, user: str, dandiset: str, version: str, asset: str
    ) -> Answer:
        draft = self._draft(user, dandiset, version)
        del draft.assets[self._asset(user, asset, dandiset, version).path]
        return Answer(204)

    def _get_asset(
        self, request: Request, user: str, asset: str, dandiset: str | None, version: str | None
    ) -> Answer:
        return Answer.json(self._asset(user, asset, dandiset, version).as_json(self._full))

    def _get_metadata(
        self, request: Request, user: str, asset: str, dandiset: str | None, version: str | None
    ) -> Answer:
        return Answer.json(self._full(self._asset(user, asset, dandiset, version)))

    def _full(self, asset: Asset) -> dict[str, Any]:
        download = f"{self.api_url}/assets/{asset.asset_id}/download/"
        return asset.full_metadata([download, self._bare_url(asset)])

    def _bare_url(self, asset: Asset) -> str:
        return self.bucket.object_url(self.bucket_key(asset.asset_id))

    def _download(
        self, request: Request, user: str, asset: str, dandiset: str | None, version: str | None
    ) -> Answer:
        found = self._asset(user, asset, dandiset, version)
        if found.blob is None:
            text = (
                "Unable to provide download link for zarr assets."
                " Please browse the zarr files directly to do so."
            )
            return Answer.json(text, 400)
        name = found.path.rpartition("/")[2]
        shown = {"response-content-disposition": f'attachment; filename="{name}"'}
        # Signed for GET, even if HEAD is asked.
        return Answer.redirect(self.bucket.presign(found.blob.key, query=shown))

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
            sha256 = sha256_of(stored.path) if self.knows_sha256 else ""
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


def main(arguments: Sequence[str]) -> int:
    """Offer the subfolders of a folder as drafts until the process is ended."""
    from recallfs.testing.command import parse, serve

    options = parse("recallfs.testing.dandi", __doc__, arguments)
    try:
        server = DandiServer(host=options.host, port=options.port, token=options.token)
        for folder in sorted(options.root.iterdir()) if options.root else ():
            _offer(server, folder)
    except (InvalidInputError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return serve(server, server.api_url, options, {"api": server, "bucket": server.bucket})


def _offer(server: DandiServer, folder: Path) -> None:
    if not folder.is_dir():
        return
    dandiset = server.add_dandiset(folder.name)
    zarrs = [each for each in folder.rglob("*.zarr") if each.is_dir()]
    for zarr in zarrs:
        server.add_zarr(dandiset, zarr.relative_to(folder).as_posix(), zarr)
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not any(path.is_relative_to(zarr) for zarr in zarrs):
            server.add_asset(dandiset, path.relative_to(folder).as_posix(), path)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
