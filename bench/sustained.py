"""Machines per minute, two at a time, against the bare script; and what the service keeps of it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

from bench.client import Child
from bench.lanes import run_lanes
from bench.report import Findings, Metric, median
from bench.service import HostService, Ready, serving
from bench.setting import IMAGE, Setting
from bench.standby import BareStandby, bare_standby

AT_A_TIME = 2
SLICE_S = 60.0
FIRST_RUNS = 10
"""Before the service's memory is weighed for the first time."""
RUN_TRUE = ("run", IMAGE, "--no-workdir", "--", "true")
GROWTH_MIB = 1.0
"""What the allocator of a process that runs on may keep."""


@dataclass(slots=True)
class Tally:
    """How many machines came and went."""

    count: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Weight:
    """What the service has."""

    memory_mib: float
    files: int


def sustained(setting: Setting) -> Findings:
    """Load the service for minutes, a slice by turns with the bare script."""
    engine, template, image = setting.warm()
    slices = max(1, round(setting.counts.sustained_s / SLICE_S))
    seconds = setting.counts.sustained_s / slices
    ours: list[float] = []
    floor: list[float] = []
    with (
        serving(setting, [Ready(image=IMAGE)]) as service,
        bare_standby(setting, engine, template, image) as one,
        bare_standby(setting, engine, template, image) as other,
    ):
        for _ in range(FIRST_RUNS):
            service.setting.run(*RUN_TRUE)
        before = _weigh(service)
        for number in range(slices):
            setting.say(f"sustained: {seconds:.0f} s of ours, {number + 1} of {slices}")
            ours.append(_ours(service, seconds))
            setting.say(f"sustained: {seconds:.0f} s of the bare script, {number + 1} of {slices}")
            floor.append(_floor((one, other), seconds))
        after = _weigh(service)
    return _findings(ours, floor, before, after)


def _weigh(service: HostService) -> Weight:
    service.await_full()
    return Weight(memory_mib=service.memory_mib(), files=service.open_files())


def _ours(service: HostService, seconds: float) -> float:
    """Give machines per minute; the time until as many stand by as at the beginning counts too."""
    service.await_full()
    tally, began = Tally(), time.monotonic()
    run_lanes([_our_lane(service, began + seconds, tally) for _ in range(AT_A_TIME)])
    service.await_full()
    return 60 * tally.count / (time.monotonic() - began)


def _our_lane(service: HostService, until: float, tally: Tally) -> Iterator[Child]:
    setting = service.setting
    while time.monotonic() < until:
        child = setting.start(*RUN_TRUE)
        yield child
        with setting.children.done(child):
            tally.count += 1


def _floor(places: tuple[BareStandby, ...], seconds: float) -> float:
    tally, began = Tally(), time.monotonic()
    run_lanes([_floor_lane(place, began + seconds, tally) for place in places])
    return 60 * tally.count / (time.monotonic() - began)


def _floor_lane(place: BareStandby, until: float, tally: Tally) -> Iterator[Child]:
    while time.monotonic() < until:
        child = place.prepare()
        yield child
        place.prepared(child)
        child = place.claim()
        yield child
        place.claimed(child)
        tally.count += 1


def _findings(ours: list[float], floor: list[float], before: Weight, after: Weight) -> Findings:
    rate, bare = median(ours), median(floor)
    metrics = (
        Metric(
            key="sustained_vs_floor",
            value=rate / bare,
            unit="times",
            goal=0.9,
            better="higher",
            against=f"a bare script: {bare:.0f} machines a minute; ours: {rate:.0f}",
        ),
        Metric(
            key="service_growth_mib",
            value=max(0.0, after.memory_mib - before.memory_mib),
            unit="MiB",
            goal=GROWTH_MIB,
            better="lower",
            against=f"private memory of the service: {before.memory_mib:.1f} MiB before",
        ),
        Metric(
            key="service_growth_files",
            value=max(0, after.files - before.files),
            unit="files",
            goal=0,
            better="lower",
            against=f"open files of the service: {before.files} before",
        ),
    )
    return Findings(
        metrics=metrics,
        notes=(
            f"machines a minute, {AT_A_TIME} at a time: {_list(ours)}; bare script: {_list(floor)}",
        ),
    )


def _list(values: list[float]) -> str:
    return ", ".join(f"{value:.0f}" for value in values)
