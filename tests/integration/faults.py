"""What the tests of faults share: a run with its status file, and looking for what was left."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mayfly.config import Paths
from tests.conftest import Cli
from tests.integration.waiting import wait_until

IMAGE = "debian-12"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a run ended."""

    code: int
    output: bytes
    said: str
    status: dict[str, Any]

    def assert_failed(self, *words: str, who: str = "mayfly") -> None:
        """It was not the job that failed, and it was said in a sentence with all these words."""
        assert_sentence(self.said, *words)
        assert (self.code, self.status["code"], self.status["who"]) == (125, 125, who)
        assert all(word in self.status["reason"] for word in words), self.status


def assert_sentence(said: str, *words: str) -> None:
    """What was said is for people, and has all these words."""
    assert "mayfly: " in said
    assert "Traceback" not in said
    assert "fault in Mayfly itself" not in said
    for word in words:
        assert word in said


def run_job(cli: Cli, *words: str, **more: Any) -> Ended:
    """Run a job without a work directory, to its end."""
    return run_with(cli, "--no-workdir", *words, **more)


def run_with(cli: Cli, *words: str, **more: Any) -> Ended:
    """Run a job to its end; ``words`` may be options, ``--`` and a command."""
    cli.home.mkdir(parents=True, exist_ok=True)
    with _status_file() as file:
        done = cli("run", IMAGE, "--status-file", f"/proc/{os.getpid()}/fd/{file}", *words, **more)
        return _ended(done.returncode, done.stdout, done.stderr, file)


@contextlib.contextmanager
def _status_file() -> Iterator[int]:
    """Give a file that lies on no disk: the disk may be full."""
    file = os.memfd_create("status")
    try:
        yield file
    finally:
        os.close(file)


def _ended(code: int, output: bytes, said: bytes, file: int) -> Ended:
    text = os.pread(file, 1 << 16, 0)
    status = json.loads(text) if text else {}
    return Ended(code=code, output=output, said=said.decode("utf-8", "replace"), status=status)


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """A run whose job said that it is ready."""

    cli: Cli
    process: subprocess.Popen[bytes]
    file: int

    def qemu(self) -> int:
        """Give the pid of its QEMU."""
        (pid,) = qemus_of(self.cli.home)
        return pid

    def machine(self) -> str:
        """Give the id of its machine."""
        (place,) = machines_of(self.cli.home)
        return place.name

    def end(self, typed: bytes = b"", *, timeout_s: float = 30) -> Ended:
        """Wait for its end."""
        output, said = self.process.communicate(typed, timeout=timeout_s)
        return _ended(self.process.returncode, output, said, self.file)

    def interrupt(self, times: int = 3) -> None:
        """Press Ctrl-C so often, each when the one before was taken."""
        for _ in range(times):
            self.process.send_signal(signal.SIGINT)
            wait_until(lambda: not self._pending(), "the signal was taken")

    def _pending(self) -> bool:
        with contextlib.suppress(FileNotFoundError):
            lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
            masks = [int(line.split()[1], 16) for line in lines if line.startswith("ShdPnd")]
            return any(mask >> (signal.SIGINT - 1) & 1 for mask in masks)
        return False


@contextlib.contextmanager
def started(cli: Cli, *words: str, cwd: Path | None = None) -> Iterator[Started]:
    """Start a run whose job prints ``ready`` first; ``words`` are options, ``--`` and a command."""
    with _status_file() as file:
        status = f"/proc/{os.getpid()}/fd/{file}"
        process = cli.start("run", IMAGE, "--status-file", status, *words, cwd=cwd)
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n", process.communicate(timeout=60)
            yield Started(cli=cli, process=process, file=file)
        finally:
            process.kill()
            process.communicate()


@contextlib.contextmanager
def making_template(cli: Cli) -> Iterator[subprocess.Popen[bytes]]:
    """Start a run that has to make a template first, and wait until that boots."""
    process = cli.start("run", IMAGE, "--no-workdir", "--", "true")
    try:
        assert process.stderr is not None
        lines = iter(process.stderr.readline, b"")
        assert any(line == f"mayfly: booting {IMAGE} once\n".encode() for line in lines)
        yield process
    finally:
        process.kill()
        process.communicate()


def qemus_of(home: Path) -> list[int]:
    """Give the QEMUs of machines that have a file beneath ``home`` open."""
    return [pid for pid in _pids() if b"-name\0mayfly-" in _cmdline(pid) and _uses(pid, home)]


def _pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _cmdline(pid: int) -> bytes:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


def _uses(pid: int, home: Path) -> bool:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for number in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(FileNotFoundError):
                if os.readlink(f"/proc/{pid}/fd/{number}").startswith(f"{home}/"):
                    return True
    return False


def machines_dir(home: Path) -> Path:
    """Give the directory of this host's machines."""
    return Paths.for_user({"MAYFLY_HOME": str(home)}).machines


def machines_of(home: Path) -> list[Path]:
    """Give what lies in the directory of machines, hidden things too."""
    machines = machines_dir(home)
    return list(machines.iterdir()) if machines.exists() else []


def assert_nothing_left(home: Path) -> None:
    """No machine of this home is there, nor anything of one."""
    assert machines_of(home) == []
    assert qemus_of(home) == []
