"""Many machines at once against as many in a row."""

from __future__ import annotations

import time

from bench.report import Findings, Metric, median, spread
from bench.setting import IMAGE, Setting

RUN_TRUE = ("run", IMAGE, "--no-workdir", "--", "true")


def burst_vs_serial(setting: Setting) -> Findings:
    """Compare wall times; every single run must succeed."""
    setting.warm()
    count = setting.counts.burst
    row: list[float] = []
    burst: list[float] = []
    for number in range(setting.counts.bursts):
        setting.say(f"burst: round {number + 1} of {setting.counts.bursts}, {count} in a row")
        began = time.monotonic()
        for _ in range(count):
            setting.run(*RUN_TRUE)
        row.append(time.monotonic() - began)
        setting.say(f"burst: round {number + 1} of {setting.counts.bursts}, {count} at once")
        burst.append(_at_once(setting, count))
    metric = Metric(
        key="burst25_vs_serial",
        value=median(burst) / median(row),
        unit="times",
        goal=0.75,
        better="lower",
        against=f"{count} in a row: {median(row):.1f} s; at once: {median(burst):.1f} s",
    )
    notes = (f"{count} in a row: {spread(row)}", f"{count} at once: {spread(burst)}")
    return Findings(metrics=(metric,), notes=notes)


def _at_once(setting: Setting, count: int) -> float:
    children = [setting.start(*RUN_TRUE) for _ in range(count)]
    ends = []
    for child in children:
        with setting.children.done(child):
            ends.append(child.ended)
    return max(ends) - children[0].began
