"""The one loop: descriptors, times, and tasks that wait for either."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest

from mayfly.host.loop import Loop, Task, Wait

LATER_S = 60.0


@pytest.fixture
def loop() -> Loop:
    return Loop()


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    read, write = os.pipe()
    yield read, write
    os.close(read)
    os.close(write)


def test_who_watches_is_called_as_long_as_there_is_something(
    loop: Loop, pipe: tuple[int, int]
) -> None:
    called: list[bytes] = []
    loop.watch(pipe[0], lambda: called.append(os.read(pipe[0], 1)))
    os.write(pipe[1], b"ab")
    for _ in range(4):
        loop.run_once(0)
    assert called == [b"a", b"b"]
    os.write(pipe[1], b"c")
    loop.forget(pipe[0])
    loop.run_once(0)
    assert called == [b"a", b"b"]


def test_who_is_forgotten_meanwhile_is_not_called(loop: Loop) -> None:
    pipes = [os.pipe(), os.pipe()]
    called: list[int] = []

    def first_come(number: int) -> None:
        called.append(number)
        loop.forget(pipes[1 - number][0])

    for number, (read, write) in enumerate(pipes):
        loop.watch(read, lambda number=number: first_come(number))  # type: ignore[misc]
        os.write(write, b"x")
    loop.run_once(0)
    assert len(called) == 1
    for pair in pipes:
        for fd in pair:
            os.close(fd)


def test_a_descriptor_that_is_another_by_now_is_left_for_the_next_round(
    loop: Loop, pipe: tuple[int, int]
) -> None:
    """Two are ready; the first closes the second, and the number is at once somebody else's."""
    victim, other = os.pipe()
    fresh: list[int] = []
    called: list[str] = []

    def swap() -> None:
        loop.forget(pipe[0])
        loop.forget(victim)
        os.close(victim)
        fresh.extend(os.pipe())
        assert fresh[0] == victim
        loop.watch(victim, lambda: called.append("new"))

    loop.watch(pipe[0], swap)
    loop.watch(victim, lambda: called.append("old"))
    os.write(pipe[1], b"x")
    os.write(other, b"x")
    # Whichever is first in this round, nobody is called for what the old one had to say.
    loop.run_once(0)
    loop.run_once(0)
    assert "new" not in called
    for fd in (*fresh, other):
        os.close(fd)


def test_times_come_in_their_order_and_once(loop: Loop) -> None:
    called: list[str] = []
    loop.later(0.002, lambda: called.append("second"))
    loop.later(0.001, lambda: called.append("first"))
    loop.later(0.001, lambda: called.append("first, too"))
    loop.later(LATER_S, lambda: called.append("much later"))
    deadline = time.monotonic() + 10
    while len(called) < 3 and time.monotonic() < deadline:
        loop.run_once(0.01)
    loop.run_once(0)
    assert called == ["first", "first, too", "second"]


def test_a_cancelled_time_does_not_come(loop: Loop) -> None:
    called: list[str] = []
    timer = loop.later(0, lambda: called.append("never"))
    loop.later(0, lambda: called.append("now"))
    timer.cancel()
    loop.run_once(0)
    assert (called, timer.is_dead) == (["now"], True)


def test_a_time_that_is_set_by_a_time_comes_in_the_next_round(loop: Loop) -> None:
    called: list[int] = []

    def again() -> None:
        called.append(len(called))
        loop.later(LATER_S, again)

    loop.later(0, again)
    loop.run_once(0)
    assert called == [0]


def test_a_limit_is_kept_though_nothing_happens(loop: Loop) -> None:
    began = time.monotonic()
    loop.later(LATER_S, lambda: None)
    loop.run_once(0.01)
    assert 0.005 < time.monotonic() - began < LATER_S / 2
    assert loop.waited_s > 0.005


def test_a_task_goes_on_when_what_it_waits_for_is_there(loop: Loop, pipe: tuple[int, int]) -> None:
    seen: list[object] = []

    def task() -> Task:
        seen.append("begun")
        seen.append((yield Wait(fds=(pipe[0],), seconds=LATER_S)))
        os.read(pipe[0], 1)
        seen.append((yield Wait(fds=(pipe[0],), seconds=0.001)))

    loop.spawn(task())
    assert seen == ["begun"]
    loop.run_once(0)
    assert seen == ["begun"]
    os.write(pipe[1], b"x")
    loop.run_once(0)
    assert seen == ["begun", pipe[0]]
    deadline = time.monotonic() + 10
    while len(seen) < 3 and time.monotonic() < deadline:
        loop.run_once(0.01)
    assert seen == ["begun", pipe[0], None]
    # It is over, and watches nothing any more.
    loop.watch(pipe[0], lambda: None)


def test_one_of_several_descriptors_is_enough(loop: Loop, pipe: tuple[int, int]) -> None:
    other, end = os.pipe()
    seen: list[object] = []

    def task() -> Task:
        seen.append((yield Wait(fds=(pipe[0], other))))

    loop.spawn(task())
    os.write(end, b"x")
    loop.run_once(0)
    assert seen == [other]
    # The one that was not ready is free, too.
    loop.watch(pipe[0], lambda: None)
    for fd in (other, end):
        os.close(fd)


def test_what_a_task_raises_is_not_lost(loop: Loop) -> None:
    def task() -> Task:
        yield Wait(seconds=0)
        raise ZeroDivisionError

    loop.spawn(task())
    with pytest.raises(ZeroDivisionError):
        loop.run_once(0.01)
