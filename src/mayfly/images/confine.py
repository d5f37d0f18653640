"""A forked child that reads what may be hostile: without root's rights, within limits, offline.

For readers that are our own Python: they need no file but those that are handed to them, so the
child is a fork, and works wherever Mayfly is installed. Programs are confined by ``hostile``.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import resource
import selectors
import signal
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from mayfly import errors
from mayfly.command import leave_behind
from mayfly.errors import Failed, Invalid, MayflyError, Quota
from mayfly.images.follow import Report, silent
from mayfly.images.hostile import NOBODY
from mayfly.units import GIB, show_size

Tell = Callable[[str, float | None], None]

_CLONE_NEWUSER, _CLONE_NEWIPC, _CLONE_NEWNET = 0x10000000, 0x08000000, 0x40000000
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38
_ANSWER_BYTES = 32 << 20
_ERRORS = {kind.__name__: kind for kind in errors.EXIT_AND_HTTP}
_WORDS = 4000


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What a child may use at most."""

    memory_bytes: int = 4 * GIB
    cpu_s: int = 3600
    wall_s: float = 2 * 3600.0
    file_bytes: int = 0
    """The largest file that it may write."""


def confined(
    work: Callable[[Tell], Any],
    *,
    what: str,
    keep: Sequence[int],
    bounds: Bounds | None = None,
    report: Report = silent,
) -> Any:
    """Give what ``work`` returns, a value for JSON; it runs with no other files than ``keep``.

    Raises what ``work`` raises, ``Invalid`` when it failed on what it read, ``Quota`` when it went
    beyond its bounds. ``what`` is read, in words. The child ends when this call is left in any way.
    """
    bounds = bounds or Bounds()
    reader, writer = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        _become(work, writer, frozenset(keep), bounds)
    os.close(writer)
    try:
        answer = _listen(reader, report, time.monotonic() + bounds.wall_s, what)
        _, status = os.waitpid(pid, 0)
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
            os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise
    finally:
        os.close(reader)
        # What it has started must not outlive it.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)
    return _outcome(answer, status, what, bounds)


def _outcome(answer: dict[str, Any] | None, status: int, what: str, bounds: Bounds) -> Any:
    if answer is not None and "result" in answer:
        return answer["result"]
    if answer is not None and answer.get("kind") in _ERRORS:
        raise _ERRORS[answer["kind"]](str(answer.get("message")), hint=str(answer.get("hint")))
    number = -os.waitstatus_to_exitcode(status)
    if number in (signal.SIGXCPU, signal.SIGKILL):
        raise Quota(f"{what} takes more than {bounds.cpu_s} s of CPU time to read")
    if number == signal.SIGXFSZ:
        raise Quota(f"{what} writes more than {show_size(bounds.file_bytes)}")
    raise Failed(f"the process that read {what} ended without a word")


def _listen(reader: int, report: Report, deadline: float, what: str) -> dict[str, Any] | None:
    """Hear of progress until the last message, which is the answer."""
    rest, heard = b"", 0
    with selectors.DefaultSelector() as selector:
        selector.register(reader, selectors.EVENT_READ)
        while True:
            if not selector.select(max(0.0, deadline - time.monotonic())):
                raise Quota(f"{what} could not be read in time")
            data = os.read(reader, 1 << 16)
            heard += len(data)
            if not data or heard > _ANSWER_BYTES:
                return None
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                message = _parse(line)
                if message is None or "phase" not in message:
                    return message
                report(str(message["phase"]), message.get("fraction"))


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return message if isinstance(message, dict) else None


# --- the child -----------------------------------------------------------------------------------


def _become(
    work: Callable[[Tell], Any], writer: int, keep: frozenset[int], bounds: Bounds
) -> NoReturn:
    # Never leaves this function: above it are the maker's own blocks, which would clean up for it.
    try:
        _confine(keep | {writer}, bounds)
        answer = _work(work, writer)
        _write(writer, json.dumps(answer).encode() + b"\n")
    except BaseException:
        with contextlib.suppress(OSError):
            os.write(2, traceback.format_exc().encode("utf-8", "replace"))
        raise
    finally:
        os._exit(0)


def _work(work: Callable[[Tell], Any], writer: int) -> dict[str, Any]:
    def tell(phase: str, fraction: float | None) -> None:
        _write(writer, json.dumps({"phase": phase, "fraction": fraction}).encode() + b"\n")

    try:
        return {"result": work(tell)}
    except MayflyError as error:
        return _complaint(error)
    except MemoryError:
        gc.collect()
        return _complaint(Quota("it takes more memory to read than is allowed"))
    except RecursionError:
        return _complaint(Invalid("it is nested too deeply"))
    except OSError as error:
        return _complaint(errors.refusal(error))


def _complaint(error: MayflyError) -> dict[str, Any]:
    words = {"message": error.message[:_WORDS], "hint": error.hint[:_WORDS]}
    return {"kind": type(error).__name__, **words}


def _write(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]


def _confine(keep: frozenset[int], bounds: Bounds) -> None:
    leave_behind(keep)
    libc = ctypes.CDLL(None, use_errno=True)
    _leave(libc)
    _limit(bounds)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    # Root's environment may hold secrets, and a program that is started here is not trusted.
    path = os.environ.get("PATH", "/usr/local/bin:/usr/bin:/bin")
    os.environ.clear()
    os.environ.update(PATH=path, LC_ALL="C.UTF-8")


def _leave(libc: ctypes.CDLL) -> None:
    """Give up network and rights; namespaces only where the host lets us have them."""
    if os.geteuid() != 0:
        libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET | _CLONE_NEWIPC)
        return
    libc.unshare(_CLONE_NEWNET | _CLONE_NEWIPC)
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)


def _limit(bounds: Bounds) -> None:
    for kind, value in (
        (resource.RLIMIT_AS, bounds.memory_bytes),
        (resource.RLIMIT_CPU, bounds.cpu_s),
        (resource.RLIMIT_FSIZE, bounds.file_bytes),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(kind)
        most = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (most, most))
