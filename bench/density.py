"""What an idle machine costs in memory, with many of them side by side."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Sequence
from pathlib import Path

from bench.client import BenchError, Child
from bench.report import Findings, Metric, median
from bench.setting import IMAGE, Setting
from mayfly.engine.records import is_alive, list_records

AT_ONCE = 4
START_LIMIT_S = 120.0
IDLE_S = 10.0
"""For what runs after a job's start to come to rest."""
LOOK_S = 0.05


def idle_clones(setting: Setting) -> Findings:
    """Start machines whose job sleeps, and weigh their QEMUs when all are up."""
    engine, template, _ = setting.warm()
    mark = f"bench-{secrets.token_hex(8)}"
    children = _start(setting, mark)
    setting.say(f"density: {len(children)} stand; letting them idle for {IDLE_S:.0f} s")
    time.sleep(IDLE_S)
    ours = [one for one in list_records(engine.paths.machines) if mark in one.command]
    weights = [private_mib(Path(f"/proc/{one.pid}/smaps_rollup")) for one in ours if is_alive(one)]
    if any(child.process.poll() is not None for child in children) or not weights:
        raise BenchError("an idle machine ended by itself")
    for child in children:
        child.process.terminate()
    for child in children:
        child.wait()
        setting.children.forget(child)
    return _findings(weights, template.shape.memory_mib)


def _start(setting: Setting, mark: str) -> list[Child]:
    words = ("run", IMAGE, "--no-workdir", "--", "sh", "-c", "echo up; exec sleep 3600", mark)
    children: list[Child] = []
    for number in range(setting.counts.clones):
        setting.say(f"density: clone {number + 1} of {setting.counts.clones}")
        children.append(setting.start(*words))
        _await_up(children, AT_ONCE - 1)
    _await_up(children, 0)
    return children


def _await_up(children: Sequence[Child], most: int) -> None:
    """Wait until at most so many are still on their way."""
    deadline = time.monotonic() + START_LIMIT_S
    while len(late := [child for child in children if child.said() != "up"]) > most:
        for child in late:
            if child.process.poll() is not None:
                raise BenchError(f"an idle machine did not start: {child.complained()}")
        if time.monotonic() > deadline:
            raise BenchError(f"{len(late)} machines did not start within {START_LIMIT_S:.0f} s")
        time.sleep(LOOK_S)


def private_mib(rollup: Path) -> float:
    """Give the private memory of a process, in MiB, from its smaps_rollup."""
    found = re.findall(r"^Private_(?:Dirty|Clean): +([0-9]+) kB$", rollup.read_text(), re.MULTILINE)
    return sum(map(int, found)) / 1024


def _findings(weights: Sequence[float], memory_mib: int) -> Findings:
    metrics = (
        Metric(
            key="idle_clone_private_mib",
            value=median(weights),
            unit="MiB",
            goal=100,
            better="lower",
            against=f"QEMU of an idle clone of the {memory_mib} MiB template",
        ),
        Metric(
            key="idle_clones",
            value=len(weights),
            unit="clones",
            goal=40,
            better="higher",
            against="side by side, all idle",
        ),
    )
    least, most = min(weights), max(weights)
    return Findings(
        metrics=metrics,
        notes=(f"private memory of an idle clone: {least:.0f} to {most:.0f} MiB",),
    )
