"""Exact recall whatever the layout: proved, released and fetched with one recomputed otherwise."""

from __future__ import annotations

import pytest

from conftest import Lab, sha256
from recallfs.release.assessment import assess
from recallfs.release.policy import Wanted
from recallfs.release.proof import prove
from recallfs.resolve.recall import recall
from recallfs.resolve.wish import Wish

CASES = [
    ("gzip 9", "gzip 1"),
    ("gzip 9", "other chunks"),
    ("appended", "gzip 1"),
    ("contiguous", "other chunks"),
    ("gzip 9", "contiguous"),
    ("blosc", "contiguous"),
]


@pytest.mark.parametrize("case", CASES, ids=" from ".join)
def test_another_layout_gives_the_very_bytes(lab: Lab, case: tuple[str, str]) -> None:
    """The recipe lays its values out otherwise when it runs again; the file is the same."""
    before, after = case
    if before == "blosc":
        pytest.importorskip("hdf5plugin")
    layout = lab.base / "layout"
    layout.write_text(before)
    place = lab.derive("laid.h5", recipe="laid_out", layout_file=str(layout))
    digest = sha256(place)
    layout.write_text(after)
    proved = prove(lab.stores, lab.store, lab.entry("laid.h5"), hiding="auto")
    assert (proved.proof.method, proved.residual_bytes) == ("graft", 0)
    # With the limit as it is by default: 5% of the file.
    decision = assess(lab.stores, lab.store, lab.entry("laid.h5"), Wanted())
    assert (decision.verdict, decision.frees_bytes) == ("release", proved.frees_bytes)
    lab.release("laid.h5")
    recall(lab.stores, lab.store, "laid.h5", Wish())
    assert sha256(place) == digest
