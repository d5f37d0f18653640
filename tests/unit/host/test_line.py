"""Who may have a machine, who waits, and who goes next."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from mayfly.errors import Denied, Invalid, Missing, Quota, Unavailable
from mayfly.host import line
from mayfly.host.line import advance
from mayfly.host.rights import parse_right
from mayfly.host.settings import Amounts, Limits, Requests
from mayfly.host.work import Step
from mayfly.model import Account, Group
from tests.unit.host.services import (
    ALICE,
    BOB,
    ROOT,
    Asked,
    Desk,
    add_image,
    claim_fields,
    desk,
    refused,
)

__all__ = ["desk"]


def waits(client: Asked) -> bool:
    """Tell whether a client was told that it waits in line."""
    return client.of("line") != []


def in_line(desk: Desk, *uids: int) -> list[Asked]:
    """Have requests of these users wait, in this order."""
    found = []
    for number, uid in enumerate(uids, start=len(desk.service.line) + 1):
        client = desk.connect(uid)
        client.send("claim", **claim_fields())
        desk.until(lambda number=number: len(desk.service.line) == number, "the line")  # type: ignore[misc]
        found.append(client)
    return found


def account(monkeypatch: pytest.MonkeyPatch, name: str, *groups: str) -> None:
    """Have the system know every user by this name, in these groups."""
    known = Account(
        name=name,
        uid=ALICE,
        gid=ALICE,
        groups=tuple(Group(name=group, gid=7000 + at) for at, group in enumerate(groups)),
        home="/nowhere",
        shell="/bin/sh",
    )

    def account_for(*_: object) -> Step[Account]:
        yield from ()
        return known

    monkeypatch.setattr(line, "account_for", account_for)


# --- who may -------------------------------------------------------------------------------------


def test_a_drained_host_refuses(desk: Desk) -> None:
    desk.connect(ROOT).ask("drain")
    assert isinstance(refused(desk.connect().claim), Unavailable)
    desk.connect(ROOT).ask("undrain")
    assert desk.connect().claim()["path"] == "clone"


def test_only_registered_jobs_where_the_site_says_so(desk: Desk) -> None:
    desk.settings(requests=Requests.REGISTERED)
    assert isinstance(refused(desk.connect(ALICE).claim), Denied)
    right = {"key": "site/1/0", "uid": ALICE, "cpus": 1, "memory_mib": 1024}
    desk.connect(ROOT).ask("register", right=right)
    assert desk.connect(ALICE).claim(job="site/1/0")["path"] == "clone"


@pytest.mark.parametrize(
    ("name", "groups", "served"),
    [
        ("alice", [], True),
        ("bob", ["staff", "physics"], True),
        ("bob", ["staff"], False),
        ("Alice", [], False),
    ],
)
def test_only_who_is_listed_where_the_site_says_so(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, name: str, groups: list[str], served: bool
) -> None:
    desk.settings(requests=Requests.LISTED, users=("alice",), groups=("physics",))
    account(monkeypatch, name, *groups)
    client = desk.connect(ALICE)
    if served:
        assert client.claim()["path"] == "clone"
        return
    error = refused(client.claim)
    assert isinstance(error, Denied)
    assert f"user '{name}' may not have machines" in error.message


@pytest.mark.parametrize("requests", list(Requests))
def test_root_always_may(desk: Desk, requests: Requests) -> None:
    desk.settings(requests=requests)
    assert desk.connect(ROOT).claim()["path"] == "clone"


def test_what_there_is_not_is_missing(desk: Desk) -> None:
    assert isinstance(refused(lambda: desk.connect().claim(image="debian-99")), Missing)
    assert isinstance(refused(lambda: desk.connect().claim(image="../etc")), Invalid)


def test_an_image_that_was_changed_is_not_used(desk: Desk) -> None:
    disk = desk.service.engine.paths.images / "debian-12/disk.qcow2"
    disk.write_text("something else")
    error = refused(desk.connect().claim)
    assert "debian-12" in error.message
    desk.emptied()


@pytest.mark.parametrize(
    ("limits", "fields", "words"),
    [
        (Limits(memory_mib=1024), {"memory_mib": 1024}, "limits.memory allows"),
        (Limits(user=Amounts(cpus=2)), {"cpus": 3}, "limits.user.cpus allows 2"),
        (Limits(), {"memory_mib": 1 << 23}, "this host has"),
    ],
)
def test_what_never_fits_is_refused_at_once(
    desk: Desk, limits: Limits, fields: dict[str, int], words: str
) -> None:
    desk.settings(limits=limits)
    error = refused(lambda: desk.connect().claim(**fields))
    assert isinstance(error, Quota)
    assert words in error.message
    assert not desk.service.line


# --- who waits -----------------------------------------------------------------------------------


def test_who_waits_is_told_where_and_why_and_when_that_changes(desk: Desk) -> None:
    desk.limit(machines=1)
    first = desk.connect()
    first.claim()
    second, third = in_line(desk, ALICE, ALICE)
    assert [one["place"] for one in second.of("line")] == [1]
    (told,) = third.of("line")
    assert (told["place"], told["ahead"]) == (2, 1)
    assert "limits.machines" in told["why"]
    first.close()
    assert second.answer()["path"] == "clone"
    desk.until(lambda: [one["place"] for one in third.of("line")] == [2, 1], "a word")
    second.close()
    assert third.answer()["path"] == "clone"


def test_who_does_not_want_to_wait_is_told_what_is_lacking(desk: Desk) -> None:
    desk.limit(machines=1)
    desk.connect().claim()
    error = refused(lambda: desk.connect().claim(wait=False))
    assert isinstance(error, Quota)
    assert "limits.machines" in error.message
    assert not desk.service.line


def test_who_leaves_is_forgotten(desk: Desk) -> None:
    desk.limit(machines=1)
    first = desk.connect()
    first.claim()
    second, third = in_line(desk, ALICE, ALICE)
    second.close()
    desk.until(lambda: len(desk.service.line) == 1, "the line")
    first.close()
    assert third.answer()["path"] == "clone"
    assert desk.made == 2


@pytest.mark.parametrize("limits", [Limits(machines=1, line_user=2), Limits(machines=1, waiting=2)])
def test_the_line_has_an_end(desk: Desk, limits: Limits) -> None:
    desk.settings(limits=limits)
    desk.connect().claim()
    in_line(desk, ALICE, ALICE)
    error = refused(desk.connect(ALICE).claim)
    assert isinstance(error, Quota)
    assert "too many requests wait" in error.message


def test_others_are_not_kept_waiting_by_a_users_own_limit(desk: Desk) -> None:
    desk.settings(limits=Limits(user=Amounts(machines=1)))
    desk.connect(ALICE).claim()
    in_line(desk, ALICE, ALICE)
    assert desk.connect(BOB).claim()["path"] == "clone"


def turns(desk: Desk, clients: dict[Asked, str]) -> list[str]:
    """Serve one after the other; gives whose turns they were."""
    served = []
    while clients:
        desk.until(lambda: any(one.of("ok") for one in clients), "the next turn")
        for client in [one for one in clients if one.of("ok")]:
            served.append(clients.pop(client))
            client.close()
    return served


def test_two_users_go_by_turns_also_where_there_is_room_for_one(desk: Desk) -> None:
    desk.limit(machines=1)
    holder = desk.connect(ROOT)
    holder.claim()
    ones = in_line(desk, *[ALICE] * 10)
    twos = in_line(desk, *[BOB] * 10)
    clients = {**dict.fromkeys(ones, "one"), **dict.fromkeys(twos, "two")}
    holder.close()
    assert turns(desk, clients) == ["one", "two"] * 10
    desk.until(lambda: not desk.service.line, "nobody to wait")
    advance(desk.service)
    # Who was served when is forgotten with the last one who waited.
    assert desk.service.served == {}


def test_nobody_goes_while_the_service_stops(desk: Desk) -> None:
    desk.limit(machines=1)
    first = desk.connect()
    first.claim()
    (second,) = in_line(desk, ALICE)
    desk.service.stopping = True
    first.close()
    desk.emptied()
    assert not second.of("ok", "error")


# --- who starts ----------------------------------------------------------------------------------


@pytest.fixture
def one_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that starts one machine after the other."""
    monkeypatch.setattr("mayfly.host.state.starts_at_once", lambda: 1)


