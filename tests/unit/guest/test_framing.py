"""The frames between host and agent: however bytes are cut, and whatever they are."""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mayfly.guest import framing
from mayfly.guest.framing import (
    DATA_LIMIT,
    HEADER,
    MESSAGE_LIMIT,
    NONCE_LENGTH,
    Frame,
    FrameError,
    Kind,
    Parser,
    Stream,
    credit_of,
    pack,
    pack_credit,
    pack_message,
    pack_sync,
    parse_message,
)

NONCE = bytes(range(NONCE_LENGTH))

streams = st.sampled_from([int(stream) for stream in Stream])
texts = st.text(max_size=20)
messages = st.dictionaries(texts, st.one_of(st.integers(), texts, st.lists(texts))).map(
    lambda rest: {**rest, "type": "some"}
)
frames = st.one_of(
    st.builds(
        lambda stream, data: (pack(Kind.DATA, stream, data), Frame(Kind.DATA, stream, data, {})),
        streams,
        st.binary(max_size=60),
    ),
    st.builds(
        lambda kind, stream: (pack(kind, stream), Frame(kind, stream, b"", {})),
        st.sampled_from([Kind.EOF, Kind.CLOSE]),
        streams,
    ),
    st.builds(
        lambda stream, count: (
            pack_credit(stream, count),
            Frame(Kind.CREDIT, stream, count.to_bytes(4, "big"), {}),
        ),
        streams,
        st.integers(0, 2**32 - 1),
    ),
    messages.map(lambda message: (pack_message(message), Frame(Kind.MESSAGE, 0, b"", message))),
    st.binary(min_size=NONCE_LENGTH, max_size=NONCE_LENGTH).map(
        lambda nonce: (pack_sync(nonce), Frame(Kind.SYNC, framing.SYNC_STREAM, nonce, {}))
    ),
)


