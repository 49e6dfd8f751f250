"""Addresses of files in Kachery, in both of its forms.

kachery_cloud writes ``sha1://<40 hex>?label=NAME``, kachery 2
``kachery:<zone>:sha1:<40 hex>:NAME``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from recallfs.errors import InvalidInputError

SHA1 = re.compile(r"[0-9a-f]{40}")
_ZONE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class KacheryURI:
    """Where a file is in Kachery.

    Parameters
    ----------
    sha1 : str
        40 lower-case hexadecimal digits.
    zone : str
        Empty where the URI does not say; then the configuration does.
    label : str
        A name for people.
    is_second : bool
        Whether it is of the form of kachery 2.
    """

    sha1: str
    zone: str = ""
    label: str = ""
    is_second: bool = False

    def __str__(self) -> str:
        if self.is_second:
            label = f":{quote(self.label)}" if self.label else ""
            return f"kachery:{self.zone}:sha1:{self.sha1}{label}"
        query = {"label": self.label, "zone": self.zone}
        text = urlencode({name: value for name, value in query.items() if value}, quote_via=quote)
        return f"sha1://{self.sha1}{'?' if text else ''}{text}"

    @classmethod
    def parse(cls, text: str) -> KacheryURI:
        """Read a URI; where it says that the file *was* (``location=``) is of no use here.

        Raises
        ------
        InvalidInputError
            If it is malformed.

        Examples
        --------
        >>> KacheryURI.parse("kachery:lab:sha1:" + "0" * 40 + ":a.nwb").zone
        'lab'
        """
        scheme, _, rest = text.partition(":")
        if scheme == "sha1" and rest.startswith("//"):
            return cls._parse_first(text)
        if scheme == "kachery":
            return cls._parse_second(text)
        raise InvalidInputError(
            f"{text!r} is no Kachery URI; write sha1://<40 hex> or kachery:<zone>:sha1:<40 hex>."
        )

    @classmethod
    def _parse_first(cls, text: str) -> KacheryURI:
        try:
            parts = urlsplit(text)
        except ValueError:
            parts = None
        if parts is None or not SHA1.fullmatch(parts.netloc) or parts.path.strip("/"):
            raise InvalidInputError(
                f"{text!r} is no Kachery URI: after sha1:// come 40 lower-case hexadecimal digits, "
                "then nothing but ?label=NAME."
            )
        query = dict(parse_qsl(parts.query))
        zone = query.get("zone", "")
        if zone and not _ZONE.fullmatch(zone):
            raise InvalidInputError(f"{text!r} is no Kachery URI: its zone is no name.")
        return cls(parts.netloc, zone, query.get("label", ""))

    @classmethod
    def _parse_second(cls, text: str) -> KacheryURI:
        _, zone, algorithm, sha1, label = (*text.split(":", 4), "", "", "", "")[:5]
        if not _ZONE.fullmatch(zone) or algorithm != "sha1" or not SHA1.fullmatch(sha1):
            raise InvalidInputError(
                f"{text!r} is no Kachery URI: after kachery: come a zone, sha1 and 40 lower-case "
                "hexadecimal digits, with colons between."
            )
        return cls(sha1, zone, label, is_second=True)
