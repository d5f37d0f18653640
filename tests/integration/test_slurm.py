"""Jobs of a real Slurm in machines of their own."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.host import IMAGE, MARKS, host_of
from tests.integration.slurm import TOOLS, UID, Slurm, slurm_of
from tests.integration.waiting import wait_until

pytestmark = [
    *MARKS,
    pytest.mark.skipif(not all(map(shutil.which, TOOLS)), reason="Slurm is not installed"),
]

VM = f"--vm-image={IMAGE}"
MEMORY = "--mem=640"


@pytest.fixture(scope="module")
def slurm(warm_home: Path) -> Iterator[Slurm]:
    """A cluster whose hosts give machines to jobs only."""
    settings = f'requests = "registered"\n[[standby]]\nimage = "{IMAGE}"\nleast = 2\nmost = 2\n'
    with host_of(warm_home, settings) as host, slurm_of(host, 17_600) as cluster:
        host.refilled(2)
        yield cluster


@pytest.fixture
def cluster(slurm: Slurm) -> Iterator[Slurm]:
    """That cluster; nothing of a test's jobs is there before or after."""
    yield slurm
    slurm.clean()


def nothing_left(slurm: Slurm) -> bool:
    rights = list((slurm.host.state / "rights").iterdir())
    return slurm.host.machines() == [] and rights == []


def test_the_job_runs_in_a_machine(cluster: Slurm) -> None:
    done = cluster.user("srun", MEMORY, VM, "sh", "-c", "hostname; id -u; pwd; nproc")
    name, uid, cwd, cpus = done.stdout.split()
    assert name != os.uname().nodename
    assert (uid, cwd, cpus) == (str(UID), str(cluster.work), "1")
    assert done.returncode == 0
    first = done.stderr.splitlines()[0]
    assert first.startswith(f"mayfly: machine of {IMAGE}, network none; working directory")
    assert "(live)" in first
    wait_until(lambda: nothing_left(cluster), "the right to be taken back")
