"""What went wrong with a request, in one sentence that holds no secret."""

from __future__ import annotations

import contextlib
import ssl
import time
from collections.abc import Iterator, Mapping
from datetime import timezone
from email.utils import parsedate_to_datetime

import urllib3.exceptions

from recallfs.errors import (
    AccessError,
    RecallError,
    SourceError,
    SourceRateLimitError,
    SourceTimeoutError,
)
from recallfs.transfer.addresses import shown

UNREACHED = "unreached"
"""Value of ``details['stage']`` if no connection came about: asking again at once is no use."""


def mapped(error: Exception, *, url: str, source: str, read_s: float) -> RecallError:
    """Say what an exception of urllib3, http.client or a socket means.

    Its own text is not passed on where it may hold the URL.

    Parameters
    ----------
    read_s : float
        The silence that was allowed, in seconds.
    """
    if isinstance(error, RecallError):
        return error
    causes = list(_causes(error))
    where = shown(url)
    details = {"source": source, "url": where}
    for cause in causes:
        if isinstance(cause, (ssl.SSLCertVerificationError, urllib3.exceptions.SSLError)):
            verification = next((c for c in causes if isinstance(c, ssl.SSLError)), None)
            reason = (
                getattr(verification, "verify_message", None)
                or getattr(verification, "reason", None)
                or "the connection is not what it should be"
            )
            return SourceError(
                f"{source} cannot be trusted: TLS with {where} failed ({reason}); if its "
                "certificate is your lab's own, name the file that holds it in SSL_CERT_FILE.",
                details={**details, "stage": UNREACHED},
            )
    through = any(isinstance(cause, urllib3.exceptions.ProxyError) for cause in causes)
    by = " through the proxy" if through else ""
    for cause in causes:
        if isinstance(cause, urllib3.exceptions.ConnectTimeoutError) and not isinstance(
            cause,
            urllib3.exceptions.NewConnectionError,  # which is one in urllib3 1.26
        ):
            return SourceTimeoutError(
                f"{source} did not answer{by}: {_own_words(cause)}.",
                details={**details, "stage": UNREACHED},
            )
        if isinstance(cause, urllib3.exceptions.NewConnectionError):
            return SourceError(
                f"{source} cannot be reached{by}: {_own_words(cause)}.",
                details={**details, "stage": UNREACHED},
            )
    if any(isinstance(c, (TimeoutError, urllib3.exceptions.ReadTimeoutError)) for c in causes):
        return SourceTimeoutError(
            f"{source} fell silent for {round(read_s, 1):g} s ({where}).", details=details
        )
    if through:
        return SourceError(
            f"{source} cannot be reached: the proxy that HTTP(S)_PROXY names refused {where}.",
            details={**details, "stage": UNREACHED},
        )
    if any(isinstance(cause, ValueError) for cause in causes):
        return SourceError(
            f"the request to {source} cannot be sent: the address {where} or a header holds what "
            "must not be there; is there a line break in the token?",
            details={**details, "stage": UNREACHED},
        )
    reason = next(
        (c.strerror for c in reversed(causes) if isinstance(c, OSError) and c.strerror),
        type(causes[-1]).__name__,
    )
    return SourceError(f"the connection to {source} broke ({reason}; {where}).", details=details)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and all that it was made from, however the layers in between hand on."""
    seen: set[int] = set()
    waiting: list[object] = [error]
    while waiting:
        each = waiting.pop(0)
        if not isinstance(each, BaseException) or id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        waiting += [
            getattr(each, "original_error", None),
            getattr(each, "reason", None),
            *each.args,
            each.__cause__,
            each.__context__,
        ]


def _own_words(error: BaseException) -> str:
    """Return the text that `connections` gave; urllib3 puts the connection before it."""
    text = error.args[-1] if error.args else ""
    return str(text).partition(">: ")[2] or str(text).partition("): ")[2] or str(text)


def refused(status: int, headers: Mapping[str, str], *, url: str, source: str) -> RecallError:
    """Say what a status means that is no answer to the question."""
    where = shown(url)
    details = {"source": source, "url": where, "status": status}
    if status in (401, 403):
        return AccessError(
            f"{source} refused access to {where} (HTTP {status}); check the token and its rights.",
            details=details,
        )
    if status == 407:
        return SourceError(
            f"the proxy that HTTP(S)_PROXY names wants a user and password for {where}.",
            details=details,
        )
    wait_s = retry_after_s(headers)
    if status == 429 or (status == 503 and wait_s is not None):
        when = f" for {wait_s:.0f} s" if wait_s is not None else ""
        return SourceRateLimitError(
            f"{source} asks to slow down{when} (HTTP {status}, {where}).",
            details={**details, "retry_after_s": wait_s},
        )
    what = "failed" if status >= 500 else "did not take the request"
    return SourceError(f"{source} {what}: HTTP {status} from {where}.", details=details)


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Return how long a server asks to wait, in seconds; None if it does not say."""
    text = headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        moment = parsedate_to_datetime(text)
    except (TypeError, ValueError, IndexError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=timezone.utc)
    # By the server's own clock where it tells it: ours may be off.
    now = time.time()
    with contextlib.suppress(TypeError, ValueError, IndexError):
        now = parsedate_to_datetime(headers.get("date", "")).timestamp()
    return max(0.0, moment.timestamp() - now)
