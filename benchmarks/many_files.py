"""Many files asked for at once: all come back, and never more recipes run than are allowed.

Four processes open them, each in as many threads as it has files: first a thousand files that a
mirror has, then two hundred that have to be made again, two at a time. Arguments: the two numbers.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

PROCESSES = 4


RECOMPUTES = 2


def main(count: int, *, with_mirror: bool) -> None:
    """Make the files, take them away, ask for all at once."""
    from budget_actors import open_all
    from conftest import Lab
    from many import made_file, overlaps
    from processes import start
    from quick_recipes import content
    from recallfs.catalog.store import create_store

    with tempfile.TemporaryDirectory() as folder:
        lab = Lab(Path(folder))
        mirror = lab.base / "mirror"
        mirror.mkdir()
        more = f'[recall]\nrecomputes = {RECOMPUTES}\nbudget_folder = "{folder}/budget"\n'
        if with_mirror:
            more += f'[[sources.mirror]]\nname = "m"\nurl = "file://{mirror}"\n'
        lab.write_config(more)
        lab.config.write_text(lab.config.read_text().replace("lab_recipes", "quick_recipes"))
        os.environ["RECALLFS_CONFIG"] = str(lab.config)
        create_store(lab.root, "lab", vault=lab.base / "vault")
        log = lab.base / "log"
        digests = []
        for number in range(count):
            parameters = {"number": number, "log": str(log)}
            digests.append(made_file(lab, f"f{number}", content(number), parameters))
            (lab.root / f"f{number}").rename(mirror / f"f{number}")
        lab.store.catalog.close()
        urls = [f"recall://lab/f{number}" for number in range(count)]
        reports = [lab.base / f"report-{number}" for number in range(PROCESSES)]
        began = time.monotonic()
        workers = [
            start(open_all, urls[number::PROCESSES], str(report))
            for number, report in enumerate(reports)
        ]
        for worker in workers:
            worker.join()
        seconds = time.monotonic() - began
        wrong = [
            line
            for number, report in enumerate(reports)
            for line, digest in zip(
                report.read_text().splitlines(), digests[number::PROCESSES], strict=True
            )
            if line != digest
        ]
        ended, most = overlaps(log) if log.exists() else (0, 0)
        how = "from a mirror" if with_mirror else f"by recipes, {RECOMPUTES} at once"
        print(
            f"{count} files {how}: {seconds:.1f} s, {seconds / count * 1000:.0f} ms a file; ",
            end="",
        )
        print(f"{ended} recipes ran, {most} at once at most; {len(wrong)} wrong answers")
        for line in wrong[:3]:
            print(" ", line)
        assert not wrong
        assert most <= RECOMPUTES
        assert ended == (0 if with_mirror else count)


if __name__ == "__main__":
    fetched, made = (int(argument) for argument in (sys.argv[1:] or ["1000", "200"]))
    main(fetched, with_mirror=True)
    main(made, with_mirror=False)
