"""What is left of many runs, half of them killed at a random moment, after one more run."""

from __future__ import annotations

import contextlib
import os
import random
import secrets
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

from bench.client import BenchError, Child
from bench.remains import Remains, children_named, look
from bench.report import Findings, Metric, median
from bench.setting import IMAGE, Setting, open_setting
from mayfly.config import Paths
from mayfly.engine.memory import HOLDER, end_holder
from mayfly.engine.records import reap
from mayfly.errors import RUN_FAILED

AT_ONCE = 4
RUN_LIMIT_S = 120.0
RUN_TRUE = ("run", IMAGE, "--no-workdir", "--", "true")
LOOK_S = 0.002
CLIENT, QEMU = "client", "QEMU"


@dataclass(slots=True)
class Attempt:
    """One run, and how it is to die."""

    child: Child
    victim: str | None
    moment: float
    """When it dies, by the monotonic clock; a QEMU that is not there yet, as soon as it is."""
    killed: bool = False

    def act(self) -> None:
        """Kill whom it is time to kill."""
        if self.victim is None or self.killed or time.monotonic() < self.moment:
            return
        pid = self.child.process.pid
        victims = [pid] if self.victim == CLIENT else children_named(pid, "qemu")
        for victim in victims:
            with contextlib.suppress(ProcessLookupError):
                os.kill(victim, signal.SIGKILL)
                self.killed = True

    def check(self) -> None:
        """Raise unless the run, which has ended, ended as it must."""
        status = self.child.process.returncode
        if self.victim == CLIENT:
            # It may have been dead already, of success.
            self.killed = status == -signal.SIGKILL
        expected = {CLIENT: -signal.SIGKILL, QEMU: RUN_FAILED}.get(self.victim or "")
        if status != 0 and not (self.killed and status == expected):
            said = self.child.complained()
            raise BenchError(f"a run ({self.victim} killed: {self.killed}) gave {status}: {said}")


def leftovers(setting: Setting) -> Findings:
    """Kill clients and QEMUs by turns, then see what the next run leaves."""
    engine, template, _ = setting.warm()
    seed = secrets.randbits(32)
    setting.say(f"leftovers: seed {seed}")
    with (
        setting.directory() as work,
        _copied(engine.paths, template.key, work / "home") as home,
        open_setting(home, setting.counts, setting.say) as ours,
    ):
        killed = _kill_half(ours, random.Random(seed))  # noqa: S311 - chance, not secrecy
        before = look(home)
        ours.run(*RUN_TRUE)
        left = look(home)
    return _findings(setting.counts.leftovers, (killed, seed), before, left)


@contextlib.contextmanager
def _copied(paths: Paths, key: str, home: Path) -> Iterator[Path]:
    """Copy image and template to a home of its own; there the memory is read back from disk."""
    wanted = {
        paths.images / IMAGE: home / "state/images",
        paths.cache / "probe": home / "cache",
        paths.cache / "agent": home / "cache",
        paths.templates / key: home / "cache/templates",
    }
    for source, target in wanted.items():
        target.mkdir(parents=True, exist_ok=True)
        subprocess.run(["cp", "-a", "--reflink=auto", str(source), str(target)], check=True)
    template = home / "cache/templates" / key
    (template / HOLDER).unlink(missing_ok=True)
    try:
        yield home
    finally:
        # The directory goes next, and with it all that tells whose these are.
        reap(Paths.for_user({"MAYFLY_HOME": str(home)}).machines, time.time())
        end_holder(template)


def _kill_half(setting: Setting, chance: random.Random) -> int:
    """Run as often as asked for, a few at a time; gives how many were killed."""
    count = setting.counts.leftovers
    victims: list[str | None] = [*islice(cycle((CLIENT, QEMU)), count // 2)]
    victims += [None] * (count - len(victims))
    chance.shuffle(victims)
    typical = _typical(setting)
    running: list[Attempt] = []
    killed = 0
    while victims or running:
        while victims and len(running) < AT_ONCE:
            if len(victims) % 20 == 0:
                setting.say(f"leftovers: {len(victims)} of {count} runs to go, {killed} killed")
            child = setting.start(*RUN_TRUE)
            moment = child.began + chance.uniform(0, typical)
            running.append(Attempt(child=child, victim=victims.pop(), moment=moment))
        time.sleep(LOOK_S)
        for attempt in _ended(setting, running):
            killed += attempt.killed
            if attempt.victim and not attempt.killed:
                # It ended before its moment: another dies for it.
                spared = victims.index(None) if None in victims else len(victims)
                victims[spared : spared + 1] = [attempt.victim]
    return killed


def _ended(setting: Setting, running: list[Attempt]) -> list[Attempt]:
    """Kill whose time has come, and take out those that have ended."""
    ended = []
    for attempt in tuple(running):
        attempt.act()
        if attempt.child.process.poll() is not None:
            attempt.check()
            setting.children.forget(attempt.child)
            running.remove(attempt)
            ended.append(attempt)
        elif time.monotonic() > attempt.child.began + RUN_LIMIT_S:
            raise BenchError(f"a run ({attempt.victim} killed: {attempt.killed}) hangs")
    return ended


def _typical(setting: Setting) -> float:
    """Give how long a run takes while others run."""
    setting.run(*RUN_TRUE)
    children = [setting.start(*RUN_TRUE) for _ in range(AT_ONCE)]
    seconds = []
    for child in children:
        with setting.children.done(child, RUN_LIMIT_S):
            seconds.append(child.seconds)
    return median(seconds)


def _findings(count: int, how: tuple[int, int], before: Remains, left: Remains) -> Findings:
    killed, seed = how
    metric = Metric(
        key="leftovers_after_200",
        value=left.count,
        unit="things",
        goal=0,
        better="lower",
        against=f"{count} runs, {killed} of them killed, and one more; seed {seed}",
    )
    notes = (f"left by {count} runs: {before}", f"left after the next run: {left}")
    return Findings(metrics=(metric,), notes=notes)
