"""A Grid Engine of several hosts, one of which is sick."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from signal import SIGTERM

import pytest

from tests.integration.gridengine import MARKS, QUEUE, Cell, cell_of
from tests.integration.gridengine_site import POLICY
from tests.integration.host import IMAGE, Host, host_of
from tests.integration.namespaces import lan_of
from tests.integration.people import Someone, somebody
from tests.integration.slurm import home_with_policy
from tests.integration.waiting import wait_until

pytestmark = MARKS

MASTER, WELL, SICK = "gemaster", "gewell", "gesick"
HOST_SETTINGS = f"""\
requests = "registered"
[[standby]]
image = "{IMAGE}"
least = 1
most = 2
"""
JOBS, TASKS = 10, int(os.environ.get("MAYFLY_TEST_TASKS", "20"))
TOO_LITTLE = 400 << 20
"""Bytes of addresses: a service lives with that, and no QEMU."""
JOB = "echo $HOSTNAME >>$JOB_ID.$SGE_TASK_ID\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A master and two execution hosts, each with a host service."""

    cell: Cell
    hosts: dict[str, Host]
    user: Someone

    @property
    def work(self) -> Path:
        """A directory of the user's."""
        return self.user.home / "work"

    def ready(self, name: str) -> bool:
        """Tell whether a host says that it takes jobs in machines."""
        return "vm_ready=1" in self.cell.ask("qhost", "-h", name, "-F", "vm_ready")

    def submit(self, *words: str) -> int:
        """Submit a job that writes down that it ran."""
        given = ("-q", QUEUE, "-l", f"vm_image={IMAGE}", "-cwd", "-o", "/dev/null", *words)
        return self.cell.submit(*given, user=self.user.name, cwd=self.work, stdin=JOB)

    def accounts(self, host: str) -> list[tuple[str, str]]:
        """Give ``failed`` and ``exit_status`` of each try on a host; see accounting(5)."""
        lines = (self.cell.top / "default/common/accounting").read_text().splitlines()
        fields = [line.split(":") for line in lines if not line.startswith("#")]
        return [(each[11], each[12]) for each in fields if each[1] == host]


@pytest.fixture(scope="module")
def site(warm_home: Path) -> Iterator[Site]:
    """A cell of two execution hosts."""
    with (
        home_with_policy(warm_home) as home,
        lan_of(MASTER, WELL, SICK) as lan,
        cell_of(lan) as cell,
        somebody("mayfly-fay") as user,
    ):
        (home / "policy.toml").write_text(POLICY)
        with host_of(home, HOST_SETTINGS) as well, host_of(home, HOST_SETTINGS) as sick:
            hosts = {WELL: well, SICK: sick}
            cell.set(well, live=[str(user.home)])
            for name, host in hosts.items():
                cell.set(host, at=name, live=[str(user.home)])
            done = cell.mayfly(well, "batch", "install", "gridengine", "--queue", QUEUE)
            assert done.returncode == 0, done.stderr
            site = Site(cell=cell, hosts=hosts, user=user)
            site.work.mkdir()
            os.chown(site.work, user.uid, user.uid)
            yield site
            cell.run("qdel", "-f", "-u", "*")


def make_sick(host: Host) -> None:
    """Take from a service, and from all that it starts, what a QEMU needs."""
    assert host.process is not None
    limit = f"--as={TOO_LITTLE}:{TOO_LITTLE}"
    subprocess.run(["prlimit", f"--pid={host.process.pid}", limit], check=True)


def test_a_sick_host_takes_no_jobs_away(site: Site) -> None:
    sick = site.hosts[SICK]
    for name, host in site.hosts.items():
        host.refilled()
        wait_until(lambda name=name: site.ready(name), name, limit_s=90)  # type: ignore[misc]
    make_sick(sick)
    numbers = [site.submit("-j", "y") for _ in range(JOBS)]
    array = site.submit("-j", "y", "-t", f"1-{TASKS}")
    wanted = {f"{job}.undefined" for job in numbers} | {f"{array}.{n + 1}" for n in range(TASKS)}
    wait_until(lambda: "the last" in sick.ask("status")["trouble"], "it to know", limit_s=60)
    wait_until(lambda: not site.ready(SICK), "the sick host to say so", limit_s=60)
    wait_until(lambda: len(list(site.work.iterdir())) == JOBS + TASKS, "the jobs", limit_s=150)
    wait_until(lambda: site.cell.ask("qstat", "-u", "*") == "", "the last one to end", limit_s=60)
    ran = {file.name: file.read_text().split() for file in site.work.iterdir()}
    assert set(ran) == wanted
    assert all(len(hosts) == 1 for hosts in ran.values()), ran
    assert "E" not in site.cell.queue_state()
    failed = [account for account in site.accounts(SICK) if account != ("0", "0")]
    # It was tried, and did not draw the jobs to itself; the standbys that it had did theirs.
    assert 1 <= len(failed) <= 20, failed
    assert sum(hosts == [WELL] for hosts in ran.values()) >= JOBS + TASKS - 2, ran
    sick.restart(SIGTERM)
    wait_until(lambda: site.ready(SICK), "the host to be well again", limit_s=60)
