r"""Names in certificates, as grids write them: ``/C=DE/O=Site/CN=Jo Doe``.

The form is that of OpenSSL before 3.0: bytes that are not printable ASCII are ``\xHH``. It does not
mark a slash within a value, so a name with ``/X=`` in one could be read as another name: such names
are found here, and refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mayfly.errors import Invalid

NAME_OPTIONS = "esc_2253,esc_ctrl,esc_msb,utf8,sep_multiline,sname,dump_nostr,dump_unknown"
"""What openssl's ``-nameopt`` must be, so that ``parse_parts`` can read its output."""

LONGEST = 2048
_ESCAPED = re.compile(rb"\\(?:([0-9A-F]{2})|(.))")
_HIDDEN = re.compile(rb"/[A-Za-z0-9.]+=")
_MARKED = re.compile(r"\\([/+])")
_ALIASES = (
    (re.compile(r"/(?:Email|E|EMAIL|EMAILADDRESS)="), "/emailAddress="),
    (re.compile(r"/(?:USERID|UserID|userId)="), "/UID="),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Name:
    """A name in a certificate."""

    slash: str
    unclear: str
    """Why it could be taken for another name; empty when it could not."""


def parse_name(lines: Sequence[str]) -> Name:
    """Read what openssl printed with ``NAME_OPTIONS``: one part in each line."""
    parts = [_part(line.strip()) for line in lines]
    slash = "".join(f"/{key}={_printable(value)}" for key, value in parts)
    return Name(slash=slash, unclear=_unclear(lines, parts))


def _part(line: str) -> tuple[str, bytes]:
    key, _, value = line.partition("=")
    return key, _ESCAPED.sub(_unescape, value.encode("utf-8", "surrogateescape"))


def _unescape(found: re.Match[bytes]) -> bytes:
    return bytes([int(found[1], 16)]) if found[1] else found[2]


def _printable(value: bytes) -> str:
    return "".join(chr(byte) if 0x20 <= byte <= 0x7E else f"\\x{byte:02X}" for byte in value)


def _unclear(lines: Iterable[str], parts: Sequence[tuple[str, bytes]]) -> str:
    if not parts:
        return "it is empty"
    # A + within a value is escaped.
    if any(re.search(r"(?<!\\) \+ [A-Za-z0-9.]+=", line) for line in lines):
        return "it has a part of several values"
    for key, value in parts:
        if _HIDDEN.search(value):
            return f"its {key} has a slash that looks like a part of the name"
        if b"\\" in value:
            return f"its {key} has a backslash"
    return ""


def plain(name: str) -> str:
    """Give the one spelling by which names are compared.

    OpenSSL 3 marks slashes in values, people write letters of their own, and e-mail addresses have
    had several keys; a name that is not ``unclear`` stays unique under all of it.
    """
    text = _MARKED.sub(r"\1", name)
    for pattern, key in _ALIASES:
        text = pattern.sub(key, text)
    return _printable(text.encode("utf-8", "surrogateescape"))


def same(one: str, other: str) -> bool:
    """Tell whether two spellings mean the same name."""
    return plain(one) == plain(other)


def check_dn(name: str) -> str:
    """Give a name that somebody typed; raises ``Invalid`` when it is not of this form."""
    typed = name.strip()
    if not re.match(r"/[A-Za-z0-9.]+=.", typed) or len(typed) > LONGEST or not typed.isprintable():
        raise Invalid(
            f"'{typed[:200]}' is not the name of a certificate",
            hint="write it as in 'openssl x509 -noout -subject -nameopt compat': /C=DE/O=…/CN=…",
        )
    return typed
