"""Many requests at once, by two users, while a third holds idle connections."""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.client import MAYFLY, BenchError, Child
from bench.floor_plan import FLOOR
from bench.lanes import run_lanes
from bench.report import Findings, Metric, median, percentile, quantiles
from bench.service import HostService, Ready, as_user, serving
from bench.setting import IMAGE, Setting

USERS = (54_321, 54_322)
IDLE_USER = 54_323
IDLE_LIMIT = 64
IDLE_ASKED = IDLE_LIMIT + 6
IDLE_S = 30.0
IDLE_LIMIT_S = 45.0
LOOK_S = 0.2
IDLE = (*FLOOR[:-1], str(Path(__file__).with_name("idle.py")))
AT_ONCE = os.SCHED_RR | os.SCHED_RESET_ON_FORK


@dataclass(slots=True, kw_only=True)
class Request:
    """One run of the crowd."""

    user: int
    token: str
    child: Child
    failed: str = ""


@dataclass(slots=True)
class Crowd:
    """Everything that was seen."""

    requests: list[Request] = field(default_factory=list)
    status_s: list[float] = field(default_factory=list)
    began: float = 0.0


def crowd(setting: Setting) -> Findings:
    """Ask for all machines at once; each run must print its own token and succeed."""
    setting.warm()
    seen = Crowd()
    with serving(setting, [Ready(image=IMAGE)]) as service:
        idle = _hold_idle(service)
        setting.say(f"burst: {setting.counts.crowd} requests at once")
        seen.began = time.monotonic()
        lanes = [_lane(service, seen, number) for number in range(setting.counts.crowd)]
        try:
            run_lanes(lanes, every_s=LOOK_S, meanwhile=lambda: _look(service, seen))
        finally:
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        setting.say("burst: waiting for the end of the idle connections")
        held = _idle_end(service, idle)
        service.await_full()
    return _findings(seen, held)


def _hold_idle(service: HostService) -> Child:
    words = [*IDLE, str(service.socket), str(IDLE_ASKED), str(IDLE_LIMIT_S)]
    child = service.setting.children.start(as_user(IDLE_USER, words, {}))
    while not child.said():
        if child.process.poll() is not None:
            raise BenchError(f"no idle connections: {child.complained()}")
        time.sleep(LOOK_S)
    return child


def _idle_end(service: HostService, child: Child) -> dict[str, float | None]:
    with service.setting.children.done(child):
        held: dict[str, float | None] = json.loads(child.said().splitlines()[-1])
        return held


def _lane(service: HostService, seen: Crowd, number: int) -> Iterator[Child]:
    user, token = USERS[number % len(USERS)], secrets.token_hex(8)
    words = [str(MAYFLY), "run", IMAGE, "--no-workdir", "--", "echo", token]
    # Of the users' own: without a home that has images the service is asked.
    env = {"MAYFLY_HOST_SOCKET": str(service.socket), "HOME": "/", "PATH": "/usr/bin:/bin"}
    children = service.setting.children
    child = children.start(as_user(user, words, env))
    request = Request(user=user, token=token, child=child)
    seen.requests.append(request)
    if len(seen.requests) == service.setting.counts.crowd:
        # What is measured is the service, not how long we wait for a processor.
        os.sched_setscheduler(0, AT_ONCE, os.sched_param(1))
    yield child
    status = child.process.wait()
    if status != 0 or child.said() != token:
        request.failed = f"exit status {status}, {child.said()!r}: {child.complained()[-300:]}"
    children.forget(child)


def _look(service: HostService, seen: Crowd) -> None:
    began = time.monotonic()
    service.status()
    seen.status_s.append(time.monotonic() - began)


def fairness(requests: Sequence[tuple[int, float]]) -> float:
    """Compare how many of the first half to end were each user's: 1 is fair, 0 is not at all.

    ``requests``: the user and the end of each.
    """
    first = sorted(requests, key=lambda one: one[1])[: len(requests) // 2]
    counts = [sum(user == one for one, _ in first) for user in {user for user, _ in requests}]
    return min(counts) / max(counts)


def _findings(seen: Crowd, held: dict[str, float | None]) -> Findings:
    ends = [one.child.ended - seen.began for one in seen.requests]
    failed = [one.failed for one in seen.requests if one.failed]
    count = len(seen.requests)
    metrics = (
        Metric(
            key="burst100_failures",
            value=len(failed),
            unit="runs",
            goal=0,
            better="lower",
            against=f"{count} at once, {len(USERS)} users",
        ),
        Metric(
            key="burst100_p99_s",
            value=percentile(ends, 99),
            unit="s",
            better="lower",
            against=f"from the first request on; the last one ended after {max(ends):.1f} s",
        ),
        Metric(
            key="burst100_fairness",
            value=fairness([(one.user, one.child.ended) for one in seen.requests]),
            unit="",
            better="higher",
            goal=0.8,
            against="of the first half to end: one user's runs for each of the other's",
        ),
        Metric(
            key="burst100_status_ms",
            value=max(seen.status_s) * 1000,
            unit="ms",
            goal=50,
            better="lower",
            against=f"slowest of {len(seen.status_s)} answers to 'status' meanwhile; "
            f"median {median(seen.status_s) * 1000:.1f}",
        ),
        *_idle_metrics(held),
    )
    notes = [f"ends of {count} runs at once: {quantiles(ends)}", *failed[:5]]
    return Findings(metrics=metrics, notes=tuple(notes))


def _idle_metrics(held: dict[str, float | None]) -> tuple[Metric, ...]:
    closed = held["closed_after_s"]
    return (
        Metric(
            key="idle_connections",
            value=held["taken"] or 0,
            unit="",
            goal=IDLE_LIMIT,
            better="lower",
            against=f"taken of {IDLE_ASKED} of one user; {held['refused']} refused",
        ),
        Metric(
            key="idle_closed_s",
            value=IDLE_LIMIT_S if closed is None else closed,
            unit="s",
            goal=IDLE_S + 10,
            better="lower",
            against=f"all were closed; promised are about {IDLE_S:.0f} s",
        ),
    )
