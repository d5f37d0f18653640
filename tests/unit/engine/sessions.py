"""A session for tests: a scripted guest on one side, files or pipes of the test on the other."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryFile
from threading import Thread
from typing import Any

from mayfly.engine.session.fake_agent import FakeAgent, playing
from mayfly.engine.session.run import JobRequest, JobResult, Patience, Stdio, Workdir, run_job
from mayfly.guest.tree import Entry, Type
from mayfly.model import Who

Script = Callable[[FakeAgent], object]

QUICK = Patience(sync_s=0.3, setup_s=0.3, kill_s=0.4, copy_s=0.3, linger_s=0.2)
REQUEST = JobRequest(
    argv=("true",),
    env={"LANG": "C.UTF-8"},
    cwd="/work",
    umask=0o022,
    limits={"nofile": (1024, 4096)},
    root=False,
    tty=False,
    workdir=None,
    time_limit_s=None,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """What a session gave and wrote."""

    result: JobResult
    stdout: bytes
    stderr: bytes
    reports: list[str]


FILE = Entry(type=Type.FILE, path="out", mode=0o644, size=5)


def for_ever(agent: FakeAgent) -> None:
    """Do nothing more, until the host goes."""
    agent.until(lambda: False)


def check_failure(ran: Ran, phase: str, words: str) -> None:
    """Check that it is Mayfly's failure, when, and why."""
    assert (ran.result.code, ran.result.who, ran.result.phase) == (125, Who.MAYFLY, phase)
    assert words in ran.result.reason


def workdir(path: Path, **fields: Any) -> Workdir:
    """Make a work directory with generous limits."""
    given = Workdir(
        path=path,
        guest_path="/work",
        sync_delete=False,
        copy_back=True,
        limit_bytes=64 << 20,
        limit_files=1000,
    )
    return replace(given, **fields)


def run(script: Script, *, stdin: bytes = b"", gone: int | None = None, **fields: Any) -> Ran:
    """Run a session with files as its streams; ``fields`` go into the request."""
    reports: list[str] = []
    with ExitStack() as stack:
        inp, out, err = (stack.enter_context(TemporaryFile()) for _ in range(3))
        port = stack.enter_context(playing(script))
        inp.write(stdin)
        inp.seek(0)
        result = run_job(
            port,
            replace(REQUEST, **fields),
            Stdio(stdin=inp.fileno(), stdout=out.fileno(), stderr=err.fileno()),
            machine_gone=gone,
            report=reports.append,
        )
        out.seek(0)
        err.seek(0)
        return Ran(result=result, stdout=out.read(), stderr=err.read(), reports=reports)


def run_on(script: Script, stdio: Stdio, **fields: Any) -> JobResult:
    """Run a session on descriptors of the test."""
    with playing(script) as port:
        return run_job(
            port, replace(REQUEST, **fields), stdio, machine_gone=None, report=lambda _: None
        )


@contextmanager
def at_the_same_time(action: Callable[[], Any]) -> Iterator[None]:
    """Run something in a thread meanwhile; its errors come at the end."""
    future: Future[Any] = Future()

    def act() -> None:
        try:
            future.set_result(action())
        except (AssertionError, LookupError, OSError, ValueError) as error:
            future.set_exception(error)

    # A daemon: a test that fails must not wait for a thread that reads for ever.
    Thread(target=act, daemon=True).start()
    yield
    future.result(20)


@contextmanager
def pipe() -> Iterator[tuple[int, int]]:
    """Make a pipe whose ends are closed at the end, unless the test closed them."""
    ends = os.pipe()
    try:
        yield ends
    finally:
        for end in ends:
            close(end)


NOT_OPEN = 900
"""A descriptor that nothing of a test has."""


def close(fd: int) -> None:
    """Close a descriptor that may be closed already."""
    try:
        os.close(fd)
    except OSError:
        return


def read_all(fd: int) -> bytes:
    """Read to the end of file."""
    data = b""
    while piece := os.read(fd, 1 << 20):
        data += piece
    return data
