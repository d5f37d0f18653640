"""Machines that are wanted for a time end when it is over, not some time later."""

from __future__ import annotations

import time
from dataclasses import replace

from mayfly.host.expiry import LOOK_S, end_expired
from tests.unit.host.services import Desk, desk

__all__ = ["desk"]


def test_a_machine_ends_in_its_time(desk: Desk) -> None:
    client = desk.connect()
    began = time.time()
    client.claim(life_s=0.3)
    end_expired(desk.service)
    desk.emptied()
    assert 0.3 <= time.time() - began < LOOK_S / 2
    (words,) = client.of("ended")
    assert words["reason"] == "its time is over"


def test_the_next_one_ends_in_its_own(desk: Desk) -> None:
    names = [desk.connect().claim(outlive=True, life_s=life)["machine"] for life in (3600, 0.1)]
    end_expired(desk.service)
    desk.until(lambda: desk.service.table.find(names[1]) is None, "the shorter one's end")
    assert desk.only().id == names[0]


def test_one_without_a_time_stays(desk: Desk) -> None:
    desk.connect().claim(outlive=True)
    end_expired(desk.service)
    desk.settle()
    assert desk.only().doomed == ""


def test_a_clock_that_was_set_forward_is_noticed(desk: Desk) -> None:
    desk.connect().claim(outlive=True, life_s=3600)
    end_expired(desk.service)
    hosted = desk.only()
    hosted.record = replace(hosted.record, expires_at=time.time() - 1)
    end_expired(desk.service)
    desk.emptied()
    assert hosted.doomed == "its time is over"


def test_it_is_looked_at_once_at_a_time(desk: Desk) -> None:
    for _ in range(3):
        end_expired(desk.service)
        first = desk.service.expiry
        end_expired(desk.service)
        assert first is not None
        assert first.is_dead
