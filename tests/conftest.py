"""What the tests share: the real command line, and images and templates that are made once."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
CACHE = Path(os.environ.get("MAYFLY_TEST_CACHE", "/var/tmp/mayfly-test-cache"))
BUILD_LIMIT_S = 900


def pytest_configure() -> None:
    """Have signals as in a terminal: ``&`` and ``nohup`` start what they start to ignore some."""
    for number, usual in (
        (signal.SIGINT, signal.default_int_handler),
        (signal.SIGQUIT, signal.SIG_DFL),
        # We go on after a hang-up; a handler, other than ignorance, is not inherited.
        (signal.SIGHUP, lambda *_: None),
    ):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, usual)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cli:
    """The real ``mayfly`` with directories of its own."""

    home: Path
    env: Mapping[str, str] = field(default_factory=dict)

    def environment(self) -> dict[str, str]:
        """Give the environment that its processes get."""
        return {**os.environ, "MAYFLY_HOME": str(self.home), **self.env}

    def argv(self, *words: str) -> list[str]:
        """Give the whole argument list of a command."""
        return [sys.executable, "-I", "-m", "mayfly.cli.main", *words]

    def __call__(
        self,
        *words: str,
        stdin: bytes = b"",
        cwd: Path | None = None,
        timeout_s: float = 120,
        check: bool = False,
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a command to its end."""
        done = subprocess.run(
            check=False,
            args=self.argv(*words),
            input=stdin,
            capture_output=True,
            cwd=cwd or "/",
            env=self.environment(),
            timeout=timeout_s,
        )
        if check and done.returncode != 0:
            raise AssertionError(
                f"mayfly {' '.join(words)}: exit {done.returncode}\n{done.stderr.decode()}"
            )
        return done

    def start(
        self, *words: str, cwd: Path | None = None, stdin: int = subprocess.PIPE
    ) -> subprocess.Popen[bytes]:
        """Start a command and leave it running."""
        return subprocess.Popen(
            self.argv(*words),
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=cwd or "/",
            env=self.environment(),
        )


def _built(home: Path, name: str) -> Iterator[None]:
    """Build an image once for all test runs, one process at a time."""
    home.mkdir(parents=True, exist_ok=True)
    with open(home / f".{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (home / "state/images" / name).is_dir():
            Cli(home=home)("image", "build", name, timeout_s=BUILD_LIMIT_S, check=True)
    yield


@pytest.fixture(scope="session")
def warm_home() -> Iterator[Path]:
    """A MAYFLY_HOME with debian-12 and its template, kept between test runs."""
    home = CACHE / "home"
    for _ in _built(home, "debian-12"):
        cli = Cli(home=home)
        cli("template", "make", "debian-12", timeout_s=BUILD_LIMIT_S, check=True)
        yield home


@pytest.fixture
def cli(warm_home: Path) -> Cli:
    """The command line on the warm home."""
    return Cli(home=warm_home)


@pytest.fixture
def cold_cli(tmp_path: Path) -> Cli:
    """The command line with nothing there yet."""
    return Cli(home=tmp_path / "home")


@pytest.fixture
def make_cli(tmp_path: Path) -> Callable[..., Cli]:
    """Give command lines with a home and environment to choose."""

    def make(home: Path | None = None, **env: str) -> Cli:
        return Cli(home=home or tmp_path / "home", env=env)

    return make
