"""A Grid Engine whose one host gives machines to jobs, and a user of it: for several test files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.integration.gridengine import QUEUE, Cell, cell_of
from tests.integration.host import IMAGE, Host, host_of, policy_of_queue
from tests.integration.people import Someone, somebody
from tests.integration.slurm import home_with_policy
from tests.integration.waiting import wait_until

HOST_SETTINGS = f"""\
requests = "registered"
[[standby]]
image = "{IMAGE}"
least = 2
most = 2
"""
POLICY = policy_of_queue(QUEUE)
VM = ("-l", f"vm_image={IMAGE}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A cell whose one host gives machines to jobs, and a user of it."""

    cell: Cell
    host: Host
    user: Someone

    @property
    def work(self) -> Path:
        """A directory of the user's."""
        return self.user.home / "work"

    def qsub(self, *words: str, stdin: str = "", cwd: Path | None = None) -> tuple[int, str, str]:
        """Submit a job and wait for its end; gives exit status, output and errors of the job."""
        out, err = self.work / "out", self.work / "err"
        for file in (out, err):
            file.unlink(missing_ok=True)
        done = self.cell.run(
            *("qsub", "-sync", "y", "-o", str(out), "-e", str(err), "-q", QUEUE, *words),
            user=self.user.name,
            cwd=cwd or self.work,
            stdin=stdin,
        )
        texts = [file.read_text(errors="replace") if file.exists() else "" for file in (out, err)]
        return done.returncode, texts[0], texts[1] + done.stderr


@pytest.fixture(scope="module")
def made(warm_home: Path) -> Iterator[Site]:
    """A site into which Mayfly was put by its own command."""
    with home_with_policy(warm_home) as home, cell_of() as cell, somebody("mayfly-eve") as user:
        (home / "policy.toml").write_text(POLICY)
        with host_of(home, HOST_SETTINGS) as host:
            cell.set(host)
            done = cell.mayfly(host, "batch", "install", "gridengine", "--queue", QUEUE)
            assert done.returncode == 0, done.stderr
            host.refilled(2)
            site = Site(cell=cell, host=host, user=user)
            site.work.mkdir()
            os.chown(site.work, user.uid, user.uid)
            wait_until(
                lambda: "vm_ready" in cell.ask("qhost", "-F", "vm_ready"), "the sensor", limit_s=90
            )
            yield site


@pytest.fixture
def site(made: Site) -> Iterator[Site]:
    """That site; nothing of a test's jobs is there afterwards, and the queue is well."""
    made.cell.set(made.host, live=[str(made.user.home)])
    yield made
    made.cell.run("qdel", "-f", "-u", "*")
    wait_until(lambda: nothing_left(made), "the jobs and their machines to go")
    assert "E" not in made.cell.queue_state()


def nothing_left(site: Site) -> bool:
    """Tell whether no job has a machine or a right."""
    waiting = site.cell.ask("qstat", "-u", "*")
    rights = list((site.host.state / "rights").iterdir())
    return (site.host.machines(), rights, waiting) == ([], [], "")
