"""What a content digest leaves out, because it differs each time the same thing is made."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import translate
from functools import cached_property
from pathlib import Path
from typing import Any

from blake3 import blake3

from recallfs.errors import InvalidInputError
from recallfs.values import canonical_json


@dataclass(frozen=True)
class Rules:
    """Objects and attributes that a digest leaves out.

    Parameters
    ----------
    name : str
        Part of the digest's text.
    objects : tuple of str
        Patterns of absolute paths; what matches is left out with all below it. ``*`` and ``?``
        match within one name, ``**`` any number of names.
    attributes : tuple of str
        Patterns ``path@name``.
    keys : tuple of str
        Keys of objects in JSON files, wherever they are; no patterns.
    """

    name: str
    objects: tuple[str, ...] = ()
    attributes: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    _seen: dict[str, bool] = field(default_factory=dict, repr=False, compare=False)

    @property
    def label(self) -> str:
        """Name, and for rules that do not come with recallfs, a digest of what they say."""
        if self == KNOWN.get(self.name):
            return self.name
        said = {"objects": self.objects, "attributes": self.attributes}
        # What says nothing of JSON is called as it was before there was anything to say.
        content = canonical_json({**said, "keys": self.keys} if self.keys else said)
        return f"{self.name}+{blake3(content).hexdigest()[:16]}"

    @cached_property
    def _object_patterns(self) -> list[re.Pattern[str]]:
        return [_compiled(pattern) for pattern in self.objects]

    @cached_property
    def _attribute_patterns(self) -> list[tuple[re.Pattern[str], re.Pattern[str]]]:
        split = (pattern.rpartition("@") for pattern in self.attributes)
        return [(_compiled(path), re.compile(translate(name))) for path, _, name in split]

    def keeps(self, path: str) -> bool:
        """Tell whether an object counts."""
        return not any(pattern.fullmatch(path) for pattern in self._object_patterns)

    def keeps_attribute(self, path: str, name: str) -> bool:
        """Tell whether an attribute of an object that counts does, too."""
        return not any(
            on.fullmatch(path) and called.fullmatch(name) for on, called in self._attribute_patterns
        )


KNOWN: Mapping[str, Rules] = {
    rules.name: rules
    for rules in (
        Rules("strict"),
        Rules(
            "nwb",
            objects=("/file_create_date", "/specifications"),
            attributes=("/@object_id", "/@.specloc", "/general/source_script@*"),
        ),
        Rules(
            "nwb-content",
            objects=("/file_create_date", "/specifications"),
            attributes=("**@object_id", "/@.specloc", "/general/source_script@*"),
        ),
        # What Spyglass' NwbfileHasher does not look at; that it rounds some values is not followed.
        Rules(
            "spyglass",
            objects=("/**specifications**", "/**/version", "/version", "/**/source_script"),
            attributes=("/@*", "**@version", "**@source_script"),
            keys=("version", "source_script"),
        ),
    )
}
"""The rules that come with recallfs."""


def find_rules(name: str) -> Rules:
    """Return rules by their name, or from a TOML file of a user's own.

    Raises
    ------
    InvalidInputError
        If there are none of that name.
    """
    if name in KNOWN:
        return KNOWN[name]
    path = Path(name)
    if path.suffix == ".toml":
        return _read_rules(path)
    raise InvalidInputError(
        f"there are no rules {name!r} (known: {', '.join(KNOWN)}, or a file NAME.toml)."
    )


def _read_rules(path: Path) -> Rules:
    import tomlkit
    from tomlkit.exceptions import TOMLKitError

    try:
        table = tomlkit.parse(path.read_text(encoding="utf-8")).unwrap()
    except (OSError, UnicodeDecodeError, TOMLKitError) as error:
        raise InvalidInputError(f"the rules {path} cannot be read: {error}.") from error
    unknown = set(table) - {"objects", "attributes", "keys"}
    if unknown:
        raise InvalidInputError(
            f"{path}: unknown key {min(unknown)!r} (known: objects, attributes, keys)."
        )
    objects = _texts(path, table, "objects")
    attributes = _texts(path, table, "attributes")
    for pattern in attributes:
        if "@" not in pattern:
            raise InvalidInputError(f"{path}: {pattern!r} is no attribute; write path@name.")
    return Rules(path.stem, objects, attributes, _texts(path, table, "keys"))


def _texts(path: Path, table: Mapping[str, Any], key: str) -> tuple[str, ...]:
    value: Sequence[Any] = table.get(key, [])
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise InvalidInputError(f"{path}: {key} must be a list of texts.")
    return tuple(value)


def _compiled(pattern: str) -> re.Pattern[str]:
    """Translate a pattern of paths; it matches what it names and all below."""
    parts = re.split(r"(\*\*|\*|\?)", pattern)
    meaning = {"**": ".*", "*": "[^/]*", "?": "[^/]"}
    text = "".join(meaning.get(part, re.escape(part)) for part in parts)
    return re.compile(text, re.DOTALL)
