"""Images come by HTTP(S), and not from the host that fetches them."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mayfly.images.lists.rules import Refused, Rule
from mayfly.images.lists.uris import ANY, UriRules, check_uri

GOOD = [
    "https://images.example.org/a.qcow2",
    "http://images.example.org:8080/a?b=c#d",
    "HTTPS://Example.ORG/",
    "https://192.0.2.1/x",
    "https://10.1.2.3/x",
    "https://[2001:db8::1]/x",
    "https://images/x",
    "https://127.example.org/x",
]


@pytest.mark.parametrize("uri", GOOD)
def test_a_usual_uri_is_allowed(uri: str) -> None:
    assert check_uri(uri) == uri


SCHEMES = [
    "file:///etc/passwd",
    "ftp://example.org/x",
    "gopher://example.org/x",
    "docker://example.org/x",
    "data:text/plain,x",
    "javascript:alert(1)",
    "//example.org/x",
    "/etc/passwd",
    "../x",
    "",
    "https:",
    "https:///x",
    "https:example.org",
]
INNER = [
    "http://localhost/x",
    "http://LOCALHOST./x",
    "http://a.localhost/x",
    "http://localhost.localdomain/x",
    "http://127.0.0.1/x",
    "http://127.8.9.1/x",
    "http://127.1/x",
    "http://0/x",
    "http://0.0.0.0/x",
    "http://0177.0.0.1/x",
    "http://0x7f000001/x",
    "http://0x7f.1/x",
    "http://2130706433/x",
    "http://[::1]/x",
    "http://[::]/x",
    "http://[0:0:0:0:0:0:0:1]/x",
    "http://[::ffff:127.0.0.1]/x",
    "http://[::ffff:7f00:1]/x",
    "http://[2002:7f00:1::]/x",
    "http://169.254.169.254/latest/meta-data",
    "http://[fe80::1]/x",
    "http://[fe80::1%25eth0]/x",
    "http://224.0.0.1/x",
    "http://255.255.255.255/x",
]
ODD = [
    "https://user:secret@example.org/x",
    "https://user@example.org/x",
    "https://example.org\\@127.0.0.1/x",
    "https://example.org:99999/x",
    "https://example.org:x/y",
    "https://exa mple.org/x",
    "https://example.org/\r\nHost: other",
    "https://example.org/ü",
    "https://[::1/x",
    "https://%6c%6f%63alhost/x",
    "https://-example.org/x",
    "https://" + "a" * 3000,
]


@pytest.mark.parametrize("uri", [*SCHEMES, *INNER, *ODD])
def test_any_other_uri_is_refused(uri: str) -> None:
    with pytest.raises(Refused) as caught:
        check_uri(uri)
    assert caught.value.refusal.rule is Rule.URI


@pytest.mark.parametrize("uri", INNER[:5])
def test_a_site_may_allow_its_own_host(uri: str) -> None:
    assert check_uri(uri, UriRules(inner=True)) == uri


def test_a_site_may_allow_other_schemes() -> None:
    assert check_uri("file:///srv/x", ANY) == "file:///srv/x"
    assert check_uri("docker://example.org/x", ANY)


@given(st.text(max_size=40), st.text(max_size=20))
def test_any_text_is_allowed_or_refused(host: str, rest: str) -> None:
    with contextlib.suppress(Refused):
        assert check_uri(f"https://{host}/{rest}").isascii()
