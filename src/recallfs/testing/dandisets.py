"""What a DANDI archive keeps: dandisets, versions, assets, blobs and zarrs, and their JSON."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any

MINUTE = timedelta(minutes=1)
COMPUTED_FIELDS = (
    "id",
    "path",
    "identifier",
    "contentUrl",
    "contentSize",
    "digest",
    "datePublished",
    "publishedBy",
)


def now() -> str:
    """Return the time as DANDI writes it."""
    return datetime.now(timezone.utc).isoformat().replace("+00:00", "Z")


@dataclass
class Blob:
    """Bytes in the bucket.

    Parameters
    ----------
    blob_id : UUID
        Names the bytes.
    etag : str
        The dandi-etag.
    sha256 : str
        Hex; empty as long as it is not known.
    size : int
        Bytes.
    """

    blob_id: uuid.UUID
    etag: str
    sha256: str
    size: int

    @property
    def key(self) -> str:
        """Key in the bucket server."""
        text = str(self.blob_id)
        return f"dandiarchive/blobs/{text[:3]}/{text[3:6]}/{text}"

    def as_json(self) -> dict[str, Any]:
        """Return what the API tells."""
        return {
            "blob_id": str(self.blob_id),
            "etag": self.etag,
            "sha256": self.sha256 or None,
            "size": self.size,
        }


@dataclass
class Zarr:
    """A folder in the bucket.

    Parameters
    ----------
    zarr_id : UUID
        Names the folder.
    name, dandiset : str
        Path of the asset and identifier of the dandiset that it was made for.
    status : str
        ``Pending`` or ``Complete``.
    checksum : str or None
        The dandi-zarr-checksum, when complete.
    file_count, size : int
        Files, and bytes in all.
    """

    zarr_id: uuid.UUID
    name: str
    dandiset: str
    status: str = "Pending"
    checksum: str | None = None
    file_count: int = 0
    size: int = 0

    @property
    def key(self) -> str:
        """Key in the bucket server, up to a slash."""
        return f"dandiarchive/zarr/{self.zarr_id}/"

    def as_json(self) -> dict[str, Any]:
        """Return what the API tells."""
        return {
            "name": self.name,
            "dandiset": self.dandiset,
            "zarr_id": str(self.zarr_id),
            "status": self.status,
            "checksum": self.checksum,
            "file_count": self.file_count,
            "size": self.size,
        }


@dataclass
class Asset:
    """A path with bytes; never changed, only replaced.

    Parameters
    ----------
    asset_id, path : str
        What names it.
    blob : Blob or None
        Its bytes, if it is a file.
    zarr : Zarr or None
        Its bytes, if it is a folder.
    metadata : dict
        Without what is computed.
    is_published : bool
        Whether a published version holds it.
    """

    asset_id: str
    path: str
    blob: Blob | None
    zarr: Zarr | None
    metadata: dict[str, Any]
    is_published: bool = False
    created: str = field(default_factory=now)

    @property
    def modified(self) -> str:
        """Assets do not change."""
        return self.created

    @property
    def size(self) -> int:
        """Bytes."""
        if self.blob is not None:
            return self.blob.size
        return self.zarr.size if self.zarr is not None else 0

    def as_json(self, full: Callable[[Asset], dict[str, Any]] | None) -> dict[str, Any]:
        """Return what the API tells; with a function that gives it, the metadata, too."""
        about = {
            "asset_id": self.asset_id,
            "blob": str(self.blob.blob_id) if self.blob is not None else None,
            "zarr": str(self.zarr.zarr_id) if self.zarr is not None else None,
            "path": self.path,
            "size": self.size,
            "created": self.created,
            "modified": self.modified,
        }
        return {**about, "metadata": full(self)} if full is not None else about

    def full_metadata(self, content_urls: list[str]) -> dict[str, Any]:
        """Return the metadata with all that is computed."""
        computed: dict[str, Any] = {}
        if self.blob is not None:
            computed["digest"] = {"dandi:dandi-etag": self.blob.etag}
            if self.blob.sha256:
                computed["digest"]["dandi:sha2-256"] = self.blob.sha256
        elif self.zarr is not None:
            computed["encodingFormat"] = "application/x-zarr"
            known = self.zarr.checksum is not None
            computed["digest"] = {"dandi:dandi-zarr-checksum": self.zarr.checksum} if known else {}
        if self.is_published:
            computed["datePublished"] = self.created
            computed["publishedBy"] = {"schemaKey": "PublishActivity", "name": "DANDI publish"}
        version = self.metadata["schemaVersion"]
        base = "https://raw.githubusercontent.com/dandi/schema/master/releases"
        return {
            **self.metadata,
            "id": f"dandiasset:{self.asset_id}",
            "path": self.path,
            "identifier": self.asset_id,
            "contentUrl": content_urls,
            "contentSize": self.size,
            "@context": f"{base}/{version}/context.json",
            **computed,
        }


@dataclass
class Version:
    """The assets of a dandiset at one time; of a draft, now.

    Parameters
    ----------
    identifier, name : str
        ``draft`` or three numbers; title.
    assets : dict of str to Asset
        By path.
    status : str
        ``Valid`` or ``Published``.
    created, modified : str
        Times.
    """

    identifier: str
    name: str
    assets: dict[str, Asset] = field(default_factory=dict)
    status: str = "Valid"
    created: str = field(default_factory=now)
    modified: str = field(default_factory=now)

    def as_json(self) -> dict[str, Any]:
        """Return what the API tells."""
        return {
            "version": self.identifier,
            "name": self.name,
            "asset_count": len(self.assets),
            "size": sum(asset.size for asset in self.assets.values()),
            "status": self.status,
            "created": self.created,
            "modified": self.modified,
        }


@dataclass
class Dandiset:
    """A dandiset with its versions.

    Parameters
    ----------
    identifier, name : str
        Six digits; title.
    embargoed : bool
        Whether only the owner may see it.
    owner : str
        Name of a user.
    """

    identifier: str
    name: str
    embargoed: bool
    owner: str
    created: str = field(default_factory=now)
    versions: dict[str, Version] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.versions["draft"] = Version("draft", self.name)

    @property
    def draft(self) -> Version:
        """The version that changes."""
        return self.versions["draft"]

    @property
    def newest_published(self) -> Version | None:
        """The version that was published last."""
        return next(
            (v for v in reversed(list(self.versions.values())) if v is not self.draft), None
        )

    def as_json(self) -> dict[str, Any]:
        """Return what the API tells, without the versions."""
        return {
            "identifier": self.identifier,
            "created": self.created,
            "modified": self.draft.modified,
            "contact_person": "",
            "embargo_status": "EMBARGOED" if self.embargoed else "OPEN",
        }


@dataclass
class Upload:
    """An upload that is not finished; its id becomes the blob's.

    Parameters
    ----------
    upload_id : UUID
        Names it.
    dandiset : Dandiset
        What it is for.
    etag : str
        What the client promised.
    size : int
        Bytes that the client promised.
    multipart_id : str
        The bucket's name for it.
    """

    upload_id: uuid.UUID
    dandiset: Dandiset
    etag: str
    size: int
    multipart_id: str = ""

    @property
    def key(self) -> str:
        """Key in the bucket server."""
        return Blob(self.upload_id, "", "", 0).key


def plain_metadata() -> dict[str, Any]:
    """Return the metadata of an asset of which nothing is known."""
    return {
        "schemaKey": "Asset",
        "encodingFormat": "application/octet-stream",
        "blobDateModified": now(),
        "dateModified": now(),
    }


def zarr_checksum(files: Mapping[str, tuple[str, int]]) -> str:
    """Return the dandi-zarr-checksum of a folder.

    Parameters
    ----------
    files : mapping of str to (str, int)
        Path below the folder: md5 and size in bytes.
    """
    return _folder_checksum({tuple(path.split("/")): about for path, about in files.items()})[0]


def _folder_checksum(files: Mapping[tuple[str, ...], tuple[str, int]]) -> tuple[str, int, int]:
    folders: dict[str, dict[tuple[str, ...], tuple[str, int]]] = {}
    leaves = []
    for (first, *rest), (md5, size) in files.items():
        if rest:
            folders.setdefault(first, {})[tuple(rest)] = (md5, size)
        else:
            leaves.append({"digest": md5, "name": first, "size": size})
    nodes, count, total = [], len(leaves), sum(size for _, size in files.values())
    for name, below in folders.items():
        checksum, file_count, size = _folder_checksum(below)
        nodes.append({"digest": checksum, "name": name, "size": size})
        count += file_count
    named = {
        "directories": sorted(nodes, key=lambda node: str(node["name"])),
        "files": sorted(leaves, key=lambda leaf: str(leaf["name"])),
    }
    text = json.dumps(named, separators=(",", ":"))
    md5 = hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
    return f"{md5}-{count}--{total}", count, total
