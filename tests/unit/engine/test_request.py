"""The head of a proxy request: what is read, what is written anew, what is refused."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mayfly.engine.network.request import Request, parse_request, refusal
from mayfly.errors import Invalid


def head(*lines: str) -> bytes:
    return "\r\n".join((*lines, "", "")).encode("latin-1")


def test_a_request_is_written_anew() -> None:
    got = parse_request(
        head(
            "GET HTTP://Example.org:8080/a/b?c=d HTTP/1.0",
            "Host: somewhere-else.example.net",
            "Accept:   text/plain ",
            "Proxy-Connection: keep-alive",
            "Connection: keep-alive, X-Secret",
            "Proxy-Authorization: Basic xyz",
            "X-Secret: 1",
            "X-Other: 1",
            "Upgrade: h2c",
        )
    )
    assert got.host == "example.org"
    assert got.port == 8080
    assert got.target == "example.org:8080"
    assert got.head == head(
        "GET /a/b?c=d HTTP/1.1",
        "Host: Example.org:8080",
        "Accept: text/plain",
        "X-Other: 1",
        "Connection: close",
    )


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("http://a.org", "/"),
        ("http://a.org?x", "/?x"),
        ("http://a.org/?", "/?"),
        ("http://a.org//x/../y", "//x/../y"),
    ],
)
def test_the_path_goes_on_as_it_is(url: str, path: str) -> None:
    got = parse_request(head(f"GET {url} HTTP/1.1"))
    assert got.head.startswith(f"GET {path} HTTP/1.1\r\nHost: a.org\r\n".encode())


def test_a_tunnel_has_no_head_to_send() -> None:
    got = parse_request(head("CONNECT Example.org.:443 HTTP/1.1", "Host: example.org:443"))
    assert got == Request(host="example.org", port=443, head=b"", body_bytes=0)


def test_an_address_is_read_as_one() -> None:
    got = parse_request(head("CONNECT [2001:db8::7]:443 HTTP/1.1"))
    assert got.host == ip_address("2001:db8::7")
    assert got.target == "[2001:db8::7]:443"


def test_the_length_of_the_body_stays_even_if_the_client_wants_it_dropped() -> None:
    got = parse_request(
        head("POST http://a.org/ HTTP/1.1", "Content-Length: 5", "Connection: Content-Length")
    )
    assert got.body_bytes == 5
    assert b"Content-Length: 5\r\n" in got.head


HOSTILE = {
    "nothing": b"\r\n\r\n",
    "origin form": head("GET / HTTP/1.1", "Host: a.org"),
    "https": head("GET https://a.org/ HTTP/1.1"),
    "ftp": head("GET ftp://a.org/ HTTP/1.1"),
    "asterisk": head("OPTIONS * HTTP/1.1"),
    "user": head("GET http://listed.org@a.org/ HTTP/1.1"),
    "user in tunnel": head("CONNECT listed.org:443@a.org:443 HTTP/1.1"),
    "fragment": head("GET http://a.org/#x HTTP/1.1"),
    "backslash in host": head("GET http://a.org\\@b.org/ HTTP/1.1"),
    "no host": head("GET http:///x HTTP/1.1"),
    "empty port": head("GET http://a.org:/ HTTP/1.1"),
    "port 0": head("CONNECT a.org:0 HTTP/1.1"),
    "port too large": head("CONNECT a.org:65536 HTTP/1.1"),
    "tunnel without port": head("CONNECT a.org HTTP/1.1"),
    "tunnel with path": head("CONNECT a.org:443/x HTTP/1.1"),
    "number as name": head("GET http://2130706433/ HTTP/1.1"),
    "short address": head("GET http://127.1/ HTTP/1.1"),
    "zone": head("GET http://[fe80::1%25eth0]/ HTTP/1.1"),
    "two spaces": head("GET  http://a.org/ HTTP/1.1"),
    "space at the end": head("GET http://a.org/ HTTP/1.1 "),
    "HTTP/2": head("GET http://a.org/ HTTP/2.0"),
    "HTTP/0.9": b"GET http://a.org/\r\n\r\n",
    "small letters": head("get http://a.org/ HTTP/1.1"),
    "space before colon": head("GET http://a.org/ HTTP/1.1", "Content-Length : 5"),
    "folded": head("GET http://a.org/ HTTP/1.1", "X: a", " b"),
    "no colon": head("GET http://a.org/ HTTP/1.1", "X"),
    "no name": head("GET http://a.org/ HTTP/1.1", ": x"),
    "bare newline": head("GET http://a.org/ HTTP/1.1", "X: a\nTransfer-Encoding: chunked"),
    "bare return": head("GET http://a.org/ HTTP/1.1", "X: a\rY: b"),
    "nul": head("GET http://a.org/ HTTP/1.1", "X: a\0b"),
    "two lengths": head("POST http://a.org/ HTTP/1.1", "Content-Length: 5", "content-length: 5"),
    "list of lengths": head("POST http://a.org/ HTTP/1.1", "Content-Length: 5, 6"),
    "signed length": head("POST http://a.org/ HTTP/1.1", "Content-Length: +5"),
    "negative length": head("POST http://a.org/ HTTP/1.1", "Content-Length: -1"),
    "hex length": head("POST http://a.org/ HTTP/1.1", "Content-Length: 0x5"),
    "no length": head("POST http://a.org/ HTTP/1.1", "Content-Length:"),
    "chunked": head("POST http://a.org/ HTTP/1.1", "Transfer-Encoding: chunked"),
    "both": head("POST http://a.org/ HTTP/1.1", "Content-Length: 5", "Transfer-Encoding: identity"),
    "tunnel with body": head("CONNECT a.org:443 HTTP/1.1", "Content-Length: 5"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_doubtful_request_is_refused(name: str) -> None:
    with pytest.raises(Invalid):
        parse_request(HOSTILE[name])


WORDS = st.sampled_from(
    [
        *(b"GET", b"CONNECT", b" ", b"http://", b"a.org", b":", b"443", b"/", b"HTTP/1.1", b"\r\n"),
        *(b"Content-Length", b"5", b"Transfer-Encoding", b"chunked", b"\n", b"\r", b"\0", b"@"),
        *(b"[", b"]", b"\t", b",", b"\xff", b"Connection", b"?", b"#"),
    ]
)


@given(st.binary(max_size=200) | st.lists(WORDS, max_size=20).map(b"".join))
def test_any_bytes_are_a_request_or_invalid(data: bytes) -> None:
    try:
        request = parse_request(data.replace(b"\r\n\r\n", b"") + b"\r\n\r\n")
    except Invalid:
        return
    assert 0 < request.port < 1 << 16


TOKENS = st.from_regex(r"[A-Za-z][A-Za-z-]{0,10}", fullmatch=True)
VALUES = st.from_regex(r"[!-~]([ -~]{0,20}[!-~])?", fullmatch=True)


@given(
    st.from_regex(r"[a-z]{1,8}\.org", fullmatch=True),
    st.integers(1, 65535),
    st.lists(st.tuples(TOKENS, VALUES), max_size=5),
)
def test_what_is_passed_on_means_one_request(
    host: str, port: int, fields: list[tuple[str, str]]
) -> None:
    lines = [f"{name}: {value}" for name, value in fields]
    try:
        got = parse_request(head(f"GET http://{host}:{port}/x HTTP/1.1", *lines))
    except Invalid:
        return
    assert got.head.count(b"\r\n\r\n") == 1
    sent = [line.lower() for line in got.head.split(b"\r\n")]
    assert sum(line.startswith(b"host:") for line in sent) == 1
    assert sum(line.startswith(b"connection:") for line in sent) == 1
    assert not any(line.startswith(b"transfer-encoding:") for line in sent)
    # Read again by the same rules it says the same, whoever reads it.
    again = parse_request(got.head.replace(b"GET /x", b"GET http://" + host.encode() + b"/x"))
    assert again.body_bytes == got.body_bytes


def test_a_refusal_is_a_whole_answer() -> None:
    text = refusal(403, "a.org:443 is not on the list").decode()
    top, _, body = text.partition("\r\n\r\n")
    assert top.startswith("HTTP/1.1 403 ")
    assert f"Content-Length: {len(body)}" in top
    assert body == "mayfly: a.org:443 is not on the list\n"
