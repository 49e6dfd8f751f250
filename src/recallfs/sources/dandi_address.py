"""DANDI's instances, and where a file is in one: instance, dandiset, version, asset, path."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qs, quote, urlencode, urlsplit

from recallfs.config import DandiSettings, nearest
from recallfs.errors import InvalidInputError
from recallfs.transfer.addresses import shown

DRAFT = "draft"

KNOWN: Mapping[str, tuple[str, str]] = {
    "dandi": ("https://api.dandiarchive.org/api", "https://dandiarchive.org"),
    "dandi-sandbox": (
        "https://api.sandbox.dandiarchive.org/api", "https://sandbox.dandiarchive.org",
    ),
    "linc": ("https://api.lincbrain.org/api", "https://lincbrain.org"),
    "linc-staging": ("https://staging-api.lincbrain.org/api", "https://staging.lincbrain.org"),
    "ember-dandi": (
        "https://api-dandi.emberarchive.org/api", "https://dandi.emberarchive.org",
    ),
    "ember-dandi-sandbox": (
        "https://api-dandi.sandbox.emberarchive.org/api", "https://dandi.sandbox.emberarchive.org",
    ),
}  # fmt: skip
"""API and web page of the instances that the DANDI client knows, by name."""

_ADDRESS = re.compile(
    r"(?P<api>https?://.+)/dandisets/(?P<dandiset>[0-9]{6})/versions/(?P<version>[^/?#]+)"
    r"/assets/(?P<asset_id>[0-9a-f-]{36})/"
)


@dataclass(frozen=True)
class Instance:
    """An archive.

    Parameters
    ----------
    name : str
        As the DANDI client calls it; of one that it does not know, host and port.
    api : str
        URL of the API, without a slash at its end.
    """

    name: str
    api: str

    @property
    def variables(self) -> tuple[str, ...]:
        """Names of the variables that may hold the token; the first is the one to tell people."""
        upper = self.name.upper()
        usual = re.sub(r"[^A-Z0-9]", "_", upper)
        return tuple(dict.fromkeys((f"{usual}_API_KEY", f"{upper.replace('-', '_')}_API_KEY")))

    @property
    def token(self) -> str | None:
        """The caller's token, if there is one."""
        return next((os.environ[name] for name in self.variables if os.environ.get(name)), None)

    @property
    def host(self) -> str:
        """Host of the API."""
        return urlsplit(self.api).hostname or ""

    @classmethod
    def of(cls, text: str) -> Instance:
        """Return the instance of a name or URL.

        Raises
        ------
        InvalidInputError
            If no instance has that name, or the URL is none.
        """
        if text.lower().startswith(("http://", "https://")):
            return cls._of_url(text.rstrip("/"))
        if text in KNOWN:
            return cls(text, KNOWN[text][0])
        raise InvalidInputError(
            f"no DANDI instance is named {text!r}{nearest(text, KNOWN)}; known are "
            f"{', '.join(KNOWN)}, and any other goes by the URL of its API."
        )

    @classmethod
    def _of_url(cls, url: str) -> Instance:
        for name, (api, page) in KNOWN.items():
            if url in (api, page, api.removesuffix("/api")):
                return cls(name, api)
        try:
            parts = urlsplit(url)
            host = f"{parts.hostname}:{parts.port}" if parts.port else parts.hostname
        except ValueError:
            host = None
        if not host or parts.query or parts.fragment or "@" in parts.netloc:
            raise InvalidInputError(
                f"{shown(url)} is no URL of a DANDI API; write one such as "
                "https://api.example.org/api, without user, password or query."
            )
        # An archive's API is below /api, wherever its pages are.
        return cls(host, url if parts.path.strip("/") else f"{url}/api")


def configured(settings: DandiSettings) -> Instance:
    """Return the instance of the settings, else of ``DANDI_INSTANCE``, else the public one.

    Raises
    ------
    InvalidInputError
        As `Instance.of`.
    """
    return Instance.of(settings.instance or os.environ.get("DANDI_INSTANCE") or "dandi")


@dataclass(frozen=True)
class DandiAddress:
    """Where a file is in an archive.

    Parameters
    ----------
    api : str
        URL of the API.
    dandiset, version, asset_id, path : str
        Of the asset; the version is ``draft`` or a published one.
    zarr_id, key : str
        Of a file in a zarr asset; else empty.
    """

    api: str
    dandiset: str
    version: str
    asset_id: str
    path: str
    zarr_id: str = ""
    key: str = ""

    def __str__(self) -> str:
        query = {"path": self.path, "zarr": self.zarr_id, "key": self.key}
        text = urlencode({name: value for name, value in query.items() if value}, quote_via=quote)
        return f"{self.asset_url}?{text}"

    @property
    def assets_url(self) -> str:
        """URL of the assets of the version."""
        return f"{self.api}/dandisets/{self.dandiset}/versions/{quote(self.version)}/assets/"

    @property
    def asset_url(self) -> str:
        """URL of what the API says of the asset in this version."""
        return f"{self.assets_url}{self.asset_id}/"

    @property
    def download_url(self) -> str:
        """URL that redirects to the bytes."""
        if self.zarr_id:
            query = urlencode({"prefix": self.key, "download": "true"}, quote_via=quote)
            return f"{self.api}/zarr/{self.zarr_id}/files/?{query}"
        return f"{self.api}/assets/{self.asset_id}/download/"

    @property
    def is_published(self) -> bool:
        """Whether it is of a published version."""
        return self.version != DRAFT

    @property
    def is_immutable(self) -> bool:
        """Whether its bytes never change; a zarr asset's may, whatever version it is in."""
        return self.is_published and not self.zarr_id

    @property
    def shown(self) -> str:
        """For people: dandiset, version and path."""
        path = f"{self.path}/{self.key}" if self.key else self.path
        return f"dandiset {self.dandiset}@{self.version}, {path}"

    @classmethod
    def parse(cls, text: str) -> DandiAddress:
        """Read what `str` wrote.

        Raises
        ------
        InvalidInputError
            If it is malformed.
        """
        base, _, query = text.partition("?")
        match = _ADDRESS.fullmatch(base)
        fields = {name: values[0] for name, values in parse_qs(query).items()}
        path, zarr_id, key = (fields.get(name, "") for name in ("path", "zarr", "key"))
        if match is None or not path or bool(zarr_id) != bool(key):
            raise InvalidInputError(f"{shown(text)} is no address of an asset in DANDI.")
        return cls(**match.groupdict(), path=path, zarr_id=zarr_id, key=key)
