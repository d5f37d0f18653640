"""Parts of tasks that talk with QEMU and with the agent, without keeping others waiting."""

from __future__ import annotations

import contextlib
import time
from typing import Any

from mayfly.engine.control import Control
from mayfly.engine.monitor import Monitor
from mayfly.engine.process import Process
from mayfly.errors import MayflyError, Unavailable
from mayfly.host.loop import Wait
from mayfly.host.work import Step

REPLY_LIMIT_S = 30.0
ANSWER_LIMIT_S = 60.0
LAST_WORDS_S = 0.5
CONSOLE_BYTES = 1 << 18


def replied(monitor: Monitor, command: str, limit_s: float | None = None) -> Step[Any]:
    """Give what QEMU answers to a command that was sent; raises as ``Monitor.reply``."""
    limit_s = REPLY_LIMIT_S if limit_s is None else limit_s
    deadline = time.monotonic() + limit_s
    while not monitor.arrived():
        left = deadline - time.monotonic()
        if left <= 0:
            # Should it come later, it must not be taken for the answer to something else.
            monitor.give_up()
            raise Unavailable(f"QEMU did not answer '{command}' within {limit_s:g} s: stopped?")
        yield Wait(fds=(monitor.fileno(),), seconds=left)
    return monitor.reply(command)


def answered(
    control: Control, number: int, what: str, limit_s: float = ANSWER_LIMIT_S
) -> Step[dict[str, Any]]:
    """Give what the agent answers to a request that was sent; raises as ``Control.answer``."""
    deadline = time.monotonic() + limit_s
    while not control.arrived(number):
        left = deadline - time.monotonic()
        if left <= 0:
            raise Unavailable(f"the agent in the machine did not answer '{what}' in time")
        yield Wait(fds=(control.fileno(),), seconds=left)
    return control.answer(number, what, timeout_s=1.0)


def last_console(process: Process) -> Step[str]:
    """Give what the console said since it was last read; nothing of a QEMU that does not answer."""
    monitor = process.monitor
    with contextlib.suppress(IndexError):
        while True:  # Whatever else it was asked is for nobody now.
            monitor.give_up()
    with contextlib.suppress(MayflyError):
        arguments = {"device": "console", "size": CONSOLE_BYTES, "format": "utf8"}
        monitor.send("ringbuf-read", arguments)
        text = yield from replied(monitor, "ringbuf-read", LAST_WORDS_S)
        return str(text)
    return ""
