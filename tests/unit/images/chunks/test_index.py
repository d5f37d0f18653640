"""The index of chunks: one way to write it, and nothing else is read."""

from __future__ import annotations

import base64
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mayfly.errors import Untrusted
from mayfly.images.chunks.index import CHUNK_MOST, Chunk, Index, parse_index, render

DIGEST = base64.b64encode(bytes(32)).decode()
GOOD = f"""\
mayfly-chunks 1
image-sha512 {"ab" * 64}
disk-bytes 20000
cutter blocks-32768
4096 {DIGEST}
zeros 8192
7712 {DIGEST}
end
"""


def test_an_index_is_read_as_it_was_written() -> None:
    index = parse_index(GOOD.encode())
    assert index.chunks == (Chunk(0, 4096, bytes(32)), Chunk(12288, 7712, bytes(32)))
    assert (index.disk_bytes, index.content_bytes, index.starts) == (20000, 11808, (0, 4096, 11808))
    assert [index.chunk_at(at) for at in (0, 4095, 4096)] == [0, 0, 1]
    assert render(index) == GOOD
    assert parse_index(GOOD.replace("\n", "\r\n").encode()).key == index.key


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("mayfly-chunks 1", "mayfly-chunks 2"),
        ("ab", "AB"),
        ("disk-bytes 20000", "disk-bytes 19999"),
        ("disk-bytes 20000", "disk-bytes 020000"),
        ("disk-bytes 20000", "disk-bytes -1"),
        ("disk-bytes 20000", f"disk-bytes {1 << 50}"),
        ("cutter blocks-32768", "cutter ../x"),
        ("zeros 8192", "zeros 0"),
        ("zeros 8192", "zeros 4096\nzeros 4096"),
        ("4096 ", "+4096 "),
        ("7712 ", f"{CHUNK_MOST + 1} "),
        (DIGEST, DIGEST[:-4]),
        (DIGEST, DIGEST[:-2] + "B="),
        (DIGEST, "?" * 44),
        ("\nend\n", "\n"),
        ("\nend\n", "\nend\nend\n"),
        ("\nend\n", "\nend"),
        ("cutter", "kutter"),
        ("zeros 8192", "zeros 8192 "),
        ("zeros 8192", "zéros 8192"),
    ],
)
def test_what_is_otherwise_is_refused(old: str, new: str) -> None:
    with pytest.raises(Untrusted, match="index"):
        parse_index(GOOD.replace(old, new, 1).encode())


def test_a_huge_index_is_refused() -> None:
    with pytest.raises(Untrusted, match="larger than any need be"):
        parse_index(b"x" * (65 << 20))


@settings(max_examples=40)
@given(st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
def test_any_bytes_are_no_index(data: bytes) -> None:
    with pytest.raises(Untrusted):
        parse_index(data)


@settings(max_examples=40)
@given(st.integers(0, 2**32))
def test_an_index_that_was_spoilt_is_refused_or_the_same(seed: int) -> None:
    chance = random.Random(seed)
    data = bytearray(GOOD.encode())
    for _ in range(chance.randrange(1, 4)):
        kind, at = chance.randrange(3), chance.randrange(len(data))
        if kind == 0:
            data[at] = chance.randrange(256)
        elif kind == 1:
            del data[at : at + chance.randrange(1, 9)]
        else:
            data[at:at] = chance.choice([b"\n", b"zeros 1\n", b"0", b" ", b"\r"])
    try:
        index = parse_index(bytes(data))
    except Untrusted:
        return
    assert parse_index(render(index).encode()) == index
    assert sum(chunk.size for chunk in index.chunks) <= index.disk_bytes


@settings(max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 9000), st.integers(1, 9000)), max_size=20))
def test_every_index_survives(parts: list[tuple[int, int]]) -> None:
    chunks, at = [], 0
    for gap, size in parts:
        chunks.append(Chunk(at + gap, size, size.to_bytes(32, "big")))
        at += gap + size
    index = Index(sha512="0" * 128, disk_bytes=at + 1, cutter="x", chunks=tuple(chunks))
    assert parse_index(render(index).encode()) == index
