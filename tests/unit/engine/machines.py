"""Machines for tests: records, places that somebody holds, processes that stand for QEMU."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

from mayfly.engine.linux import start_time
from mayfly.engine.probe import Qemu
from mayfly.engine.records import Record, new_place
from mayfly.model import State

NOW = 1_800_000_000.0


QEMU = Qemu(
    path="/usr/bin/qemu-system-x86_64",
    root="",
    identity="0123456789abcdef",
    version="7.2.22",
    machine_type="pc-q35-7.2",
    has_kvm=True,
    has_tcg=True,
    has_sandbox=True,
    has_ignore_shared=True,
    has_rom_option=False,
    has_vmgenid=True,
    missing=(),
)
"""As Debian 12 has it."""


def a_record(name: str = "abcdefgh", **fields: object) -> Record:
    record = Record(
        id=name,
        image="debian-12",
        template="t",
        cpus=1,
        memory_mib=512,
        network="none",
        state=State.RUNNING,
        command="make test",
        created_at=NOW,
    )
    return replace(record, **fields)  # type: ignore[arg-type]  # the fields are of many types


@contextmanager
def in_child(work: Callable[[], str]) -> Iterator[tuple[int, str]]:
    """Fork a process that does something and stays; gives its pid and what it says."""
    said, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(tell, work().encode())
        os.close(tell)
        signal.pause()
        os._exit(0)
    os.close(tell)
    with open(said, "rb") as answer:
        text = answer.read().decode()
    try:
        yield pid, text
    finally:
        end(pid)


def end(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    except (ProcessLookupError, ChildProcessError):
        pass


@contextmanager
def sleeping() -> Iterator[subprocess.Popen[bytes]]:
    """A process that stands for QEMU."""
    with subprocess.Popen(["/usr/bin/sleep", "600"]) as process:
        yield process
        process.kill()


def of_process(process: subprocess.Popen[bytes]) -> Record:
    return a_record(pid=process.pid, started=start_time(process.pid))


def kept(process: subprocess.Popen[bytes], *, until: float | None = None) -> Record:
    return replace(of_process(process), state=State.KEPT, expires_at=until)


def left_behind(machines: Path, record: Record | None) -> str:
    """Leave a machine that no living process looks after; gives its id."""
    name, place = new_place(machines)
    if record is not None:
        place.write(replace(record, id=name))
    place.release()
    return name


GOOD = {"format": 1, **json.loads(json.dumps(asdict(a_record())))}
UNREADABLE = {
    "empty": b"",
    "cut": json.dumps(GOOD).encode()[:-5],
    "bytes": b"\xff\xfe",
    "list": b"[]",
    "text": b'"record"',
    "null": b"null",
    "number": b"17",
    "less": json.dumps({k: v for k, v in GOOD.items() if k != "image"}).encode(),
    "state": json.dumps({**GOOD, "state": "flying"}).encode(),
}
