"""How long a source may take."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Deadlines:
    """How long the parts of a transfer may take, in seconds.

    Parameters
    ----------
    connect_s : float
        For a connection, with the look-up of the host's name.
    answer_s : float
        For a whole small look-up, with all its redirects and repetitions.
    read_s : float
        Longest silence while bytes flow, and while a download waits for its first.
    total_s : float, optional
        For a whole download; by default it may take as long as bytes flow.
    """

    connect_s: float = 2.0
    answer_s: float = 2.0
    read_s: float = 30.0
    total_s: float | None = None
