"""What is open in a mount: libfuse and the kernel have one node for a name, not for a file.

A file may be replaced in the root while a program has it open in the mount. Who opens the name then
must get another node: else both would share pages, size and, where the kernel reads by itself, the
file.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path

from recallfs import log

HIDDEN = ".fuse_hidden"
"""What libfuse calls removed files until those close them who have them open."""

ASIDE = HIDDEN + "_recall_"
"""What a name becomes, for libfuse and the kernel alone, whose file was replaced while open."""

FileIdentity = tuple[int, int]
"""Device and inode."""


class Node:
    """A name that is open.

    Attributes
    ----------
    path : str
        Its name now; the file there may be another one.
    identity : FileIdentity or None
        Of the file that is open; None while only parts of it are here.
    handles : set of int
        Under which it is open.
    descriptors : set of int
        Those of them that the file itself is open under.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.identity: FileIdentity | None = None
        self.handles: set[int] = set()
        self.descriptors: set[int] = set()

    def is_of(self, identity: FileIdentity | None) -> bool:
        """Tell whether a file may be the one that is open."""
        return None in (identity, self.identity) or identity == self.identity

    def status(self) -> os.stat_result | None:
        """Return what the system tells of the file that is open."""
        for descriptor in list(self.descriptors):
            return os.fstat(descriptor)
        return None


class Nodes:
    """The names that are open.

    Parameters
    ----------
    outside : Path, optional
        The mount, as a process sees it that is outside of the server's view of the disks.
    """

    def __init__(self, outside: Path | None = None) -> None:
        self._outside = outside
        self._by_path: dict[str, Node] = {}
        self._by_handle: dict[int, Node] = {}
        self._partings: dict[str, threading.Event] = {}
        self._count = 0
        self._lock = threading.Lock()

    def at(self, path: str) -> Node | None:
        """Return what is open of a name."""
        return self._by_path.get(path)

    def hold(self, path: str, handle: int, descriptor: int | None) -> Node | None:
        """Note that a file is open; None if another one is, of the same name."""
        identity = None
        if descriptor is not None:
            status = os.fstat(descriptor)
            identity = (status.st_dev, status.st_ino)
        with self._lock:
            node = self._by_path.get(path) or Node(path)
            if not node.is_of(identity):
                return None
            self._by_path[path] = self._by_handle[handle] = node
            node.handles.add(handle)
            if descriptor is not None:
                node.identity = identity
                node.descriptors.add(descriptor)
            return node

    def drop(self, handle: int) -> Node:
        """Note that it is about to be closed; return what had it open."""
        with self._lock:
            node = self._by_handle.pop(handle)
            node.handles.discard(handle)
            node.descriptors.discard(handle)
            if not node.handles and self._by_path.get(node.path) is node:
                del self._by_path[node.path]
            return node

    def move(self, old: str, new: str) -> None:
        """Note that a name, of a file or a folder, is another one now."""
        with self._lock:
            self._by_path.pop(new, None)
            for path in list(self._by_path):
                if path == old or path.startswith(f"{old}/"):
                    node = self._by_path.pop(path)
                    node.path = new + path[len(old) :]
                    self._by_path[node.path] = node

    # -- a name that gets a new node ------------------------------------------------------------

    def is_parting(self, old: str, new: str) -> bool:
        """Tell whether a rename is one of `part`: nothing is to be done on the disk."""
        return new.rpartition("/")[2].startswith(ASIDE) and old in self._partings

    def parting(self, path: str) -> threading.Event | None:
        """Return what is set when a name has its new node, if it is to get one."""
        return self._partings.get(path)

    def part(self, path: str) -> threading.Event:
        """Let those who have a name open keep the old file; whoever looks next gets a new node.

        Returns
        -------
        threading.Event
            Set when it is done. Who serves a request for this very node waits in vain: libfuse
            renames it after that.
        """
        with self._lock:
            done = self._partings.get(path)
            if done is None:
                done = self._partings[path] = threading.Event()
                self._count += 1
                aside = f"{path.rpartition('/')[0]}/{ASIDE}{os.getpid()}_{self._count}"
                threading.Thread(target=self._rename, args=(path, aside), daemon=True).start()
        return done

    def _rename(self, path: str, aside: str) -> None:
        try:
            if self._outside is not None:
                os.rename(f"{self._outside}{path}", f"{self._outside}{aside}")
        except FileNotFoundError:
            pass  # it was closed meanwhile, and the name is not here
        except OSError as error:
            log.event("mount", is_failure=True, operation="part", path=path, message=str(error))
        finally:
            with self._lock:
                self._partings.pop(path).set()
