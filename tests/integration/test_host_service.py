"""The host service at work: machines ready before they are asked for, and what root tells it."""

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

from mayfly.engine.memory import end_holder, read_holder
from mayfly.errors import Missing, Unavailable
from tests.conftest import Cli
from tests.integration.host import IMAGE, MARKS, Host, claim_fields, host_of
from tests.integration.waiting import gone, wait_until

pytestmark = MARKS

OTHER_MIB = 384
STANDBYS = f"""
[[standby]]
image = "{IMAGE}"
least = 1
most = 3

[[standby]]
image = "{IMAGE}"
memory = "{OTHER_MIB}M"
most = 1
queues = ["short"]
"""
RECOVERY_LIMIT_S = 2.0


@pytest.fixture(scope="module")
def service(warm_home: Path) -> Iterator[Host]:
    """A service that keeps one standby of each of two sizes."""
    cli = Cli(home=warm_home)
    cli("template", "make", IMAGE, "--memory", f"{OTHER_MIB}M", timeout_s=600, check=True)
    with host_of(warm_home, STANDBYS) as host:
        yield host


@pytest.fixture
def host(service: Host) -> Iterator[Host]:
    """That service, with a standby of each size."""
    wait_until(lambda: 0 not in ready(service).values(), "the standbys", limit_s=60)
    yield service
    service.forget_jobs()
    service.emptied()


def ready(host: Host) -> dict[int, int]:
    """Give how many standbys are ready, by their memory in MiB."""
    return {one["memory_mib"]: one["ready"] for one in host.ask("status")["standby"]}


def path_of(host: Host, *options: str) -> str:
    """Run a job; give what its machine was made of."""
    before = host.log.read_text()
    code, output, said = host.job(*options, "--", "hostname")
    assert (code, said) == (0, ""), said
    name = output.strip().removeprefix("mayfly-")
    (line,) = [one for one in host.log.read_text()[len(before) :].splitlines() if "given" in one]
    assert f"machine {name} ({IMAGE}, " in line
    return line.split(", ")[1].split(")")[0]


# --- machines that are ready ---------------------------------------------------------------------


def test_each_image_and_size_is_hot_and_stays_so(host: Host) -> None:
    for _ in range(2):
        assert path_of(host) == "standby"
        assert path_of(host, "--memory", f"{OTHER_MIB}M") == "standby"
        wait_until(lambda: 0 not in ready(host).values(), "other standbys in their place")
    text = "".join(str(one["text"]) for one in host.items("metrics"))
    assert f'mayfly_standby_hits_total{{image="{IMAGE}"}} ' in text


def test_without_a_standby_it_only_takes_longer(host: Host) -> None:
    with contextlib.closing(host.connect()) as first, contextlib.closing(host.connect()) as second:
        for connection in (first, second):
            connection.ask("claim", claim_fields(memory_mib=OTHER_MIB))
        answers = [connection.answer()[0] for connection in (first, second)]
    assert sorted(one["path"] for one in answers) == ["clone", "standby"]


def test_more_standbys_are_kept_when_more_are_asked_for(host: Host) -> None:
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(contextlib.closing(host.connect())) for _ in range(3)]
        for connection in connections:
            connection.ask("claim", claim_fields())
        assert {connection.answer()[0]["path"] for connection in connections} > {"clone"}
    wait_until(lambda: ready(host)[512] == 3, "as many standbys as were asked for", limit_s=60)


def test_a_standby_that_dies_is_replaced(host: Host) -> None:
    (standby,) = [one for one in host.standbys() if one["memory_mib"] == OTHER_MIB]
    os.kill(standby["pid"], signal.SIGKILL)
    wait_until(
        lambda: (
            [one["id"] for one in host.standbys() if one["memory_mib"] == OTHER_MIB]
            not in ([], [standby["id"]])
        ),
        "another standby",
        limit_s=60,
    )
    assert standby["id"] not in host.places()


# --- what root tells it --------------------------------------------------------------------------


def test_the_service_goes_before_machines(host: Host) -> None:
    """And what it forks does not: neither a clone nor a standby."""
    assert host.process is not None
    niceness = functools.partial(os.getpriority, os.PRIO_PROCESS)
    assert niceness(host.process.pid) == -10
    script = "echo ready; read word"
    jobs = [host.begin("--", "sh", "-c", script) for _ in range(2)]
    pids = {one["pid"] for one in host.machines()}
    assert len(pids) == 2
    assert {niceness(pid) for pid in pids} == {0}
    assert [job.end(b"\n")[0] for job in jobs] == [0, 0]


def test_cooled_images_have_no_standbys_and_warmed_ones_have(host: Host) -> None:
    before = [one["pid"] for one in host.standbys()]
    assert host.run("host", "cool", IMAGE)[0] == 0
    wait_until(lambda: all(map(gone, before)), "the standbys to end")
    assert host.ask("status")["standby"] == []
    assert path_of(host) == "clone"
    with pytest.raises(Missing):
        host.ask("cool", image=IMAGE)
    assert host.run("host", "warm", IMAGE, "--count", "2")[0] == 0
    host.refilled(2)
    assert path_of(host) == "standby"
    host.ask("warm", image=IMAGE, memory_mib=OTHER_MIB)


def test_only_images_that_there_are_can_be_warmed(host: Host) -> None:
    code, _, said = host.run("host", "warm", "debian-99")
    assert code == 4
    assert "there is no image 'debian-99'" in said


def test_a_drained_host_takes_no_requests_also_after_a_restart(host: Host) -> None:
    job = host.begin("--", "sh", "-c", "echo ready; read word; echo $word")
    assert host.run("host", "drain")[1] == "drained; 1 machines are still at work\n"
    wait_until(lambda: host.standbys() == [], "the standbys to end")
    for restarted in (False, True):
        if restarted:
            host.restart(signal.SIGTERM)
        code, _, said = host.job("--", "true")
        assert code == 125
        assert "it is being drained" in said
        assert "FAIL  in service: drained" in host.run("host", "check")[1]
        assert host.standbys() == []
    assert job.end(b"at work\n") == (0, b"at work\n", "")
    with pytest.raises(Unavailable):
        host.ask("claim", **claim_fields())
    assert host.run("host", "undrain")[0] == 0
    assert host.run("host", "check")[0] == 0
    assert host.job("--", "true")[0] == 0


def test_status_is_there_for_people_and_for_scripts(host: Host) -> None:
    code, output, _ = host.run("host", "status")
    assert code == 0
    assert "takes requests  yes" in output
    stored = json.loads(host.run("host", "status", "--json")[1])
    assert stored["accelerator"] == "tcg"
    assert {one["image"] for one in stored["standby"]} == {IMAGE}
    assert stored["memory_mib"]["templates"] >= 512


def test_a_machine_that_stays_ends_in_its_time(host: Host) -> None:
    code, output, said = host.run("run", IMAGE, "--no-workdir", "--detach", "--for", "2s")
    assert (code, said) == (0, "")
    assert output.strip() in host.places()
    wait_until(lambda: host.machines() == [], "its end", limit_s=10)
    assert host.said(f"machine {output.strip()} ended: its time is over")


def test_logs_that_are_too_old_are_removed(host: Host) -> None:
    old = host.state / "logs" / "abcdefgh"
    old.mkdir()
    (old / "console.log").write_text("long ago")
    os.utime(old / "console.log", (0, 0))
    host.restart(signal.SIGKILL)
    wait_until(lambda: not old.exists(), "its end")
    assert old.parent.exists()


# --- the memory of templates ---------------------------------------------------------------------


@pytest.fixture
def own_host(own_cli: Cli) -> Iterator[Host]:
    """A service on a home whose templates are its own, without standbys."""
    with host_of(own_cli.home) as host:
        yield host


def first_claim_s(host: Host) -> float:
    """Claim a machine; give how long that took."""
    began = time.monotonic()
    assert host.ask("claim", **claim_fields())["path"] == "clone"
    taken = time.monotonic() - began
    host.emptied()
    return taken


@pytest.mark.parametrize("held", [True, False], ids=["held", "on disk"])
def test_a_templates_memory_outlives_the_service(own_host: Host, held: bool) -> None:
    (template,) = own_host.home.glob("cache/templates/*/")
    made_at = (template / "template.json").stat().st_mtime_ns
    first_claim_s(own_host)
    holder = read_holder(template)
    assert holder is not None
    taken = []
    for _ in range(3):
        if not held:
            end_holder(template)
        own_host.restart(signal.SIGKILL)
        taken.append(first_claim_s(own_host))
    after = read_holder(template)
    assert after is not None
    assert (after.pid == holder.pid) is held
    assert (template / "template.json").stat().st_mtime_ns == made_at, "it was booted again"
    # The best of three: others may be at work on this computer.
    assert min(taken) < RECOVERY_LIMIT_S, taken
