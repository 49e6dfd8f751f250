"""Fixtures for transfers: a server on loopback, and an environment without proxies."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from faulty_server import Site, serving
from recallfs.transfer.http import Client

# Made for these tests alone: it is trusted nowhere, and valid for 127.0.0.1 and localhost.
CERTIFICATE = Path(__file__).parent / "loopback.pem"


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test goes through a proxy, or trusts a certificate, that the computer has set."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def site() -> Iterator[Site]:
    with serving() as site:
        yield site


@pytest.fixture
def other_site() -> Iterator[Site]:
    with serving() as site:
        yield site


@pytest.fixture
def tls_site() -> Iterator[Site]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    with serving(tls=context) as site:
        yield site


@pytest.fixture
def client() -> Iterator[Client]:
    client = Client()
    yield client
    client.close()
