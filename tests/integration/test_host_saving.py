"""Machines that stay: saved and brought back, taken back in time, kept after a failure."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mayfly.errors import Conflict, Denied, Missing, Quota
from tests.integration.host import ALICE, BOB, IMAGE, MARKS, Host, User, host_of
from tests.integration.waiting import gone, wait_until

pytestmark = MARKS

OWNER = User(uid=ALICE)
SETTINGS = f"""
[kept]
user_machines = 2
[[standby]]
image = "{IMAGE}"
most = 1
"""
COUNTER = """
(setsid sh -c 'exec 3>/tmp/count; n=0; while :; do n=$((n+1)); echo $n >&3; sleep 0.05; done' \\
    > /dev/null 2>&1 < /dev/null &)
head -c 20000000 /dev/urandom > /dev/shm/data
"""


@pytest.fixture(scope="module")
def service(warm_home: Path) -> Iterator[Host]:
    with host_of(warm_home, SETTINGS) as host:
        yield host


@pytest.fixture
def host(service: Host) -> Iterator[Host]:
    service.refilled()
    yield service
    service.forget_jobs()
    service.clear()


def made(host: Host, *options: str) -> str:
    """Make a machine that stays; gives its id."""
    code, output, said = host.run("run", IMAGE, "--detach", *options, user=OWNER)
    assert code == 0, said
    return output.strip()


def inside(host: Host, name: str, script: str) -> str:
    """Run a command in it."""
    words = ("machine", "ssh", name, "--root", "--", "sh", "-c", script)
    code, output, said = host.run(*words, user=OWNER)
    assert code == 0, said
    return output


def told(host: Host, *words: str) -> str:
    """Run a command of the machine's owner."""
    code, output, said = host.run("machine", *words, user=OWNER)
    assert code == 0, said
    return output


def state_of(host: Host, name: str) -> str:
    return str(host.ask("show", machine=name)["machine"]["state"])


def test_a_machine_lies_on_disk_over_a_restart_and_goes_on(host: Host) -> None:
    name = made(host)
    inside(host, name, COUNTER)
    sum_before = inside(host, name, "sha1sum /dev/shm/data")
    (qemu,) = [one["pid"] for one in host.machines()]
    assert "suspended" in told(host, "suspend", name)
    assert state_of(host, name) == "suspended"
    assert gone(qemu)
    host.restart(signal.SIGKILL)
    assert state_of(host, name) == "suspended"
    told(host, "resume", name)
    assert inside(host, name, "sha1sum /dev/shm/data") == sum_before
    first = int(inside(host, name, "tail -1 /tmp/count"))
    wait_until(lambda: int(inside(host, name, "tail -1 /tmp/count")) > first, "the program")
    assert abs(int(inside(host, name, "date +%s")) - time.time()) < 3


def test_a_network_works_after_each_of_two_resumptions(host: Host) -> None:
    """The guest remembers its gateway: another address of that would be waited for in vain."""
    name = made(host, "--network", "restricted", "--allow", "example.org:80")
    for _ in range(2):
        assert "1 received" in inside(host, name, "ping -c 1 -W 5 10.0.2.2")
        told(host, "suspend", name)
        told(host, "resume", name)
    assert "1 received" in inside(host, name, "ping -c 1 -W 5 10.0.2.2")


def test_a_machine_goes_back_to_a_point_as_often_as_wanted(host: Host) -> None:
    name = made(host)
    inside(host, name, "echo clean > /root/state")
    told(host, "snapshot", name, "clean")
    drawn = set()
    for _ in range(2):
        inside(host, name, "echo dirty > /root/state; rm /etc/debian_version")
        told(host, "revert", name, "clean")
        assert inside(host, name, "cat /root/state; ls /etc/debian_version") == (
            "clean\n/etc/debian_version\n"
        )
        drawn.add(inside(host, name, "head -c 16 /dev/urandom | sha1sum"))
    assert len(drawn) == 2
    listed = told(host, "snapshots", name)
    assert re.search(r"^clean +\d", listed, re.MULTILINE)
    with pytest.raises(Missing, match="no snapshot 'other'"):
        host.ask("revert", OWNER, machine=name, point="other")
    with pytest.raises(Conflict, match="already"):
        host.ask("snapshot", OWNER, machine=name, point="clean")


