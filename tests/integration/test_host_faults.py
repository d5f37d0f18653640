"""A host that fails the host service: full disks, spoiled files, a QEMU that is stopped, kills."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mayfly.engine.memory import end_holder
from mayfly.errors import Missing, Quota
from tests.conftest import Cli
from tests.integration.faults import machines_dir
from tests.integration.host import ALICE, IMAGE, MARKS, Host, User, host_of
from tests.integration.hostile import claimed, status_asked
from tests.integration.waiting import gone, wait_until

pytestmark = MARKS

SOMEBODY = User(uid=ALICE)
STANDBY = f'[[standby]]\nimage = "{IMAGE}"\nmost = 1\n'
SEED = int(os.environ.get("MAYFLY_TEST_SEED", random.randrange(1 << 32)))
Mount = Callable[..., None]


@pytest.fixture
def host(warm_home: Path) -> Iterator[Host]:
    """A service that keeps one standby."""
    with host_of(warm_home, STANDBY, start=False) as host:
        yield host


INODES = 64


def fill(directory: Path) -> None:
    """Leave no room for another file."""
    (directory / "filler").mkdir()
    with contextlib.suppress(OSError):
        for number in range(10 * INODES):
            (directory / "filler" / str(number)).touch()


def empty(directory: Path) -> None:
    shutil.rmtree(directory / "filler")


def job(host: Host) -> tuple[int, str, str]:
    return host.job("--", "echo", "done", user=SOMEBODY)


def all_of(host: Host) -> list[dict[str, Any]]:
    return host.machines("standby", "wanted", "starting")


DONE = (0, "done\n", "")


# --- no room -------------------------------------------------------------------------------------


def test_no_room_for_machines(host: Host, small_disk: Mount) -> None:
    small_disk(host.state, f"size=4g,nr_inodes={INODES}")
    host.start()
    host.refilled()
    fill(host.state)
    # Neither for the standby's new owner nor for another machine.
    for _ in range(2):
        code, _, said = job(host)
        assert (code, "No space left on device" in said) == (125, True), said
    with pytest.raises(Quota, match="cannot write down"):
        host.ask("drain")
    with pytest.raises(Quota, match="cannot write the right"):
        host.ask("register", right={"key": "a/b/c", "uid": 1, "cpus": 1, "memory_mib": 1})
    assert host.ask("status")["draining"] is False
    empty(host.state)
    assert job(host) == DONE


def test_no_room_for_logs_loses_no_job(host: Host, small_disk: Mount) -> None:
    small_disk(host.state / "logs", "size=1m,nr_inodes=2")
    host.start()
    assert job(host) == DONE
    assert job(host) == DONE
    host.emptied()


def test_no_room_for_a_template(own_cli: Cli, small_disk: Mount) -> None:
    templates = own_cli.home / "cache/templates"
    for place in templates.iterdir():
        end_holder(place)
    small_disk(templates, "size=1m")
    with host_of(own_cli.home, STANDBY) as host:
        code, _, said = job(host)
        assert code == 125
        assert "MiB" in said
        (standby,) = host.ask("status")["standby"]
        assert standby["ready"] == 0
        wait_until(lambda: "MiB" in host.ask("status")["standby"][0]["trouble"], "the trouble")


# --- what lies on disk is spoiled ----------------------------------------------------------------

SOUND = {
    "format": 1,
    "id": "23456789",
    "image": IMAGE,
    "template": "t",
    "cpus": 1,
    "pid": 1,
    "memory_mib": 512,
    "network": "none",
    "state": "running",
    "command": "",
    "created_at": 1.0,
    "owner": ALICE,
    "outlive": True,
    "started": 1,
}
SPOILED: dict[str, object] = {
    "2345678a": "",
    "2345678b": "{",
    "2345678c": "[" * 100_000,
    "2345678d": "[1, 2]",
    "2345678e": {**SOUND, "pid": "one"},
    "2345678f": {**SOUND, "pid": -1, "started": []},
    "2345678g": {**SOUND, "memory_mib": None},
    "2345678h": {**SOUND, "state": "nowhere"},
    "2345678j": {**SOUND, "state": "suspended", "cpus": -5, "id": "2345678j"},
    # Another machine's, with the pid of another process.
    "2345678k": SOUND,
    "2345678m": {**SOUND, "id": "../../etc"},
    "2345678n": {**SOUND, "state": "kept", "id": "2345678n", "expires_at": "never"},
    "2345678p": {**SOUND, "allow": 5},
    "2345678q": "x" * (2 << 20),
    "2345678r": {**SOUND, "id": "2345678r", "client": 1 << 70, "outlive": False},
}


def test_records_that_are_spoiled_are_removed_and_nothing_else(host: Host) -> None:
    machines = machines_dir(host.top)
    for name, content in SPOILED.items():
        (machines / name).mkdir(parents=True)
        text = content if isinstance(content, str) else json.dumps(content)
        (machines / name / "record.json").write_text(text)
    (machines / "2345678s").mkdir()
    (machines / "2345678t").write_text("no directory")
    (machines / "2345678v").symlink_to(host.top)
    kept = {**SOUND, "id": "2345678w", "state": "suspended", "expires_at": time.time() + 1000}
    (machines / "2345678w").mkdir()
    (machines / "2345678w" / "record.json").write_text(json.dumps(kept))
    host.start()
    assert [one["id"] for one in host.machines()] == ["2345678w"]
    assert host.top.exists()
    left = {"2345678t", "2345678v", "2345678w"}
    host.refilled()
    assert {name for name in host.places() if name.startswith("2345678")} == left
    for name in ("2345678t", "2345678v"):
        (machines / name).unlink()


def test_a_record_that_is_spoiled_while_the_service_runs_changes_nothing(host: Host) -> None:
    host.start()
    with claimed(host, SOMEBODY, outlive=True) as machine:
        record = machines_dir(host.top) / machine.name / "record.json"
        record.write_text("{")
        assert host.ask("pause", SOMEBODY, machine=machine.name)["machine"]["state"] == "paused"
        assert json.loads(record.read_text())["state"] == "paused"
        assert host.ask("resume", SOMEBODY, machine=machine.name)


def test_rights_and_switches_that_are_spoiled_keep_the_service_from_nothing(host: Host) -> None:
    rights = host.state / "rights"
    rights.mkdir(parents=True)
    for name, text in [("a%b%c.json", "[" * 100_000), ("x", ""), ("a%b%d.json", '{"key": 5}')]:
        (rights / name).write_text(text)
    (rights / "a%b%e.json").mkdir()
    (host.state / "logs").mkdir()
    (host.state / "logs" / "2345678a").write_text("no directory")
    (host.state / "logs" / "2345678b").mkdir()
    (host.state / "logs" / "2345678b" / "owner.json").write_text('{"uid": "x"}')
    host.start()
    assert job(host) == DONE
    with pytest.raises(Missing):
        host.ask("logs", SOMEBODY, machine="2345678b")


def test_an_image_that_is_removed_has_no_standbys(own_cli: Cli) -> None:
    with host_of(own_cli.home, STANDBY) as host:
        host.refilled()
        own_cli("image", "remove", IMAGE, "--yes", check=True)
        code, _, said = job(host)
        assert (code, f"there is no image '{IMAGE}'" in said) == (125, True)
        wait_until(lambda: host.standbys() == [], "the standby to be given up", limit_s=30)
        assert host.ask("status")["standby"][0]["trouble"]


def test_the_holder_of_the_memory_is_killed(own_cli: Cli) -> None:
    with host_of(own_cli.home, STANDBY) as host:
        host.refilled()
        (template,) = own_cli.home.glob("cache/templates/*/")
        end_holder(template)
        assert job(host) == DONE
        host.refilled()
        assert job(host) == DONE


# --- at any moment -------------------------------------------------------------------------------


def test_a_qemu_that_is_stopped_keeps_nobody_waiting(host: Host) -> None:
    host.start()
    with contextlib.ExitStack() as stack:
        machine = stack.enter_context(claimed(host, SOMEBODY, outlive=True))
        os.kill(machine.qemu, signal.SIGSTOP)
        with status_asked(host) as latency:
            connections = {}
            for op in ("pause", "logs", "snapshots", "enter"):
                connections[op] = stack.enter_context(contextlib.closing(host.connect(SOMEBODY)))
                connections[op].ask(op, {"machine": machine.name})
            assert job(host) == DONE
        latency.assert_soon()
        os.kill(machine.qemu, signal.SIGCONT)
        assert connections["pause"].answer()[0]["machine"]["state"] == "paused"
        host.ask("delete", SOMEBODY, machine=machine.name)
        wait_until(lambda: gone(machine.qemu), "its end")


def test_a_service_killed_at_any_moment_of_a_claim_loses_nothing(host: Host) -> None:
    print(f"MAYFLY_TEST_SEED={SEED}")
    chance = random.Random(SEED)
    host.start()
    for _ in range(5):
        client = host.client("run", IMAGE, "--no-workdir", "--detach", user=SOMEBODY)
        with contextlib.suppress(subprocess.TimeoutExpired):
            client.process.wait(chance.uniform(0.1, 0.9))
        host.restart(signal.SIGKILL)
        code, output, _ = client.end()
        there = [one["id"] for one in host.machines("running")]
        # Who was told of a machine has it, and whatever else is there can be seen and used.
        assert code != 0 or output.decode().strip() in there
        for name in there:
            done = host.run("machine", "ssh", name, "--", "echo", "here", user=SOMEBODY)
            assert done == (0, "here\n", "")
            host.ask("delete", machine=name)
        host.emptied()
        wait_until(lambda: set(host.places()) == {one["id"] for one in all_of(host)}, "the rest")
