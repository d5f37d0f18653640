"""Jobs, and the tickets that go from root's hook to the starter."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mayfly.batch.job import BatchJob, Fault, Ticket, fault_of, read_ticket, refused, write_ticket
from mayfly.errors import (
    Conflict,
    Denied,
    Failed,
    Invalid,
    MayflyError,
    Missing,
    Quota,
    Unavailable,
    Untrusted,
)
from mayfly.host.rights import parse_right

JOB = BatchJob(
    system="slurm", cluster="lab", job="17", step="batch.0", uid=1000, cpus=2, memory_mib=2048
)
FULL = Ticket(
    system="slurm",
    job="17",
    key="lab/17/batch.0",
    image="el9",
    network="restricted",
    network_asked=True,
    allow=("example.org:443",),
    root=True,
    shares=("/data:ro",),
    live=False,
    keep=True,
    restart=2,
    fault=Fault.SITE,
    reason="no room",
    hint="wait",
)


def test_what_is_registered_is_a_right() -> None:
    right = parse_right(JOB.right(), created_at=1)
    assert (right.key, right.uid, right.cpus, right.memory_mib) == (JOB.key, 1000, 2, 2048)


@pytest.mark.parametrize("ticket", [FULL, Ticket(system="slurm", job="1", key="a/1/0")])
def test_a_ticket_is_read_as_it_was_written(ticket: Ticket) -> None:
    text = write_ticket(ticket)
    assert "\n" not in text
    assert read_ticket(text) == ticket


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (Invalid("x"), Fault.JOB),
        (Denied("x"), Fault.JOB),
        (Missing("x"), Fault.JOB),
        (Untrusted("x"), Fault.JOB),
        (Quota("x"), Fault.SITE),
        (Unavailable("x"), Fault.MAYFLY),
        (Conflict("x"), Fault.MAYFLY),
        (Failed("x"), Fault.MAYFLY),
    ],
)
def test_whose_doing_it_was(error: MayflyError, fault: Fault) -> None:
    assert fault_of(error) is fault
    ticket = refused(JOB, error)
    assert (ticket.fault, ticket.reason, ticket.image) == (fault, "x", "")


@pytest.mark.parametrize(
    "changes",
    [
        {"format": 2},
        {"image": None},
        {"allow": "a"},
        {"allow": [1]},
        {"root": 1},
        {"restart": True},
        {"fault": "nobody"},
        {"key": 7},
    ],
)
def test_what_is_no_ticket_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(Invalid, match="ticket"):
        read_ticket(json.dumps({**json.loads(write_ticket(FULL)), **changes}))


@given(st.text(max_size=60) | st.just("[" * 50_000) | st.just("1" * 100_000))
def test_no_text_does_more_than_being_refused(text: str) -> None:
    with pytest.raises(Invalid):
        read_ticket(text)
