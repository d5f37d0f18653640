"""Jobs in machines and plain ones share hosts, and no more memory is promised than there is."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration import gridengine, slurm
from tests.integration.gridengine import HOST, PLAIN, QUEUE
from tests.integration.gridengine_site import POLICY, VM, Site, made, nothing_left, site
from tests.integration.host import IMAGE, MARKS, host_of
from tests.integration.slurm import TOOLS, Slurm, home_with_policy, slurm_of
from tests.integration.waiting import wait_until

__all__ = ["made", "site"]

pytestmark = MARKS
needs_slurm = pytest.mark.skipif(not all(map(shutil.which, TOOLS)), reason="Slurm is not installed")

MACHINE_MIB = 512 + 128
"""A machine and its QEMU."""
LIMIT_S = 120
TIMES = "now() { date +%s.%N; }; b=$(now); sleep 3; echo $b $(now) >>{}\n"
"""A job that writes down when it ran."""


def most_at_once(spans: list[tuple[float, float, int]]) -> int:
    """Give the largest sum of sizes at any time; spans have begin, end and size."""
    return max(sum(size for begin, end, size in spans if begin <= at < end) for at, _, _ in spans)


def read_spans(files: dict[Path, int]) -> list[tuple[float, float, int]]:
    """Read what jobs wrote down, each with its size."""
    spans = []
    for file, size in files.items():
        for line in file.read_text().splitlines():
            begin, end = map(float, line.split())
            spans.append((begin, end, size))
    return spans


def test_the_sum_is_found() -> None:
    assert most_at_once([(0, 3, 1), (1, 2, 2), (2, 4, 4), (5, 6, 6)]) == 6
    assert most_at_once([(0, 3, 1), (1, 2, 2), (2, 4, 4)]) == 5


# --- Grid Engine ---------------------------------------------------------------------------------

ROOM_MIB = 1900
"""Enough for two machines and a plain job of two slots, or three machines without their QEMUs."""
SLOT_MIB = 300


@pytest.fixture
def shared(site: Site) -> Iterator[Site]:
    """A host with little room, of which plain jobs take some."""
    ask = site.cell.ask
    before = gridengine.parse_config(ask("qconf", "-se", HOST))["complex_values"]
    ask("qconf", "-rattr", "exechost", "complex_values", f"vmem={ROOM_MIB}M", HOST)
    yield site
    ask("qconf", "-rattr", "exechost", "complex_values", before, HOST)


def test_gridengine_counts_machines_and_plain_jobs(shared: Site) -> None:
    files: dict[Path, int] = {}
    given = ("-cwd", "-o", "/dev/null", "-j", "y")
    plain = ("-q", PLAIN, "-pe", "smp", "2", "-l", f"vmem={SLOT_MIB}M")
    wishes = [*[((*VM, "-q", QUEUE), MACHINE_MIB)] * 4, *[(plain, 2 * SLOT_MIB)] * 2]
    for number, (words, size) in enumerate(wishes):
        file = shared.work / f"span.{number}"
        files[file] = size
        script = TIMES.replace("{}", file.name)
        shared.cell.submit(*given, *words, user=shared.user.name, cwd=shared.work, stdin=script)
    wait_until(lambda: nothing_left(shared), "the jobs", limit_s=LIMIT_S)
    spans = read_spans(files)
    assert len(spans) == len(wishes)
    assert MACHINE_MIB + 2 * SLOT_MIB <= most_at_once(spans) <= ROOM_MIB


# --- Slurm ---------------------------------------------------------------------------------------

NODE_MIB = 3000
"""As in ``slurm.conf``; there are two CPUs: without memory any two jobs could share a node."""
LARGE_MIB, SPREAD_MIB = 2500, 2300
"""A plain job that has no room beside a machine, and one on both nodes that has."""


@pytest.fixture
def cluster(warm_home: Path) -> Iterator[Slurm]:
    """Two nodes."""
    settings = f'requests = "registered"\n[[standby]]\nimage = "{IMAGE}"\nleast = 2\nmost = 2\n'
    with home_with_policy(warm_home) as home:
        (home / "policy.toml").write_text(POLICY)
        with host_of(home, settings) as host, slurm_of(host) as one:
            host.refilled(2)
            yield one
            one.clean()


@needs_slurm
def test_slurm_counts_machines_and_plain_jobs(cluster: Slurm) -> None:
    script = "#!/bin/sh\n" + TIMES
    spread = "#!/bin/sh\nsrun sh -c '" + TIMES.strip() + "'\n"
    machine = ("--mem=640", f"--vm-image={IMAGE}")
    wishes = [
        *[(machine, script, 640)] * 2,
        (("-N2", "-n2", f"--mem={SPREAD_MIB}"), spread, SPREAD_MIB),
        ((f"--mem={LARGE_MIB}", "-w", slurm.NODES[0]), script, LARGE_MIB),
        *[(machine, script, 640)] * 2,
    ]
    jobs = []
    for number, (words, text, _) in enumerate(wishes):
        body = text.replace("{}", f"span.{number}.$SLURMD_NODENAME")
        jobs.append(cluster.submit("-n1", "-o", "%j.log", *words, script=body))
    for job in jobs:
        assert cluster.ended(job)["JobState"] == "COMPLETED"
    total = 0
    for node in slurm.NODES:
        files = {
            cluster.work / f"span.{number}.{node}": size
            for number, (_, _, size) in enumerate(wishes)
        }
        spans = read_spans({file: size for file, size in files.items() if file.exists()})
        total += len(spans)
        assert SPREAD_MIB <= most_at_once(spans) <= NODE_MIB
    assert total == len(wishes) + 1
