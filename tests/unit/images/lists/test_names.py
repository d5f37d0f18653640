"""Names have one spelling that is compared, and none can be taken for another."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mayfly.errors import Invalid
from mayfly.images.lists.names import check_dn, parse_name, plain, same


def test_a_name_is_written_as_grids_do() -> None:
    lines = ["    DC=org", '    O=a\\, \\"b\\" \\<c\\>', "    CN=J\\C3\\BCrgen"]
    name = parse_name(lines)
    assert name.slash == '/DC=org/O=a, "b" <c>/CN=J\\xC3\\xBCrgen'
    assert name.unclear == ""


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        (["O=x", "CN=a/CN=b"], "slash"),
        (["O=x/emailAddress=y"], "slash"),
        (["CN=a\\\\b"], "backslash"),
        (["OU=a + UID=b"], "several values"),
        ([], "empty"),
    ],
)
def test_a_name_that_could_be_another_is_found(lines: list[str], why: str) -> None:
    assert why in parse_name(lines).unclear


@pytest.mark.parametrize("value", ["host/a.example.org", "a\\+b", "a \\+ CN=b", "50/50", "x=y"])
def test_what_only_looks_odd_is_clear(value: str) -> None:
    assert parse_name([f"CN={value}"]).unclear == ""


SAME = [
    ("/C=DE/CN=Jürgen", "/C=DE/CN=J\\xC3\\xBCrgen"),
    ("/CN=host\\/a.org", "/CN=host/a.org"),
    ("/O=x/Email=a@b", "/O=x/emailAddress=a@b"),
    ("/O=x/E=a@b", "/O=x/emailAddress=a@b"),
    ("/USERID=x/CN=y", "/UID=x/CN=y"),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_spellings_of_one_name_are_the_same(one: str, other: str) -> None:
    assert same(one, other)


@pytest.mark.parametrize(
    ("one", "other"),
    [("/CN=a", "/CN=A"), ("/CN=a", "/CN=a "), ("/O=x/CN=a", "/CN=a/O=x"), ("/CN=a", "/CN=a/CN=a")],
)
def test_different_names_are_not(one: str, other: str) -> None:
    assert not same(one, other)


@given(st.text())
def test_the_plain_spelling_is_stable_printable_ascii(text: str) -> None:
    assert plain(plain(text)) == plain(text)
    assert plain(text).isascii()
    assert plain(text) == "" or plain(text).isprintable()


values = st.text(alphabet="ab/=\\+ C\u00fcN\n", min_size=1, max_size=8)


@given(st.lists(values, min_size=1, max_size=3), st.lists(values, min_size=1, max_size=3))
def test_two_clear_names_are_the_same_only_if_their_parts_are(
    one: list[str], other: list[str]
) -> None:
    first, second = parse_name(printed(one)), parse_name(printed(other))
    if not first.unclear and not second.unclear:
        assert same(first.slash, second.slash) == (one == other)


def printed(parts: list[str]) -> list[str]:
    return [f"    CN={escaped(part)}" for part in parts]


def escaped(value: str) -> str:
    """Write a value as openssl does with our options."""
    marked = value
    for letter in '\\,+"<>;':
        marked = marked.replace(letter, f"\\{letter}")
    raw = marked.encode()
    text = "".join(chr(each) if 0x20 <= each < 0x7F else f"\\{each:02X}" for each in raw)
    if text.endswith(" "):
        text = text[:-1] + "\\ "
    return "\\" + text if text[0] in " #" else text


@pytest.mark.parametrize("name", ["/C=DE/CN=x", " /CN=Jürgen \n"])
def test_a_name_that_was_typed_is_taken(name: str) -> None:
    assert check_dn(name) == name.strip()


@pytest.mark.parametrize("name", ["", "CN=x,C=DE", "/", "/CN=", "/CN=a\nb", "/CN=" + "x" * 3000])
def test_what_is_no_such_name_is_not(name: str) -> None:
    with pytest.raises(Invalid):
        check_dn(name)
