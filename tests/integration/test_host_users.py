"""Several users of one host service: each has what is theirs, and nobody has anybody else's."""

from __future__ import annotations

import grp
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from mayfly.errors import Missing
from tests.integration.faults import machines_dir
from tests.integration.host import ALICE, BOB, IMAGE, MARKS, Host, User, host_of

pytestmark = MARKS

ADM = grp.getgrnam("adm").gr_gid
PROJECT = 54_399
OWNER = User(uid=ALICE, groups=(ADM, PROJECT))
OTHER = User(uid=BOB, groups=(ADM, PROJECT))
"""Somebody else, who shares all groups but the first."""


@pytest.fixture(scope="module")
def host(warm_home: Path) -> Iterator[Host]:
    """A service that keeps one standby."""
    with host_of(warm_home, f'[[standby]]\nimage = "{IMAGE}"\nmost = 1\n') as host:
        host.refilled()
        yield host


@pytest.fixture(scope="module")
def machine(host: Host) -> str:
    """A machine of one user, that stays."""
    code, output, said = host.run("run", IMAGE, "--no-workdir", "--detach", user=OWNER)
    assert (code, said) == (0, "")
    return output.strip()


def test_the_job_is_who_its_client_is(host: Host) -> None:
    code, output, said = host.job("--", "sh", "-c", "id; echo $HOME; umask", user=OWNER)
    assert (code, said) == (0, "")
    who, home, _ = output.splitlines()
    assert who == (
        f"uid={ALICE}(user{ALICE}) gid={ALICE}(group{ALICE}) "
        f"groups={ALICE}(group{ALICE}),{ADM}(adm),{PROJECT}(group{PROJECT})"
    )
    assert home == f"/home/user{ALICE}"


def test_groups_are_those_of_the_system_whatever_a_client_says(host: Host) -> None:
    lie = {"account": {"uid": 0, "gid": 0, "groups": [{"name": "root", "gid": 0}]}, "uid": 0}
    alone = User(uid=BOB)
    connection = host.connect(alone)
    connection.ask("claim", {"image": IMAGE, "cpus": 1, "memory_mib": 512, **lie})
    name = connection.answer()[0]["machine"]
    assert host.record(name)["owner"] == BOB
    connection.close()
    assert host.job("--", "id", "-G", user=alone)[1] == f"{BOB}\n"


def test_its_owner_may_enter_it(host: Host, machine: str) -> None:
    code, output, said = host.run("machine", "ssh", machine, "--", "id", "-un", user=OWNER)
    assert (code, output, said) == (0, f"user{ALICE}\n", "")
    code, output, _ = host.run("machine", "ssh", machine, "--root", "--", "id", "-u", user=OWNER)
    assert (code, output) == (0, "0\n")


def test_each_user_sees_what_is_theirs(host: Host, machine: str) -> None:
    def seen(user: User) -> list[str]:
        listed = json.loads(host.run("machine", "list", "--json", user=user)[1])
        return [one["id"] for one in listed]

    assert seen(OWNER) == [machine]
    assert seen(OTHER) == []
    assert machine in [one["id"] for one in host.machines()]


REFUSED = [
    ("show",),
    ("ssh", "--", "true"),
    ("debug", "--", "true"),
    ("logs",),
    ("logs", "--events"),
    ("delete",),
    ("pause",),
    ("resume",),
    ("suspend",),
    ("snapshot", "point"),
    ("revert", "point"),
]


@pytest.mark.parametrize("words", REFUSED, ids=" ".join)
def test_of_another_users_machine_nothing_is_told(
    host: Host, machine: str, words: tuple[str, ...]
) -> None:
    verb, *more = words
    code, output, said = host.run("machine", verb, machine, *more, user=OTHER)
    unknown = host.run("machine", verb, "a2b3c4d5", *more, user=OTHER)
    assert (code, output) == (4, "")
    # Not even whether there is one.
    assert unknown == (4, "", said.replace(machine, "a2b3c4d5"))
    assert host.ask("show", OWNER, machine=machine)["machine"]["state"] == "running"


def test_the_logs_of_a_machine_are_its_owners_also_when_it_is_gone(host: Host) -> None:
    code, output, _ = host.job("--", "hostname", user=OWNER)
    assert code == 0
    name = output.strip().removeprefix("mayfly-")
    host.machines()
    assert "given to uid" in host.run("machine", "logs", "--events", name, user=OWNER)[1]
    code, output, said = host.run("machine", "logs", "--events", name, user=OTHER)
    assert (code, output) == (4, ""), said


def test_root_enters_no_machine_of_a_user(host: Host, machine: str) -> None:
    code, output, said = host.run("machine", "ssh", machine, "--", "id")
    assert (code, output) == (3, "")
    assert f"machine '{machine}' belongs to uid {ALICE}" in said
    assert "admin_access" in said


def test_unless_the_site_has_said_so(warm_home: Path) -> None:
    with host_of(warm_home, "admin_access = true\n") as host:
        name = host.run("run", IMAGE, "--no-workdir", "--detach", user=OWNER)[1].strip()
        code, output, _ = host.run("machine", "ssh", name, "--root", "--", "id", "-u")
        assert (code, output) == (0, "0\n")
        events = host.run("machine", "logs", "--events", name, user=OWNER)[1]
        assert "entered by uid 0" in events


def test_what_root_may_do_with_a_host_a_user_may_not(host: Host) -> None:
    for words in (
        ("drain",),
        ("warm", IMAGE),
        ("cool", IMAGE),
        ("check",),
        ("unregister", "a/1/0"),
    ):
        code, output, said = host.run("host", *words, user=OWNER)
        assert (code, output) == (3, ""), words
        assert "is for root only" in said


def test_a_user_may_look_at_the_host(host: Host) -> None:
    assert "takes requests  yes" in host.run("host", "status", user=OTHER)[1]
    with pytest.raises(Missing):
        host.ask("show", OTHER, machine="a2b3c4d5")


def test_the_files_of_a_machine_are_no_users(host: Host, machine: str) -> None:
    for path in (host.state, machines_dir(host.top), machines_dir(host.top) / machine):
        assert path.stat().st_mode & 0o077 == 0, path
    record = host.record(machine)
    assert record["uid"] not in (0, ALICE, BOB)
    assert Path(f"/proc/{record['pid']}/status").read_text().count(f"\t{record['uid']}\t") >= 1
