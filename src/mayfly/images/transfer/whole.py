"""Fetch a whole file: on after a break, once for all who wait, and never more than wanted."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from mayfly.errors import Unavailable, Untrusted
from mayfly.images.room import check_room
from mayfly.images.transfer.digest import Digest, hasher
from mayfly.images.transfer.pace import Meter, Pace, Watch, unwatched
from mayfly.images.transfer.part import Downloads, Part, State
from mayfly.images.transfer.source import WORDS, Offer, Source
from mayfly.images.trouble import explained
from mayfly.units import GIB, show_size

MOST_BYTES = 64 * GIB
_BUFFER = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which file."""

    name: str
    """For people."""
    digest: Digest | None = None
    """None: whatever comes is taken, since nobody vouches for it."""
    size_bytes: int | None = None
    most_bytes: int = MOST_BYTES
    """Where the size is not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long a source may keep us waiting."""

    retries: int = 3
    """In a row that bring nothing new."""
    pause_s: float = 1.0
    """Before the first; twice as long before each further one."""
    window_s: float = 60.0
    least_bytes: int = 60 << 10
    """That must come in each window."""
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """A file that is complete; it is gone when the last who wanted it is done."""

    file: Path
    digest: Digest
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """How it is fetched, and who looks on."""

    watch: Watch = unwatched
    patience: Patience = field(default_factory=Patience)


@contextmanager
def fetched(
    wanted: Wanted, source: Source, downloads: Downloads, terms: Terms | None = None
) -> Iterator[Fetched]:
    """Give a file, once it is here and is what was wanted.

    Raises ``Unavailable`` when its source gave up (what came is kept), ``Untrusted`` when it is
    another file or too much of one, ``Quota`` when this host has no room for it.
    """
    terms = terms or Terms()

    def waiting(count: int) -> None:
        what = f"{wanted.name}: another process fetches it"
        terms.watch(Pace(what=what, done_bytes=count, total_bytes=wanted.size_bytes, rate=None))

    with downloads.claim(_key(wanted, source), waiting) as part:
        digest = _fetch(_Work(wanted=wanted, source=source, part=part, terms=terms))
        yield Fetched(file=part.file, digest=digest, size_bytes=part.size)


def _key(wanted: Wanted, source: Source) -> str:
    if wanted.digest is not None:
        return f"{wanted.digest.algorithm}-{wanted.digest.hex[:64]}"
    return f"name-{sha256(source.name.encode()).hexdigest()}"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    wanted: Wanted
    source: Source
    part: Part
    terms: Terms

    @property
    def algorithm(self) -> str:
        return self.wanted.digest.algorithm if self.wanted.digest else "sha512"


class _ChangedMeanwhileError(Exception):
    """The pieces that came do not belong together."""


def _fetch(work: _Work) -> Digest:
    patience, failures = work.terms.patience, 0
    if (digest := _there(work)) is not None:
        return digest
    while True:
        before = work.part.size
        try:
            return _attempt(work)
        except _ChangedMeanwhileError:
            work.part.clear()
            failures += 1
            trouble = Unavailable(f"{work.source.name} changes all the time", hint=WORDS.again)
        except Unavailable as error:
            failures = 1 if work.part.size > before else failures + 1
            trouble = error
        if failures > patience.retries:
            raise _given_up(work.part, trouble)
        patience.sleep(patience.pause_s * 2 ** (failures - 1))


def _given_up(part: Part, trouble: Unavailable) -> Unavailable:
    if not part.size:
        return Unavailable(trouble.message, hint="try again later")
    kept = f"{trouble.message}; the {show_size(part.size)} that came are kept"
    return Unavailable(kept, hint=WORDS.again)


def _there(work: _Work) -> Digest | None:
    """Tell whether it is complete: another process fetched it, or one was killed just then."""
    wanted, part = work.wanted, work.part
    total = part.state().total_bytes
    if total is None or part.size != total or not (part.waited or wanted.digest):
        return None
    digest = hasher(work.algorithm)
    part.hash_into(digest)
    found = Digest(algorithm=work.algorithm, hex=digest.hexdigest())
    if wanted.digest not in (None, found):
        part.clear()
        return None
    part.finish()
    return found


