"""What the servers that run as a process of their own have in common."""

from __future__ import annotations

import argparse
import dataclasses
import json
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from recallfs.testing.http import Server
from recallfs.testing.misbehaviour import Fault


def parse(program: str, about: str | None, arguments: Sequence[str]) -> argparse.Namespace:
    """Read the options that every server has.

    Parameters
    ----------
    program : str
        Module that is run.
    about : str or None
        Its docstring.
    arguments : sequence of str
        Without the program.
    """
    parser = argparse.ArgumentParser(
        f"python -m {program}",
        description=about,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--root", type=_folder, help="folder whose files are served")
    parser.add_argument("--host", choices=["127.0.0.1", "::1"], default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0, the default: one that is free")
    parser.add_argument("--log", type=Path, help="append each request here at the end, as JSON")
    parser.add_argument("--token", default="loopback-token", help="of the user (DANDI only)")
    parser.add_argument(
        "--fault",
        type=_fault,
        action="append",
        default=[],
        metavar="JSON",
        help="""fields of a fault and its server, e.g.
        '{"server": "bucket", "where": "*", "reset_at": 1000, "times": 1}'""",
    )
    return parser.parse_args(arguments)


def serve(
    server: Server, url: str, options: argparse.Namespace, servers: Mapping[str, Server]
) -> int:
    """Serve until SIGTERM or Ctrl-C.

    Parameters
    ----------
    server : Server
        Not yet started.
    url : str
        Printed as the first line as soon as the server listens.
    options : argparse.Namespace
        From `parse`.
    servers : mapping of str to Server
        By the names that ``--fault`` knows them by.

    Returns
    -------
    int
        Exit code.
    """
    for name, fault in options.fault:
        if name not in servers:
            sys.stderr.write(f"--fault: server is one of {', '.join(servers)}, not {name!r}.\n")
            return 2
        servers[name].fail(fault)
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    with server:
        sys.stdout.write(f"{url}\n")
        sys.stdout.flush()
        ended.wait()
    if options.log is not None:
        with options.log.open("a") as file:
            for name, each in servers.items():
                for exchange in each.log:
                    line = {"server": name, **dataclasses.asdict(exchange)}
                    # A presigned URL is a secret, even if one of a test.
                    file.write(json.dumps({**line, "query": bool(exchange.query)}) + "\n")
    return 0


def _folder(text: str) -> Path:
    path = Path(text)
    if not path.is_dir():
        raise argparse.ArgumentTypeError(f"{text} is not a folder")
    return path


def _fault(text: str) -> tuple[str, Fault]:
    try:
        fields = json.loads(text)
        name = fields.pop("server")
        return name, Fault(**{**fields, "flip_at": tuple(fields.get("flip_at", ()))})
    except (ValueError, TypeError, AttributeError, KeyError):
        raise argparse.ArgumentTypeError(f"{text} is not a fault and its server as JSON") from None
