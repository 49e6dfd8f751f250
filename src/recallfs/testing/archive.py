"""The archive behind the DANDI server: what it holds, how it is filled, and who may see what."""

from __future__ import annotations

import hashlib
import re
import secrets
import threading
import uuid
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from recallfs.digest.plain import hash_file
from recallfs.errors import InvalidInputError
from recallfs.testing import dandisets
from recallfs.testing.bucket import ServerWithBucket
from recallfs.testing.dandisets import Asset, Blob, Dandiset, Upload, Version, Zarr
from recallfs.testing.messages import PIECE_BYTES, Answer, Refused, Request

SCHEMA_VERSION = "0.6.10"
TOKEN = "loopback-token"  # noqa: S105 - of a test


class Archive(ServerWithBucket):
    """An archive; `bucket` is its object store, on another port.

    Parameters
    ----------
    host : str, optional
        ``127.0.0.1`` or ``::1``.
    port : int, optional
        Port of the API; 0: one that is free.
    token : str, optional
        Token of the user who owns the dandisets that are added without another owner.

    Attributes
    ----------
    bucket : BucketServer
        Where the bytes are, with a log and faults of its own.
    token : str
        Token of the owner.
    knows_sha256 : bool
        Whether the sha256 of what is added or uploaded from now on is known at once; the real
        archive computes it some time later.
    schema_version : str
        Version of the metadata schema that is announced to clients.
    """

    def __init__(self, *, host: str = "127.0.0.1", port: int = 0, token: str = TOKEN) -> None:
        super().__init__(host=host, port=port)
        self.bucket.url_lifetime_s = 6 * 3600.0
        self.token = token
        self.knows_sha256 = True
        self.schema_version = SCHEMA_VERSION
        self._users = {token: "owner"}
        self._dandisets: dict[str, Dandiset] = {}
        self._assets: dict[str, Asset] = {}
        self._blobs: dict[str, Blob] = {}
        self._zarrs: dict[str, Zarr] = {}
        self._uploads: dict[str, Upload] = {}
        self._change = threading.RLock()

    @property
    def api_url(self) -> str:
        """URL of the API, without a slash at its end."""
        return f"{self.url}/api"

    def add_user(self, name: str) -> str:
        """Add a user and return their token."""
        token = secrets.token_hex(20)
        self._users[token] = name
        return token

    def add_dandiset(
        self,
        identifier: str = "",
        *,
        name: str = "A dandiset",
        embargoed: bool = False,
        owner: str = "owner",
    ) -> str:
        """Add a dandiset with an empty draft and return its identifier.

        Parameters
        ----------
        identifier : str, optional
            Six digits. Default: the next that is free.
        name : str, optional
            Title.
        embargoed : bool, optional
            Whether only the owner may see it; its bytes need a signature.
        owner : str, optional
            Name of the user.
        """
        with self._change:
            identifier = identifier or f"{len(self._dandisets) + 1:06}"
            if not re.fullmatch(r"\d{6}", identifier) or identifier in self._dandisets:
                raise InvalidInputError(f"{identifier!r} is taken, or is not six digits.")
            self._dandisets[identifier] = Dandiset(identifier, name, embargoed, owner)
        return identifier

    def add_asset(
        self,
        dandiset: str,
        path: str,
        file: Path,
        *,
        sha256: str | None = None,
        etag: str = "",
    ) -> str:
        """Put a file into a draft and return the asset's id.

        Parameters
        ----------
        dandiset : str
            Identifier.
        path : str
            Path of the asset; an asset that is there already is replaced by a new one.
        file : Path
            Not empty. Served as it is when it is asked for, so that a later change is corruption.
        sha256 : str, optional
            Hex; empty: not known yet. Default: computed, if `knows_sha256`.
        etag : str, optional
            The dandi-etag. Default: computed.

        Notes
        -----
        A blob with the same dandi-etag and size that is there already is used again.
        """
        if sha256 is None:
            sha256 = hash_file(file, "sha256") if self.knows_sha256 else ""
        etag = etag or dandi_etag(file)
        if not file.stat().st_size:
            raise InvalidInputError(f"{file} is empty, and DANDI takes no empty files.")
        with self._change:
            draft = self._dandisets[dandiset].draft
            blob = self._blob(etag, file.stat().st_size)
            if blob is None:
                blob = Blob(uuid.uuid4(), etag, sha256, file.stat().st_size)
                self._keep(blob, file, private=self._dandisets[dandiset].embargoed)
            return self._put(draft, path, {}, blob=blob).asset_id

    def change_draft(self, dandiset: str, path: str, file: Path) -> str:
        """Give a path of a draft other bytes and return the id of the new asset.

        The old asset is still found by its id, and in the versions that were published with it.
        """
        if path not in self._dandisets[dandiset].draft.assets:
            raise InvalidInputError(f"dandiset {dandiset} has no {path!r} to change.")
        return self.add_asset(dandiset, path, file)

    def remove_asset(self, dandiset: str, path: str) -> None:
        """Take an asset out of a draft; it is still found by its id."""
        del self._dandisets[dandiset].draft.assets[path]

    def add_zarr(self, dandiset: str, path: str, folder: Path) -> str:
        """Put a folder into a draft as one zarr asset and return the asset's id.

        Parameters
        ----------
        dandiset : str
            Identifier.
        path : str
            Path of the asset.
        folder : Path
            Its files are served as they are when they are asked for.
        """
        with self._change:
            zarr = Zarr(uuid.uuid4(), path, dandiset)
            self._zarrs[str(zarr.zarr_id)] = zarr
            for file in sorted(folder.rglob("*")):
                if file.is_file():
                    self.bucket.add(
                        f"{zarr.key}{file.relative_to(folder).as_posix()}",
                        file,
                        private=self._dandisets[dandiset].embargoed,
                    )
            self._digest(zarr)
            draft = self._dandisets[dandiset].draft
            return self._put(draft, path, {}, zarr=zarr).asset_id

    def publish(self, dandiset: str, version: str = "") -> str:
        """Publish a draft and return the identifier of the version.

        Parameters
        ----------
        dandiset : str
            Identifier.
        version : str, optional
            Default: ``0.YYMMDD.HHMM`` of now, or the next minute that is free.
        """
        with self._change:
            about = self._dandisets[dandiset]
            if about.embargoed:
                raise InvalidInputError(f"dandiset {dandiset} is embargoed.")
            now = datetime.now(timezone.utc)
            while not version or version in about.versions:
                version = now.strftime("0.%y%m%d.%H%M")
                now += dandisets.MINUTE
            self.compute_sha256()
            for asset in about.draft.assets.values():
                asset.is_published = True
            about.draft.status = "Published"
            about.versions[version] = Version(
                version, about.name, dict(about.draft.assets), status="Published"
            )
        return version

    def compute_sha256(self) -> None:
        """Compute what `knows_sha256` left out; publishing does so, too."""
        with self._change:
            for blob in self._blobs.values():
                blob.sha256 = blob.sha256 or hash_file(self.bucket.objects[blob.key].path, "sha256")

    def asset(self, asset_id: str) -> Asset:
        """Return what is known of an asset: its `blob` or `zarr`, with their digests and keys."""
        return self._assets[asset_id]

    def bucket_key(self, asset_id: str) -> str:
        """Key of an asset's object, or of its folder, in `bucket`, which is also its path there."""
        asset = self._assets[asset_id]
        return asset.blob.key if asset.blob is not None else _present(asset.zarr).key

    def _user(self, request: Request) -> str:
        header = request.headers.get("authorization", "")
        if not header:
            return ""
        scheme, _, token = header.partition(" ")
        if scheme.lower() not in ("token", "bearer") or token not in self._users:
            raise refused(401, "Invalid token.")
        return self._users[token]

    def _seen(self, user: str, identifier: str) -> Dandiset:
        dandiset = self._dandisets.get(identifier)
        if dandiset is None:
            raise refused(404, "Not found.")
        if dandiset.embargoed:
            self._own(user, dandiset)
        return dandiset

    def _own(self, user: str, dandiset: Dandiset) -> None:
        if not user:
            raise refused(401, "Authentication credentials were not provided.")
        if user != dandiset.owner:
            raise refused(403, "You do not have permission to perform this action.")

    def _draft(self, user: str, identifier: str, version: str) -> Version:
        dandiset = self._seen(user, identifier)
        self._own(user, dandiset)
        if version != "draft":
            raise Refused(Answer.json("Only draft versions can be modified.", 405))
        return dandiset.draft

    def _version(self, user: str, identifier: str, version: str) -> Version:
        found = self._seen(user, identifier).versions.get(version)
        if found is None:
            raise refused(404, "Not found.")
        return found

    def _asset(self, user: str, asset: str, dandiset: str | None, within: str | None) -> Asset:
        found = self._assets.get(asset)
        if found is None:
            raise refused(404, "Not found.")
        if dandiset is not None and within is not None:
            if found not in self._version(user, dandiset, within).assets.values():
                raise refused(404, "Not found.")
            return found
        # Without a dandiset, who may see an asset is decided by where its bytes belong.
        for each in self._dandisets.values():
            held = any(
                found in each_version.assets.values() for each_version in each.versions.values()
            )
            if held and each.embargoed:
                self._own(user, each)
        return found

    def _put(
        self,
        draft: Version,
        path: str,
        metadata: Mapping[str, Any],
        *,
        blob: Blob | None = None,
        zarr: Zarr | None = None,
    ) -> Asset:
        kept = {key: metadata[key] for key in metadata if key not in dandisets.COMPUTED_FIELDS}
        asset = Asset(str(uuid.uuid4()), path, blob, zarr, {**dandisets.plain_metadata(), **kept})
        asset.metadata.setdefault("schemaVersion", self.schema_version)
        self._assets[asset.asset_id] = asset
        draft.assets[path] = asset
        draft.status, draft.modified = "Valid", asset.modified
        return asset

    def _blob(self, etag: str, size: int) -> Blob | None:
        same = (each for each in self._blobs.values() if (each.etag, each.size) == (etag, size))
        return next(same, None)

    def _keep(self, blob: Blob, file: Path, *, private: bool) -> None:
        self._blobs[str(blob.blob_id)] = blob
        self.bucket.add(blob.key, file, etag=blob.etag, private=private)

    def _digest(self, zarr: Zarr) -> None:
        files = {
            key.removeprefix(zarr.key): (stored.etag, stored.path.stat().st_size)
            for key, stored in list(self.bucket.objects.items())
            if key.startswith(zarr.key)
        }
        zarr.file_count, zarr.size = len(files), sum(size for _, size in files.values())
        zarr.checksum, zarr.status = dandisets.zarr_checksum(files), "Complete"


def part_sizes(size_bytes: int) -> list[int]:
    """Sizes of the parts that DANDI uploads a file in, bytes."""
    part = 64 << 20
    if -(-size_bytes // part) >= 10_000:
        part = -(-size_bytes // 10_000)
    whole, rest = divmod(size_bytes, part)
    return [part] * whole + [rest] * (rest > 0)


def dandi_etag(path: Path) -> str:
    """Return the dandi-etag of a file: the md5 of its parts' md5s, and their number."""
    md5s = []
    with path.open("rb") as file:
        for size in part_sizes(path.stat().st_size):
            md5 = hashlib.md5(usedforsecurity=False)
            end = file.tell() + size
            while piece := file.read(min(end - file.tell(), PIECE_BYTES)):
                md5.update(piece)
            md5s.append(md5.digest())
    joined = hashlib.md5(b"".join(md5s), usedforsecurity=False)
    return f"{joined.hexdigest()}-{len(md5s)}"


def _present(zarr: Zarr | None) -> Zarr:
    assert zarr is not None, "an asset has a blob or a zarr"
    return zarr


def refused(status: int, detail: str) -> Refused:
    """Return what ends a request with an error as the API words it."""
    answer = Answer.json({"detail": detail}, status)
    if status == 401:
        answer.headers["WWW-Authenticate"] = "Token"
    return Refused(answer)
