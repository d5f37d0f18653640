"""A job that Grid Engine suspends stands still with its machine, and goes on with it.

Grid Engine would stop the starter alone, and the machine would compute on. Its methods run as the
job's user, who may pause a machine of his own.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from mayfly.batch.gridengine.task import SPOOL, key_of, read_config
from mayfly.batch.settings import BatchSettings
from mayfly.errors import Conflict, MayflyError
from mayfly.host import client
from mayfly.model import State

PATIENCE_S = 10.0
"""For a machine that is just being handed over."""
POLL_S = 0.1
_DONE = {"pause": State.PAUSED, "resume": State.RUNNING}


def suspend_task(
    cluster: str, words: Sequence[str], environ: Mapping[str, str], settings: BatchSettings
) -> int:
    """Pause the task's machine, then stop its processes on the host; ``words``: the job's pid."""
    # In this order: a machine that is being handed over needs its starter.
    told = _quietly(lambda: _do("pause", cluster, environ, settings))
    _signal(words, signal.SIGSTOP)
    return told


def resume_task(
    cluster: str, words: Sequence[str], environ: Mapping[str, str], settings: BatchSettings
) -> int:
    """Let the task's processes go on, and its machine."""
    _signal(words, signal.SIGCONT)
    return _quietly(lambda: _do("resume", cluster, environ, settings))


def _quietly(act: Callable[[], None]) -> int:
    try:
        act()
    except MayflyError as error:
        # To the trace of Grid Engine: the job's own output is not ours to write to now.
        print(f"mayfly: {error.message}")
        return 1
    return 0


def _do(op: str, cluster: str, environ: Mapping[str, str], settings: BatchSettings) -> None:
    config = read_config(Path(environ.get(SPOOL, "/")))
    key = key_of(config, cluster)
    for machine in _machines(key, settings):
        _patiently(op, machine, settings)
        _show(config, _DONE[op])


def _machines(key: str, settings: BatchSettings) -> list[str]:
    """Give the machines of a task; without a service nothing can be done with them."""
    with contextlib.closing(client.require(settings.socket)) as connection:
        _, found = client.call(connection, "list")
    return [str(each.get("id")) for each in found if each.get("job") == key]


def _patiently(op: str, machine: str, settings: BatchSettings) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            with contextlib.closing(client.require(settings.socket)) as connection:
                client.call(connection, op, {"machine": machine})
            return
        except Conflict:
            if time.monotonic() > deadline:
                raise
        time.sleep(POLL_S)


def _show(config: Mapping[str, str], state: State) -> None:
    """Put on the job what its machine is doing; in an array there is no room for all of them.

    Nobody waits for that: while a method of suspension runs, Grid Engine's shepherd forgets that
    the job was told to go on.
    """
    if config.get("ja_task_id") == "0":
        argv = ["qalter", "-ac", f"vm_state={state.value}", config.get("job_id", "")]
        null = subprocess.DEVNULL
        with contextlib.suppress(OSError):
            subprocess.Popen(argv, stdin=null, stdout=null, stderr=null, start_new_session=True)


def _signal(words: Sequence[str], number: signal.Signals) -> None:
    """Send the job's processes what Grid Engine would."""
    pid = int(words[0]) if words and words[0].isascii() and words[0].isdigit() else 0
    if pid > 1:
        with contextlib.suppress(OSError):
            os.killpg(pid, number)
