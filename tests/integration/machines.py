"""Real machines that tests make with the engine itself, and commands in them."""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from mayfly.config import Paths, load_settings
from mayfly.engine import memory
from mayfly.engine.caller import account_of_caller
from mayfly.engine.machine import Machine, Order, start_machine
from mayfly.engine.oneshot import template_for
from mayfly.engine.records import Place
from mayfly.engine.session.job import JobRequest, JobResult, Stdio
from mayfly.engine.session.run import run_job
from mayfly.engine.suspend import resume
from mayfly.engine.template import MEMORY, Engine, Template, open_memory
from mayfly.model import Image, Shape
from mayfly.wiring import catalogue_of, engine_for
from tests.integration.faults import IMAGE

ORDER = Order(command="(a test)")
LIFE = """
head -c 50M /dev/urandom > /dev/shm/memory
sha1sum < /dev/shm/memory > /root/sum
setsid sh -c 'exec 3>/root/log; echo $$ > /root/pid; i=0
    while :; do i=$((i+1)); echo $i >&3; sleep 0.1; done' < /dev/null > /dev/null 2>&1 &
while ! test -s /root/log; do sleep 0.1; done
"""
STILL = 'test "$(sha1sum < /dev/shm/memory)" = "$(cat /root/sum)" && echo same'
"""Whether the memory is as it was."""
SHAPE = Shape(cpus=1, memory_mib=512)


def quiet(_: str) -> None:
    """Hear of progress."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workshop:
    """What machines are made with in one home."""

    engine: Engine
    image: Image
    template: Template

    def start(
        self,
        *,
        order: Order = ORDER,
        held: tuple[str, Place] | None = None,
        own_memory: bool = False,
    ) -> Machine:
        """Make a machine that is its caller's."""
        order = replace(order, own_memory=own_memory)
        fd = self._own_memory() if own_memory else open_memory(self.engine, self.template, quiet)
        try:
            machine = start_machine(self.engine, self.template, self.image, order, fd, held=held)
        finally:
            os.close(fd)
        machine.claim(account_of_caller(), root=True)
        return machine

    def _own_memory(self) -> int:
        size = self.template.shape.memory_mib << 20
        return memory.load(IMAGE, self.template.path / MEMORY, size, sealed=False)

    def places(self) -> list[str]:
        """List what there is of machines."""
        return sorted(path.name for path in self.engine.paths.machines.iterdir())


def workshop_of(home: Path, state: Path, *, qemu: str = "") -> Workshop:
    """Give what machines are made with from a home's image and template.

    Machines are written down in ``state``; ``qemu`` is as in the settings.
    """
    paths = Paths.for_user({"MAYFLY_HOME": str(home)})
    settings = load_settings(paths.config_files)
    settings = replace(settings, qemu=qemu or settings.qemu)
    engine, _ = engine_for(paths, settings)
    image = catalogue_of(paths).find(IMAGE)
    template = template_for(engine, image, SHAPE, quiet)
    engine = replace(engine, paths=replace(paths, state=state))
    return Workshop(engine=engine, image=image, template=template)


def request(script: str, *, time_limit_s: float = 60) -> JobRequest:
    """Give the request of a shell script as root."""
    return JobRequest(
        argv=("sh", "-c", script),
        env={},
        cwd="/",
        umask=0o022,
        limits={},
        root=True,
        tty=None,
        workdir=None,
        time_limit_s=time_limit_s,
    )


def attempt(machine: Machine, script: str, *, time_limit_s: float = 60) -> tuple[JobResult, str]:
    """Run a script in a machine; gives how it ended and what it printed."""
    with tempfile.TemporaryFile() as out, open(os.devnull, "rb") as nothing:
        stdio = Stdio(stdin=nothing.fileno(), stdout=out.fileno(), stderr=out.fileno())
        with machine.session() as port:
            gone = machine.process.handle
            job = request(script, time_limit_s=time_limit_s)
            result = run_job(port, job, stdio, machine_gone=gone, report=quiet)
        out.seek(0)
        return result, out.read().decode()


def run(machine: Machine, script: str) -> str:
    """Run a script in a machine, which must succeed; gives what it printed."""
    result, text = attempt(machine, script)
    assert result.code == 0, f"{script}: {result}\n{text}"
    return text


def clock_error_s(machine: Machine) -> float:
    """Give how much the machine's clock is off the host's, at least."""
    before = time.time()
    inside = float(run(machine, "date +%s.%N"))
    after = time.time()
    return max(before - inside, inside - after, 0.0)


@contextlib.contextmanager
def in_background(machine: Machine, script: str) -> Iterator[Callable[[], JobResult]]:
    """Have a script running in a session; gives what waits for its end and says how it ended."""
    results: list[JobResult] = []
    started = threading.Event()

    def work() -> None:
        with open(os.devnull, "r+b") as nothing, machine.session() as port:
            stdio = Stdio(stdin=nothing.fileno(), stdout=nothing.fileno(), stderr=nothing.fileno())
            result = run_job(
                port,
                request(script, time_limit_s=200),
                stdio,
                machine_gone=machine.process.handle,
                report=quiet,
                started=started.set,
            )
            results.append(result)

    def ended() -> JobResult:
        thread.join(30)
        assert not thread.is_alive(), "the session goes on"
        return results[0]

    thread = threading.Thread(target=work)
    thread.start()
    assert started.wait(30), "the script did not start"
    try:
        yield ended
    finally:
        thread.join(30)


def resumed(workshop: Workshop, directory: Path) -> Machine:
    return resume(workshop.engine, directory, workshop.image, ORDER, quiet)


def lines(machine: Machine) -> int:
    """Give how far the program has come; what it wrote must be without a gap."""
    numbers = [int(line) for line in run(machine, "cat /root/log").split()]
    assert numbers == list(range(1, len(numbers) + 1))
    return len(numbers)
