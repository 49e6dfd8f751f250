"""Small look-ups: deadlines, repetitions, redirects, proxies, certificates."""

from __future__ import annotations

import email.utils
import json
import os
import socket
import threading
import time
import traceback
from typing import Any

import pytest

from conftest import TESTS
from faulty_server import Asked, Site, serving
from recallfs.errors import (
    AccessError,
    RecallError,
    SourceError,
    SourceRateLimitError,
    SourceTimeoutError,
)
from recallfs.transfer.http import Client, Reply
from recallfs.transfer.timing import Deadlines

PATIENT = Deadlines(connect_s=10, answer_s=10, read_s=10)
QUICK = Deadlines(connect_s=0.5, answer_s=0.6, read_s=0.6)
AT_ONCE_S = 5.0
"""Less than PATIENT, and more than a busy computer needs."""

CERTIFICATE = str(TESTS / "transfer" / "loopback.pem")


def ok(value: Any = True) -> tuple[int, dict[str, str], bytes]:
    return 200, {"Content-Type": "application/json"}, json.dumps(value).encode()


def ask(client: Client, url: str, method: str = "GET", **options: Any) -> Reply:
    options.setdefault("deadlines", PATIENT)
    return client.json(method, url, source="lab", **options)


def fails(client: Client, url: str, **options: Any) -> RecallError:
    """Return what a look-up raises, and make sure that it did not wait for its deadline."""
    began = time.monotonic()
    with pytest.raises(RecallError) as caught:
        ask(client, url, **options)
    assert time.monotonic() - began < AT_ONCE_S
    below = traceback.format_exception(caught.value.__context__)
    assert "sesame" not in "".join(below), "an exception below holds a secret"
    assert str(caught.value).endswith((".", "?"))
    return caught.value


def test_question_and_answer_are_json(client: Client, site: Site) -> None:
    """A payload arrives as JSON, and the answer comes back as a value with status and headers."""
    site.answers["/q"] = lambda asked: (201, {"X-Kind": "b"}, asked.body)
    reply = ask(client, site.url("/q?x=1"), "POST", payload={"a": [1, "ü"]})
    assert (reply.status, reply.body, reply.headers["x-kind"]) == (201, {"a": [1, "ü"]}, "b")
    assert site.asked[0].query == "x=1"
    assert site.asked[0].headers["content-type"] == "application/json"
    assert site.asked[0].headers["accept-encoding"] == "identity"


def test_one_connection_serves_many_questions(client: Client, site: Site) -> None:
    """Connections are kept: asking twice is one connection."""
    accepted = []

    def answer(_: Asked) -> tuple[int, dict[str, str], bytes]:
        accepted.append(threading.get_ident())
        return ok()

    site.answers["/q"] = answer
    for _ in range(5):
        ask(client, site.url("/q"))
    assert len(set(accepted)) == 1, "the server has one thread for each connection"


def test_absent_is_an_answer(client: Client, site: Site) -> None:
    """404 and 410 come back as a status, whatever their body is."""
    site.answers["/q"] = lambda _: (410, {}, b"<html>gone")
    assert (ask(client, site.url("/none")).status, ask(client, site.url("/q")).status) == (404, 410)
    assert ask(client, site.url("/q")).body is None


@pytest.mark.parametrize("status", [401, 403])
def test_refusal_is_no_outage(client: Client, site: Site, status: int) -> None:
    """401 and 403 say that rights are missing, at once."""
    site.answers["/q"] = lambda _: (status, {}, b"no")
    error = fails(client, site.url("/q"))
    assert isinstance(error, AccessError)
    assert error.details["status"] == status
    assert site.count("/q") == 1


@pytest.mark.parametrize("fault", [500, 502, 503, 429, -1])
def test_passing_faults_are_ridden_out(client: Client, site: Site, fault: int) -> None:
    """A look-up is repeated after a reset, 5xx or 429, and gives the answer in the end."""
    site.answers["/q"] = lambda asked: (fault, {}, b"") if asked.number < 2 else ok("at last")
    assert ask(client, site.url("/q")).body == "at last"
    assert site.count("/q") == 3