def cut(data: bytes, places: Iterable[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


def parsed(pieces: Iterable[bytes], **options: Any) -> list[Frame]:
    parser = Parser(**options)
    return [frame for piece in pieces for frame in parser.feed(piece)]


def refused(data: bytes, **options: Any) -> str:
    with pytest.raises(FrameError) as caught:
        parsed([data], **{"synced": True, **options})
    return str(caught.value)


# --- any cutting of the bytes --------------------------------------------------------------------


@given(st.lists(frames, max_size=6), st.lists(st.integers(0, 10**6), max_size=12))
def test_any_cutting_gives_the_same_frames(
    written: list[tuple[bytes, Frame]], places: list[int]
) -> None:
    data = b"".join(packed for packed, _ in written)
    expected = [frame for _, frame in written]
    assert parsed(cut(data, places), synced=True) == expected
    assert parsed((bytes([byte]) for byte in data), synced=True) == expected


@given(
    st.binary(max_size=60).filter(lambda noise: framing.SYNC_HEADER[:1] not in noise),
    st.lists(frames, max_size=3),
    st.lists(st.integers(0, 10**6), max_size=12),
)
def test_what_comes_before_the_first_sync_is_skipped(
    noise: bytes, written: list[tuple[bytes, Frame]], places: list[int]
) -> None:
    data = noise + pack_sync(NONCE) + b"".join(packed for packed, _ in written)
    first, *rest = parsed(cut(data, places))
    assert (first.kind, first.payload) == (Kind.SYNC, NONCE)
    assert rest == [frame for _, frame in written]


@pytest.mark.parametrize("length", range(1, len(framing.SYNC_HEADER)))
def test_noise_that_looks_like_the_start_of_a_sync(length: int) -> None:
    data = framing.SYNC_HEADER[:length] + pack_sync(NONCE)
    assert [frame.payload for frame in parsed(bytes([byte]) for byte in data)] == [NONCE]


def test_noise_does_not_pile_up() -> None:
    parser = Parser()
    for _ in range(50):
        assert not list(parser.feed(bytes(1 << 16)))
    assert len(parser._buffer) < len(framing.SYNC_HEADER)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_every_kind_of_buffer_is_taken(kind: type[bytes]) -> None:
    assert parsed([kind(pack(Kind.EOF, 2))], synced=True) == [Frame(Kind.EOF, 2, b"", {})]


def test_frames_come_as_soon_as_they_are_whole() -> None:
    parser = Parser(synced=True)
    data = pack(Kind.DATA, 1, b"abc")
    assert not list(parser.feed(data[:-1]))
    assert [frame.payload for frame in parser.feed(data[-1:])] == [b"abc"]


def test_who_stops_in_the_middle_loses_nothing() -> None:
    parser = Parser(synced=True)
    data = b"".join(pack(Kind.DATA, 1, bytes([number])) for number in range(3))
    for frame in parser.feed(data):
        assert frame.payload == b"\0"
        break
    assert [frame.payload for frame in parser.feed(b"")] == [b"\1", b"\2"]


# --- any bytes -----------------------------------------------------------------------------------


def complaint(parser: Parser, data: bytes) -> str:
    try:
        for frame in parser.feed(data):
            assert frame.kind in Kind
            assert len(frame.payload) <= DATA_LIMIT
    except FrameError as error:
        return str(error)
    return ""


headers = st.builds(
    HEADER.pack,
    st.integers(0, 8),
    st.integers(0, 3),
    st.sampled_from([0, 0, 0, 1, framing.SYNC_FILLER]),
    st.one_of(st.integers(0, 20), st.integers(0, 2**32 - 1)),
)


@settings(max_examples=150)
@given(st.lists(st.one_of(st.binary(max_size=30), headers, frames.map(lambda it: it[0]))))
def test_nonsense_raises_only_frame_errors(pieces: list[bytes]) -> None:
    parser, late = Parser(synced=True), Parser()
    said = [complaint(parser, piece) for piece in pieces]
    assert complaint(late, pack_sync(NONCE)) == ""
    # One that was just synced takes the same bytes the same way.
    assert [complaint(late, piece) for piece in pieces] == said


@given(st.binary(max_size=40))
def test_a_message_of_any_bytes_raises_only_frame_errors(text: bytes) -> None:
    said = complaint(Parser(synced=True), pack(Kind.MESSAGE, 0, text))
    assert said or isinstance(json.loads(text)["type"], str)


@pytest.mark.parametrize("kind", sorted({*range(6, 20), 77, 255}))
def test_an_unknown_kind_is_refused_before_its_payload_comes(kind: int) -> None:
    assert f"kind {kind}" in refused(HEADER.pack(kind, 0, 0, 100))


def test_a_header_with_a_filler_is_refused() -> None:
    for kind in (Kind.MESSAGE, Kind.DATA, Kind.EOF, Kind.CREDIT, Kind.CLOSE):
        assert "filler 1" in refused(HEADER.pack(kind, 0, 1, 4) + bytes(4))


def test_a_frame_that_is_too_long_is_refused_before_it_comes() -> None:
    assert str(DATA_LIMIT) in refused(HEADER.pack(Kind.DATA, 0, 0, DATA_LIMIT + 1))
    longest = parsed([pack(Kind.DATA, 0, bytes(DATA_LIMIT))], synced=True)
    assert len(longest[0].payload) == DATA_LIMIT


@pytest.mark.parametrize("length", [0, 3, 5])
def test_a_credit_has_four_bytes(length: int) -> None:
    refused(pack(Kind.CREDIT, 0, bytes(length)))
    frame = parsed([pack_credit(1, 70_000)], synced=True)[0]
    assert credit_of(frame.payload) == 70_000


@pytest.mark.parametrize(
    "header",
    [
        HEADER.pack(Kind.SYNC, 0, framing.SYNC_FILLER, NONCE_LENGTH),
        HEADER.pack(Kind.SYNC, framing.SYNC_STREAM, 0, NONCE_LENGTH),
        HEADER.pack(Kind.SYNC, framing.SYNC_STREAM, framing.SYNC_FILLER, NONCE_LENGTH + 1),
    ],
)
def test_a_malformed_sync_is_refused(header: bytes) -> None:
    assert "SYNC" in refused(header + bytes(20))


# --- starting again ------------------------------------------------------------------------------


@pytest.mark.parametrize("trouble", [HEADER.pack(99, 0, 0, 0), pack(Kind.MESSAGE, 0, b"{")])
def test_after_an_error_the_next_sync_is_found_among_what_is_here(trouble: bytes) -> None:
    parser = Parser(synced=True)
    after = pack_sync(NONCE) + pack(Kind.EOF, 1)
    with pytest.raises(FrameError):
        list(parser.feed(pack(Kind.MESSAGE, 1, b'{"half":') + trouble + b"..." + after))
    parser.resync()
    kinds = [frame.kind for frame in parser.feed(b"")]
    assert kinds == [Kind.SYNC, Kind.EOF]
    message = next(parser.feed(pack_message({"type": "whole"})))
    assert message.message == {"type": "whole"}


def test_a_reset_forgets_everything() -> None:
    parser = Parser(synced=True)
    half = pack(Kind.MESSAGE, 1, b'{"half":') + pack(Kind.DATA, 0, b"abc")[:-1]
    assert not list(parser.feed(half))
    parser.reset()
    assert not list(parser.feed(b"c" + pack(Kind.EOF, 1)))
    found = list(parser.feed(pack_sync(NONCE) + pack_message({"type": "whole"})))
    assert [frame.kind for frame in found] == [Kind.SYNC, Kind.MESSAGE]


# --- messages ------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [DATA_LIMIT - 100, DATA_LIMIT, 3 * DATA_LIMIT + 5])
def test_a_long_message_travels_in_parts(size: int) -> None:
    message = {"type": "start", "argv": ["x" * size]}
    packed = pack_message(message)
    assert [frame.message for frame in parsed([packed], synced=True)] == [message]
    assert len(packed) <= size + 100 + HEADER.size * (size // DATA_LIMIT + 2)


def test_a_message_is_too_long_for_either_end() -> None:
    with pytest.raises(FrameError, match=str(MESSAGE_LIMIT)):
        pack_message({"type": "x", "text": "y" * MESSAGE_LIMIT})
    assert "100 bytes" in refused(
        pack(Kind.MESSAGE, 1, bytes(60)) + pack(Kind.MESSAGE, 1, bytes(60)), message_limit=100
    )
    assert len(parsed([pack_message({"type": "x" * 80})], synced=True, message_limit=100)) == 1


def test_file_names_that_are_no_text_travel() -> None:
    message = {"type": "start", "argv": ["caf\udce9", "\u00e9\n\0"]}
    assert parsed([pack_message(message)], synced=True)[0].message == message


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b'"type"',
        b'{"type": 1}',
        b'["type"]',
        b'{"type": "x"',
        b'{"type": "\xff"}',
        b"[" * 100_000,
        b'{"type": "x", "n": ' + b"9" * 5000 + b"}",
        '{"type": "x"}'.encode("utf-16"),
        '{"type": "x"}'.encode("utf-32-le"),
    ],
)
def test_what_is_no_message(text: bytes) -> None:
    with pytest.raises(FrameError):
        parse_message(text)
