"""Pools of connections: names looked up in time, proxies, certificates, forks."""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import socket
import ssl
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError

from recallfs.errors import SourceError
from recallfs.transfer.addresses import credentials, shown, split

T = TypeVar("T")

MAX_SIZE = 8
"""Idle connections kept for each host."""

# A connection that got no answer within this share of the time makes room for the next address:
# a host with a broken IPv6 route is still reached by IPv4.
_FIRST_SHARE = 0.5


class OutOfTimeError(Exception):
    """What was run with `abandonable` is not done; it goes on, and its result is dropped."""


def abandonable(work: Callable[[], T], timeout_s: float) -> T:
    """Run something that may hang, in a thread that is left alone if it does.

    Raises
    ------
    OutOfTimeError
        If it is not done in time; its result is dropped when it comes.
    BaseException
        What `work` raises.
    """
    answers: queue.SimpleQueue[tuple[list[T], BaseException | None]] = queue.SimpleQueue()

    def run() -> None:
        try:
            answers.put(([work()], None))
        except BaseException as error:  # noqa: BLE001 - whatever it is, the caller must get it
            answers.put(([], error))

    threading.Thread(target=run, name="recallfs-transfer", daemon=True).start()
    try:
        results, error = answers.get(timeout=max(0.0, timeout_s))
    except queue.Empty:
        raise OutOfTimeError from None
    if error is not None:
        try:
            raise error
        finally:
            del error  # else the exception and this frame keep each other alive
    return results[0]


