"""Work for disk, network and CPU: the same in a guest and on the host, and what it prints."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from bench.client import BenchError

MIB = 1 << 20
ATTEMPTS = 5
IPERF_LIMIT_S = 60
Shell = Callable[[str], str]
"""Runs a shell script somewhere, and gives what it printed."""

DISK_LOADS = {
    "write": "sequential write, 1 MiB blocks, never written before",
    "read": "sequential read, 1 MiB blocks",
    "rand_read": "random read, 4 KiB blocks, 16 at a time",
    "rand_write": "random write, 4 KiB blocks, 16 at a time",
    "sync_write": "random write, 4 KiB blocks, one at a time, each followed by fsync",
}
"""Names and meanings, in the order in which fio runs them."""
CPU_LOADS: Mapping[str, str] = {
    "shell": 'i=0; s=0; while [ "$i" -lt 200000 ]; do s=$(((s * 31 + i) % 65521)); i=$((i + 1)); '
    "done; echo $s",
    "xz": "seq 150000 | xz -6 -T1 -c | cksum",
    "awk": """mawk 'BEGIN { for (i = 1; i < 700000; i++) s += sin(i) * sqrt(i); print s }'""",
}
"""Fixed computations: whole numbers in an interpreter, compression, floating point."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Area:
    """What fio works on: a file or a device, and which parts of it."""

    path: str
    read_mib: int
    """From the beginning; there must be data."""
    write_at_mib: int
    write_mib: int
    seconds: float
    """For each load but the first, which ends when the area is full."""
    direct: bool = True


def disk_load(shell: Shell, area: Area) -> dict[str, float]:
    """Run all disk loads; gives MiB/s, by load."""
    return fio_figures(shell(f"fio --output-format=json - <<'END'\n{fio_jobs(area)}END\n"))


def fio_jobs(area: Area) -> str:
    """Write the job file of fio."""
    timed = f"time_based=1\nruntime={area.seconds * 1000:.0f}ms\n"
    reads = f"offset=0\nsize={area.read_mib}M\n{timed}"
    writes = f"offset={area.write_at_mib}M\nsize={area.write_mib}M\n"
    many = "ioengine=libaio\niodepth=16\nbs=4k\n"
    jobs = {
        "write": f"rw=write\nbs=1M\n{writes}",
        "read": f"rw=read\nbs=1M\n{reads}",
        "rand_read": f"rw=randread\n{many}{reads}",
        "rand_write": f"rw=randwrite\n{many}{writes}{timed}",
        "sync_write": f"rw=randwrite\nbs=4k\nfsync=1\n{writes}{timed}",
    }
    first = f"[global]\nfilename={area.path}\nioengine=psync\ndirect={area.direct:d}\nthread=1\n"
    # The file lies there already: fio shall not lay it out, which would write to it.
    first += "allow_file_create=0\ninvalidate=0\n"
    # A guest's processor clock has to be calibrated at each start, which takes a second.
    first += "clocksource=clock_gettime\n"
    return first + "".join(f"\n[{name}]\nstonewall\n{job}" for name, job in jobs.items())


def fio_figures(text: str) -> dict[str, float]:
    """Read MiB/s by load from what fio printed."""
    jobs = _json(text, "fio").get("jobs", [])
    figures = {}
    for job in jobs:
        if job.get("error"):
            raise BenchError(f"fio failed in '{job.get('jobname')}': error {job['error']}")
        side = job["read" if "read" in job["jobname"] else "write"]
        figures[str(job["jobname"])] = side["bw_bytes"] / MIB
    if set(figures) != set(DISK_LOADS):
        raise BenchError(f"fio ran only {', '.join(figures) or 'nothing'}")
    return figures


def network_load(shell: Shell, address: str, seconds: float) -> dict[str, float]:
    """Send to a server of iperf3 and receive from it; gives Mbit/s, by direction."""
    # iperf3 counts in whole seconds.
    words = f"timeout {IPERF_LIMIT_S} iperf3 --client {address} --time {math.ceil(seconds)} --json"
    return {"out": _tried(shell, words), "in": _tried(shell, f"{words} --reverse")}


def _tried(shell: Shell, words: str) -> float:
    # A server that has not done with the test before refuses the next, or breaks off; and a
    # connection whose end is lost would be waited for.
    for _ in range(ATTEMPTS - 1):
        try:
            return iperf_figure(shell(words))
        except BenchError:
            shell("sleep 1")
    return iperf_figure(shell(words))


def iperf_figure(text: str) -> float:
    """Read the Mbit/s that arrived from what iperf3 printed."""
    found = _json(text, "iperf3")
    if "error" in found:
        raise BenchError(f"iperf3: {found['error']}")
    return float(found["end"]["sum_received"]["bits_per_second"]) / 1e6


def cpu_load(shell: Shell) -> dict[str, tuple[float, str]]:
    """Run the fixed computations; gives seconds and result, by load."""
    return {name: _timed(shell, load) for name, load in CPU_LOADS.items()}


def _timed(shell: Shell, script: str) -> tuple[float, str]:
    text = shell(f"a=$(date +%s%N); {script}; b=$(date +%s%N); echo $((b - a))")
    result, _, nanoseconds = text.strip().rpartition("\n")
    return int(nanoseconds) / 1e9, result


def same_results(
    one: Mapping[str, tuple[float, str]], other: Mapping[str, tuple[float, str]]
) -> None:
    """Raise unless two runs of the computations came to the same results."""
    for name, (_, result) in one.items():
        if result != other[name][1]:
            raise BenchError(f"'{name}' gave {result!r} here and {other[name][1]!r} there")


def _json(text: str, program: str) -> dict[str, Any]:
    # What a program warns of may stand before the braces.
    start = text.find("{")
    try:
        found = json.loads(text[start:]) if start >= 0 else None
    except ValueError as error:
        raise BenchError(f"{program} printed no JSON: {text[:300]}") from error
    if not isinstance(found, dict):
        raise BenchError(f"{program} printed no JSON: {text[:300]}")
    return found
