"""Readers of single values of the configuration, from TOML or from a variable's text.

Each raises `TypeError` or `ValueError` that says what is needed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from recallfs.config.settings import Floor
from recallfs.values import Level, parse_fraction, parse_size, parse_span

_PATTERN_LETTERS = 500


def text(value: Any) -> str:
    """Read a text that is not empty."""
    if not isinstance(value, str) or not value:
        raise TypeError("a text is needed")
    return value


def pattern(value: Any) -> re.Pattern[str]:
    """Read a regular expression; one that is long is not for matching the end of a log."""
    given = text(value)
    try:
        if len(given) > _PATTERN_LETTERS:
            raise ValueError(f"it has more than {_PATTERN_LETTERS} letters")
        return re.compile(given, re.MULTILINE)
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(f"it is no regular expression ({error})") from error


def mirror_url(value: Any) -> str:
    """Read the URL of a mirror."""
    url = text(value)
    if "recall:" in url:
        raise ValueError("a mirror is somewhere else than a store")
    return url


def http_url(value: Any) -> str:
    """Read an address of a server."""
    url = text(value)
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("a URL that begins with http:// or https:// is needed")
    if parts.username or parts.password:
        raise ValueError("a URL must hold no user name and no password")
    return url.rstrip("/")


def texts(value: Any) -> tuple[str, ...]:
    """Read a list of texts; in a variable they stand between commas."""
    if isinstance(value, str):
        value = [item.strip() for item in value.split(",") if item.strip()]
    if not isinstance(value, list):
        raise TypeError("a list of texts is needed")
    return tuple(text(item) for item in value)


def tables(value: Any) -> tuple[Any, ...]:
    """Read an array of tables."""
    if not isinstance(value, list):
        raise TypeError("an array of tables is needed ([[release.policy]])")
    return tuple(value)


def patterns(value: Any) -> tuple[str, ...]:
    """Read globs, or one."""
    # A comma is part of a name, unlike in other lists.
    return (text(value),) if isinstance(value, str) else texts(value)


def indexes(value: Any) -> tuple[str, ...]:
    """Read addresses of package indexes."""
    return tuple(http_url(item) for item in texts(value))


def channels(value: Any) -> tuple[str, ...]:
    """Read addresses of conda's channels; a folder may be one."""
    return tuple(_channel(item) for item in texts(value))


def _channel(url: str) -> str:
    if not url.startswith("file:"):
        return http_url(url)
    if not url.startswith("file:///"):
        raise ValueError("of a folder, a URL that begins with file:/// is needed")
    return url.rstrip("/")


def path(value: Any) -> Path:
    """Read an absolute path."""
    place = Path(text(value)).expanduser()
    if not place.is_absolute():
        raise ValueError("an absolute path is needed")
    return place


def recall_level(value: Any) -> Level:
    """Read a level."""
    try:
        return Level(value)
    except ValueError:
        raise TypeError(f"one of {', '.join(Level)} is needed") from None


def boolean(value: Any) -> bool:
    """Read true or false."""
    words = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if isinstance(value, str) and value.lower() in words:
        return words[value.lower()]
    if not isinstance(value, bool):
        raise TypeError("true or false is needed")
    return value


def positive(kind: type[int] | type[float]) -> Callable[[Any], Any]:
    """Return a reader of numbers above 0."""

    def read(value: Any) -> int | float:
        if isinstance(value, bool) or not isinstance(value, (int, float, str)):
            raise TypeError("a number is needed")
        number = kind(value) if isinstance(value, str) else value
        if not 0 < number < math.inf:
            raise ValueError("a number above 0 is needed")
        if kind is int and int(number) != number:
            raise ValueError("a whole number is needed")
        return kind(number)

    return read


def size(value: Any) -> int:
    """Read a number of bytes above 0."""
    return int(positive(int)(parse_size(value) if isinstance(value, str) else value))


def floor(value: Any) -> Floor:
    """Read a size, which may be 0, or a part of the disk such as ``5%``."""
    if isinstance(value, str) and value.strip().endswith("%"):
        part = parse_fraction(value)
        if not 0 <= part < 1:
            raise ValueError("a part of the disk from 0% to below 100% is needed")
        return Floor(fraction=part)
    if not isinstance(value, bool) and value in (0, "0"):
        return Floor(0)
    return Floor(size(value))


def span(value: Any) -> timedelta:
    """Read a length of time."""
    return parse_span(text(value))


def wait(value: Any) -> timedelta:
    """Read how long to wait at most."""
    longest = span(value)
    if not timedelta(0) < longest <= timedelta(days=30):
        raise ValueError("a time above 0 and of at most 30 days is needed")
    return longest


def fraction(value: Any) -> float:
    """Read a fraction above 0, and at most 1, such as ``0.05`` or ``5%``."""
    number = float(positive(float)(parse_fraction(value) if isinstance(value, str) else value))
    if number > 1:
        raise ValueError("a fraction between 0 and 1 is needed")
    return number


def fraction_or_none(value: Any) -> float:
    """Read a fraction, which may be 0."""
    if not isinstance(value, bool) and value in (0, "0"):
        return 0.0
    return fraction(value)


def mapping(value: Any) -> Mapping[str, Any]:
    """Read a table."""
    if not isinstance(value, dict):
        raise TypeError("a table is needed")
    return value


def one_of(*words: str) -> Callable[[Any], str]:
    """Return a reader of some words."""

    def read(value: Any) -> str:
        if value not in words:
            raise ValueError(f"one of {', '.join(words)} is needed")
        return str(value)

    return read
