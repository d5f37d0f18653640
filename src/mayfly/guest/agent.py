"""The agent: runs as root inside the machine and serves the control and the session port.

    python -m mayfly.guest.agent [--daemon] [--control PATH] [--session PATH] [--share PATH]

Without paths the virtio-serial ports are found by their names. A path may also be a unix socket
and ``--control-fd N``, ``--session-fd N`` a connected one, for trying the agent outside of a
machine; this needs ``--test-root DIR``, which keeps it away from the real system: tables and
identity files are those beneath DIR, the kernel is left alone, no program of the system is run.
``--test-unclaimed`` lets sessions run without a claim, as the user that the agent has.

``MAYFLY_SSHFS`` holds the command of sshfs as a JSON list.
"""

from __future__ import annotations

import contextlib
import getopt
import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence

from mayfly.guest import linux
from mayfly.guest.control import Control, Surroundings
from mayfly.guest.job import spare_from_oom
from mayfly.guest.lines import CONTROL, SESSION, SYSFS, Line, Sort, line_at, wait_for_device
from mayfly.guest.loop import Loop
from mayfly.guest.machine import Machine, oneself
from mayfly.guest.ports import Port
from mayfly.guest.sessions import Sessions
from mayfly.guest.system import Linux, Pretence, no_tool

PORTS_S = 60.0
WITH_VALUE = ["control=", "session=", "share=", "control-fd=", "session-fd=", "test-root="]
FLAGS = ["daemon", "test-unclaimed"]
NO_PORT = 69


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until there is no port left, which in a machine is never."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    pairs, rest = getopt.getopt(given, "", [*WITH_VALUE, *FLAGS])
    if rest:
        sys.exit(f"mayfly agent: unexpected argument '{rest[0]}'")
    options = dict(pairs)
    if "--daemon" in options:
        _detach()
        spare_from_oom(b"-1000")
        linux.lock_memory()
    _be_tidy()
    root = options.get("--test-root", "")
    control = _line(options, "control", CONTROL)
    session = _line(options, "session", SESSION)
    if control is None or session is None:
        sys.stderr.write("mayfly agent: this machine has no ports of mayfly\n")
        return NO_PORT
    if not root and {control.sort, session.sort} != {Sort.DEVICE}:
        sys.exit("mayfly agent: a port that is no device needs --test-root")
    machine = Machine()
    if "--test-unclaimed" in options:
        machine.claimed(oneself(), root_allowed=False)
    _serve(control, session, machine, _surroundings(root, options.get("--share", "")))
    return 0


def _serve(control: Line, session: Line, machine: Machine, around: Surroundings) -> None:
    loop = Loop()
    control_port = Port(loop, control)
    session_port = Port(loop, session)
    control_port.talk = Control(loop, control_port, machine, around)
    session_port.talk = Sessions(loop, session_port, machine)
    while not (control_port.gone and session_port.gone) or loop.expects:
        loop.turn()


def _surroundings(root: str, share: str) -> Surroundings:
    sshfs = tuple(map(str, json.loads(os.environ.get("MAYFLY_SSHFS") or "[]")))
    if root:
        return Surroundings(system=Pretence(), tool=no_tool, sshfs=sshfs, root=root)
    return Surroundings(
        system=Linux(sshfs=sshfs, share_port=share),
        tool=linux.run_tool,
        sshfs=sshfs,
        root="/",
    )


def _line(options: Mapping[str, str], key: str, name: str) -> Line | None:
    if f"--{key}-fd" in options:
        return Line(sort=Sort.FD, fd=int(options[f"--{key}-fd"]))
    if f"--{key}" in options:
        return line_at(options[f"--{key}"])
    if not os.path.exists(SYSFS):
        linux.run_tool(["modprobe", "virtio_console"], timeout_s=30)
    path = wait_for_device(name, timeout_s=PORTS_S)
    return None if path is None else Line(sort=Sort.DEVICE, path=path)


# --- a good start ---


def _detach() -> None:
    """Leave whoever started us, and the group that the init system would stop us with."""
    if os.fork():
        os._exit(0)
    os.setsid()
    if os.fork():
        os._exit(0)
    with open(os.devnull, "r+b", buffering=0) as nothing:
        os.dup2(nothing.fileno(), 0)
        os.dup2(nothing.fileno(), 1)
    _leave_cgroups()


def _leave_cgroups(top: str = "/sys/fs/cgroup") -> None:
    """Move to the top of every hierarchy: limits of the service that started us are not ours."""
    with contextlib.suppress(OSError):
        # One hierarchy, whose directories are groups; or a directory for each of several.
        one = os.path.exists(f"{top}/cgroup.controllers")
        for path in [top] if one else [entry.path for entry in os.scandir(top)]:
            with contextlib.suppress(OSError), open(f"{path}/cgroup.procs", "w") as file:
                file.write("0")


def _be_tidy() -> None:
    """Undo what was inherited: the jobs would inherit it in turn."""
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGPIPE}:
        # Some belong to the C library.
        with contextlib.suppress(OSError, ValueError):
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for fd in map(int, os.listdir("/proc/self/fd")):
        if fd > 2:
            with contextlib.suppress(OSError):
                os.set_inheritable(fd, False)
    os.umask(0o022)
    os.chdir("/")
    # Woken by each line that a job prints it would take the CPU at once and move only that line.
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


if __name__ == "__main__":
    sys.exit(main())
