"""Many files asked for at once: all come back, and never more recipes run than are allowed.

Four processes open them, each in as many threads as it has files. Prints how long it took, beside
what the recipes alone would take, and the processor time that waiting cost. Arguments: the number
of files (1000), recipes at once (2).
"""

from __future__ import annotations

import os
import resource
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

PROCESSES = 4


def main(count: int, recomputes: int) -> None:
    """Make the files, take them away, ask for all at once."""
    from budget_actors import open_all
    from conftest import Lab
    from many import made_file, overlaps
    from processes import start
    from quick_recipes import content
    from recallfs.catalog.store import create_store

    with tempfile.TemporaryDirectory() as folder:
        lab = Lab(Path(folder))
        lab.write_config(
            f'[recall]\nrecomputes = {recomputes}\nbudget_folder = "{folder}/budget"\n'
        )
        lab.config.write_text(lab.config.read_text().replace("lab_recipes", "quick_recipes"))
        os.environ["RECALLFS_CONFIG"] = str(lab.config)
        create_store(lab.root, "lab", vault=lab.base / "vault")
        log = lab.base / "log"
        digests = []
        for number in range(count):
            parameters = {"number": number, "log": str(log)}
            digests.append(made_file(lab, f"f{number}", content(number), parameters))
            (lab.root / f"f{number}").unlink()
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
        ended, most = overlaps(log)
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        print(f"{count} files, {recomputes} recipes at once, {PROCESSES} processes")
        print(f"took {seconds:.1f} s: {seconds / count * 1000:.0f} ms a file")
        print(f"ran {ended} recipes, {most} at once at most; {len(wrong)} wrong answers")
        print(f"processor time of children: {used.ru_utime + used.ru_stime:.1f} s")
        for line in wrong[:3]:
            print(" ", line)
        assert not wrong
        assert most <= recomputes


if __name__ == "__main__":
    main(int((sys.argv[1:] or ["1000"])[0]), int((sys.argv[2:] or ["2"])[0]))
