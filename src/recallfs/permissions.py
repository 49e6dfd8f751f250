"""Who may read a file: permission bits and POSIX access control lists, free of input and output.

An access control list (ACL) is what POSIX.1e draft 17 describes and Linux keeps as the extended
attribute ``system.posix_acl_access``. Its one text form here, sorted and with numbers for names, is
``user::rw-,user:1001:r--,group::r--,mask::r--,other::---``.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import reduce
from operator import and_, or_

from recallfs.values import Metadata

READ = 4
_VERSION = 2
_ENTRY = struct.Struct("<HHI")
_NOBODY = 0xFFFFFFFF
# Tags of <linux/posix_acl.h>, in the order that the kernel wants them.
_OWNER, _USER, _GROUP, _NAMED_GROUP, _MASK, _OTHER = 1, 2, 4, 8, 16, 32
_NAMES = {
    _OWNER: "user", _USER: "user", _GROUP: "group", _NAMED_GROUP: "group",
    _MASK: "mask", _OTHER: "other",
}  # fmt: skip
_TAGS = {
    ("user", False): _OWNER, ("user", True): _USER,
    ("group", False): _GROUP, ("group", True): _NAMED_GROUP,
    ("mask", False): _MASK, ("other", False): _OTHER,
}  # fmt: skip


@dataclass(frozen=True)
class Acl:
    """Permission bits (4 read, 2 write, 1 execute) of everybody.

    Parameters
    ----------
    owner, group, other : int
        Bits of the file's owner, of its group, and of those whom nothing else names.
    users, groups : tuple of (int, int)
        Bits of more users and groups, by number, sorted.
    mask : int or None
        Limit for `group`, `users` and `groups`; there is one if anybody is named.
    """

    owner: int
    group: int
    other: int
    users: tuple[tuple[int, int], ...] = ()
    groups: tuple[tuple[int, int], ...] = ()
    mask: int | None = None

    @classmethod
    def of(cls, metadata: Metadata) -> Acl:
        """Take what a file's metadata say."""
        return cls.from_text(metadata.acl) if metadata.acl else cls.from_mode(metadata.mode)

    @classmethod
    def from_mode(cls, mode: int) -> Acl:
        """Take plain permission bits."""
        return cls(mode >> 6 & 7, mode >> 3 & 7, mode & 7)

    @classmethod
    def from_text(cls, text: str) -> Acl:
        """Read the text form.

        Raises
        ------
        ValueError
            If it is not one.
        """
        entries = []
        for item in text.split(","):
            name, number, bits = item.split(":")
            tag = _TAGS.get((name, number != ""))
            value = sum(bit for bit, letter in zip((4, 2, 1), bits, strict=True) if letter != "-")
            if tag is None or bits != _letters(value) or (number and not number.isascii()):
                raise ValueError(f"{item!r} is no entry of an access control list")
            entries.append((tag, value, int(number) if number else _NOBODY))
        return cls._from_entries(entries)

    @classmethod
    def from_bytes(cls, content: bytes) -> Acl:
        """Read the extended attribute.

        Raises
        ------
        ValueError
            If it is not one.
        """
        if len(content) % _ENTRY.size != 4 or content[:4] != _VERSION.to_bytes(4, "little"):
            raise ValueError("no access control list of a version that is known")
        return cls._from_entries(_ENTRY.iter_unpack(content[4:]))

    @classmethod
    def _from_entries(cls, entries: Iterable[tuple[int, int, int]]) -> Acl:
        single: dict[int, int] = {}
        named: dict[int, dict[int, int]] = {_USER: {}, _NAMED_GROUP: {}}
        for tag, bits, number in entries:
            known = named.get(tag)
            key = tag if known is None else number
            place = single if known is None else known
            if (
                tag not in _NAMES
                or key in place
                or not 0 <= bits <= 7
                or not 0 <= number <= _NOBODY
            ):
                raise ValueError(f"the entry {(tag, bits, number)} cannot be")
            place[key] = bits
        if not {_OWNER, _GROUP, _OTHER} <= set(single):
            raise ValueError("owner, group or other is missing")
        users, groups = (tuple(sorted(named[tag].items())) for tag in (_USER, _NAMED_GROUP))
        if (users or groups) and _MASK not in single:
            raise ValueError("the mask is missing")
        return cls(single[_OWNER], single[_GROUP], single[_OTHER], users, groups, single.get(_MASK))

    def _entries(self) -> list[tuple[int, int, int]]:
        mask = [] if self.mask is None else [(_MASK, self.mask, _NOBODY)]
        return [
            (_OWNER, self.owner, _NOBODY),
            *((_USER, bits, number) for number, bits in self.users),
            (_GROUP, self.group, _NOBODY),
            *((_NAMED_GROUP, bits, number) for number, bits in self.groups),
            *mask,
            (_OTHER, self.other, _NOBODY),
        ]

    def __str__(self) -> str:
        return ",".join(
            f"{_NAMES[tag]}:{'' if number == _NOBODY else number}:{_letters(bits)}"
            for tag, bits, number in self._entries()
        )

    def __bytes__(self) -> bytes:
        entries = (_ENTRY.pack(*entry) for entry in self._entries())
        return _VERSION.to_bytes(4, "little") + b"".join(entries)

    @property
    def mode(self) -> int:
        """What `os.stat` shows: where there is a mask, it stands for the group."""
        group = self.group if self.mask is None else self.mask
        return self.owner << 6 | group << 3 | self.other

    @property
    def is_plain(self) -> bool:
        """Whether plain permission bits say all of it."""
        return self.mask is None

    @property
    def text(self) -> str:
        """As metadata hold it: empty where plain permission bits say all of it."""
        return "" if self.is_plain else str(self)

    @property
    def group_bits(self) -> int:
        """What the file's group may do, after the mask."""
        return self.group if self.mask is None else self.group & self.mask

    def within(self, mode: int) -> Acl:
        """Return what a file has that is created with `mode` under this as default ACL."""
        if self.mask is None:
            group, mask = self.group & mode >> 3, None
        else:
            group, mask = self.group, self.mask & mode >> 3
        return replace(
            self, owner=self.owner & mode >> 6, group=group, mask=mask, other=self.other & mode
        )

    def handed_down(self, owner: int) -> Acl:
        """Return the default ACL that gives all whom this names the same in files of each other.

        Parameters
        ----------
        owner : int
            User whom `owner` stands for here; they will not own what others make.
        """
        limit = 7 if self.mask is None else self.mask
        users = {number: bits & limit for number, bits in self.users} | {owner: self.owner}
        groups = tuple((number, bits & limit) for number, bits in self.groups)
        # The mask is in the entries now. It must not be empty: Linux would not look at the list.
        return replace(
            self,
            group=self.group_bits,
            users=tuple(sorted(users.items())),
            groups=groups,
            mask=7,
        )

    def flattened(self) -> Acl:
        """Return plain bits that give nobody more, for where no ACL can be kept."""
        # Whoever is named falls back to 'group' or 'other', and may be named to have less.
        limit = 7 if self.mask is None else self.mask
        users = reduce(and_, (bits & limit for _, bits in self.users), 7)
        groups = reduce(and_, (bits & limit for _, bits in self.groups), 7)
        return Acl(self.owner, self.group_bits & users, self.other & users & groups)


