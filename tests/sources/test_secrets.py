"""Tokens and presigned URLs: in no message, log, record or file, whatever goes wrong."""

from __future__ import annotations

import re

import pytest

from archives import CONTENT, corrupted, dandi_of, gone, in_client, kachery_of, token_variable
from conftest import Lab
from recallfs.testing.misbehaviour import Fault

API_KEY = "kachery-two-secret-key"  # of a zone that wants one
FAULTS = (
    Fault(status=403),
    Fault(status=500),
    Fault(html=True),
    Fault(reset_at=100_000, times=3),
    Fault(redirect_to="."),
    Fault(cut_at=1000, times=3),
)


def test_no_secret_gets_out(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a token, keys and presigned URLs in use, what is printed and kept is free of them."""
    log = lab.base / "recall.log"
    said = []
    with kachery_of(lab, monkeypatch) as kachery, dandi_of(lab, monkeypatch) as dandi:
        config = f'[log]\nlevel = "debug"\nformat = "json"\nfile = "{log}"\n'
        lab.write_config(f'{config}[sources.dandi]\nread_timeout = "2s"\n')
        monkeypatch.setenv(token_variable(dandi), dandi.token)
        monkeypatch.setenv("KACHERY_API_KEY", API_KEY)
        file = lab.base / "asset"
        file.write_bytes(CONTENT)
        dandiset = dandi.add_dandiset(embargoed=True)
        dandi.add_asset(dandiset, "far.nwb", file)
        in_client("import kachery_cloud; kachery_cloud.get_client_id(generate_if_missing=True)")

        def run(*words: str) -> None:
            done = lab.cli(*words, check=False)
            assert "Traceback" not in done.stderr
            said.append(done.stdout + done.stderr)

        run("add", "--from-dandi", dandiset, "--to", "recall://lab")
        kept = gone(lab)
        kachery.add_file(corrupted(kept), sha1=lab.entry("a.nwb").sha1)
        for fault in FAULTS:
            for bucket in (kachery.bucket, dandi.bucket):
                bucket.heal()
                bucket.fail(fault)
            for address in ("recall://lab/far.nwb", "recall://lab/a.nwb"):
                run("get", address, "--refresh", "--json")
            run("explain", "recall://lab/far.nwb", "--refresh")
        for bucket in (kachery.bucket, dandi.bucket):
            bucket.heal()
        run("get", "recall://lab/far.nwb", "--refresh")
        assert (lab.root / "far.nwb").read_bytes() == CONTENT
        kachery.bucket.fail(Fault(method="PUT", status=500))
        run("push", "recall://lab/far.nwb", "--to", "kachery")
        run("show", "recall://lab/far.nwb", "--json")
        run("doctor", "--json")
        secrets = [dandi.token.encode(), API_KEY.encode()]
        assert any(request.authorization for request in dandi.log)
        signed = [request for request in dandi.bucket.log if request.query]
        assert signed
    signatures = [value.encode() for r in signed for value in re.findall(r"=(\w{20,})", r.query)]
    assert signatures
    kept_files = [p for p in lab.base.rglob("*") if p.is_file() and p.suffix != ".pem"]
    assert log in kept_files
    for secret in [*secrets, *signatures, b"Authorization", b"ignature="]:
        assert not any(secret.decode() in text for text in said)
        assert [p for p in kept_files if secret in p.read_bytes()] == []
