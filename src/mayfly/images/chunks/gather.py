"""Put a disk together from chunks: those that are here, then those of neighbours and the source.

Every chunk is checked when it comes. Who sent a bad one is not asked again. A part of what is
missing is asked of a neighbour who has it, and of the source only when none has; each worker takes
parts in an order of its own, so that hosts that begin together fetch different parts from the
source, and the rest from each other.
"""

from __future__ import annotations

import hashlib
import random
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from mayfly.errors import MayflyError, Missing, Unavailable, Untrusted
from mayfly.images.chunks.content import Content
from mayfly.images.chunks.have import Have
from mayfly.images.chunks.index import Index
from mayfly.images.transfer.pace import Meter

PART_BYTES = 1 << 20
Part = tuple[int, int]
"""The first and the last of some chunks."""
_LOOK_S = 1.0
_FIRST_LOOK_S = 1.0
"""How long the source is spared until all neighbours have said what they have."""
_IDLE_S = 0.05
_FAILURES_MOST = 4


class Giver(Protocol):
    """Somebody who has chunks of an image."""

    @property
    def name(self) -> str:
        """Say who, for people."""

    def has(self) -> bytes | None:
        """Give a bit for each chunk that it has; None: all of them."""

    def give(self, first: int, last: int) -> bytes:
        """Give these chunks and all between them, one after the other."""

    def close(self) -> None:
        """Let connections go."""


def take_local(have: Have, seeds: Iterable[tuple[Index, Content]]) -> int:
    """Take what images of this host have; gives how many bytes that were."""
    wanted: dict[bytes, list[int]] = {}
    for number, chunk in enumerate(have.index.chunks):
        if not have.has(number):
            wanted.setdefault(chunk.digest, []).append(number)
    taken = 0
    for index, content in seeds:
        for chunk in index.chunks:
            numbers = wanted.get(chunk.digest)
            if not numbers:
                continue
            data = content.read(chunk.at, chunk.size)
            # The image may have been damaged since it was cut.
            if hashlib.sha256(data).digest() != chunk.digest:
                continue
            taken += sum(have.put(number, data) for number in numbers)
            del wanted[chunk.digest]
    return taken


def parts_of(have: Have) -> list[Part]:
    """Give what is missing as runs of chunks of about 1 MiB: first and last of each."""
    parts: list[Part] = []
    first, size = -1, 0
    for number, chunk in enumerate(have.index.chunks):
        if have.has(number):
            if first >= 0:
                parts.append((first, number - 1))
            first, size = -1, 0
            continue
        if first >= 0 and size + chunk.size > PART_BYTES:
            parts.append((first, number - 1))
            first, size = -1, 0
        first = number if first < 0 else first
        size += chunk.size
    if first >= 0:
        parts.append((first, len(have.index.chunks) - 1))
    return parts


