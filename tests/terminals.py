"""Programs that a test talks to on a terminal of their own."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import subprocess
import termios
import time
from collections.abc import Sequence
from types import TracebackType


class Terminal:
    """A terminal with a program on it; a context manager, which ends the program.

    Parameters
    ----------
    command : sequence of str
        The program. It begins a session, so that Ctrl-C and job control are its own.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self._ours, theirs = pty.openpty()
        self._seen = b""
        self._process = subprocess.Popen(
            command,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509 - no threads
        )
        os.close(theirs)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._ours)

    def type(self, keys: str) -> None:
        """Press keys."""
        os.write(self._ours, keys.encode())

    def expect(self, text: str, timeout_s: float = 60) -> None:
        """Wait until the program shows a text, after what was waited for before."""
        end = time.monotonic() + timeout_s
        while text.encode() not in self._seen:
            assert time.monotonic() < end, f"{text!r} is not in {self._seen!r}"
            if select.select([self._ours], [], [], 0.1)[0]:
                self._seen += os.read(self._ours, 1 << 16)
        self._seen = self._seen.partition(text.encode())[2]
