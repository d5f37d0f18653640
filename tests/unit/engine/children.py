"""Programs that tests run as processes of their own, because they stop or take a terminal."""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import termios
from dataclasses import replace

from mayfly.engine.session.fake_agent import FakeAgent, playing
from mayfly.engine.session.run import JobRequest, Stdio, run_job

REQUEST = JobRequest(
    argv=("true",),
    env={},
    cwd="/",
    umask=0o022,
    limits={},
    root=False,
    tty=None,
    workdir=None,
    time_limit_s=None,
)


def stopped() -> None:
    """Stop like a job that got Ctrl-Z, and tell what the guest heard of it."""

    def script(agent: FakeAgent) -> None:
        agent.run()
        os.kill(os.getpid(), signal.SIGTSTP)
        for _ in range(2):
            print(agent.message("signal")["signal"], flush=True)
        agent.exit(0)

    with playing(script) as port:
        result = run_job(
            port, replace(REQUEST, tty=False), Stdio(), machine_gone=None, report=print
        )
    print(f"result={result.code}")


def background() -> None:
    """Run a job as a background process of a terminal; it must not be stopped."""
    terminal = int(sys.argv[2])
    os.setsid()
    fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        os._exit(_in_background(terminal))
    _, status = os.waitpid(child, os.WUNTRACED)
    print("stopped" if os.WIFSTOPPED(status) else f"result={os.waitstatus_to_exitcode(status)}")


def _in_background(terminal: int) -> int:
    def script(agent: FakeAgent) -> None:
        agent.start()
        agent.exit(7)

    before = termios.tcgetattr(terminal)
    with playing(script) as port:
        result = run_job(
            port,
            REQUEST,
            Stdio(stdin=terminal, stdout=terminal, stderr=terminal),
            machine_gone=None,
            report=print,
        )
    return result.code if termios.tcgetattr(terminal) == before else 1


if __name__ == "__main__":
    {"stopped": stopped, "background": background}[sys.argv[1]]()
