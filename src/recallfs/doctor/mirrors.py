"""Mirrors: whether each answers, within a deadline."""

from __future__ import annotations

import threading
from collections.abc import Iterator

from recallfs.config import Config
from recallfs.doctor.faults import Finding
from recallfs.errors import RecallError
from recallfs.sources.mirror import MirrorSource

DEADLINE_S = 5.0


def check_mirrors(config: Config, deadline_s: float = DEADLINE_S) -> Iterator[Finding]:
    """Ask every mirror for something that it does not have; all at once.

    Parameters
    ----------
    deadline_s : float
        How long to wait for all of them, in seconds.
    """
    answers: dict[str, str | None] = {}

    def ask(source: MirrorSource) -> None:
        try:
            source.probe()
            answers[source.name] = None
        except RecallError as error:
            answers[source.name] = error.message

    sources = [MirrorSource(settings) for settings in config.mirrors]
    # Daemons: one that hangs in a system call must not keep the program from ending.
    threads = [threading.Thread(target=ask, args=(item,), daemon=True) for item in sources]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(deadline_s / len(threads))
    for source in sources:
        problem = answers.get(source.name, f"It did not answer within {deadline_s:.0f} s.")
        if problem is not None:
            yield Finding("mirror-unreachable", source.name, problem)
