"""Measure what a machine adds to jobs of a real Grid Engine, with daemons of the bench's own."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from bench.client import BenchError
from bench.pairs import Pair, added
from bench.report import Findings
from bench.setting import IMAGE, Setting
from tests.integration.gridengine import LIBRARY, QUEUE, Cell, cell_of
from tests.integration.host import Host, host_of
from tests.integration.people import Someone, somebody
from tests.integration.waiting import wait_until

READY = f'requests = "registered"\n[[standby]]\nimage = "{IMAGE}"\nleast = 2\nmost = 4\n'
JOB_LIMIT_S = 120.0
VM, BARE = ("-l", f"vm_image={IMAGE}"), ("-ac", "vm_image=none")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A cell with Mayfly in one queue, and a user of it."""

    cell: Cell
    host: Host
    user: Someone


def gridengine(setting: Setting) -> Findings:
    """Measure a job's first output from its submission, with a machine and without."""
    with _place(setting) as place:
        pair = Pair(
            bare=lambda: _first_output(place, BARE),
            machine=lambda: _first_output(place, VM),
            ready=lambda: place.host.refilled(2),
            command="qsub",
        )
        return added(setting, "gridengine", pair)


@contextmanager
def _place(setting: Setting) -> Iterator[Place]:
    if not (LIBRARY / "sge_qmaster").exists() or shutil.which("qsub") is None:
        raise BenchError("no Grid Engine: scripts/setup installs it")
    setting.warm()
    setting.say("starting a Grid Engine")
    with (
        host_of(setting.home, READY) as host,
        cell_of() as cell,
        somebody("mayfly-bench") as user,
    ):
        cell.set(host, live=[str(user.home)])
        done = cell.mayfly(host, "batch", "install", "gridengine", "--queue", QUEUE)
        if done.returncode != 0:
            raise BenchError(f"cannot install: {done.stderr}")
        wait_until(lambda: "vm_ready=1" in cell.ask("qhost", "-F", "vm_ready"), "the sensor")
        host.refilled(2)
        yield Place(cell=cell, host=host, user=user)


def _first_output(place: Place, words: tuple[str, ...]) -> float:
    """Submit a job and see its output come, where it is written."""
    out = place.user.home / "out"
    out.unlink(missing_ok=True)
    began = time.monotonic()
    job = place.cell.submit(
        *("-q", QUEUE, "-j", "n", "-o", str(out), "-e", "/dev/null", *words),
        user=place.user.name,
        cwd=place.user.home,
        stdin="echo whole\n",
    )
    wait_until(
        lambda: out.exists() and out.read_text() == "whole\n",
        f"the output of job {job}",
        limit_s=JOB_LIMIT_S,
    )
    took = time.monotonic() - began
    place.cell.ended(job)
    return took
