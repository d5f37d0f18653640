"""What pages say of leases."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mayfly.model import Shape, State
from mayfly.server.web.words import TONES, happened, row_of, size_of, span
from mayfly.site.lease import Lease, Purpose, Spec, Wanted

NOW = 1_700_000_000.0
LEASE = Lease(
    id="x",
    owner="alice",
    group="physics",
    name="m",
    purpose=Purpose.PERSONAL,
    spec=Spec(image="debian-12", shape=Shape(cpus=1, memory_mib=512)),
    created_at=NOW,
    starts_at=NOW,
    expires_at=NOW + 7200,
    state=State.RUNNING,
)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "under a minute"),
        (59.9, "under a minute"),
        (60, "1 min"),
        (3600, "1 h"),
        (90_061, "1 d 1 h"),
        (86_460, "1 d 1 min"),
        (40 * 86_400, "40 d"),
    ],
)
def test_durations(seconds: float, words: str) -> None:
    assert span(seconds) == words


def test_sizes_and_events() -> None:
    assert size_of(1, 512) == "1 CPU, 512 MiB"
    assert size_of(4, 1536) == "4 CPUs, 1.5 GiB"
    assert happened("lease.want-gone") == "delete asked for"
    assert happened("lease.created") == "created"


def test_every_state_has_a_tone() -> None:
    assert set(TONES) == set(State)


def test_what_may_be_done() -> None:
    running = row_of(LEASE, NOW, may_change=True)
    assert (running.can_suspend, running.can_resume, running.can_delete) == (True, False, True)
    asleep = replace(LEASE, wanted=Wanted.SUSPENDED, state=State.SUSPENDED)
    row = row_of(asleep, NOW, may_change=True)
    assert (row.can_suspend, row.can_resume) == (False, True)
    # Its time is over: the server would refuse, so it is not offered.
    assert not row_of(replace(asleep, expired=True), NOW, may_change=True).can_resume
    watched = row_of(LEASE, NOW, may_change=False)
    assert (watched.can_suspend, watched.can_extend, watched.can_delete) == (False, False, False)
    gone = row_of(replace(LEASE, wanted=Wanted.GONE), NOW, may_change=True)
    assert (gone.can_suspend, gone.can_extend, gone.can_delete) == (False, False, False)


def test_soon() -> None:
    assert not row_of(LEASE, NOW, may_change=True).soon
    assert row_of(LEASE, NOW + 5500, may_change=True).soon
    assert not row_of(LEASE, NOW + 7300, may_change=True).soon


def test_time_left() -> None:
    assert row_of(LEASE, NOW, may_change=True).left == "2 h left"
    assert row_of(LEASE, NOW + 3600, may_change=True).spent_percent == 50
    assert row_of(LEASE, NOW + 9999, may_change=True).left == "time is over"
    assert row_of(replace(LEASE, state=State.GONE), NOW, may_change=True).left == "ended"
    later = replace(LEASE, starts_at=NOW + 3600)
    assert row_of(later, NOW, may_change=True).left == "begins in 1 h"