def access_bits(metadata: Metadata, uid: int, groups: Iterable[int]) -> int:
    """Return what a user may do with a file, as Linux decides it; no power of root's counts.

    Parameters
    ----------
    groups : iterable of int
        All groups of the user.

    References
    ----------
    POSIX.1e draft 17, section 23.1.5 "ACL Access Check Algorithm"; Linux, fs/posix_acl.c.
    """
    acl, mine = Acl.of(metadata), frozenset(groups)
    if uid == metadata.uid:
        return acl.owner
    # Linux does not look at a list whose mask is empty: those it names count as others then.
    if acl.mask:
        users = dict(acl.users)
        if uid in users:
            return users[uid] & acl.mask
        matching = [bits for gid, bits in acl.groups if gid in mine]
        if metadata.gid in mine:
            matching.append(acl.group)
        return reduce(or_, matching) & acl.mask if matching else acl.other
    return acl.group_bits if metadata.gid in mine else acl.other


def may_read(metadata: Metadata, uid: int, groups: Iterable[int]) -> bool:
    """Tell whether a user could read a file that has these permissions; root always may."""
    return uid == 0 or bool(access_bits(metadata, uid, groups) & READ)


def lets_everybody(metadata: Metadata, bit: int) -> bool:
    """Tell whether permissions give a bit to every user, whoever they are: nobody is shut out."""
    acl = Acl.of(metadata)
    limit = 7 if acl.mask is None else acl.mask
    named = [bits & limit for _, bits in (*acl.users, *acl.groups)]
    return all(bits & bit for bits in (acl.owner, acl.group_bits, acl.other, *named))


def limited(wanted: Metadata, uid: int, gid: int, groups: Iterable[int]) -> Metadata:
    """Return the permissions for a file that `uid` and `gid` own in place of the recorded ones.

    Nobody gets more than recorded: the new owner what they had, the new group what all others had.
    """
    acl, special = Acl.of(wanted), wanted.mode & 0o7000
    if uid != wanted.uid:
        acl = replace(acl, owner=access_bits(wanted, uid, groups))
    if gid != wanted.gid:
        # Members of the recorded group count as others now, and may have had less than those.
        acl = replace(acl, group=acl.group & acl.other, other=acl.other & acl.group_bits)
    if (uid, gid) != (wanted.uid, wanted.gid):
        special &= ~0o6000  # set-user-id and set-group-id would lend another's rights
    return Metadata(special | acl.mode, uid, gid, wanted.mtime_ns, acl.text)


def narrowed(mode: int, gid: int, concerned: Iterable[Metadata]) -> int:
    """Cut the bits of a file so that whoever reads it could also read all the files it tells of."""
    for metadata in concerned:
        acl = Acl.of(metadata)
        group = acl.group_bits if metadata.gid == gid else acl.other
        allowed = 0o700 | (0o070 if group & READ else 0) | (0o007 if acl.other & READ else 0)
        mode &= allowed
    return mode


def _letters(bits: int) -> str:
    return "".join(
        letter if bits & bit else "-" for bit, letter in zip((4, 2, 1), "rwx", strict=True)
    )
