"""Addresses: how they may be shown, and whom a secret that was meant for one may reach."""

from __future__ import annotations

import re
from urllib.parse import SplitResult, unquote, urljoin, urlsplit

from recallfs.errors import SourceError
from recallfs.values import display_name

PORTS = {"http": 80, "https": 443}

_WITHOUT_SECRETS = ("file", "local", "memory")
"""Schemes of places on this computer: what follows is a path, '?' and '#' and '@' too."""

_UNUSABLE = re.compile(r"[\x00-\x20\x7f]")

_CHAIN = re.compile(r"::(?=[A-Za-z][\w+.-]*://)")
"""Between the links of a chained fsspec URL (``simplecache::https://host/path``)."""


def shown(url: str) -> str:
    """Return what of a URL may be shown: no user, password, query or fragment.

    Examples
    --------
    >>> shown("https://me:secret@bucket.example/a/b.nwb?X-Amz-Signature=abc")
    'https://bucket.example/a/b.nwb'
    """
    if len(links := _CHAIN.split(url)) > 1:
        return "::".join(shown(link) for link in links)
    scheme, is_url, _ = url.partition("://")
    if not is_url:
        return display_name(url.partition("?")[0])
    if scheme in _WITHOUT_SECRETS:
        return display_name(url)
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        # What cannot be taken apart cannot be stripped of its secrets either.
        return f"{display_name(scheme)}:…"
    return display_name(f"{scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}")


def origin(url: str) -> tuple[str, str, int]:
    """Return scheme, host and port: who gets to see what is sent to a URL.

    Raises
    ------
    SourceError
        If it is no http(s) URL.
    """
    parts = split(url)
    return parts.scheme, parts.hostname or "", parts.port or PORTS[parts.scheme]


def split(url: str) -> SplitResult:
    """Take an http(s) URL apart.

    Raises
    ------
    SourceError
        If it is none, or malformed: it came from a source's answer or from the configuration.
    """
    try:
        parts = urlsplit(url)
        is_usable = parts.scheme in PORTS and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_usable = False
    if not is_usable or _UNUSABLE.search(url):
        raise SourceError(
            f"{shown(url)} is not an address that can be asked; it must be a whole http(s) URL.",
            details={"url": shown(url), "is_final": True},
        )
    return parts


def credentials(url: str) -> str | None:
    """Return ``user:password`` as a URL holds them, percent-decoded; None if it holds none."""
    userinfo, at, _ = split(url).netloc.rpartition("@")
    return unquote(userinfo) if at else None


def redirected(url: str, location: str) -> str:
    """Return where a redirect leads.

    Raises
    ------
    SourceError
        If that is no usable address, or would leave https for http.
    """
    try:
        target = urljoin(url, location)
    except ValueError:
        target = location
    if split(url).scheme == "https" and split(target).scheme == "http":
        raise SourceError(
            f"{shown(url)} redirects to {shown(target)}, which is not encrypted; "
            "the redirect was not followed.",
            details={"url": shown(url), "location": shown(target), "is_final": True},
        )
    return target
