"""How long a machine takes to start, beside the floor and beside a cold boot."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from statistics import fmean

from bench.client import Child
from bench.floor_plan import FLOOR, clone_plan, cold_plan
from bench.report import Findings, Metric, median, spread
from bench.setting import IMAGE, STOCK, Setting
from mayfly.engine.memory import new_memory
from mayfly.engine.template import Engine, Template
from mayfly.model import Image

COLD_LIMIT_S = 900.0
RUN_TRUE = ("--no-workdir", "--timings", "--", "true")

Steps = dict[str, float]


def start_vs_floor(setting: Setting) -> Findings:
    """Run both in turns, so that a change of the host's load meets both."""
    engine, template, image = setting.warm()
    ours: list[float] = []
    floor: list[float] = []
    our_steps: list[Steps] = []
    floor_steps: list[Steps] = []
    with setting.directory() as work:
        plan = work / "plan.json"
        (work / "run").mkdir()
        clone_plan(engine, template, image, work / "run").write(plan)
        _floor(setting, plan)
        for number in range(setting.counts.pairs):
            setting.say(f"start: pair {number + 1} of {setting.counts.pairs}")
            for turn in (number, number + 1):
                if turn % 2:
                    seconds, steps = _ours(setting, IMAGE)
                    ours.append(seconds)
                    our_steps.append(steps)
                else:
                    seconds, steps = _floor(setting, plan)
                    floor.append(seconds)
                    floor_steps.append(steps)
    metrics = (
        Metric(
            key="start_vs_floor",
            value=median(ours) / median(floor),
            unit="times",
            goal=1.5,
            better="lower",
            against=f"a bare script: {median(floor):.3f} s; mayfly run: {median(ours):.3f} s",
        ),
    )
    notes = (
        f"mayfly run {IMAGE} --no-workdir -- true: {spread(ours)}",
        *_breakdown(our_steps, fmean(ours)),
        f"floor: {spread(floor)}",
        *_breakdown(floor_steps, fmean(floor)),
    )
    return Findings(metrics=metrics, notes=notes)


def start_vs_cold_boot(setting: Setting) -> Findings:
    """Compare with a boot of the stock cloud image, from QEMU's start to the end of `true`."""
    engine, template, image = setting.warm(STOCK)
    warm = [_ours(setting, STOCK)[0] for _ in range(setting.counts.pairs)]
    cold, steps = cold_boots(setting, engine, template, image)
    metric = Metric(
        key="start_vs_cold_boot",
        value=median(cold) / median(warm),
        unit="times",
        goal=25,
        better="higher",
        against=f"cold boot of {STOCK}: {median(cold):.1f} s; mayfly run: {median(warm):.3f} s",
    )
    notes = (
        f"mayfly run {STOCK} --no-workdir -- true: {spread(warm)}",
        f"cold boot to the same point: {spread(cold)}",
        *_breakdown(steps, fmean(cold)),
    )
    return Findings(metrics=(metric,), notes=notes)


def cold_boots(
    setting: Setting, engine: Engine, template: Template, image: Image
) -> tuple[list[float], list[Steps]]:
    """Boot a few times without the template, to the end of `true`; gives seconds and steps."""
    cold: list[float] = []
    steps: list[Steps] = []
    for number in range(setting.counts.cold_boots):
        setting.say(f"cold: boot {number + 1} of {setting.counts.cold_boots}")
        seconds, step = cold_boot(setting, engine, template, image)
        cold.append(seconds)
        steps.append(step)
    return cold, steps


def cold_boot(
    setting: Setting, engine: Engine, template: Template, image: Image
) -> tuple[float, Steps]:
    """Boot once without the template, to the end of `true`; gives seconds and steps."""
    memory = new_memory("bench-cold", template.shape.memory_mib << 20)
    try:
        with setting.directory() as work:
            (work / "run").mkdir()
            plan = cold_plan(engine, template, image, work / "run", memory)
            plan.write(work / "plan.json")
            return _floor(setting, work / "plan.json")
    finally:
        os.close(memory)


def _ours(setting: Setting, image: str) -> tuple[float, Steps]:
    with setting.children.done(setting.start("run", image, *RUN_TRUE)) as child:
        return child.seconds, parse_timings(child.complained())


def _floor(setting: Setting, plan: Path) -> tuple[float, Steps]:
    child = setting.children.start([*FLOOR, str(plan)], bare=True)
    with setting.children.done(child, COLD_LIMIT_S):
        return child.seconds, _floor_steps(child)


def _floor_steps(child: Child) -> Steps:
    marks = json.loads(child.said())
    return {name: at - before for (_, before), (name, at) in pairwise(marks)}


def parse_timings(text: str) -> Steps:
    """Read what ``mayfly run --timings`` prints."""
    steps: Steps = {}
    for line in text.splitlines():
        found = re.findall(r"([a-z][a-z -]*) ([0-9.]+) s(?:,|$)", line.removeprefix("mayfly: "))
        if len(found) > 1:
            steps = {name.strip(): float(seconds) for name, seconds in found}
    return steps


def _breakdown(runs: Sequence[Steps], whole: float) -> list[str]:
    """Give the mean of each step: steps add up to the whole, and rounded ones gain places."""
    names = list(runs[0])
    means = [fmean(run.get(name, 0.0) for run in runs) for name in names]
    rest = whole - sum(means)
    words = [f"{name} {mean:.3f}" for name, mean in zip(names, means, strict=True)]
    return [f"  mean by step, in s: {', '.join(words)}, the process's own start and end {rest:.3f}"]
