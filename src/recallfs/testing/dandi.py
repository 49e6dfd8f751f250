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
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from recallfs.errors import InvalidInputError
from recallfs.testing.archive import TOKEN, refused
from recallfs.testing.dandi_objects import Objects
from recallfs.testing.dandisets import Asset, Blob, Dandiset, Version, Zarr
from recallfs.testing.messages import Answer, Refused, Request

# What clients may write; theirs must be among them if it is older than the server's.
SCHEMA_VERSIONS = [*(f"0.6.{patch}" for patch in range(11)), "0.7.0", "0.8.0"]
_ID = r"[0-9a-f-]{36}"
_DANDISET = r"/dandisets/(?P<dandiset>\d{6})"
_VERSION = _DANDISET + r"/versions/(?P<version>draft|\d+\.\d+\.\d+)"


class DandiServer(Objects):
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