def test_lasting_fault_ends_with_the_deadline(client: Client, site: Site) -> None:
    """A server that only fails is asked several times, and then named with its status."""
    site.answers["/q"] = lambda _: (500, {}, b"")
    error = fails(client, site.url("/q"), deadlines=Deadlines(answer_s=2))
    assert isinstance(error, SourceError)
    assert error.details["status"] == 500
    assert 2 <= site.count("/q") <= 9


def test_what_may_have_had_an_effect_is_asked_once(client: Client, site: Site) -> None:
    """A POST is not repeated unless its caller says that it can be."""
    site.answers["/q"] = lambda asked: (500, {}, b"") if asked.number == 0 else ok()
    fails(client, site.url("/q"), method="POST", payload=1)
    assert site.count("/q") == 1
    site.asked.clear()
    assert ask(client, site.url("/q"), "POST", payload=1, idempotent=True).body is True


def test_retry_after_is_honoured_if_it_fits(client: Client, site: Site) -> None:
    """A wait that fits in the deadline is kept, in seconds or as a date."""
    moments = []

    def answer(asked: Asked) -> tuple[int, dict[str, str], bytes]:
        moments.append(time.monotonic())
        if asked.number == 0:
            return 429, {"Retry-After": "1"}, b""
        if asked.number == 1:
            # A server whose clock is an hour off says so in Date.
            now = time.time() + 3600
            later, date = (email.utils.formatdate(at, usegmt=True) for at in (now + 1, now))
            return 503, {"Retry-After": later, "Date": date}, b""
        return ok()

    site.answers["/q"] = answer
    ask(client, site.url("/q"))
    assert moments[1] - moments[0] >= 1
    assert 0.5 <= moments[2] - moments[1] < 2.5


def test_retry_after_that_does_not_fit_is_told(client: Client, site: Site) -> None:
    """A longer wait is the caller's to decide; nothing is waited for."""
    site.answers["/q"] = lambda _: (429, {"Retry-After": "120"}, b"")
    error = fails(client, site.url("/q"))
    assert isinstance(error, SourceRateLimitError)
    assert error.details["retry_after_s"] == 120


