"""Read the outline of a PKCS#7 signature: how many signed, by which algorithms, over what.

openssl verifies; what it does not tell in a form that nobody can forge is read here. DER is read
strictly: what has two readings, or anything left over, is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

_SEQUENCE, _SET, _OID = 0x30, 0x31, 0x06
_CONTEXT_0, _CONTEXT_1 = 0xA0, 0xA1
_SIGNED_DATA = "1.2.840.113549.1.7.2"
_INTEGER = 0x02

ALGORITHMS = {
    "1.3.14.3.2.26": "sha1",
    "2.16.840.1.101.3.4.2.1": "sha256",
    "2.16.840.1.101.3.4.2.2": "sha384",
    "2.16.840.1.101.3.4.2.3": "sha512",
    # Signatures: with the plain ones, the digest is that of the signer's entry.
    "1.2.840.113549.1.1.1": "",
    "1.2.840.10045.2.1": "",
    "1.2.840.113549.1.1.5": "sha1",
    "1.2.840.113549.1.1.11": "sha256",
    "1.2.840.113549.1.1.12": "sha384",
    "1.2.840.113549.1.1.13": "sha512",
    "1.2.840.10045.4.1": "sha1",
    "1.2.840.10045.4.3.2": "sha256",
    "1.2.840.10045.4.3.3": "sha384",
    "1.2.840.10045.4.3.4": "sha512",
}
"""What may stand in a signature; all else is refused by its number."""


_BROKEN = frozenset(f"1.2.840.113549.1.1.{number}" for number in (2, 3, 4))
"""RSA with MD2, MD4 and MD5."""


class NotDer(ValueError):
    """The bytes are not what they should be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outline:
    """What a signature is made of."""

    detached: bool
    """Whether the text is outside of it."""
    signers: tuple[tuple[str, ...], ...]
    """For each signer the digests that it names; a number where it is none of ours."""


@dataclass(frozen=True, slots=True)
class _Item:
    tag: int
    body: bytes

    def inner(self, tag: int) -> list[_Item]:
        if self.tag != tag:
            raise NotDer(f"tag {self.tag:#x} where {tag:#x} belongs")
        return list(_items(self.body))


def outline(der: bytes) -> Outline:
    """Read a ``ContentInfo`` with ``SignedData`` (RFC 2315, RFC 5652); raises ``NotDer``."""
    top = _one(der).inner(_SEQUENCE)
    if len(top) != 2 or _oid(top[0]) != _SIGNED_DATA:
        raise NotDer("it is not signed data")
    (wrapped,) = _exactly(top[1].inner(_CONTEXT_0), 1)
    fields = wrapped.inner(_SEQUENCE)
    if len(fields) < 4:
        raise NotDer("it has no signers")
    _, digests, content, *rest = fields
    digests.inner(_SET)
    if any(item.tag not in (_CONTEXT_0, _CONTEXT_1) for item in rest[:-1]):
        raise NotDer("it has parts that do not belong there")
    return Outline(
        detached=len(content.inner(_SEQUENCE)) == 1,
        signers=tuple(_signer(item) for item in rest[-1].inner(_SET)),
    )


def has_broken_digest(der: bytes) -> bool:
    """Tell whether a certificate was signed with a digest that anybody can forge."""
    fields = _one(der).inner(_SEQUENCE)
    return len(fields) != 3 or _algorithm(fields[1]) in _BROKEN


def _signer(item: _Item) -> tuple[str, ...]:
    """Give the digests of a signer: its own, and that of its signature where it names one."""
    fields = item.inner(_SEQUENCE)
    if len(fields) < 5 or fields[0].tag != _INTEGER:
        raise NotDer("a signer's entry is incomplete")
    digest = _algorithm(fields[2])
    signature = _algorithm(fields[4] if fields[3].tag == _CONTEXT_0 else fields[3])
    named = [ALGORITHMS.get(each, each) for each in (digest, signature)]
    return tuple(name for name in named if name) or (digest,)


def _algorithm(item: _Item) -> str:
    fields = item.inner(_SEQUENCE)
    if not fields:
        raise NotDer("an algorithm has no name")
    return _oid(fields[0])


def _oid(item: _Item) -> str:
    if item.tag != _OID or not item.body or item.body[-1] & 0x80:
        raise NotDer("it is no object identifier")
    numbers, value = [], 0
    for byte in item.body:
        value = value << 7 | byte & 0x7F
        if not byte & 0x80:
            numbers.append(value)
            value = 0
    first = min(numbers[0] // 40, 2)
    return ".".join(map(str, [first, numbers[0] - 40 * first, *numbers[1:]]))


def _one(data: bytes) -> _Item:
    return _exactly(list(_items(data)), 1)[0]


def _exactly(items: list[_Item], count: int) -> list[_Item]:
    if len(items) != count:
        raise NotDer(f"{len(items)} parts where {count} belong")
    return items


def _items(data: bytes) -> Iterator[_Item]:
    position = 0
    while position < len(data):
        tag = data[position]
        if tag & 0x1F == 0x1F:
            raise NotDer("a tag of several bytes")
        start, length = _length(data, position + 1)
        if start + length > len(data):
            raise NotDer("it ends too early")
        yield _Item(tag, data[start : start + length])
        position = start + length


def _length(data: bytes, position: int) -> tuple[int, int]:
    if position >= len(data):
        raise NotDer("it ends too early")
    first = data[position]
    if first < 0x80:
        return position + 1, first
    count = first & 0x7F
    digits = data[position + 1 : position + 1 + count]
    if not 0 < count <= 4 or len(digits) != count:
        raise NotDer("a length that is open or too long")
    value = int.from_bytes(digits)
    if value < 0x80 or digits[0] == 0:
        raise NotDer("a length that is not the shortest")
    return position + 1 + count, value
