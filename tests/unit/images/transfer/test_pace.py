"""Progress: how far, how fast, how long."""

from __future__ import annotations

import pytest

from mayfly.images.transfer.pace import Meter, Pace
from mayfly.units import MIB


def test_rate_and_time_left_are_those_of_the_last_seconds() -> None:
    now = [0.0]
    seen: list[Pace] = []
    meter = Meter("el9", None, seen.append, clock=lambda: now[0])
    meter.begin(10 * MIB, 110 * MIB)
    for _ in range(10):
        now[0] += 1
        meter.add(1 * MIB)
    for _ in range(20):
        now[0] += 1
        meter.add(3 * MIB)
    assert seen[-1].done_bytes == 80 * MIB
    assert seen[-1].rate == pytest.approx(3 * MIB)
    assert seen[-1].left_s == pytest.approx(10)
    assert str(seen[-1]) == "el9 (80 MiB of 110 MiB, 3.0 MiB/s, 10 s left)"


def test_a_file_of_unknown_size_has_no_end_in_sight() -> None:
    pace = Pace(what="x", done_bytes=MIB, total_bytes=None, rate=None)
    assert (pace.fraction, pace.left_s, str(pace)) == (None, None, "x (1.0 MiB)")


def test_looks_are_rare() -> None:
    seen: list[Pace] = []
    now = [0.0]
    meter = Meter("x", 100, seen.append, clock=lambda: now[0])
    for _ in range(100):
        now[0] += 0.05
        meter.add(1)
    assert 20 <= len(seen) <= 26


def test_nearly_done_is_said_instead_of_nothing_left() -> None:
    pace = Pace(what="x", done_bytes=99, total_bytes=100, rate=50.0)
    assert "nearly done" in str(pace)
    assert pace.fraction == pytest.approx(0.99)
