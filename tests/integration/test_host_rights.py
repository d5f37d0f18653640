"""Jobs of a batch system: machines only for what root has registered, where root wants them."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mayfly.errors import Denied
from tests.integration.faults import machines_dir
from tests.integration.host import (
    ALICE,
    BOB,
    IMAGE,
    MARKS,
    Host,
    User,
    claim_fields,
    host_of,
)
from tests.integration.waiting import gone, wait_until

pytestmark = MARKS

KEY = "site/17/0"
OWNER = User(uid=ALICE)
OTHER = User(uid=BOB)
HIERARCHIES = [Path("/sys/fs/cgroup", name) for name in ("memory", "freezer")]


@pytest.fixture(scope="module")
def service(warm_home: Path) -> Iterator[Host]:
    """A service as a batch system's hosts have it."""
    settings = f'requests = "registered"\n[[standby]]\nimage = "{IMAGE}"\nmost = 1\n'
    with host_of(warm_home, settings) as host:
        yield host


@pytest.fixture
def host(service: Host) -> Iterator[Host]:
    """That service, with its standby ready; no job is registered before or after."""
    service.refilled()
    yield service
    service.forget_jobs()
    service.run("host", "unregister", KEY)
    service.emptied()


def register(host: Host, **changes: object) -> tuple[int, str, str]:
    right = {"key": KEY, "uid": ALICE, "cpus": 1, "memory_mib": 700, "wall_s": 3600, **changes}
    return host.run("host", "register", *(f"{name}={value}" for name, value in right.items()))


def test_without_a_job_there_is_no_machine(host: Host) -> None:
    code, _, said = host.job("--", "true", user=OWNER)
    assert code == 125
    assert "this host gives machines to batch jobs only" in said


def test_a_registered_job_gets_its_machine(host: Host) -> None:
    assert register(host, image=IMAGE)[0] == 0
    code, output, said = host.job("--job", KEY, "--", "id", "-u", user=OWNER)
    assert (code, output, said) == (0, f"{ALICE}\n", "")
    features = ["sh", "-c", "cat $JOBFEATURES/job_id $JOBFEATURES/wall_limit_secs"]
    code, output, said = host.job("--job", KEY, "--", *features, user=OWNER)
    assert (code, output.split()) == (0, ["17", "3600"]), said


def test_its_machine_may_stay_as_long_as_the_job(host: Host) -> None:
    register(host)
    name = host.run("run", IMAGE, "--job", KEY, "--detach", user=OWNER)[1].strip()
    assert [(one["id"], one["job"]) for one in host.machines()] == [(name, KEY)]
    host.run("host", "unregister", KEY)
    host.emptied()
    assert name not in host.places()


def test_also_when_the_service_was_restarted_since(host: Host) -> None:
    register(host)
    host.restart(signal.SIGKILL)
    assert host.job("--job", KEY, "--", "true", user=OWNER)[0] == 0


def test_only_root_registers_jobs(host: Host) -> None:
    right = ["key=site/18/0", f"uid={ALICE}", "cpus=1", "memory_mib=700"]
    code, _, said = host.run("host", "register", *right, user=OWNER)
    assert (code, "is for root only" in said) == (3, True)
    code, _, said = host.run("host", "unregister", KEY, user=OWNER)
    assert (code, "is for root only" in said) == (3, True)


@pytest.mark.parametrize(
    ("changes", "options", "who", "words"),
    [
        ({}, [], OTHER, "is not yours"),
        ({"key": "site/19/0"}, [], OWNER, "no job 'site/17/0' is registered"),
        ({"image": "debian-13"}, [], OWNER, "may have machines of 'debian-13', not of"),
        ({}, ["--memory", "640M"], OWNER, "was granted 700 MiB of memory"),
        ({"memory_mib": 4096}, ["--cpus", "2"], OWNER, "was granted 1 CPUs"),
    ],
    ids=["another user", "no such job", "another image", "too much memory", "too many CPUs"],
)
def test_a_job_gets_nothing_that_it_was_not_granted(
    host: Host, changes: dict[str, object], options: list[str], who: User, words: str
) -> None:
    register(host, **changes)
    code, _, said = host.job("--job", KEY, *options, "--", "true", user=who)
    assert code == 125
    assert words in said
    host.run("host", "unregister", "site/19/0")


def test_a_job_has_one_machine_at_a_time(host: Host) -> None:
    register(host)
    first = host.begin("--job", KEY, "--", "sh", "-c", "echo ready; read word", user=OWNER)
    code, _, said = host.job("--job", KEY, "--", "true", user=OWNER)
    assert code == 125
    assert f"job {KEY} has 1 of 1 machines already" in said
    assert first.end(b"\n")[0] == 0
    host.emptied()
    assert host.job("--job", KEY, "--", "true", user=OWNER)[0] == 0