@pytest.mark.usefixtures("one_start")
def test_a_ready_standby_need_not_wait_for_the_starts_of_others(desk: Desk, tmp_path: Path) -> None:
    add_image(desk.service.engine.paths.images, "debian-13")
    desk.keep_ready(image="debian-13")
    desk.service.hot.clear()
    desk.script(gate=tmp_path / "gate")
    desk.connect(ALICE).send("claim", **claim_fields())
    desk.until(lambda: desk.service.starting == 1, "the start")
    behind = desk.connect(ALICE)
    behind.send("claim", **claim_fields())
    desk.until(lambda: waits(behind), "the line")
    # It is by no means the first in line.
    assert desk.connect(ALICE).claim(image="debian-13")["path"] == "standby"
    (tmp_path / "gate").touch()
    assert behind.answer()["path"] == "clone"


@pytest.mark.usefixtures("one_start")
def test_standbys_wait_for_those_who_ask(desk: Desk, tmp_path: Path) -> None:
    desk.script(gate=tmp_path / "gate")
    desk.connect(ALICE).send("claim", **claim_fields())
    desk.until(lambda: desk.service.starting == 1, "the start")
    in_line(desk, ALICE)
    assert desk.service.crowded
    (tmp_path / "gate").touch()
    desk.until(lambda: not desk.service.line, "the line to be empty")
    desk.until(lambda: not desk.service.crowded, "room")


def test_standbys_do_not_wait_for_who_waits_for_own_limits(desk: Desk) -> None:
    desk.settings(limits=Limits(user=Amounts(machines=1)))
    desk.connect(ALICE).claim()
    in_line(desk, ALICE)
    desk.keep_ready()
    assert len(desk.ready()) == 1


def test_a_right_is_looked_at_again_when_its_turn_comes(desk: Desk) -> None:
    desk.limit(machines=1)
    first = desk.connect(BOB)
    first.claim()
    right = {"key": "site/1/0", "uid": ALICE, "cpus": 1, "memory_mib": 1024}
    desk.service.rights.register(parse_right(right, created_at=time.time()))
    client = desk.connect(ALICE)
    client.send("claim", **claim_fields(job="site/1/0"))
    desk.until(lambda: waits(client), "the line")
    desk.service.rights.unregister("site/1/0")
    first.close()
    assert "job site/1/0 has ended" in refused(client.answer).message
