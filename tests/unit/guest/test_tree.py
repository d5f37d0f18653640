"""The stream of files: however bytes are cut, and whatever they are."""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mayfly.guest.tree import (
    HEADER_LIMIT,
    LENGTH,
    Entry,
    EntryParser,
    TreeError,
    Type,
    pack_entry,
    parse_entry,
)

PATH_MAX = 4096

paths = st.binary(max_size=12).map(lambda raw: raw.decode("utf-8", "surrogateescape"))
WITH_TARGET = (Type.LINK, Type.NOTE)
others = st.builds(
    lambda kind, target, **fields: Entry(
        type=kind, target=target if kind in WITH_TARGET else "", **fields
    ),
    kind=st.sampled_from([kind for kind in Type if kind not in (Type.FILE, Type.END)]),
    path=paths,
    mode=st.integers(0, 0o177777),
    size=st.integers(0, 2**62 - 1),
    mtime_ns=st.integers(-(2**62) + 1, 2**62 - 1),
    target=paths,
)
files = st.builds(
    lambda path, content: (
        Entry(type=Type.FILE, path=path, mode=0o644, size=len(content)),
        content,
    ),
    paths,
    st.binary(max_size=40),
)
items = st.one_of(others.map(lambda entry: (entry, b"")), files)
END = Entry(type=Type.END)


def taken(parser: EntryParser, pieces: Iterable[bytes]) -> list[tuple[Entry, bytes]]:
    """Give the entries, each with its content put together."""
    found: list[tuple[Entry, bytes]] = []
    for piece in pieces:
        for item in parser.feed(piece):
            if isinstance(item, Entry):
                found.append((item, b""))
            else:
                assert item, "no empty pieces"
                found[-1] = (found[-1][0], found[-1][1] + item)
    return found


def stream(entries: Iterable[tuple[Entry, bytes]]) -> bytes:
    return b"".join(pack_entry(entry) + content for entry, content in entries)


@given(st.lists(items, max_size=5), st.lists(st.integers(0, 10**6), max_size=12))
def test_any_cutting_gives_the_same_entries(
    entries: list[tuple[Entry, bytes]], places: list[int]
) -> None:
    entries = [*entries, (END, b"")]
    data = stream(entries)
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    parser = EntryParser()
    assert taken(parser, (data[start:end] for start, end in pairwise(edges))) == entries
    assert parser.ended
    assert taken(EntryParser(), (bytes([byte]) for byte in data)) == entries


def test_content_comes_without_waiting_for_all_of_it() -> None:
    parser = EntryParser()
    entry = Entry(type=Type.FILE, path="a", size=5)
    assert list(parser.feed(pack_entry(entry) + b"ab")) == [entry, b"ab"]
    assert list(parser.feed(b"c")) == [b"c"]
    assert not parser.ended
    assert list(parser.feed(b"de" + pack_entry(END))) == [b"de", END]
    assert parser.ended


def test_nothing_is_given_after_the_end() -> None:
    parser = EntryParser()
    assert list(parser.feed(pack_entry(END) + pack_entry(Entry(type=Type.FIFO)))) == [END]
    assert list(parser.feed(pack_entry(Entry(type=Type.FIFO)))) == []


def test_only_a_file_has_content() -> None:
    link = Entry(type=Type.LINK, path="a", size=9, target="b")
    assert list(EntryParser().feed(pack_entry(link) + pack_entry(END))) == [link, END]


def test_the_longest_path_and_target_fit() -> None:
    longest = "\udcff" * PATH_MAX
    entry = Entry(
        type=Type.LINK, path=longest, mode=0o120777, mtime_ns=-(2**61), size=2**61, target=longest
    )
    packed = pack_entry(entry)
    assert len(packed) <= HEADER_LIMIT
    assert list(EntryParser().feed(packed)) == [entry]


# --- nonsense ------------------------------------------------------------------------------------


def record(**changes: Any) -> bytes:
    values = {"type": "f", "path": "a", "mode": 0o644, "size": 1, "mtime_ns": 0, "target": ""}
    return json.dumps(list({**values, **changes}.values())).encode()


def test_the_record_that_the_next_tests_spoil_is_good() -> None:
    entry = parse_entry(record())
    assert (entry.type, entry.path, entry.mode, entry.size) == (Type.FILE, "a", 0o644, 1)


@pytest.mark.parametrize(
    "changes",
    [
        {"type": "q"},
        {"type": None},
        {"type": []},
        {"type": {}},
        {"type": "FILE"},
        {"path": 1},
        {"path": None},
        {"path": ["a"]},
        {"path": "\ud800"},
        {"path": "\udbff\udfff"[:1]},
        {"mode": -1},
        {"mode": 1 << 16},
        {"mode": "0644"},
        {"mode": True},
        {"mode": 1.0},
        {"size": -1},
        {"size": 1 << 62},
        {"size": 1e400},
        {"size": None},
        {"mtime_ns": 1 << 62},
        {"mtime_ns": -(1 << 62)},
        {"mtime_ns": 0.5},
        {"target": 5},
        {"target": "\udfff"},
        {"another": 1},
    ],
)
def test_a_record_with_one_thing_wrong(changes: dict[str, Any]) -> None:
    with pytest.raises(TreeError):
        parse_entry(record(**changes))


@pytest.mark.parametrize("kind", Type)
def test_only_a_link_and_a_note_have_a_target(kind: Type) -> None:
    text = record(type=kind.value, target="t")
    if kind in WITH_TARGET:
        assert parse_entry(text).target == "t"
    else:
        with pytest.raises(TreeError, match="neither a link nor a note"):
            parse_entry(text)


def test_the_parser_tells_how_long_a_header_was_as_it_was_sent() -> None:
    text = record() + b" " * 1000
    parser = EntryParser()
    assert len(list(parser.feed(LENGTH.pack(len(text)) + text))) == 1
    assert parser.header_bytes == len(text)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"null",
        b"1",
        b'"fa1234"',
        b"[]",
        b'["f"]',
        b'{"f":0,"a":0,"b":0,"c":0,"d":0,"e":0}',
        b'["f","a",420,1,0,""',
        b"\xff",
        b"[" * 60_000,
    ],
)
def test_what_is_no_record(text: bytes) -> None:
    with pytest.raises(TreeError):
        parse_entry(text)


def test_a_header_that_is_too_long_is_refused_before_it_comes() -> None:
    with pytest.raises(TreeError, match=str(HEADER_LIMIT)):
        list(EntryParser().feed(LENGTH.pack(HEADER_LIMIT + 1)))
    assert list(EntryParser().feed(LENGTH.pack(HEADER_LIMIT))) == []


def complaint(parser: EntryParser, data: bytes) -> str:
    try:
        list(parser.feed(data))
    except TreeError as error:
        return str(error)
    return ""


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=6),
    max_leaves=8,
)
spoilt = st.one_of(
    st.binary(max_size=30),
    json_values.map(lambda value: json.dumps(value).encode()),
    st.lists(st.one_of(st.integers(), paths, st.sampled_from([*Type])), min_size=6, max_size=6).map(
        lambda value: json.dumps(value).encode()
    ),
)


@settings(max_examples=150)
@given(st.lists(spoilt.map(lambda text: LENGTH.pack(len(text)) + text) | st.binary(max_size=20)))
def test_nonsense_raises_only_tree_errors(pieces: list[bytes]) -> None:
    parser, again = EntryParser(), EntryParser()
    assert [complaint(parser, piece) for piece in pieces] == [
        complaint(again, piece) for piece in pieces
    ]