class _NamedHost:
    """A connection that bounds the look-up of names as well, and tries every address in time."""

    _dns_host: str
    port: int
    timeout: Any
    source_address: Any
    socket_options: Any

    def _new_conn(self) -> socket.socket:
        host = self._dns_host
        timeout_s = self.timeout if isinstance(self.timeout, (int, float)) else 60.0
        end = time.monotonic() + timeout_s
        try:
            addresses = abandonable(
                lambda: socket.getaddrinfo(host, self.port, type=socket.SOCK_STREAM), timeout_s
            )
        except OutOfTimeError:
            raise ConnectTimeoutError(
                self, f"the name {host} was not looked up within {timeout_s:g} s"
            ) from None
        except (OSError, UnicodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "no valid name"
            raise NewConnectionError(
                self,  # type: ignore[arg-type]
                f"the name {host} cannot be looked up ({reason})",
            ) from None
        failure: OSError | None = None
        for left, (family, kind, protocol, _, address) in _counted_down(addresses):
            remaining = end - time.monotonic()
            if remaining <= 0:
                break
            share = remaining if left == 0 else remaining * _FIRST_SHARE
            sock = None
            try:
                sock = socket.socket(family, kind, protocol)
                for option in self.socket_options or ():
                    sock.setsockopt(*option)
                sock.settimeout(share)
                sock.connect(address)
            except OSError as error:
                failure = error
                if sock is not None:
                    sock.close()
            else:
                sock.settimeout(timeout_s)
                return sock
        if failure is None or isinstance(failure, TimeoutError):
            raise ConnectTimeoutError(self, f"no connection to {host} within {timeout_s:g} s")
        reason = failure.strerror or str(failure)
        where = f"{host}, port {self.port}"
        if ":" not in host and all(family == socket.AF_INET6 for family, *_ in addresses):
            where += ", which has IPv6 addresses only"
        raise NewConnectionError(
            self,  # type: ignore[arg-type]
            f"no connection to {where} ({reason})",
        )


def _counted_down(items: list[Any]) -> Iterator[tuple[int, Any]]:
    return zip(range(len(items) - 1, -1, -1), items, strict=True)


class _PlainConnection(_NamedHost, HTTPConnection):
    pass


class _TLSConnection(_NamedHost, HTTPSConnection):
    pass


class _PlainPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _PlainConnection


class _TLSPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _TLSConnection


class Pools:
    """The pools of one client, by proxy; after a fork the child makes its own."""

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._managers: dict[str, urllib3.PoolManager] = {}

    def manager_for(self, url: str) -> urllib3.PoolManager:
        """Return the manager that requests to a URL go through.

        Raises
        ------
        SourceError
            If the proxy or the certificates that the environment names cannot be used.
        """
        if self._pid != os.getpid():
            # The parent's sockets are its own, and its lock may have been held during the fork.
            self._reset()
        proxy = proxy_for(url)
        # Read each time, since a test or a notebook may set them at any moment.
        bundle = os.environ.get("REQUESTS_CA_BUNDLE", "")
        key = f"{proxy}\0{bundle}" if urlsplit(url).scheme == "https" else proxy
        with self._lock:
            manager = self._managers.get(key)
            if manager is None:
                is_tls = urlsplit(url).scheme == "https" or proxy.startswith("https:")
                manager = _new_manager(proxy, tls_context(bundle) if is_tls else None)
                self._managers[key] = manager
        return manager

    def close(self) -> None:
        """Drop all idle connections."""
        with self._lock:
            for manager in self._managers.values():
                manager.clear()


def _new_manager(proxy: str, context: ssl.SSLContext | None) -> urllib3.PoolManager:
    options: dict[str, Any] = {"num_pools": 32, "maxsize": MAX_SIZE, "ssl_context": context}
    if context is not None:
        options["cert_reqs"] = "CERT_REQUIRED"  # which urllib3 1.26 does not take from the context
    manager: urllib3.PoolManager
    if not proxy:
        manager = urllib3.PoolManager(**options)
    else:
        secret = credentials(proxy)
        headers = urllib3.make_headers(proxy_basic_auth=secret) if secret else None
        parts = split(proxy)
        address = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
        manager = urllib3.ProxyManager(
            address, proxy_headers=headers, proxy_ssl_context=context, **options
        )
    # Each manager gets a mapping of its own: the default one is shared by all of urllib3.
    manager.pool_classes_by_scheme = {"http": _PlainPool, "https": _TLSPool}
    return manager


def proxy_for(url: str) -> str:
    """Return the proxy that the environment names for a URL; empty for none.

    Raises
    ------
    SourceError
        If it is of a kind that cannot be used.
    """
    parts = split(url)
    proxies = urllib.request.getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all") or ""
    # The port counts: NO_PROXY may name it.
    if not proxy or urllib.request.proxy_bypass(parts.netloc.rpartition("@")[2]):
        return ""
    if "://" not in proxy:
        proxy = f"http://{proxy}"
    if urlsplit(proxy).scheme not in ("http", "https"):
        raise SourceError(
            f"the proxy {shown(proxy)} for {shown(url)} is no http(s) proxy; "
            "set HTTPS_PROXY to one, or name the host in NO_PROXY.",
            details={"url": shown(url), "proxy": shown(proxy), "is_final": True},
        )
    return proxy


def tls_context(bundle: str = "") -> ssl.SSLContext:
    """Return what servers' certificates are checked with.

    Parameters
    ----------
    bundle : str
        File or folder of trusted certificates, instead of the system's (or SSL_CERT_FILE and
        SSL_CERT_DIR, which OpenSSL reads by itself).

    Raises
    ------
    SourceError
        If `bundle` cannot be used.
    """
    is_folder = bool(bundle) and Path(bundle).is_dir()
    try:
        context = ssl.create_default_context(
            cafile=None if is_folder else bundle or None,
            capath=bundle if is_folder else None,
        )
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        reason = getattr(error, "strerror", None) or "no certificates in it"
        raise SourceError(
            f"the certificates {bundle} that REQUESTS_CA_BUNDLE names cannot be used ({reason}); "
            "correct or unset it.",
            details={"is_final": True},
        ) from None
    # urllib3 1.26 compares names itself, and cannot let OpenSSL do it for hosts given as addresses.
    context.check_hostname = not version("urllib3").startswith("1.")
    return context


_ours = threading.local()


class _NotOurs(logging.Filter):
    """Drops what urllib3 says of our requests: it logs whole URLs, presigned queries too."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not getattr(_ours, "is_asking", False)


@contextlib.contextmanager
def unlogged() -> Iterator[None]:
    """Keep urllib3 from logging what this thread asks meanwhile."""
    for name in ("urllib3.connectionpool", "urllib3.connection", "urllib3.response"):
        logger = logging.getLogger(name)
        if not any(isinstance(each, _NotOurs) for each in logger.filters):
            logger.addFilter(_NotOurs())
    _ours.is_asking = True
    try:
        yield
    finally:
        _ours.is_asking = False


def request(
    pools: Pools,
    method: str,
    url: str,
    *,
    headers: Mapping[str, str],
    body: bytes | None,
    connect_s: float,
    read_s: float,
) -> urllib3.BaseHTTPResponse:
    """Send one request and return its answer with the body unread; no redirects, no repetitions.

    Raises
    ------
    SourceError
        If proxy or certificates cannot be used.
    urllib3.exceptions.HTTPError, OSError, http.client.HTTPException, ValueError
        See `recallfs.transfer.failures.mapped`.
    """
    manager = pools.manager_for(url)
    with unlogged():
        return manager.request(
            method,
            url,
            headers=dict(headers),
            body=body,
            redirect=False,
            retries=False,
            timeout=urllib3.Timeout(connect=max(connect_s, 0.01), read=max(read_s, 0.01)),
            preload_content=False,
            decode_content=False,
        )
