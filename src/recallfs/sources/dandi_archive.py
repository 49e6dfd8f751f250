"""What a DANDI archive says of its dandisets, assets and blobs; no client is needed."""

from __future__ import annotations

import fnmatch
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from urllib.parse import quote, urlencode

from recallfs.config import DandiSettings
from recallfs.digest.dandi_etag import ETAG
from recallfs.errors import (
    AccessError,
    InvalidInputError,
    NotRecallableError,
    SourceError,
    SourceRateLimitError,
)
from recallfs.sources.dandi_address import DandiAddress, Instance
from recallfs.sources.remote import Questions
from recallfs.transfer.addresses import origin, shown
from recallfs.transfer.http import Reply

PAGE = 200
"""Assets that are listed at once."""

_PATIENCE_S = 60.0
"""Longest wait that a listing puts up with when the archive asks to slow down."""

_BUCKETS = {"https://api.dandiarchive.org/api": "https://dandiarchive.s3.amazonaws.com"}
_IN_BUCKET = re.compile(r"(https?://.+)/(?:blobs|zarr)/[0-9a-f].*")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_DANDISET = re.compile(r"(?:DANDI:)?([0-9]{6})(?:[@/]([A-Za-z0-9.]+))?")


@dataclass(frozen=True)
class Listed:
    """A file as an archive lists it.

    Parameters
    ----------
    path : str
        In the dandiset.
    sha256, etag : str
        Empty where the archive does not say.
    mtime_ns : int
    """

    path: str
    size_bytes: int
    sha256: str
    etag: str
    mtime_ns: int
    address: DandiAddress


@dataclass(frozen=True)
class Described:
    """What the archive says of one asset or blob now.

    Parameters
    ----------
    sha256, etag : str
        Empty where it does not say.
    bare_url : str
        Of the object in the bucket; empty if it is not known.
    needs_token : bool
        Whether it is only told to those who are let in.
    """

    size_bytes: int | None
    sha256: str
    etag: str
    bare_url: str
    needs_token: bool


