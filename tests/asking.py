"""Asking loopback servers: plain HTTP, and real clients in processes of their own."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Reply:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """Body as JSON."""
        return json.loads(self.body)


def connect(url: str, timeout_s: float = 10) -> http.client.HTTPConnection:
    """Connect to the host of a URL."""
    return http.client.HTTPConnection(urllib.parse.urlsplit(url).netloc, timeout=timeout_s)


def target(url: str) -> str:
    """Path and query of a URL."""
    parts = urllib.parse.urlsplit(url)
    return urllib.parse.urlunsplit(("", "", parts.path, parts.query, ""))


def ask(
    url: str,
    method: str = "GET",
    *,
    headers: Mapping[str, str] | None = None,
    json_body: object = None,
    body: bytes | None = None,
    timeout_s: float = 10,
) -> Reply:
    """Ask once, over a connection of its own; redirects are not followed."""
    sent = dict(headers or {})
    if json_body is not None:
        body = json.dumps(json_body).encode()
        sent["Content-Type"] = "application/json"
    connection = connect(url, timeout_s)
    try:
        connection.request(method, target(url), body=body, headers=sent)
        response = connection.getresponse()
        return Reply(response.status, dict(response.headers), response.read())
    finally:
        connection.close()


def run_client(code: str, *arguments: object, home: Path, **variables: str) -> str:
    """Run Python code in a process that sees no settings of the caller's, and return its output."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("KACHERY_", "DANDI_")) and not name.endswith("_API_KEY")
    }
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env={**kept, "HOME": str(home), "DANDI_NO_ET": "1", "NO_COLOR": "1", **variables},
        cwd=home,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout
