"""How long the image for tests takes to boot, beside the one for jobs."""

from __future__ import annotations

from bench.report import Findings, Metric, median, spread
from bench.setting import IMAGE, Setting
from bench.start import cold_boot

MINIMAL = "minimal"


def minimal(setting: Setting) -> Findings:
    """Boot both in turns, from QEMU's start to the end of `true`, without any template."""
    warmed = {name: setting.warm(name) for name in (MINIMAL, IMAGE)}
    taken: dict[str, list[float]] = {name: [] for name in warmed}
    pairs = setting.counts.cold_boots
    for number in range(pairs):
        setting.say(f"minimal: pair {number + 1} of {pairs}")
        # The first of a pair is not always the same one.
        for name in sorted(warmed, reverse=bool(number % 2)):
            taken[name].append(cold_boot(setting, *warmed[name])[0])
    ours, theirs = taken[MINIMAL], taken[IMAGE]
    metric = Metric(
        key="minimal_vs_debian_boot",
        value=median(ours) / median(theirs),
        unit="times",
        better="lower",
        goal=0.333,
        against=f"cold boot of {IMAGE}: {median(theirs):.1f} s; of {MINIMAL}: {median(ours):.1f} s",
    )
    notes = (f"{MINIMAL}: {spread(ours)}", f"{IMAGE}: {spread(theirs)}")
    return Findings(metrics=(metric,), notes=notes)
