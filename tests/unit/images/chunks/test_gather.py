"""Chunks come from here, from neighbours and the source; who sends a bad one is dropped."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from mayfly.errors import Unavailable, Untrusted
from mayfly.images.chunks.content import content_of
from mayfly.images.chunks.gather import Crowd, gather, parts_of, take_local
from mayfly.images.chunks.have import BITS, DISK, Have, open_have
from mayfly.images.chunks.index import Index
from mayfly.images.transfer.pace import Meter
from tests.unit.images.chunks.disks import BLOCK, blocks, disk_of, index_of

DATA = disk_of(2, blocks(1, 1500), 30, blocks(2, 600), 7)


@pytest.fixture
def index(tmp_path: Path) -> Index:
    (tmp_path / "whole").write_bytes(DATA)
    return index_of(tmp_path / "whole")


@dataclass(kw_only=True)
class Fake:
    """Somebody who gives chunks of a disk that is in memory, well or badly."""

    index: Index
    name: str = "source"
    whole: bool = True
    bad: bool = False
    failures: int = 0
    short: bool = False
    given: list[tuple[int, int]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def has(self) -> bytes | None:
        if self.whole:
            return None
        return b"\xff" * (len(self.index.chunks) // 16)

    def close(self) -> None:
        """Nothing is open."""

    def give(self, first: int, last: int) -> bytes:
        with self.lock:
            self.given.append((first, last))
            if self.failures:
                self.failures -= 1
                raise Unavailable(f"{self.name} is away")
        chunks = self.index.chunks[first : last + 1]
        data = b"".join(DATA[chunk.at : chunk.at + chunk.size] for chunk in chunks)
        if self.bad:
            data = data[:-1] + bytes([data[-1] ^ 1])
        return data[:-5] if self.short else data


@contextmanager
def having(index: Index, place: Path) -> Iterator[Have]:
    place.mkdir(exist_ok=True)
    with open_have(index, place) as have:
        yield have


def whole(place: Path) -> bytes:
    return (place / DISK).read_bytes()


def test_all_comes_from_the_source(index: Index, tmp_path: Path) -> None:
    source = Fake(index=index)
    with having(index, tmp_path / "d") as have:
        found = gather(have, Crowd(source=source), Meter("x", None))
        assert have.left == 0
    assert whole(tmp_path / "d") == DATA
    assert found.fetched == {"source": index.content_bytes}
    assert len(source.given) == len(set(source.given)) >= 8


def test_the_source_is_spared_what_neighbours_have(index: Index, tmp_path: Path) -> None:
    source = Fake(index=index)
    crowd = Crowd(source=source, neighbours=(Fake(index=index, name="a"),))
    with having(index, tmp_path / "d") as have:
        found = gather(have, crowd, Meter("x", None))
    assert whole(tmp_path / "d") == DATA
    assert found.fetched == {"a": index.content_bytes}


def test_who_sends_a_bad_chunk_is_not_asked_again(index: Index, tmp_path: Path) -> None:
    bad = Fake(index=index, name="bad", bad=True)
    short = Fake(index=index, name="short", short=True)
    source = Fake(index=index)
    said: list[str] = []
    crowd = Crowd(source=source, neighbours=(bad, short), note=said.append, workers=1)
    with having(index, tmp_path / "d") as have:
        found = gather(have, crowd, Meter("x", None))
    assert whole(tmp_path / "d") == DATA
    assert len(bad.given) <= 1
    assert len(short.given) <= 1
    for name, why in found.banned.items():
        assert f"{name} sent a bad chunk" in why
        assert any(why in words for words in said)


def test_a_bad_neighbour_is_dropped_for_sure(index: Index, tmp_path: Path) -> None:
    bad = Fake(index=index, name="bad", bad=True)
    late = Fake(index=index, failures=2)
    with having(index, tmp_path / "d") as have:
        found = gather(have, Crowd(source=late, neighbours=(bad,)), Meter("x", None))
    assert whole(tmp_path / "d") == DATA
    assert list(found.banned) == ["bad"]
    assert len(bad.given) == 1


def test_a_bad_source_is_refused_unless_a_neighbour_is_better(index: Index, tmp_path: Path) -> None:
    with having(index, tmp_path / "d") as have:
        with pytest.raises(Untrusted, match="source sent a bad chunk"):
            gather(have, Crowd(source=Fake(index=index, bad=True)), Meter("x", None))
        good = Fake(index=index, name="good")
        crowd = Crowd(source=Fake(index=index, bad=True), neighbours=(good,), patience_s=20)
        gather(have, crowd, Meter("x", None))
    assert whole(tmp_path / "d") == DATA


def test_a_neighbour_that_has_a_part_gives_that(index: Index, tmp_path: Path) -> None:
    half = Fake(index=index, name="half", whole=False)
    with having(index, tmp_path / "d") as have:
        gather(have, Crowd(source=Fake(index=index), neighbours=(half,)), Meter("x", None))
    assert whole(tmp_path / "d") == DATA
    assert all(last < len(index.chunks) // 16 * 8 for _, last in half.given)


def test_nobody_there_is_unavailable_and_what_came_stays(index: Index, tmp_path: Path) -> None:
    away = Fake(index=index, failures=10_000)
    with having(index, tmp_path / "d") as have:
        local = [(index, _Memory())]
        have.put(0, DATA[index.chunks[0].at :][: index.chunks[0].size])
        with pytest.raises(Unavailable, match="nothing came from source"):
            gather(have, Crowd(source=away, patience_s=0.3), Meter("x", None))
        assert have.left == len(index.chunks) - 1
    with having(index, tmp_path / "d") as again:
        assert again.left == len(index.chunks) - 1
        assert take_local(again, local) == index.content_bytes - index.chunks[0].size
    assert whole(tmp_path / "d") == DATA


class _Memory:
    disk_bytes = len(DATA)

    def extents(self) -> Iterator[tuple[int, int]]:
        yield 0, len(DATA)

    def read(self, at: int, size: int) -> bytes:
        return DATA[at : at + size]


def test_what_a_crash_spoilt_is_fetched_again(index: Index, tmp_path: Path) -> None:
    with having(index, tmp_path / "d") as have:
        gather(have, Crowd(source=Fake(index=index)), Meter("x", None))
    with (tmp_path / "d" / DISK).open("r+b") as file:
        file.seek(index.chunks[3].at + 5)
        file.write(b"spoilt")
    (tmp_path / "d" / BITS).write_bytes((tmp_path / "d" / BITS).read_bytes() + b"more")
    with having(index, tmp_path / "d") as have:
        assert have.left == 1
        assert parts_of(have) == [(3, 3)]


def test_only_what_is_new_is_missing(index: Index, tmp_path: Path) -> None:
    old = tmp_path / "old"
    old.write_bytes(disk_of(1, blocks(1, 1500), 9, blocks(3, 600)))
    with having(index, tmp_path / "d") as have, content_of(old) as content:
        taken = take_local(have, [(index_of(old), content)])
        assert 1400 * BLOCK < taken <= 1500 * BLOCK
        missing = index.content_bytes - taken
        assert have.here_bytes == taken
        found = gather(have, Crowd(source=Fake(index=index)), Meter("x", None))
    assert sum(found.fetched.values()) == missing
    assert whole(tmp_path / "d") == DATA


def test_an_image_that_is_not_what_its_index_says_is_no_seed(index: Index, tmp_path: Path) -> None:
    spoilt = tmp_path / "spoilt"
    spoilt.write_bytes(DATA[::-1])
    with having(index, tmp_path / "d") as have, content_of(spoilt) as content:
        assert take_local(have, [(index, content)]) == 0


def test_a_full_disk_ends_it(index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with having(index, tmp_path / "d") as have:

        def full(*_: object) -> int:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "pwrite", full)
        with pytest.raises(OSError, match="No space left"):
            gather(have, Crowd(source=Fake(index=index), patience_s=5), Meter("x", None))


@dataclass(kw_only=True)
class Silent(Fake):
    """Somebody who keeps whoever asks waiting, until the connection is closed."""

    closed: threading.Event = field(default_factory=threading.Event)

    def has(self) -> bytes | None:
        self.closed.wait(30)
        raise Unavailable(f"{self.name} was silent")

    def close(self) -> None:
        self.closed.set()


def test_a_silent_neighbour_keeps_nobody_waiting(index: Index, tmp_path: Path) -> None:
    silent = Silent(index=index, name="silent")
    began = time.monotonic()
    with having(index, tmp_path / "d") as have:
        gather(have, Crowd(source=Fake(index=index), neighbours=(silent,)), Meter("x", None))
    assert whole(tmp_path / "d") == DATA
    assert time.monotonic() - began < 20
    assert silent.closed.is_set()
