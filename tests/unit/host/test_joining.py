"""Processes of one batch job in one machine."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest

from mayfly.errors import Conflict, Denied, Failed, Invalid, Missing, Quota
from mayfly.host import cgroups, jobends, joining
from mayfly.host.jobends import end_jobs, watch_jobs
from mayfly.host.rights import parse_right
from mayfly.model import State
from tests.unit.host.services import ALICE, BOB, ROOT, Asked, Desk, add_image, desk

__all__ = ["desk"]

KEY = "site/17/n1.0"
RIGHT = {"key": KEY, "uid": ALICE, "cpus": 1, "memory_mib": 2048, "shared": True}
JOB = {"job": KEY, "cpus": None, "memory_mib": None}


def register(desk: Desk, **changes: Any) -> None:
    desk.service.rights.register(parse_right({**RIGHT, **changes}, created_at=time.time()))


def first(desk: Desk, **fields: Any) -> Asked:
    """Have the first of a job come, who is told to have the machine made."""
    client = desk.connect(ALICE)
    assert client.ask("join", job=KEY, **fields)["first"] is True
    return client


def held(desk: Desk) -> Asked:
    """Have a job's machine made and held."""
    register(desk)
    maker, holder = first(desk), desk.connect(ALICE)
    answer = holder.claim(**JOB)
    assert len(holder.fds) == 1, "a holder gets no session"
    assert answer["machine"] == desk.only().id
    maker.close()
    return holder


def joined(desk: Desk, **fields: Any) -> Asked:
    client = desk.connect(ALICE)
    client.ask("join", job=KEY, **fields)
    assert len(client.fds) == 2
    return client


def test_several_have_a_port_each_and_the_machine_stays(desk: Desk) -> None:
    held(desk)
    hosted = desk.only()
    several = [joined(desk) for _ in range(3)]
    desk.until(lambda: len(hosted.sessions) == 3, "all of them")
    for client in several:
        assert client.ask("release", machine=hosted.id, outcome={"code": 0})
        client.close()
    desk.until(lambda: not hosted.sessions, "their ends")
    assert hosted.record.state is State.RUNNING
    joined(desk)


def test_there_are_not_more_ports_than_there_is_room_for(desk: Desk) -> None:
    held(desk)
    for _ in range(28):
        joined(desk)
    late = desk.connect(ALICE)
    assert isinstance(late.why_not("join", job=KEY), Quota)
    assert desk.only().record.state is State.RUNNING


def test_who_comes_meanwhile_waits(desk: Desk) -> None:
    register(desk)
    gate = desk.top / "gate"
    desk.script(gate=gate)
    first(desk)
    late = desk.connect(ALICE)
    late.send("join", job=KEY)
    holder = desk.connect(ALICE)
    holder.send("claim", image="debian-12", **JOB)
    later = desk.connect(ALICE)
    later.send("join", job=KEY)
    desk.until(lambda: desk.made == 1, "the start")
    assert late.of("ok", "error") == later.of("ok", "error") == []
    gate.touch()
    assert late.answer()["machine"] == later.answer()["machine"] == holder.answer()["machine"]


def test_what_keeps_the_machine_from_being_made_is_told_to_all(desk: Desk) -> None:
    register(desk)
    desk.script(start_fails="no luck")
    first(desk)
    late = desk.connect(ALICE)
    late.send("join", job=KEY)
    holder = desk.connect(ALICE)
    assert isinstance(holder.why_not("claim", image="debian-12", **JOB), Failed)
    with pytest.raises(Failed, match="no luck"):
        late.answer()
    desk.script()
    first(desk)


def test_a_claim_that_is_refused_is_told_to_all(desk: Desk) -> None:
    register(desk)
    first(desk)
    late = desk.connect(ALICE)
    late.send("join", job=KEY)
    holder = desk.connect(ALICE)
    holder.why_not("claim", image="nonesuch", **JOB)
    with pytest.raises(Missing, match="nonesuch"):
        late.answer()


def test_if_the_first_one_goes_the_next_one_is_the_first(desk: Desk) -> None:
    register(desk)
    maker = first(desk)
    late = desk.connect(ALICE)
    late.send("join", job=KEY)
    desk.settle()
    assert late.of("ok") == []
    maker.close()
    assert late.answer()["first"] is True
    late.close()
    desk.until(lambda: not desk.service.joining, "nobody to wait")


def test_others_wait_for_the_working_directory(desk: Desk) -> None:
    held(desk)
    bringer = desk.connect(ALICE)
    assert bringer.ask("join", job=KEY, brings=True)["fresh"] is True
    late = desk.connect(ALICE)
    late.send("join", job=KEY, brings=True)
    desk.settle()
    assert late.of("ok") == []
    bringer.ask("begun")
    assert late.answer()["fresh"] is False
    assert isinstance(desk.connect(ALICE).why_not("begun"), Missing)


def test_they_do_not_wait_for_one_who_is_gone(desk: Desk) -> None:
    held(desk)
    bringer = desk.connect(ALICE)
    bringer.ask("join", job=KEY, brings=True)
    late = desk.connect(ALICE)
    late.send("join", job=KEY)
    desk.settle()
    bringer.close()
    assert late.answer()["machine"] == desk.only().id


