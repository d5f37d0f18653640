"""Suspend and resume against QEMU's plain save and restore; and how long a revert takes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.client import BenchError
from bench.floor_plan import FLOOR
from bench.guest import Guest, booted, guest_argv
from bench.report import Findings, Metric, median, spread
from bench.service import HostService, Ready, serving
from bench.setting import IMAGE, Setting

MEMORY_MIB = 512
TOUCHED_MIB = 200
FILL = (
    "mount -o remount,size=300M /dev/shm 2>/dev/null || mount -t tmpfs -o size=300M none /dev/shm; "
    f"yes 'one job, one machine' | head -c {TOUCHED_MIB}M > /dev/shm/data"
)
SUM = "cksum < /dev/shm/data"
PLAIN_SAVE = (*FLOOR[:-1], str(Path(__file__).with_name("plain_save.py")))


@dataclass(slots=True, kw_only=True)
class Ours:
    """A machine of the service that stays."""

    service: HostService
    name: str

    def do(self, verb: str, *words: str) -> float:
        """Do something with it; gives the seconds of the whole process."""
        return self.service.setting.run("machine", verb, self.name, *words)

    def shell(self, script: str) -> str:
        """Run a script in it."""
        setting = self.service.setting
        words = ("machine", "ssh", self.name, "--root", "--", "/bin/sh", "-ec", script)
        with setting.children.done(setting.start(*words)) as child:
            return child.said()


@contextlib.contextmanager
def _machine(service: HostService) -> Iterator[Ours]:
    setting = service.setting
    words = ("run", IMAGE, "--detach", "--no-workdir", "--memory", f"{MEMORY_MIB}M")
    with setting.children.done(setting.start(*words)) as child:
        ours = Ours(service=service, name=child.said())
    try:
        yield ours
    finally:
        service.ask("delete", machine=ours.name)


def suspend(setting: Setting) -> Findings:
    """Save and restore by turns; what was in memory must still be there."""
    setting.warm()
    ours: list[float] = []
    plain: list[float] = []
    parts: list[tuple[float, float]] = []
    with (
        serving(setting, [Ready(image=IMAGE, least=1, most=1)]) as service,
        _machine(service) as machine,
        _plain(setting) as other,
    ):
        before = [side.shell(f"{FILL}; {SUM}").strip() for side in (machine, other)]
        for number in range(setting.counts.saves):
            setting.say(f"suspend: pair {number + 1} of {setting.counts.saves}")
            parts.append((machine.do("suspend"), machine.do("resume")))
            ours.append(sum(parts[-1]))
            plain.append(other.save_and_restore())
        after = [side.shell(SUM).strip() for side in (machine, other)]
    if before != after:
        raise BenchError(f"what was in memory has changed: {before} became {after}")
    metric = Metric(
        key="suspend_resume_vs_qemu_save",
        value=median(ours) / median(plain),
        unit="times",
        goal=1.2,
        better="lower",
        against=f"QEMU's own save and restore by a bare script: {median(plain):.2f} s; "
        f"ours: {median(ours):.2f} s",
    )
    notes = (
        f"{MEMORY_MIB} MiB, of which {TOUCHED_MIB} were touched: {spread(ours)}",
        f"  suspend: {spread([one for one, _ in parts])}",
        f"  resume: {spread([one for _, one in parts])}",
        f"QEMU's own: {spread(plain)}",
    )
    return Findings(metrics=(metric,), notes=notes)


@dataclass(slots=True, kw_only=True)
class Plain:
    """A guest behind a line written by hand that is saved and restored."""

    setting: Setting
    guest: Guest
    place: Path
    pid: int

    def shell(self, script: str) -> str:
        """Run a script in it."""
        return self.guest.run(script)

    def save_and_restore(self) -> float:
        """Do both, each as one process; gives the seconds of both."""
        place, state = str(self.place), str(self.place / "state")
        children = self.setting.children
        with children.done(children.start([*PLAIN_SAVE, "save", place, state, str(self.pid)])) as c:
            seconds = c.seconds
        line = str(self.place / "line")
        with children.done(children.start([*PLAIN_SAVE, "restore", place, state, line])) as c:
            seconds += c.seconds
            self.pid = int(c.said())
        self.guest.follow(self.pid)
        return seconds


@contextlib.contextmanager
def _plain(setting: Setting) -> Iterator[Plain]:
    engine, image = setting.engine(), setting.image(IMAGE)
    with setting.directory() as place:
        disk = place / "disk.qcow2"
        words = ["qemu-img", "create", "-q", "-f", "qcow2", "-b", str(image.disk)]
        subprocess.run([*words, "-F", image.format, str(disk)], check=True)
        argv = guest_argv(engine, place, disk, memory_mib=MEMORY_MIB)
        (place / "line").write_text(json.dumps([*argv, "-incoming", "defer"]))
        with booted(setting, place, argv) as guest:
            plain = Plain(setting=setting, guest=guest, place=place, pid=guest.child.process.pid)
            try:
                yield plain
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(plain.pid, signal.SIGKILL)


def revert(setting: Setting) -> Findings:
    """Go back to a point again and again; what was done since must be undone."""
    setting.warm()
    seconds: list[float] = []
    with (
        serving(setting, [Ready(image=IMAGE, least=1, most=1)]) as service,
        _machine(service) as machine,
    ):
        machine.shell(FILL)
        saved = machine.do("snapshot", "clean")
        for number in range(setting.counts.reverts):
            setting.say(f"revert: {number + 1} of {setting.counts.reverts}")
            machine.shell("echo spoiled > /root/spoiled; rm /dev/shm/data")
            seconds.append(machine.do("revert", "clean"))
            left = machine.shell("ls /root; ls /dev/shm")
            if left.split() != ["data"]:
                raise BenchError(f"after the revert there are: {left}")
    metric = Metric(
        key="revert_s",
        value=median(seconds),
        unit="s",
        goal=1,
        better="lower",
        against=f"whole process, {TOUCHED_MIB} MiB touched; the snapshot took {saved:.2f} s",
    )
    return Findings(metrics=(metric,), notes=(f"mayfly machine revert: {spread(seconds)}",))
