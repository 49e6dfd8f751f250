"""What the user sees of a recall: one line, and in a notebook a bar."""

from __future__ import annotations

import html
import sys
import threading
import time
from typing import Any

from recallfs.values import display_name

_INTERVAL_S = 0.1


class Teller:
    """Tells of one recall; as a context, it says in a notebook how it ended.

    Parameters
    ----------
    size_bytes : int
        Of all that comes.
    shell : object or None
        The IPython shell of a notebook.
    """

    def __init__(self, size_bytes: int, shell: Any) -> None:
        self._size_bytes = max(size_bytes, 1)
        self._is_notebook = shell is not None
        self._sentence = ""
        self._done_bytes = 0
        self._shown_at = 0.0
        self._handle: Any = None
        self._lock = threading.Lock()

    def __enter__(self) -> Teller:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if self._handle is not None:
            self._handle.update(self._bar("done" if kind is None else "failed"))

    def announce(self, sentence: str) -> None:
        """Tell the first sentence; the user was told what happens, not each turn of it."""
        if self._sentence:
            return
        self._sentence = f"recallfs: {display_name(sentence)}"
        if not self._is_notebook:
            sys.stderr.write(f"{self._sentence}\n")
            return
        from IPython.display import display

        self._handle = display(self._bar(""), display_id=True)

    def progress(self, size_bytes: int) -> None:
        """Count bytes that came; a thread of the recall calls this."""
        with self._lock:
            self._done_bytes += size_bytes
            now = time.monotonic()
            if self._handle is None or now - self._shown_at < _INTERVAL_S:
                return
            self._shown_at = now
            self._handle.update(self._bar(""))

    def _bar(self, end: str) -> _Bar:
        part = 1.0 if end == "done" else min(self._done_bytes / self._size_bytes, 1.0)
        return _Bar(self._sentence, part, end)


class _Bar:
    """One state of the bar, as text and as HTML."""

    def __init__(self, sentence: str, part: float, end: str) -> None:
        self.sentence, self.part, self.end = sentence, part, end

    def __repr__(self) -> str:
        return f"{self.sentence} {self.end or f'{self.part:.0%}'}"

    def _repr_html_(self) -> str:
        bar = f'<progress max="1" value="{self.part:.3f}"></progress>'
        return f"<div>{html.escape(self.sentence)} {bar} {self.end}</div>"
