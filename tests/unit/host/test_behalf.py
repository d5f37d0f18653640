"""The site server's user: machines for others, and nothing else."""

from __future__ import annotations

import pwd
from dataclasses import replace

import pytest

from mayfly.errors import Conflict, Denied, Invalid, Missing
from mayfly.host.behalf import SITE_VERBS, site_uid
from mayfly.host.settings import HostSettings
from mayfly.host.verbs import VERBS
from tests.unit.host.services import ALICE, Asked, Desk, desk

__all__ = ["desk"]

SITE = 54_400
DAEMON = pwd.getpwnam("daemon").pw_uid


@pytest.fixture
def site(desk: Desk) -> Asked:
    desk.service.site_uid = SITE
    return desk.connect(SITE)


def test_a_machine_for_somebody_is_his(desk: Desk, site: Asked) -> None:
    given = site.claim(user="daemon", lease="l1", outlive=True)
    hosted = desk.service.table.find(given["machine"])
    assert hosted is not None
    assert (hosted.record.owner, hosted.record.lease) == (DAEMON, "l1")
    # That connection is his, for this one machine.
    for op in ("list", "show", "enter", "delete", "claim"):
        assert isinstance(site.why_not(op, machine=hosted.id), Denied)
    again = desk.connect(SITE)
    assert again.ask("show", machine=hosted.id)["machine"]["lease"] == "l1"
    other = desk.connect(ALICE)
    assert isinstance(other.why_not("show", machine=hosted.id), Missing)


def test_a_lease_has_one_machine(desk: Desk, site: Asked) -> None:
    site.claim(user="daemon", lease="l1", outlive=True)
    again = desk.connect(SITE)
    error = again.why_not("claim", **wish(user="daemon", lease="l1"))
    assert isinstance(error, Conflict)
    # It was refused before it was anybody's.
    assert again.ask("status")


def wish(**fields: object) -> dict[str, object]:
    usual = {"image": "debian-12", "cpus": 1, "memory_mib": 512, "outlive": True}
    return {**usual, **fields}


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({}, Invalid),
        ({"user": "daemon"}, Invalid),
        ({"lease": "l1"}, Invalid),
        ({"user": "daemon", "lease": "l1", "outlive": False}, Invalid),
        ({"user": "root", "lease": "l1"}, Denied),
        ({"user": "no-such-user-here", "lease": "l1"}, Missing),
        ({"user": "../x", "lease": "l1"}, Invalid),
        ({"user": 0, "lease": "l1"}, Invalid),
        ({"user": ["daemon"], "lease": "l1"}, Invalid),
        ({"user": "daemon", "lease": "x" * 65}, Invalid),
    ],
)
def test_what_it_may_not_ask_for(
    site: Asked, fields: dict[str, object], kind: type[Exception]
) -> None:
    assert type(site.why_not("claim", **wish(**fields))) is kind


def test_requests_that_are_not_its_business(desk: Desk, site: Asked) -> None:
    alice = desk.connect(ALICE)
    hers = alice.claim(outlive=True)["machine"]
    for op in set(VERBS) - SITE_VERBS:
        assert isinstance(site.why_not(op, machine=hers), Denied), op
    for op in ("show", "enter", "delete", "pause", "suspend", "logs"):
        assert isinstance(site.why_not(op, machine=hers), Missing), op


def test_what_others_say_of_themselves_counts_for_nothing(desk: Desk) -> None:
    desk.service.site_uid = SITE
    machine = desk.connect(ALICE).claim(user="daemon", lease="l1", outlive=True)["machine"]
    hosted = desk.service.table.find(machine)
    assert hosted is not None
    assert (hosted.record.owner, hosted.record.lease) == (ALICE, "")


def test_who_it_is() -> None:
    assert site_uid(HostSettings()) is None
    assert site_uid(replace(HostSettings(), site_user="daemon")) == DAEMON
    for name in ("root", "no-such-user-here"):
        with pytest.raises(Invalid):
            site_uid(replace(HostSettings(), site_user=name))