@dataclass(kw_only=True)
class _State:
    """What the workers share."""

    have: Have
    meter: Meter
    todo: list[Part]
    busy: set[Part] = field(default_factory=set)
    parts: tuple[Part, ...]
    known: dict[str, frozenset[Part]] = field(default_factory=dict)
    """Which parts each neighbour has, as far as it said."""
    banned: dict[str, str] = field(default_factory=dict)
    failures: dict[str, int] = field(default_factory=dict)
    fetched: dict[str, int] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)
    stop: threading.Event = field(default_factory=threading.Event)
    looked: threading.Event = field(default_factory=threading.Event)
    faults: list[BaseException] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gathered:
    """Where the chunks came from."""

    fetched: Mapping[str, int]
    """Bytes by who gave them."""
    banned: Mapping[str, str]
    """Who is not asked any more, and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Crowd:
    """Who is asked."""

    source: Giver
    neighbours: tuple[Giver, ...] = ()
    workers: int = 4
    """How many neighbours are asked at once."""
    patience_s: float = 60.0
    """How long nothing may come from anybody."""
    note: Callable[[str], None] = lambda text: None


def gather(have: Have, crowd: Crowd, meter: Meter) -> Gathered:
    """Fetch all that is missing.

    Raises ``Unavailable`` when nobody gives it, ``Untrusted`` when the source itself sends bad
    chunks and nobody else has better ones.
    """
    todo = parts_of(have)
    random.shuffle(todo)
    state = _State(have=have, meter=meter, todo=todo, parts=tuple(todo))
    jobs: list[Callable[[], None]] = [lambda: _source_worker(state, crowd)]
    if crowd.neighbours:
        jobs.append(lambda: _look_worker(state, crowd))
        jobs += [lambda: _neighbour_worker(state, crowd)] * min(
            crowd.workers, len(crowd.neighbours)
        )
    threads = [threading.Thread(target=_guarded, args=(state, job), daemon=True) for job in jobs]
    for thread in threads:
        thread.start()
    try:
        _await(state, crowd)
    finally:
        state.stop.set()
        # Whoever keeps a worker waiting must not keep us.
        for giver in (crowd.source, *crowd.neighbours):
            giver.close()
        for thread in threads:
            thread.join()
        for giver in (crowd.source, *crowd.neighbours):
            giver.close()
    if state.faults:
        raise state.faults[0]
    return Gathered(fetched=state.fetched, banned=state.banned)


def _guarded(state: _State, job: Callable[[], None]) -> None:
    try:
        job()
    except (MayflyError, OSError) as fault:
        state.faults.append(fault)
        state.stop.set()


def _await(state: _State, crowd: Crowd) -> None:
    left, since = state.have.left, time.monotonic()
    while state.have.left and not state.stop.is_set():
        state.stop.wait(_IDLE_S)
        now = time.monotonic()
        if state.have.left != left:
            left, since = state.have.left, now
        elif crowd.source.name in state.banned and not _anybody(state):
            raise Untrusted(
                f"{state.banned[crowd.source.name]}, and nobody else has what is missing",
                hint="its server is wrong or was changed: tell who looks after it",
            )
        elif now - since > crowd.patience_s:
            raise Unavailable(
                f"nothing came from {crowd.source.name} for {crowd.patience_s:.0f} s",
                hint="run it again: what came is kept, and it goes on from there",
            )


def _anybody(state: _State) -> bool:
    """Tell whether a neighbour has something that is missing."""
    with state.lock:
        missing = {*state.todo, *state.busy}
    return any(parts & missing for parts in list(state.known.values()))


# --- who does what -------------------------------------------------------------------------------


def _look_worker(state: _State, crowd: Crowd) -> None:
    """Ask all neighbours again and again what they have."""
    while not state.stop.is_set():
        for neighbour in crowd.neighbours:
            if neighbour.name in state.banned or state.stop.is_set():
                continue
            try:
                state.known[neighbour.name] = _parts_in(neighbour.has(), state.parts)
            except Missing:
                state.known.pop(neighbour.name, None)  # it has not begun with it
            except (MayflyError, OSError) as error:
                _failed(state, crowd, neighbour, error)
        state.looked.set()
        state.stop.wait(_LOOK_S)


def _source_worker(state: _State, crowd: Crowd) -> None:
    """Fetch from the source what no neighbour has."""
    if crowd.neighbours:
        state.looked.wait(_FIRST_LOOK_S)
    while not state.stop.is_set() and crowd.source.name not in state.banned:
        part = _take(state, lambda part: not _known_elsewhere(state, part))
        if part is None:
            state.stop.wait(_IDLE_S)
            continue
        _fetch(state, crowd, crowd.source, part)


def _neighbour_worker(state: _State, crowd: Crowd) -> None:
    """Fetch from neighbours what they have."""
    rank = random.Random()  # noqa: S311  # it only spreads the load
    while not state.stop.is_set():
        names = [each for each in crowd.neighbours if each.name not in state.banned]
        rank.shuffle(names)
        for neighbour in names:
            part = _take(state, state.known.get(neighbour.name, frozenset()).__contains__)
            if part is not None:
                _fetch(state, crowd, neighbour, part)
                break
        else:
            state.stop.wait(_IDLE_S)


def _take(state: _State, wanted: Callable[[Part], bool]) -> Part | None:
    with state.lock:
        for place, part in enumerate(state.todo):
            if wanted(part):
                del state.todo[place]
                state.busy.add(part)
                return part
    return None


def _parts_in(bits: bytes | None, parts: tuple[Part, ...]) -> frozenset[Part]:
    """Give the parts that somebody with these bits has; as numbers, since there are thousands."""
    if bits is None:
        return frozenset(parts)
    number = int.from_bytes(bits, "little")
    found = []
    for first, last in parts:
        mask = (1 << (last - first + 1)) - 1
        if number >> first & mask == mask:
            found.append((first, last))
    return frozenset(found)


def _known_elsewhere(state: _State, part: Part) -> bool:
    return any(part in parts for parts in list(state.known.values()))


def _fetch(state: _State, crowd: Crowd, giver: Giver, part: Part) -> None:
    done = False
    try:
        data = giver.give(*part)
    except Untrusted as bad:
        _ban(state, crowd, giver, bad.message)
    except (MayflyError, OSError) as error:
        _failed(state, crowd, giver, error)
    else:
        done = _take_in(state, crowd, giver, part, data)
    with state.lock:
        state.busy.discard(part)
        if not done:
            state.todo.append(part)


def _take_in(state: _State, crowd: Crowd, giver: Giver, part: Part, data: bytes) -> bool:
    """Check and take what came; good chunks before a bad one count."""
    view, at = memoryview(data), 0
    chunks = state.have.index.chunks
    for number in range(part[0], part[1] + 1):
        size = chunks[number].size
        if hashlib.sha256(view[at : at + size]).digest() != chunks[number].digest:
            _ban(state, crowd, giver, f"{giver.name} sent a bad chunk (number {number})")
            if number > part[0]:
                state.meter.add(state.have.put_all(part[0], number - 1, view[:at]))
            return False
        at += size
    state.meter.add(state.have.put_all(*part, view))
    state.fetched[giver.name] = state.fetched.get(giver.name, 0) + at
    state.failures[giver.name] = 0
    return True


def _ban(state: _State, crowd: Crowd, giver: Giver, why: str) -> None:
    state.banned[giver.name] = why
    state.known.pop(giver.name, None)
    crowd.note(f"{why}: it is not asked again")


def _failed(state: _State, crowd: Crowd, giver: Giver, error: Exception) -> None:
    """Pass over who does not answer; the source alone gets time to come back."""
    state.known.pop(giver.name, None)
    state.failures[giver.name] = count = state.failures.get(giver.name, 0) + 1
    if giver is crowd.source:
        state.stop.wait(min(8.0, 0.25 * 2**count))
    elif count >= _FAILURES_MOST:
        state.banned[giver.name] = f"{giver.name} does not answer: {error}"