class Archive:
    """One archive.

    Parameters
    ----------
    instance : Instance
    settings : DandiSettings
    """

    def __init__(self, instance: Instance, settings: DandiSettings) -> None:
        self.instance = instance
        self.settings = settings
        self._name = "dandi"
        self._is_let_in = False  # only with the token, it turned out

    def questions(self) -> Questions:
        """Begin a look-up, which shares one deadline."""
        return Questions(self.settings, self._name)

    def patient(self) -> Questions:
        """Begin to ask something long, such as a page of a listing."""
        slow = replace(self.settings, answer_timeout=self.settings.read_timeout)
        return Questions(slow, self._name)

    def ask(
        self, questions: Questions, method: str, url: str, payload: Any = None
    ) -> tuple[Reply, bool]:
        """Ask, as anybody first; the token is sent only where that is not enough.

        Returns
        -------
        Reply
        bool
            Whether the token was needed.

        Raises
        ------
        AccessError
            The message names the variable that holds the token.
        """
        token = self.instance.token
        refusal: AccessError | None = None
        reply: Reply | None = None
        try:
            if self._is_let_in:
                headers = self.headers()
                reply = questions.json(
                    method, url, payload=payload, headers=headers, idempotent=True
                )
                return reply, True
            reply = questions.json(method, url, payload=payload, idempotent=True)
            # What is embargoed may be denied altogether.
            if reply.status not in (404, 410) or token is None or method != "GET":
                return reply, False
        except AccessError as error:
            refusal = error
        if token is not None:
            try:
                reply = questions.json(
                    method, url, payload=payload, headers=self.headers(), idempotent=True
                )
            except AccessError as error:
                if reply is None:
                    raise self.refused(error) from None
            else:
                self._is_let_in = reply.status < 300
                return reply, self._is_let_in
        if reply is not None:
            return reply, False
        raise self.refused(refusal)

    def headers(self) -> dict[str, str]:
        """Return what shows who asks; for the API alone."""
        token = self.instance.token
        return {} if token is None else {"Authorization": f"token {token}"}

    def refused(self, error: AccessError | None) -> AccessError:
        """Say which variable the token is taken from."""
        variable = self.instance.variables[0]
        details = dict(error.details) if error is not None else {}
        if self.instance.token is None:
            what = f"wants a token; set {variable}"
        elif details.get("status") == 401:
            what = f"does not accept the token in {variable}"
        else:
            what = f"does not let the owner of the token in {variable} see it"
        where = f" ({details['url']})" if "url" in details else ""
        return AccessError(f"{self.instance.host} {what}{where}.", details=details)

    # --- one file

    def describe(self, questions: Questions, address: DandiAddress) -> Described:
        """Return what is said of an asset, or of a file in a zarr asset.

        Raises
        ------
        NotRecallableError
            It is not in that version any more; the message says whether something else is.
        """
        if address.zarr_id:
            return self._describe_zarr_file(questions, address)
        reply, needs_token = self.ask(questions, "GET", address.asset_url)
        if reply.status < 300:
            return self._described(reply.body, needs_token)
        if not address.is_published:
            query = urlencode({"path": address.path, "metadata": "true"}, quote_via=quote)
            reply, _ = self.ask(questions, "GET", f"{address.assets_url}?{query}")
            if any(item.get("path") == address.path for item in _results(reply)):
                raise NotRecallableError(
                    f"the draft of dandiset {address.dandiset} has other bytes at {address.path} "
                    "now.",
                    details={"source": self._name},
                )
        raise NotRecallableError(
            f"{self.instance.host} has no {address.shown} any more.",
            details={"source": self._name},
        )

    def _describe_zarr_file(self, questions: Questions, address: DandiAddress) -> Described:
        url = f"{self.instance.api}/zarr/{address.zarr_id}/files/"
        query = urlencode({"prefix": address.key}, quote_via=quote)
        reply, needs_token = self.ask(questions, "GET", f"{url}?{query}")
        for item in _results(reply):
            if item.get("Key") == address.key:
                etag = str(item.get("ETag", "")).strip('"')
                return Described(_size(item.get("Size")), "", etag, "", needs_token)
        raise NotRecallableError(
            f"{self.instance.host} has no {address.shown} any more.",
            details={"source": self._name},
        )

    def _described(self, metadata: Any, needs_token: bool) -> Described:
        if not isinstance(metadata, dict):
            raise self._strange("an asset")
        sha256, etag = _digests(metadata)
        size = _size(metadata.get("contentSize"))
        return Described(size, sha256, etag, _bare_url(metadata), needs_token)

    def find_blob(self, questions: Questions, algorithm: str, value: str) -> Described | None:
        """Ask for a blob by digest.

        Parameters
        ----------
        algorithm : {"dandi:sha2-256", "dandi:dandi-etag"}

        Returns
        -------
        Described or None
            None if there is none. Its `bare_url` is the key in the bucket.
        """
        payload = {"algorithm": algorithm, "value": value}
        url = f"{self.instance.api}/blobs/digest/"
        reply, _ = self.ask(questions, "POST", url, payload)
        if reply.status in (404, 410):
            return None
        blob = reply.body if isinstance(reply.body, dict) else {}
        blob_id = blob.get("blob_id")
        if not isinstance(blob_id, str) or not re.fullmatch(r"[0-9a-f-]{36}", blob_id):
            raise self._strange("a blob")
        key = f"blobs/{blob_id[:3]}/{blob_id[3:6]}/{blob_id}"
        sha256, etag = str(blob.get("sha256") or ""), str(blob.get("etag") or "")
        return Described(_size(blob.get("size")), sha256, etag, key, False)

    def bucket(self) -> str:
        """Return the URL of the bucket that everybody may read; found once a process.

        Raises
        ------
        SourceError
            The archive shows no file that tells.
        """
        if self.instance.api not in _BUCKETS:
            _BUCKETS[self.instance.api] = self._find_bucket()
        return _BUCKETS[self.instance.api]

    def _find_bucket(self) -> str:
        # The API does not say where its bucket is; the address of any file there does.
        questions = self.questions()
        url = f"{self.instance.api}/dandisets/?page_size=10&empty=false"
        for dandiset in _results(self.ask(questions, "GET", url)[0]):
            for which in ("most_recent_published_version", "draft_version"):
                version = dandiset.get(which) or {}
                if not version.get("asset_count") or "identifier" not in dandiset:
                    continue
                path = f"dandisets/{dandiset['identifier']}/versions/{version.get('version')}"
                url = f"{self.instance.api}/{path}/assets/?page_size=1&metadata=true"
                for asset in _results(self.ask(questions, "GET", url)[0]):
                    match = _IN_BUCKET.fullmatch(_bare_url(asset.get("metadata") or {}))
                    if match is not None:
                        return match[1]
        raise SourceError(
            f"{self.instance.host} has the bytes, but does not show where its bucket is.",
            details={"source": self._name},
        )

    # --- listings

    def resolve(self, text: str) -> tuple[str, str]:
        """Return identifier and version of a dandiset, of which people may leave out the latter.

        Parameters
        ----------
        text : str
            ``000123``, ``000123@0.230101.1234`` or ``000123@draft``. Without a version: the newest
            that is published, else the draft.

        Raises
        ------
        InvalidInputError
            It is malformed, or there is no such dandiset or version.
        """
        match = _DANDISET.fullmatch(text.strip())
        if match is None:
            raise InvalidInputError(
                f"{text!r} is no dandiset; write six digits, and a version if need be: "
                "000123@0.230101.1234."
            )
        identifier, version = match[1], match[2]
        url = f"{self.instance.api}/dandisets/{identifier}/"
        reply, _ = self.ask(self.patient(), "GET", url)
        if reply.status >= 300:
            raise InvalidInputError(
                f"{self.instance.host} has no dandiset {identifier}"
                + ("." if self.instance.token else
                   f", or none that can be seen without {self.instance.variables[0]}.")
            )  # fmt: skip
        about = reply.body if isinstance(reply.body, dict) else {}
        newest = about.get("most_recent_published_version") or about.get("draft_version")
        if not isinstance(newest, dict) or not isinstance(newest.get("version"), str):
            raise self._strange("a dandiset")
        if version is None:
            return identifier, newest["version"]
        if version != newest["version"]:
            reply, _ = self.ask(self.patient(), "GET", f"{url}versions/{version}/info/")
            if reply.status >= 300:
                raise InvalidInputError(
                    f"dandiset {identifier} has no version {version}; its newest is "
                    f"{newest['version']}."
                )
        return identifier, version

    def files(
        self, identifier: str, version: str, glob: str | None = None
    ) -> Iterator[tuple[list[Listed], int | None]]:
        """List the files of a version, page by page; those of zarr assets one by one.

        Parameters
        ----------
        glob : str, optional
            Only paths that match; ``*`` stands for slashes, too.

        Yields
        ------
        list of Listed
        int or None
            How many assets there are in all, where the archive says so.
        """
        base = f"{self.instance.api}/dandisets/{identifier}/versions/{version}/assets/"
        query = {"metadata": "true", "order": "path", "page_size": str(PAGE)}
        if glob is not None:
            query["path"] = _fixed_start(glob)
        pages = self._pages(f"{base}?{urlencode(query, quote_via=quote)}")
        for results, count in pages:
            page: list[Listed] = []
            for asset in results:
                path, asset_id = asset.get("path"), asset.get("asset_id")
                if not isinstance(path, str) or not isinstance(asset_id, str):
                    raise self._strange("an asset")
                address = DandiAddress(self.instance.api, identifier, version, asset_id, path)
                if asset.get("zarr"):
                    for files in self._zarr_files(str(asset["zarr"]), address, glob):
                        yield files, count
                elif glob is None or fnmatch.fnmatchcase(path, glob):
                    page.append(self._listed(asset, address))
            yield page, count

    def _listed(self, asset: Mapping[str, Any], address: DandiAddress) -> Listed:
        size = _size(asset.get("size"))
        metadata = asset.get("metadata")
        if size is None or not isinstance(metadata, dict):
            raise self._strange("an asset")
        sha256, etag = _digests(metadata)
        if not sha256 and not etag:
            raise SourceError(
                f"{self.instance.host} tells no digest of {address.path}; try again later.",
                details={"source": self._name},
            )
        return Listed(address.path, size, sha256, etag, _mtime_ns(asset.get("modified")), address)

    def _zarr_files(
        self, zarr_id: str, asset: DandiAddress, glob: str | None
    ) -> Iterator[list[Listed]]:
        if glob is not None and not _may_match_below(asset.path, glob):
            return
        for results, _ in self._pages(f"{self.instance.api}/zarr/{zarr_id}/files/"):
            page = []
            for item in results:
                key, size = item.get("Key"), _size(item.get("Size"))
                etag = str(item.get("ETag", "")).strip('"')
                if not isinstance(key, str) or size is None or not ETAG.fullmatch(etag):
                    raise self._strange("a file of a zarr asset")
                path = f"{asset.path}/{key}"
                if (
                    glob is None
                    or fnmatch.fnmatchcase(path, glob)
                    or (fnmatch.fnmatchcase(asset.path, glob))
                ):
                    address = replace(asset, zarr_id=zarr_id, key=key)
                    mtime_ns = _mtime_ns(item.get("LastModified"))
                    page.append(Listed(path, size, "", etag, mtime_ns, address))
            yield page

    def _pages(self, url: str) -> Iterator[tuple[list[Mapping[str, Any]], int | None]]:
        """Follow a listing; the archive's own links are followed to the archive only."""
        seen = set()
        count: int | None = None
        while url:
            seen.add(url)
            body = self._page(url)
            results = body.get("results") if isinstance(body, dict) else None
            if not isinstance(results, list) or not all(isinstance(r, dict) for r in results):
                raise self._strange("a listing")
            count = count if count is not None else _size(body.get("count"))
            yield results, count
            following = body.get("next") or ""
            if following and (
                not isinstance(following, str)
                or following in seen
                or origin(following) != origin(self.instance.api)
            ):
                raise SourceError(
                    f"{self.instance.host} sends its listing's reader to {shown(str(following))}, "
                    "which was not followed.",
                    details={"source": self._name},
                )
            url = following

    def _page(self, url: str) -> Any:
        waited_s = 0.0
        while True:
            try:
                reply, _ = self.ask(self.patient(), "GET", url)
            except SourceRateLimitError as error:
                wait_s = float(error.details.get("retry_after_s") or 2.0)
                waited_s += wait_s
                if waited_s > _PATIENCE_S:
                    raise
                time.sleep(wait_s)
            else:
                if reply.status >= 300:
                    raise NotRecallableError(
                        f"{self.instance.host} has no {shown(url)}.", details={"source": self._name}
                    )
                return reply.body

    def _strange(self, what: str) -> SourceError:
        return SourceError(
            f"{shown(self.instance.api)} described {what} in a way that is not DANDI's; is it the "
            "URL of a DANDI API?",
            details={"source": self._name},
        )


def _results(reply: Reply) -> list[Mapping[str, Any]]:
    results = reply.body.get("results") if isinstance(reply.body, dict) else None
    return [item for item in results if isinstance(item, dict)] if isinstance(results, list) else []


def _digests(metadata: Mapping[str, Any]) -> tuple[str, str]:
    """Return sha256 and etag as far as an asset's metadata has them."""
    told = metadata.get("digest")
    digest = told if isinstance(told, dict) else {}
    sha256, etag = str(digest.get("dandi:sha2-256", "")), str(digest.get("dandi:dandi-etag", ""))
    return sha256 if _SHA256.fullmatch(sha256) else "", etag if ETAG.fullmatch(etag) else ""


def _bare_url(metadata: Mapping[str, Any]) -> str:
    """Return the address in the bucket that an asset's metadata has; empty if none."""
    urls = metadata.get("contentUrl")
    for url in urls if isinstance(urls, list) else ():
        if isinstance(url, str) and _IN_BUCKET.fullmatch(url):
            return url
    return ""


def _size(value: Any) -> int | None:
    is_size = isinstance(value, int) and not isinstance(value, bool) and value >= 0
    return value if is_size else None


def _mtime_ns(text: Any) -> int:
    try:
        # Python 3.10 does not read the Z.
        moment = datetime.fromisoformat(str(text).replace("Z", "+00:00"))
        return int(moment.timestamp()) * 10**9 + moment.microsecond * 1000
    except (ValueError, OverflowError):
        return time.time_ns()


def _fixed_start(glob: str) -> str:
    """Return what all assets whose files can match begin with."""
    fixed = re.split(r"[*?\[]", glob, maxsplit=1)[0]
    zarr = re.match(r"(.*?\.(?:zarr|ngff))/", fixed)
    return zarr[1] if zarr else fixed


def _may_match_below(path: str, glob: str) -> bool:
    """Tell whether a file below a path can match, as far as the glob's fixed start tells."""
    fixed = re.split(r"[*?\[]", glob, maxsplit=1)[0]
    return fixed.startswith(f"{path}/") or f"{path}/".startswith(fixed)
