"""What makes a clone another machine than its template, and the proof of it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from mayfly.engine.renewal import CLOCK_TOLERANCE_S, Identity, check_renewed, renew_request
from mayfly.errors import Failed

NOW = 1_800_000_000_000_000_000
SLACK = int(CLOCK_TOLERANCE_S * 1e9)
IDENTITY = Identity(
    epoch=UUID(int=1),
    boot_id=UUID(int=2),
    machine_id="f" * 32,
    hostname="mayfly-abcdefgh",
    seed=bytes(range(64)),
    host_key=None,
)
ANSWER: dict[str, Any] = {
    "type": "ok",
    "boot_id": str(IDENTITY.boot_id),
    "machine_id": IDENTITY.machine_id,
    "hostname": IDENTITY.hostname,
    "random": "0" * 31 + "1",
    "time_ns": NOW + 5,
}
KNOWN = ("0" * 31 + "2", "0" * 31 + "3")


def check(**changes: object) -> None:
    check_renewed({**ANSWER, **changes}, IDENTITY, KNOWN, (NOW, NOW + 10))


def refusal(**changes: object) -> str:
    with pytest.raises(Failed) as caught:
        check(**changes)
    return caught.value.message


def test_the_request_carries_the_whole_identity() -> None:
    assert renew_request(IDENTITY, NOW) == {
        "type": "renew",
        "epoch": "00000000-0000-0000-0000-000000000001",
        "boot_id": "00000000-0000-0000-0000-000000000002",
        "machine_id": "f" * 32,
        "hostname": "mayfly-abcdefgh",
        "seed": bytes(range(64)).hex(),
        "time_ns": NOW,
        "host_key": None,
    }
    with_key = replace(IDENTITY, host_key=("secret", "open"))
    request = renew_request(with_key, NOW)
    assert request["host_key"] == {"private": "secret", "public": "open"}
    assert json.loads(json.dumps(request)) == request


def test_a_renewed_clone_passes() -> None:
    check()
    check_renewed(ANSWER, IDENTITY, (), (NOW, NOW))


@pytest.mark.parametrize("name", ["boot_id", "machine_id", "hostname"])
@pytest.mark.parametrize("value", ["another", "", None, 7])
def test_what_is_still_the_templates_is_found(name: str, value: object) -> None:
    assert name in refusal(**{name: value})


@pytest.mark.parametrize("name", sorted(ANSWER.keys() - {"type"}))
def test_what_is_missing_is_found(name: str) -> None:
    answer = {key: value for key, value in ANSWER.items() if key != name}
    with pytest.raises(Failed):
        check_renewed(answer, IDENTITY, KNOWN, (NOW, NOW + 10))


@pytest.mark.parametrize("random", [*KNOWN, "", "abc", "0" * 31, None, 5, ["0" * 32]])
def test_random_numbers_that_repeat_or_are_none_are_found(random: object) -> None:
    assert "random" in refusal(random=random)


@pytest.mark.parametrize("time_ns", [NOW - SLACK, NOW, NOW + 10, NOW + 10 + SLACK])
def test_a_clock_within_the_tolerance_passes(time_ns: int) -> None:
    check(time_ns=time_ns)
    assert abs(time_ns - NOW) <= SLACK + 10


@pytest.mark.parametrize(
    "time_ns", [NOW - SLACK - 1, NOW + 11 + SLACK, 0, None, str(NOW), float(NOW)]
)
def test_a_clock_that_was_not_set_is_found(time_ns: object) -> None:
    assert "clock" in refusal(time_ns=time_ns)
