"""How long a machine takes to start when the host service has one that stands by."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from bench.client import BenchError
from bench.report import Findings, Metric, median, percentile, quantiles, spread
from bench.service import HostService, Ready, serving
from bench.setting import IMAGE, STOCK, Setting
from bench.standby import BareStandby, bare_standby
from bench.start import RUN_TRUE, cold_boots

FLOOR_EVERY = 2
PLAIN_EVERY = 5
"""Of the runs with a standby, after how many comes one of the others."""
READY = 2


@dataclass(slots=True)
class Series:
    """Seconds of whole processes, and the service's own share in ms."""

    ours: list[float] = field(default_factory=list)
    service_ms: list[float] = field(default_factory=list)
    floor: list[float] = field(default_factory=list)
    plain: list[float] = field(default_factory=list)


def hot(setting: Setting) -> Findings:
    """Run by turns: ours with a standby, the bare script with one, ours without the service."""
    engine, template, image = setting.warm()
    count = setting.counts.hot
    series = Series()
    with (
        serving(setting, [Ready(image=IMAGE, least=READY, most=READY)]) as service,
        bare_standby(setting, engine, template, image) as bare,
    ):
        _ours(service, IMAGE)
        bare.once()
        for number in range(count):
            if number % 10 == 0:
                setting.say(f"hot: run {number + 1} of {count}")
            _round(service, bare, series, number)
        setting.say(f"hot: {count} runs without waiting for the next standby")
        service.await_full()
        rapid = [_ours(service, IMAGE)[0] for _ in range(count)]
        service.await_full()
    return _findings(series, rapid)


def _round(service: HostService, bare: BareStandby, series: Series, number: int) -> None:
    service.await_full()
    seconds, service_ms = _ours(service, IMAGE)
    series.ours.append(seconds)
    series.service_ms.append(service_ms)
    if number % FLOOR_EVERY == 0:
        service.await_full()
        series.floor.append(bare.once())
    if number % PLAIN_EVERY == 0:
        service.await_full()
        # Of the bench's own environment, which names no service.
        setting = bare.setting
        series.plain.append(setting.run("run", IMAGE, *RUN_TRUE))


def _ours(service: HostService, image: str) -> tuple[float, float]:
    """Run `true`; gives the seconds of the whole process, and the service's milliseconds."""
    setting = service.setting
    with setting.children.done(setting.start("run", image, *RUN_TRUE)) as child:
        return child.seconds, service_share(child.complained())


def service_share(text: str) -> float:
    """Read the service's milliseconds from what ``mayfly run --timings`` prints."""
    found = re.search(r"\bservice ([0-9.]+) ms\b", text)
    if found is None:
        raise BenchError(f"the run was not served by the host service: {text}")
    return float(found[1])


def _starts(ours: Sequence[float]) -> tuple[Metric, ...]:
    return tuple(
        Metric(
            key=f"start_p{percent}_s",
            value=percentile(ours, percent),
            unit="s",
            better="lower",
            against=f"whole process, a standby for each, {len(ours)} runs",
        )
        for percent in (50, 95, 99)
    )


def _findings(series: Series, rapid: Sequence[float]) -> Findings:
    ours, floor, plain = (median(one) for one in (series.ours, series.floor, series.plain))
    run = f"mayfly run {IMAGE} --no-workdir -- true"
    metrics = (
        Metric(
            key="hot_vs_floor",
            value=ours / floor,
            unit="times",
            goal=1.5,
            better="lower",
            against=f"a bare script: {floor:.3f} s; mayfly run: {ours:.3f} s",
        ),
        Metric(
            key="hot_vs_plain",
            value=ours / plain,
            unit="times",
            goal=0.5,
            better="lower",
            against=f"without the service: {plain:.3f} s",
        ),
        Metric(
            key="service_share_ms",
            value=median(series.service_ms),
            unit="ms",
            goal=15,
            better="lower",
            against="of the claim, without waiting for QEMU and guest",
        ),
        *_starts(series.ours),
    )
    notes = (
        f"{run}, a standby for each: {quantiles(series.ours)}; {spread(series.ours)}",
        f"one after the other, whatever stands by: {quantiles(rapid)}",
        f"service's share: p99 {percentile(series.service_ms, 99):.1f} ms",
        f"a bare script that has a standby: {spread(series.floor)}",
        f"without the service: {spread(series.plain)}",
    )
    return Findings(metrics=metrics, notes=notes)


def hot_vs_cold(setting: Setting) -> Findings:
    """Compare with a cold boot of the stock cloud image."""
    engine, template, image = setting.warm(STOCK)
    warm: list[float] = []
    with serving(setting, [Ready(image=STOCK, least=1, most=1)]) as service:
        for number in range(setting.counts.pairs):
            setting.say(f"cold: hot start {number + 1} of {setting.counts.pairs}")
            service.await_full()
            warm.append(_ours(service, STOCK)[0])
    cold, _ = cold_boots(setting, engine, template, image)
    metric = Metric(
        key="hot_vs_cold_boot",
        value=median(cold) / median(warm),
        unit="times",
        goal=60,
        better="higher",
        against=f"cold boot of {STOCK}: {median(cold):.1f} s; mayfly run: {median(warm):.3f} s",
    )
    notes = (
        f"mayfly run {STOCK} --no-workdir -- true, a standby for each: {spread(warm)}",
        f"cold boot to the same point: {spread(cold)}",
    )
    return Findings(metrics=(metric,), notes=notes)