def test_the_jobs_end_is_its_machines_end(host: Host) -> None:
    register(host)
    job = host.begin("--job", KEY, "--", "sh", "-c", "echo ready; exec sleep 600", user=OWNER)
    (machine,) = host.machines()
    assert host.run("host", "unregister", KEY)[0] == 0
    code, _, said = job.end()
    assert code == 125
    assert "its job has ended" in said
    assert gone(machine["pid"])
    # An epilog may run twice.
    assert host.run("host", "unregister", KEY)[0] == 0


def test_the_end_of_its_time_is_its_machines_end(host: Host) -> None:
    register(host, wall_s=60)
    job = host.begin("--job", KEY, "--", "sh", "-c", "echo ready; exec sleep 600", user=OWNER)
    (machine,) = host.machines()
    host.end(signal.SIGKILL)
    _age(host, seconds=3600)
    host.start()
    code, _, said = job.end()
    assert code == 125
    assert "mayfly: " in said
    assert gone(machine["pid"])
    assert host.said(f"machine {machine['id']} ended: the time of its job is over")
    code, _, said = host.job("--job", KEY, "--", "true", user=OWNER)
    assert (code, "is registered" in said) == (125, True)


def _age(host: Host, *, seconds: float) -> None:
    """Let the rights that are written down be older."""
    for file in (host.state / "rights").iterdir():
        stored = json.loads(file.read_text())
        stored["began_s"] = max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - seconds)
        file.write_text(json.dumps(stored))


def test_roots_own_requests_need_no_job(host: Host) -> None:
    assert host.job("--", "true")[0] == 0


# --- where it runs -------------------------------------------------------------------------------


@pytest.fixture
def cgroup() -> Iterator[str]:
    """A job's cgroup, in some hierarchies."""
    tops = [one for one in HIERARCHIES if (one / "cgroup.procs").exists()]
    if not tops:
        pytest.skip("no cgroup v1 hierarchy can be written here")
    name = f"/mayfly-test-{os.getpid()}"
    try:
        for top in tops:
            Path(f"{top}{name}").mkdir()
        yield name
    finally:
        for place in [Path(f"{top}{name}") for top in tops]:
            wait_until(functools.partial(_removed, place), "the cgroup to be empty")


def _removed(place: Path) -> bool:
    with contextlib.suppress(FileNotFoundError):
        try:
            place.rmdir()
        except OSError:
            return False
    return True


def cgroups_of(pid: int) -> dict[str, str]:
    """Give where a process is, by hierarchy."""
    lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    return {names: path for _, names, path in (line.split(":", 2) for line in lines)}


def test_the_machine_runs_in_its_jobs_cgroup(host: Host, cgroup: str) -> None:
    register(host, cgroup=cgroup)
    (standby,) = host.standbys()
    job = host.begin("--job", KEY, "--", "sh", "-c", "echo ready; read word", user=OWNER)
    (machine,) = host.machines()
    assert machine["id"] == standby["id"]
    there = cgroups_of(machine["pid"])
    for top in HIERARCHIES:
        if Path(f"{top}{cgroup}").exists():
            assert there[top.name] == cgroup
    assert job.end(b"\n")[0] == 0


def test_a_job_that_is_frozen_goes_on_when_it_is_thawed(host: Host, cgroup: str) -> None:
    freezer = Path(f"/sys/fs/cgroup/freezer{cgroup}/freezer.state")
    if not freezer.exists():
        pytest.skip("no freezer hierarchy here")
    register(host, cgroup=cgroup)
    words = ["sh", "-c", "echo ready; read word; echo $word"]
    job = host.begin("--job", KEY, "--", *words, user=OWNER)
    freezer.write_text("FROZEN")
    wait_until(lambda: freezer.read_text() == "FROZEN\n", "the freeze")
    try:
        assert [one["state"] for one in host.machines()] == ["running"]
    finally:
        freezer.write_text("THAWED")
    assert job.end(b"thawed\n") == (0, b"thawed\n", "")


def test_in_no_other_cgroup_than_its_jobs_it_runs_at_all(host: Host) -> None:
    register(host, cgroup="/mayfly-there-is-none")
    code, _, said = host.job("--job", KEY, "--", "true", user=OWNER)
    assert code == 125
    assert "the job's cgroup /mayfly-there-is-none is not there" in said
    host.refilled()
    assert len(list(machines_dir(host.top).iterdir())) == 1


def test_a_client_asks_for_nothing_in_anothers_name(host: Host) -> None:
    register(host)
    with contextlib.closing(host.connect(OTHER)) as connection:
        connection.ask("claim", {**claim_fields(job=KEY), "uid": ALICE, "owner": ALICE})
        with pytest.raises(Denied, match="is not yours"):
            connection.answer()