def test_a_job_that_failed_leaves_its_machine_as_it_was_then(host: Host) -> None:
    script = "echo evidence > /tmp/found; head -c 1000 /dev/urandom > /dev/shm/m; exit 3"
    code, _, said = host.job("--keep-on-failure", "--", "sh", "-c", script, user=OWNER)
    assert code == 3
    (name,) = re.findall(r"machine (\w{8}) is kept for 1d", said)
    (kept,) = host.machines(user=OWNER)
    assert (kept["id"], kept["state"], kept["owner"]) == (name, "kept", ALICE)
    code, output, said = host.run(
        "machine", "debug", name, "--", "sh", "-c", "cat /tmp/found; wc -c < /dev/shm/m", user=OWNER
    )
    assert (code, output) == (0, "evidence\n1000\n"), said
    told(host, "delete", name)
    assert "job ended: 3" in told(host, "logs", name, "--events")


def test_a_job_that_did_not_fail_leaves_nothing(host: Host) -> None:
    assert host.job("--keep-on-failure", "--", "true", user=OWNER)[0] == 0
    host.emptied()


def test_what_is_kept_has_a_quota(host: Host) -> None:
    names = [made(host) for _ in range(3)]
    for name in names[:2]:
        host.ask("suspend", OWNER, machine=name)
    with pytest.raises(Quota, match=r"kept\.user_machines allows 2"):
        host.ask("suspend", OWNER, machine=names[2])
    assert state_of(host, names[2]) == "running"
    assert inside(host, names[2], "echo still there") == "still there\n"


def test_a_machine_with_a_job_in_it_is_not_saved(host: Host) -> None:
    job = host.begin("--", "sh", "-c", "echo ready; read line; exit 5", user=OWNER)
    (name,) = [one["id"] for one in host.machines()]
    for verb, more in (("suspend", {}), ("revert", {"point": "a"})):
        with pytest.raises(Conflict, match=r"somebody is connected|a job runs"):
            host.ask(verb, OWNER, machine=name, **more)
    host.ask("pause", OWNER, machine=name)
    assert state_of(host, name) == "paused"
    host.ask("resume", OWNER, machine=name)
    assert job.end(b"on\n")[0] == 5


def test_with_shares_a_machine_cannot_go_back(host: Host) -> None:
    data = host.top / "data"
    data.mkdir(mode=0o777)
    data.chmod(0o777)
    job = host.begin("--share", str(data), "--", "sh", "-c", "echo ready; read line", user=OWNER)
    (name,) = [one["id"] for one in host.machines()]
    with pytest.raises(Conflict, match="shared directories"):
        host.ask("snapshot", OWNER, machine=name, point="a")
    assert state_of(host, name) == "running"
    job.end(b"\n")


@pytest.fixture
def owners_home(warm_home: Path) -> Iterator[Path]:
    """A home of the owner's own, which knows the image of the site."""
    with tempfile.TemporaryDirectory(prefix="mayfly-owner-", dir="/var/tmp") as name:
        images = Path(name) / "state/images"
        images.mkdir(parents=True)
        (images / IMAGE).symlink_to(warm_home / "state/images" / IMAGE)
        for path in (Path(name), images.parent, images):
            os.chown(path, ALICE, ALICE)
        yield Path(name)


def read_from(disk: Path, raw: Path, *paths: str) -> list[str]:
    """Read files of a disk that no machine has."""
    subprocess.run(["qemu-img", "convert", "-O", "raw", disk, raw], check=True)
    place = f"{raw}?offset={1 << 20}"
    return [
        subprocess.run(
            ["/sbin/debugfs", "-R", f"cat {path}", place],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for path in paths
    ]


def test_a_machine_becomes_an_image_of_its_owner(
    host: Host, owners_home: Path, tmp_path: Path
) -> None:
    name = made(host)
    inside(host, name, "mkdir -p /etc/ssh; echo s > /etc/ssh/ssh_host_x_key; echo m > /srv/made")
    words = ("image", "save", name, "tools", "--yes")
    code, _, said = host.run(*words, user=OWNER, MAYFLY_HOME=str(owners_home))
    assert code == 0, said
    host.emptied()
    tools = owners_home / "state/images/tools"
    record = json.loads((tools / "image.json").read_text())
    assert record["derived"][0].startswith(f"made of {IMAGE}@sha512:")
    assert (tools.stat().st_uid, tools.stat().st_mode & 0o777) == (ALICE, 0o700)
    names = ("/srv/made", "/etc/machine-id", "/etc/ssh/ssh_host_x_key", "/etc/hostname")
    found = read_from(tools / "disk.qcow2", tmp_path / "raw", *names)
    assert found == ["m\n", "", "", "localhost\n"]
    (passwd,) = read_from(tools / "disk.qcow2", tmp_path / "raw2", "/etc/passwd")
    assert str(ALICE) not in passwd


def test_a_machine_of_another_does_not_become_an_image(host: Host) -> None:
    name = made(host)
    with pytest.raises(Missing):
        host.ask("strip", User(uid=BOB), machine=name)
    with pytest.raises(Denied):
        host.ask("strip", machine=name)
    assert state_of(host, name) == "running"
