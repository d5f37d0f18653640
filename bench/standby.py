"""Machines that the bare script keeps standing by, and hands out."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from bench.client import BenchError, Child
from bench.floor_plan import FLOOR, clone_plan
from bench.setting import Setting
from mayfly.engine.template import Engine, Template
from mayfly.model import Image

HOT_FLOOR = (*FLOOR[:-1], str(Path(__file__).with_name("hot_floor.py")))


@dataclass(slots=True, kw_only=True)
class BareStandby:
    """One place in which a machine of the bare script stands by, again and again."""

    setting: Setting
    plan: Path
    pid: int = field(default=0)
    """Its QEMU; 0 when none is there."""

    def prepare(self) -> Child:
        """Begin to prepare a machine; ``prepared`` is to be called at the end of the process."""
        return self.setting.children.start([*HOT_FLOOR, "prepare", str(self.plan)])

    def prepared(self, child: Child) -> None:
        """Take note of the machine."""
        with self.setting.children.done(child):
            self.pid = int(child.said())

    def claim(self) -> Child:
        """Begin to claim and use the machine; ``claimed`` is to be called at the end."""
        return self.setting.children.start([*HOT_FLOOR, "claim", str(self.plan), str(self.pid)])

    def claimed(self, child: Child) -> float:
        """Take note of the end of the machine; gives the seconds that it took."""
        with self.setting.children.done(child):
            self.pid = 0
            return child.seconds

    def once(self) -> float:
        """Prepare a machine and use it; gives the seconds of the use."""
        self.prepared(self.prepare())
        return self.claimed(self.claim())

    def end(self) -> None:
        """Kill a machine that nobody used."""
        if self.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)


@contextlib.contextmanager
def bare_standby(
    setting: Setting, engine: Engine, template: Template, image: Image
) -> Iterator[BareStandby]:
    """Give a place for the bare script's machines; what it left there is gone at the end."""
    with setting.directory() as work:
        (work / "run").mkdir()
        plan = work / "plan.json"
        clone_plan(engine, template, image, work / "run").write(plan)
        standby = BareStandby(setting=setting, plan=plan)
        try:
            yield standby
            if standby.pid:
                raise BenchError("a machine of the bare script was left over")
        finally:
            standby.end()
