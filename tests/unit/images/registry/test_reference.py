"""References as docker writes them, and what only looks like one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mayfly.errors import Invalid
from mayfly.images.registry import parse_reference

PIN = f"sha256:{'a' * 64}"


@pytest.mark.parametrize(
    ("text", "host", "name", "point", "api"),
    [
        ("debian", "docker.io", "library/debian", "latest", "registry-1.docker.io"),
        ("docker://debian:12", "docker.io", "library/debian", "12", "registry-1.docker.io"),
        ("site/el9:1", "docker.io", "site/el9", "1", "registry-1.docker.io"),
        ("docker.io/site/el9", "docker.io", "site/el9", "latest", "registry-1.docker.io"),
        ("localhost/a", "localhost", "a", "latest", "localhost"),
        ("localhost:5000/a/b:x", "localhost:5000", "a/b", "x", "localhost:5000"),
        ("docker://r.example.org/a:1", "r.example.org", "a", "1", "r.example.org"),
        ("[::1]:5000/a", "[::1]:5000", "a", "latest", "[::1]:5000"),
        (f"r.example.org/a@{PIN}", "r.example.org", "a", PIN, "r.example.org"),
        (f"r.example.org/a:1@{PIN}", "r.example.org", "a", PIN, "r.example.org"),
    ],
)
def test_a_reference_is_read(text: str, host: str, name: str, point: str, api: str) -> None:
    found = parse_reference(text)
    assert (found.host, found.name, found.point, found.api_host) == (host, name, point, api)
    assert parse_reference(str(found)).point == point


@pytest.mark.parametrize(
    "text",
    [
        "",
        "docker://",
        "A",
        "a b",
        "r.example.org/",
        "r.example.org/A",
        "r.example.org/../a",
        "r.example.org/a//b",
        "r.example.org/a:",
        "r.example.org/a:b:c",
        "r.example.org/a:-x",
        "r.example.org/a@sha256:12",
        "r.example.org/a@md5:12",
        "u:p@r.example.org/a",
        "r.example.org:99999/a",
        "r.example.org:0/a",
        "r.example.org\n/a",
        "http://r.example.org/a",
        "r.example.org/a?x=1",
        f"r.example.org/{'a' * 256}",
    ],
)
def test_what_is_no_reference_is_invalid(text: str) -> None:
    with pytest.raises(Invalid):
        parse_reference(text)


@given(st.text(max_size=60))
def test_any_text_is_a_reference_or_invalid(text: str) -> None:
    try:
        found = parse_reference(text)
    except Invalid:
        return
    assert parse_reference(str(found)) == parse_reference(f"docker://{found}")


@pytest.mark.parametrize(
    ("text", "inner"),
    [
        ("localhost:5000/a", True),
        ("127.0.0.1:5000/a", True),
        ("[::1]:5000/a", True),
        ("169.254.169.254/a", True),
        ("10.0.0.1:5000/a", False),
        ("r.example.org/a", False),
    ],
)
def test_a_registry_on_this_host_is_known(text: str, inner: bool) -> None:
    assert parse_reference(text).is_inner is inner