def test_the_machine_ends_with_its_holder_and_all_are_told(desk: Desk) -> None:
    holder = held(desk)
    several = [joined(desk) for _ in range(2)]
    holder.close()
    for client in several:
        desk.until(lambda client=client: client.of("ended") != [], "the news")  # type: ignore[misc]
    desk.emptied()
    assert not desk.service.joining


def test_only_those_of_the_job_get_in(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    held(desk)
    assert isinstance(desk.connect(BOB).why_not("join", job=KEY), Denied)
    assert isinstance(desk.connect(ALICE).why_not("join", job="site/18/n1.0"), Missing)
    nonsenses: tuple[object, ...] = (None, 3, "", "x" * 300, [])
    for nonsense in nonsenses:
        assert isinstance(desk.connect(ALICE).why_not("join", job=nonsense), Invalid)
    assert isinstance(joined(desk).why_not("join", job=KEY), Conflict)

    def stranger(pid: int, cgroup: str) -> None:
        raise Denied(f"{pid} is not of {cgroup}")

    monkeypatch.setattr(cgroups, "check_member", stranger)
    assert isinstance(desk.connect(ALICE).why_not("join", job=KEY), Denied)


def test_a_stranger_claims_nothing(desk: Desk) -> None:
    # As a plain job, or an ssh login, of the same user would: it is in no cgroup of the job.
    register(desk, cgroup="/nowhere/job_17")
    client = desk.connect(ALICE)
    assert isinstance(client.why_not("claim", image="debian-12", **JOB), Denied)
    assert isinstance(client.why_not("join", job=KEY), Denied)


def test_a_right_for_one_process_is_not_shared(desk: Desk) -> None:
    register(desk, shared=False)
    assert isinstance(desk.connect(ALICE).why_not("join", job=KEY), Denied)


def test_a_later_service_lets_tasks_in_too(desk: Desk) -> None:
    held(desk)
    joined(desk)
    desk.lose_callers()
    desk.only().sessions.clear()
    assert desk.only().client >= 0
    joined(desk)


def test_all_of_a_job_register_one_right(desk: Desk) -> None:
    root = desk.connect(ROOT)
    asked = {"ask": "image", "image": "debian-12", "user": "ada", "groups": []}
    for _ in range(2):
        root.ask("register", right=RIGHT, asked=asked)
    # A step knows less of the job's CPUs than the batch script: that makes no difference.
    root.ask("register", right={**RIGHT, "cpus": 2}, asked=asked)
    client = desk.connect(ALICE)
    client.ask("join", job=KEY)
    for _ in range(2):
        root.ask("unregister", job=KEY, one=True)
        assert desk.service.rights.find(KEY) is not None
    root.ask("unregister", job=KEY, one=True)
    assert desk.service.rights.find(KEY) is None


def test_a_step_of_another_image_is_refused(desk: Desk) -> None:
    add_image(desk.service.engine.paths.images, "el9")
    root = desk.connect(ROOT)
    asked = {"ask": "image", "image": "debian-12", "user": "ada", "groups": []}
    root.ask("register", right=RIGHT, asked=asked)
    error = root.why_not("register", right=RIGHT, asked={**asked, "image": "el9"})
    assert "is of 'debian-12', not of 'el9'" in error.message


def test_the_end_of_the_job_is_the_end_of_the_machine(desk: Desk) -> None:
    held(desk)
    client = joined(desk)
    desk.connect(ROOT).ask("unregister", job="site/17/n1.*")
    desk.until(lambda: client.of("ended") != [], "the news")
    desk.emptied()
    assert desk.service.rights.all() == []


def test_a_job_whose_cgroup_is_gone_has_ended(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    held(desk)
    monkeypatch.setattr(cgroups, "has_ended", lambda cgroup: cgroup == "/job_18")
    register(desk, key="site/18/n1.0", cgroup="/job_18")
    watch_jobs(desk.service)
    assert len(desk.service.rights.all()) == 2, "its end may just be being told"
    watch_jobs(desk.service)
    assert [right.key for right in desk.service.rights.all()] == [KEY]
    assert desk.only().record.job == KEY


def test_of_a_job_that_was_begun_again_nothing_is_cleared(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    cleared: list[str] = []

    def clear(cgroup: str) -> bool:
        cleared.append(cgroup)
        return True

    monkeypatch.setattr(cgroups, "clear", clear)
    monkeypatch.setattr(jobends, "MOMENT_S", 0.001)
    register(desk, cgroup="/job_17")
    register(desk, key="site/17/n1.1", cgroup="/job_17")
    end_jobs(desk.service, [KEY], "its job has ended")
    register(desk, key="site/18/n1.0", cgroup="/job_18")
    end_jobs(desk.service, ["site/18/n1.0"], "its job has ended")
    desk.until(lambda: cleared != [], "the other one")
    desk.settle()
    assert cleared == ["/job_18"]


def test_a_machine_that_was_kept_stays(desk: Desk) -> None:
    held(desk)
    hosted = desk.only()
    hosted.record = replace(hosted.record, state=State.KEPT)
    end_jobs(desk.service, [KEY], "its job has ended")
    assert not hosted.doomed
    assert joining.machine_of(desk.service, KEY) is hosted
