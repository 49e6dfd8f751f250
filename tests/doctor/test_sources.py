"""Kachery and DANDI in the doctor: asked unless they are turned off, within a short deadline."""

from __future__ import annotations

import time

import pytest

from archives import dandi_of, kachery_of
from conftest import Lab
from recallfs.testing.misbehaviour import Fault


def findings(lab: Lab) -> dict[str, str]:
    """Return what is found about sources: the problem, by name."""
    found = lab.cli_json("doctor", check=False)["findings"]
    return {item["place"]: item["problem"] for item in found if item["area"] == "sources"}


def test_sources(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those in reach are no finding; one that stalls and one that is gone are, and take no time."""
    with kachery_of(lab, monkeypatch) as kachery, dandi_of(lab, monkeypatch) as dandi:
        assert findings(lab) == {}
        kachery.fail(Fault(stall=True))
        dandi.fail(Fault(html=True))
        start = time.monotonic()
        found = findings(lab)
        assert time.monotonic() - start < 10
        assert set(found) == {"kachery", "dandi"}
        assert "web page" in found["dandi"]
        offline = f'[stores.lab]\nroot = "{lab.root}"\noffline = true\n'
        lab.config.write_text(offline)
        assert findings(lab) == {}