def test_silence_ends_with_the_deadline(client: Client, site: Site) -> None:
    """A server that says nothing, or a byte at a time, costs no more than the deadline."""
    site.answers["/silent"] = lambda _: (0, {}, b"")
    site.answers["/trickle"] = lambda _: (0, {}, b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1")
    for path in ("/silent", "/trickle"):
        assert isinstance(fails(client, site.url(path), deadlines=QUICK), SourceTimeoutError)


def test_trickled_body_ends_with_the_deadline(client: Client, site: Site) -> None:
    """A body that trickles is given up as well."""
    site.answers["/q"] = lambda _: (
        0, {}, b"HTTP/1.1 200 OK\r\n\r\n".ljust(500)
    )  # fmt: skip
    assert isinstance(fails(client, site.url("/q"), deadlines=QUICK), SourceTimeoutError)


def test_names_that_hang_end_with_the_deadline(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look-up of a name that hangs (a dead DNS server) costs the deadline, not its 30 s."""
    release = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: release.wait(20))
    error = fails(client, "http://far.example/q", deadlines=QUICK)
    began = time.monotonic()
    with pytest.raises(SourceTimeoutError, match=r"far\.example"):
        client.open("http://far.example/x", deadlines=QUICK, source="lab")
    assert time.monotonic() - began < AT_ONCE_S
    release.set()
    assert isinstance(error, SourceTimeoutError)
    assert "far.example" in str(error)


def test_unknown_name_is_told(client: Client) -> None:
    """A name that does not exist is an outage that names it."""
    error = fails(client, "http://nowhere.invalid/q", deadlines=QUICK)
    assert isinstance(error, SourceError)
    assert "nowhere.invalid" in str(error)


def test_closed_port_is_told_at_once(client: Client) -> None:
    """A refused connection is not asked for again and again."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    error = fails(client, f"http://127.0.0.1:{port}/q")
    assert "refused" in str(error)
    assert type(error) is SourceError


def test_ipv6_only_host(client: Client) -> None:
    """A server with an IPv6 address alone is reached, and named if it is not."""
    with serving(Site(host="::1")) as site:
        site.answers["/q"] = lambda _: ok()
        assert ask(client, site.url("/q")).body is True
        port = site.port
    assert f"::1, port {port}" in str(fails(Client(), f"http://[::1]:{port}/q"))


def test_dead_address_does_not_hide_a_live_one(
    client: Client, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a host's addresses the next is tried when one refuses (a broken IPv6 route)."""
    site.answers["/q"] = lambda _: ok()
    real = socket.getaddrinfo("127.0.0.1", site.port, type=socket.SOCK_STREAM)
    dead = (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", site.port, 0, 0))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [dead, *real])
    assert ask(client, f"http://two.example:{site.port}/q").body is True


@pytest.mark.parametrize("content", [b"<html><body>Sign in</body></html>", b"{oops", b"\xff"])
def test_web_page_is_no_answer(client: Client, site: Site, content: bytes) -> None:
    """A login page instead of JSON is an outage, told as what it is."""
    site.answers["/q"] = lambda _: (200, {"Content-Type": "text/html"}, content)
    error = fails(client, site.url("/q"))
    assert isinstance(error, SourceError)
    assert "JSON" in str(error)
    assert site.count("/q") == 1


def test_endless_answer_is_cut(client: Client, site: Site) -> None:
    """An answer above 32 MB is refused, and not kept in memory."""
    site.answers["/q"] = lambda _: (200, {}, bytes(33_000_000))
    assert "32 MB" in str(fails(client, site.url("/q"), deadlines=Deadlines(answer_s=20)))


@pytest.mark.parametrize(
    "url", ["nope", "ftp://host/x", "http://", "http://h:99999999/", "http://a b/", "http://[::1/"]
)
def test_malformed_address(client: Client, url: str) -> None:
    """What is no http(s) URL is refused in one sentence."""
    assert isinstance(fails(client, url), SourceError)


def test_line_break_in_a_token(client: Client, site: Site) -> None:
    """A token with a line break is refused without being shown."""
    error = fails(client, site.url("/q"), headers={"Authorization": "Bearer sesame\n"})
    assert "line break" in str(error)
    assert "sesame" not in str(error)


def test_redirect_loop_is_named(client: Client, site: Site) -> None:
    """A circle of redirects ends at once, with its stations."""
    site.answers["/a"] = lambda _: (302, {"Location": "/b?token=sesame"}, b"")
    site.answers["/b"] = lambda _: (302, {"Location": "/a"}, b"")
    error = fails(client, site.url("/a"))
    assert error.details["redirects"] == [site.url(path) for path in ("/a", "/b", "/a")]
    assert len(site.asked) == 2


def test_redirects_are_counted(client: Client, site: Site) -> None:
    """Five redirects are followed, a sixth is not."""
    for number in range(7):
        location = {"Location": f"/{number + 1}"}
        site.answers[f"/{number}"] = lambda _, location=location: (307, location, b"")  # type: ignore[misc]
    site.answers["/7"] = lambda _: ok()
    assert ask(client, site.url("/2")).body is True
    assert "too often" in str(fails(client, site.url("/1")))


def test_secrets_stay_with_their_host(client: Client, site: Site, other_site: Site) -> None:
    """A redirect to another host, port or scheme gets no header of the caller, nor the one back."""
    token = {"Authorization": "Bearer sesame", "X-Lab-Key": "sesame"}
    site.answers["/q"] = lambda _: (302, {"Location": "/same"}, b"")
    site.answers["/same"] = lambda _: (302, {"Location": other_site.url("/there")}, b"")
    other_site.answers["/there"] = lambda _: (302, {"Location": site.url("/back")}, b"")
    site.answers["/back"] = lambda _: ok()
    ask(client, site.url("/q"), headers=token)
    had = [[each.path, "sesame" in str(each.headers)] for each in (*site.asked, *other_site.asked)]
    assert had == [["/q", True], ["/same", True], ["/back", False], ["/there", False]]


def test_password_in_the_url_is_sent_once(client: Client, site: Site, other_site: Site) -> None:
    """A user and password in a URL become a header for that host, and are shown nowhere."""
    site.answers["/q"] = lambda _: (302, {"Location": other_site.url("/there")}, b"")
    other_site.answers["/there"] = lambda _: ok()
    url = site.url("/q").replace("http://", "http://me:open%20sesame@")
    reply = ask(client, url)
    assert site.asked[0].headers["authorization"] == "Basic bWU6b3BlbiBzZXNhbWU="
    assert "authorization" not in other_site.asked[0].headers
    assert "sesame" not in repr(reply)


def test_tls_is_checked(client: Client, tls_site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A certificate that nobody vouches for is refused; SSL_CERT_FILE or a bundle vouches."""
    tls_site.answers["/q"] = lambda _: ok()
    error = fails(client, tls_site.url("/q"))
    assert isinstance(error, SourceError)
    assert "TLS" in str(error)
    assert "SSL_CERT_FILE" in str(error)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", CERTIFICATE)
    assert ask(client, tls_site.url("/q")).body is True
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere.pem")
    assert "REQUESTS_CA_BUNDLE" in str(fails(client, tls_site.url("/q")))
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    monkeypatch.setenv("SSL_CERT_FILE", CERTIFICATE)
    assert ask(Client(), tls_site.url("/q")).body is True


def test_tls_checks_the_name(tls_site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A certificate for another host is refused, though it is trusted."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", CERTIFICATE)
    real = socket.getaddrinfo("127.0.0.1", tls_site.port, type=socket.SOCK_STREAM)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: real)
    tls_site.answers["/q"] = lambda _: ok()
    assert ask(Client(), f"https://localhost:{tls_site.port}/q").body is True
    error = fails(Client(), f"https://other.example:{tls_site.port}/q?sesame")
    assert "TLS" in str(error)
    assert len(tls_site.asked) == 1


def test_https_is_not_left_for_http(
    client: Client, site: Site, tls_site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A redirect from https to http is not followed."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", CERTIFICATE)
    tls_site.answers["/q"] = lambda _: (302, {"Location": site.url("/q")}, b"")
    assert "not encrypted" in str(fails(client, tls_site.url("/q")))
    assert not site.asked


def test_proxy_variables(
    client: Client, site: Site, other_site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HTTP_PROXY is used with its password, NO_PROXY is honoured, other kinds are named."""
    other_site.answers["http://far.example/q"] = lambda _: ok("by proxy")
    proxy = other_site.url("").replace("http://", "http://me:sesame@")
    monkeypatch.setenv("http_proxy", proxy)
    assert ask(client, "http://far.example/q").body == "by proxy"
    assert other_site.asked[0].headers["proxy-authorization"] == "Basic bWU6c2VzYW1l"
    site.answers["/q"] = lambda _: ok("directly")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert ask(client, site.url("/q")).body == "directly"
    monkeypatch.setenv("http_proxy", "socks5://me:sesame@127.0.0.1:1")
    error = fails(client, "http://far.example/q")
    assert "proxy" in str(error)
    assert "sesame" not in str(error)


def test_dead_proxy_is_named(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy that is not there is told as such, without its password."""
    monkeypatch.setenv("all_proxy", "http://me:sesame@127.0.0.1:1")
    for url in ("http://far.example/q", "https://far.example/q"):
        error = fails(client, url)
        assert "proxy" in str(error)
        assert "sesame" not in str(error)


def test_usable_after_a_fork(client: Client, site: Site) -> None:
    """A forked child asks over a connection of its own, and the parent goes on with its."""
    connections: dict[str, set[int]] = {"parent": set(), "child": set()}

    def answer(asked: Asked) -> tuple[int, dict[str, str], bytes]:
        who = asked.headers["x-who"]
        connections[who].add(threading.get_ident())  # the server has a thread for each connection
        return ok(who)

    def is_right(who: str) -> bool:
        reply = ask(client, site.url("/q"), headers={"X-Who": who})
        return bool(reply.body == who)

    site.answers["/q"] = answer
    assert is_right("parent")
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if is_right("child") else 1)
        finally:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
    assert is_right("parent")
    assert len(connections["parent"]) == 1
    assert not connections["parent"] & connections["child"]


def test_many_threads_share_a_client(client: Client, site: Site) -> None:
    """Each of 16 threads gets its own answers."""
    site.answers["/q"] = lambda asked: ok(asked.query)
    wrong = []

    def run(name: str) -> None:
        for number in range(10):
            reply = ask(client, site.url(f"/q?{name}-{number}"), deadlines=Deadlines(answer_s=20))
            if reply.body != f"{name}-{number}":
                wrong.append(reply.body)

    threads = [threading.Thread(target=run, args=(f"t{n}",)) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert len(site.asked) == 160
