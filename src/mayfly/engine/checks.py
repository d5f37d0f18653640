"""Run a row of commands in one fresh machine and hear what each one said."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from mayfly.engine.machine import Machine, Order, machine_for
from mayfly.engine.oneshot import template_for
from mayfly.engine.records import reap
from mayfly.engine.session.job import JobRequest, Stdio
from mayfly.engine.session.run import run_job
from mayfly.engine.template import Engine, Report
from mayfly.engine.watch import Watch, explained
from mayfly.model import Account, Group, Image, Shape

USER = Account(  # noqa: S604 - the name of one, not run here
    name="mayfly-check",
    uid=59_000,
    gid=59_000,
    groups=(Group(name="mayfly-check", gid=59_000),),
    home="/home/mayfly-check",
    shell="/bin/sh",
)
"""The ordinary user that checks can run as, whoever makes them."""
OUTPUT_BYTES = 64 << 10
"""Of the end of what a command prints: more is not kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One command."""

    text: str
    """For ``sh -c``."""
    root: bool
    limit_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """How it ended."""

    code: int
    seconds: float
    output: str
    """The end of standard output and standard error, as they came."""
    reason: str
    """Why it could not even run, or not to its end; "" when it ended by itself."""


def run_commands(
    engine: Engine, image: Image, shape: Shape, commands: Sequence[Command], report: Report
) -> list[Said]:
    """Make a machine, run the commands one after the other, and delete it."""
    reap(engine.paths.machines, time.time())
    template = template_for(engine, image, shape, report)
    order = Order(command="(testing the image)")
    with machine_for(engine, template, image, order, report) as machine:
        machine.claim(USER, root=True)
        said = []
        for number, command in enumerate(commands, start=1):
            report(f"check {number} of {len(commands)}")
            said.append(_run(machine, command))
        return said


def _run(machine: Machine, command: Command) -> Said:
    request = JobRequest(
        argv=("/bin/sh", "-c", command.text),
        env={},
        cwd="/",
        umask=0o022,
        limits={},
        root=command.root,
        tty=False,
        workdir=None,
        time_limit_s=command.limit_s,
    )
    began = time.monotonic()
    with _Tail() as tail, open(os.devnull, "rb") as nothing:
        stdio = Stdio(stdin=nothing.fileno(), stdout=tail.writer, stderr=tail.writer)
        with machine.session() as port, Watch(machine.process) as watch:
            result = run_job(port, request, stdio, machine_gone=watch.fd, report=lambda _: None)
            result = explained(result, watch)
    return Said(
        code=result.code,
        seconds=time.monotonic() - began,
        output=tail.text(),
        reason="" if result.phase == "done" else result.reason,
    )


class _Tail:
    """A pipe of which the end is kept: what a guest prints must not fill this host."""

    def __init__(self) -> None:
        self._reader, self.writer = os.pipe2(os.O_CLOEXEC)
        self._kept = b""
        self._thread = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.writer)
        self._thread.join()
        os.close(self._reader)

    def _read(self) -> None:
        while data := os.read(self._reader, 1 << 16):
            self._kept = (self._kept + data)[-OUTPUT_BYTES:]

    def text(self) -> str:
        """Give what is kept, when it has ended."""
        return self._kept.decode("utf-8", "replace")
