"""Small programs that ``launch`` runs in QEMU's stead, for tests of what they are kept from."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from mayfly.engine.launch import Isolation, launch

UID = 0x6D61_1234
PYTHON = "/usr/bin/python3"
PATIENCE_S = 20.0


@dataclass(frozen=True)
class Ran:
    """How a child ended."""

    code: int
    output: str


def run(
    argv: Sequence[str], isolation: Isolation | None = None, *, pass_fds: Sequence[int] = ()
) -> Ran:
    """Run a program shut in, to its end."""
    read, write = os.pipe()
    try:
        child = launch(argv, isolation or Isolation(uid=UID), pass_fds=pass_fds, output=write)
        child.go()
    finally:
        os.close(write)
        with open(read, "rb") as stream:
            output = stream.read().decode()
    return Ran(os.waitstatus_to_exitcode(os.waitpid(child.pid, 0)[1]), output)


def python(code: str, isolation: Isolation | None = None, *, pass_fds: Sequence[int] = ()) -> Any:
    """Run Python code shut in; gives what it prints, read as JSON."""
    argv = [PYTHON, "-I", "-S", "-c", f"import json, os\n{textwrap.dedent(code)}"]
    done = run(argv, isolation, pass_fds=pass_fds)
    assert done.code == 0, done.output
    return json.loads(done.output)


@contextmanager
def helper(code: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run code of the host in a process of its own, which a test may kill."""
    argv = [sys.executable, "-c", textwrap.dedent(code)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


def ends(pid: int) -> bool:
    """Wait for the end of any process; false when it goes on."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([handle], [], [], PATIENCE_S)[0])
    finally:
        os.close(handle)


def end(pid: int) -> None:
    """End a process that a test started, if it is still there."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