def _attempt(work: _Work) -> Digest:
    """Fetch what is missing."""
    wanted, part = work.wanted, work.part
    state = part.state()
    can_go_on = wanted.digest is not None or bool(state.validator)
    if part.size and not (can_go_on and state.source):
        part.clear()
    digest = hasher(work.algorithm)
    start = part.hash_into(digest)
    validator = state.validator if state.source == work.source.name else ""
    with work.source.open(start, validator) as offer:
        if start and offer.start == 0:
            part.clear()
            digest = hasher(work.algorithm)
        elif start and offer.total_bytes not in (None, state.total_bytes):
            raise _ChangedMeanwhileError
        _check_size(work, offer)
        _take_in(work, offer, digest)
    found = Digest(algorithm=work.algorithm, hex=digest.hexdigest())
    _check_end(work, offer, found)
    return found


def _check_size(work: _Work, offer: Offer) -> None:
    wanted, total = work.wanted, offer.total_bytes
    if total is None:
        return
    if wanted.size_bytes is not None and total != wanted.size_bytes:
        raise _wrong_size(work, total)
    if total > wanted.most_bytes:
        raise _too_large(work)


def _take_in(work: _Work, offer: Offer, digest: Any) -> None:
    part, wanted = work.part, work.wanted
    total = offer.total_bytes if offer.total_bytes is not None else wanted.size_bytes
    most = total if total is not None else wanted.most_bytes
    with explained(part.file):
        check_room(part.directory, (total or 0) - offer.start)
        state = State(source=work.source.name, validator=offer.validator, total_bytes=total)
        part.note(state)
        meter = Meter(wanted.name, total, work.terms.watch)
        meter.begin(offer.start, total)
        slow = _Slowness(work)
        count = offer.start
        with part.appending() as file:
            while data := offer.read(_BUFFER):
                count += len(data)
                if count > most:
                    raise _wrong_size(work, count) if wanted.size_bytes else _too_large(work)
                _write(part, file, data)
                digest.update(data)
                meter.add(len(data))
                slow.add(len(data))
        if total is None:
            part.note(replace(state, total_bytes=count))


def _write(part: Part, file: Any, data: bytes) -> None:
    rest = memoryview(data)
    try:
        while rest:
            rest = rest[file.write(rest) :]
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            # It would keep others from finishing theirs.
            part.clear()
        error.filename = error.filename or str(part.file)
        raise


def _check_end(work: _Work, offer: Offer, found: Digest) -> None:
    wanted, part = work.wanted, work.part
    expected = offer.total_bytes if offer.total_bytes is not None else wanted.size_bytes
    if expected is not None and part.size < expected:
        raise Unavailable(
            f"{work.source.name} ended after {part.size} of {expected} bytes", hint=WORDS.again
        )
    if wanted.digest not in (None, found):
        if offer.start:
            # Perhaps only the pieces do not belong together: it is fetched once more as a whole.
            raise _ChangedMeanwhileError
        part.clear()
        raise Untrusted(
            f"{work.source.name} is another file: its {found.algorithm} is {found.hex},"
            f" and {wanted.digest} was expected",
            hint="its server is wrong, or the list is older than the file: update the list",
        )
    part.finish()


def _wrong_size(work: _Work, total: int) -> Untrusted:
    work.part.clear()
    return Untrusted(
        f"{work.source.name} has {total} bytes or more, and {work.wanted.size_bytes} were expected",
        hint="its server is wrong, or the list is older than the file: update the list",
    )


def _too_large(work: _Work) -> Untrusted:
    work.part.clear()
    return Untrusted(
        f"{work.source.name} has more than {show_size(work.wanted.most_bytes)}",
        hint="give --limit with a larger size, if it may be so large",
    )


class _Slowness:
    """Gives a source up that keeps us with a byte now and then."""

    def __init__(self, work: _Work) -> None:
        self._name = work.source.name
        self._patience = work.terms.patience
        self._since = self._patience.clock()
        self._bytes = 0

    def add(self, count: int) -> None:
        self._bytes += count
        now = self._patience.clock()
        if now - self._since < self._patience.window_s:
            return
        if self._bytes < self._patience.least_bytes:
            raise Unavailable(
                f"{self._name} sent {self._bytes} bytes in {now - self._since:.0f} s",
                hint=WORDS.again,
            )
        self._since, self._bytes = now, 0
