"""A list comes whole and within its time, or not at all; and never from within this host."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mayfly.errors import Invalid, Unavailable, Untrusted
from mayfly.images.lists.fetch import WORDS, check_url, fetch
from mayfly.images.lists.uris import UriRules
from mayfly.images.transfer.web import Redirects
from tests.unit.images.lists.pki import Ca
from tests.unit.images.web import Answer, Server, drip, drip_headers, flood, hang, reply, serving


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as running:
        yield running


def test_a_list_is_fetched(server: Server) -> None:
    url, answers = server
    answers["/a"] = reply(body=b"hello")
    assert fetch(f"{url}/a") == b"hello"


def test_a_list_without_a_length_is_fetched(server: Server) -> None:
    url, answers = server
    answers["/a"] = reply(body=b"hello", length=-1)
    assert fetch(f"{url}/a") == b"hello"


def test_a_list_may_have_moved(server: Server) -> None:
    url, answers = server
    answers["/a"] = reply(302, Location="/b")
    answers["/b"] = reply(body=b"here")
    assert fetch(f"{url}/a") == b"here"


def test_a_file_of_the_site_is_read(tmp_path: Path) -> None:
    (tmp_path / "a list").write_bytes(b"hello")
    assert fetch(f"file://{tmp_path}/a%20list") == b"hello"
    with pytest.raises(Unavailable, match="nothing"):
        fetch(f"file://{tmp_path}/nothing")
    with pytest.raises(Untrusted, match="more than 3 bytes"):
        fetch(f"file://{tmp_path}/a%20list", most=3)


BAD: list[tuple[Answer, str]] = [
    (reply(404), "404"),
    (reply(500, b"oops"), "500"),
    (reply(body=b"half", length=10), "ended after 4 of 10 bytes"),
    (reply(302, Location="/a"), "redirect"),
    (reply(302), "302"),
    (drip, "did not answer within 0.5 s"),
    (drip_headers, "did not answer within 0.5 s"),
    (hang, "did not answer within 0.5 s"),
]


@pytest.mark.parametrize(("answer", "words"), BAD)
def test_a_bad_server_is_unavailable_in_time(server: Server, answer: Answer, words: str) -> None:
    url, answers = server
    answers["/a"] = answer
    before = time.monotonic()
    with pytest.raises(Unavailable, match=words):
        fetch(f"{url}/a", deadline_s=0.5)
    assert time.monotonic() - before < 5


def test_a_time_that_is_up_before_the_connection_is_there_is_up(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, answers = server
    answers["/a"] = hang
    connect = socket.create_connection

    def late(*words: Any, **options: Any) -> socket.socket:
        for each in threading.enumerate():
            if isinstance(each, threading.Timer):
                each.join()
        return connect(*words, **options)

    monkeypatch.setattr(socket, "create_connection", late)
    before = time.monotonic()
    with pytest.raises(Unavailable, match="did not answer"):
        fetch(f"{url}/a", deadline_s=0.01)
    assert time.monotonic() - before < 10


def test_a_server_that_never_ends_is_cut_off(server: Server) -> None:
    url, answers = server
    answers["/a"] = flood
    with pytest.raises(Untrusted, match="more than"):
        fetch(f"{url}/a", most=100_000)


def test_a_server_that_promises_less_is_believed_for_that(server: Server) -> None:
    url, answers = server
    answers["/a"] = reply(body=b"hello world", length=5)
    assert fetch(f"{url}/a") == b"hello"


def test_nobody_there_is_unavailable() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/"
    with pytest.raises(Unavailable, match="cannot fetch"):
        fetch(url)


def test_a_server_whose_certificate_nobody_knows_is_not_believed(
    server: Server, root_ca: Ca
) -> None:
    url, answers = server
    answers["/a"] = reply(body=b"hello")
    host = root_ca.issue("web server", section="host")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(host.certificate, host.key)
    with socket.create_server(("127.0.0.1", 0)) as plain:
        port = plain.getsockname()[1]

        def serve() -> None:
            with contextlib.suppress(OSError):
                context.wrap_socket(plain.accept()[0], server_side=True).close()

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(Unavailable, match="CERTIFICATE_VERIFY_FAILED"):
            fetch(f"https://127.0.0.1:{port}/a")
        thread.join()
    assert fetch(f"{url}/a") == b"hello"


def test_an_encrypted_way_does_not_become_a_plain_one(server: Server) -> None:
    url, _ = server
    handler = Redirects(UriRules(inner=True), WORDS)
    request = urllib.request.Request("https://lists.example.org/a")
    with pytest.raises(Untrusted, match="from https to http:"):
        handler.redirect_request(request, None, 302, "", {}, f"{url}/a")


@pytest.fixture
def outside(server: Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """A name of the outside world that leads to our own host, as some of their owners make it."""
    url, _ = server
    real = socket.getaddrinfo

    def resolve(host: str, *rest: Any, **more: Any) -> Any:
        return real("127.0.0.1" if host == "lists.example.org" else host, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    return url.replace("127.0.0.1", "lists.example.org")


def test_a_name_that_leads_to_this_host_is_refused(server: Server, outside: str) -> None:
    _, answers = server
    answers["/a"] = reply(body=b"secret")
    with pytest.raises(Untrusted, match=r"127\.0\.0\.1"):
        fetch(f"{outside}/a")


@pytest.mark.parametrize(
    "place",
    [
        "ftp://example.org/x",
        "http://user:x@127.0.0.1/",
        "http://169.254.169.254/latest",
        "http://localhost/x",
    ],
)
def test_a_redirect_to_what_no_list_may_be_is_refused(
    server: Server, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    url, answers = server
    # The server is taken for one of the outside world.
    monkeypatch.setattr("mayfly.images.transfer.web.is_inner_host", lambda host: False)
    monkeypatch.setattr("mayfly.images.transfer.web.is_inner", lambda address: False)
    answers["/a"] = reply(302, Location=place)
    with pytest.raises(Untrusted, match="leads elsewhere"):
        fetch(f"{url}/a")


def test_a_redirect_to_a_file_is_not_followed(server: Server) -> None:
    url, answers = server
    answers["/a"] = reply(302, Location="file:///etc/passwd")
    with pytest.raises(Unavailable, match="not allowed"):
        fetch(f"{url}/a")


@pytest.mark.parametrize("url", ["https://a.example.org/x", "http://localhost:80/x", "file:///x"])
def test_the_admin_may_name_his_own_host(url: str) -> None:
    assert check_url(url) == url


@pytest.mark.parametrize("url", ["x", "ftp://a/b", "file://host/x", "file:x", "https://a:b@c/d"])
def test_what_is_no_url_of_a_list_is_refused(url: str) -> None:
    with pytest.raises(Invalid):
        check_url(url)
