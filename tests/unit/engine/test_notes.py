"""Long lists made short, and names made safe."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mayfly.engine.session.loop import Loop
from mayfly.engine.session.notes import Notes, Progress, Remark, printable


@given(st.text(st.characters(), max_size=600))
def test_printable_is_printable_and_short(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    assert len(shown) <= 200 * 10


def test_printable_keeps_what_is_harmless() -> None:
    assert printable("Grüße, 世界 file.txt") == "Grüße, 世界 file.txt"
    assert printable("a\x1b[2J\n\u202e\udcff") == "a\\x1b[2J\\n\\u202e\\udcff"
    assert printable("x" * 1000) == "x" * 100 + "..." + "x" * 50


def test_one_line_for_each_kind() -> None:
    notes = Notes()
    for number in range(7):
        notes.add(Remark.NOT_SENT, f"s{number}", "socket")
    notes.add(Remark.REFUSED, "evil")
    notes.say("A sentence.")
    assert notes.lines() == (
        "A sentence.",
        "not copied into the machine: s0 (socket), s1 (socket), s2 (socket) and 4 more",
        "refused from the machine: evil",
    )


def test_progress_waits_and_then_comes_twice_a_second() -> None:
    now, said = [0.0], list[str]()
    progress = Progress(said.append, clock=lambda: now[0])
    for tick in range(50):
        now[0] = tick / 10
        progress.step(lambda: f"{now[0]:.1f}")
    assert said == ["2.0", "2.5", "3.0", "3.5", "4.0", "4.5"]


def test_timers_come_in_order_and_once() -> None:
    now, came = [0.0], list[str]()
    loop = Loop(clock=lambda: now[0])
    loop.after(2, "b", lambda: came.append("b"))
    loop.after(1, "a", lambda: came.append("a"))
    loop.after(1, "a", lambda: came.append("A"))
    loop.after(1, "c", lambda: came.append("c"))
    loop.cancel("c")
    now[0] = 3.0
    loop.turn()
    assert came == ["A", "b"]
    assert not loop.has("a")


def test_timer_may_cancel_the_next() -> None:
    loop = Loop(clock=lambda: 0.0)
    loop.after(-2, "a", lambda: loop.cancel("b"))
    loop.after(-1, "b", lambda: pytest.fail("was cancelled"))
    loop.turn()
    assert not loop.has("b")
