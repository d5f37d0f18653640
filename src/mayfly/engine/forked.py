"""Forked children that work for this process, report to it, and end with it.

The bond is a socket, not a signal: a child that reads end-of-file knows that its maker is done with
it or gone, whichever thread made it and however it died.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import socket
import struct
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NoReturn

from mayfly import errors
from mayfly.command import leave_behind
from mayfly.errors import Failed, MayflyError

ANSWER_LIMIT_S = 30.0
END_LIMIT_S = 5.0
MESSAGE_BYTES = 1 << 16
MESSAGE_FDS = 4

_ERRORS = {kind.__name__: kind for kind in errors.EXIT_AND_HTTP}


@dataclass(frozen=True, slots=True, kw_only=True)
class Forked:
    """A child, as its maker sees it."""

    pid: int
    name: str
    channel: socket.socket

    def receive(self) -> list[int]:
        """Wait for the next message; gives the descriptors that came with it.

        Raises what the child raised, or ``Failed`` when it ended without a word.
        """
        fds = receive(self.channel)
        if fds is None:
            raise Failed(f"the {self.name} process ended without a word")
        return fds

    def wait_exec(self) -> None:
        """Wait until the child has become another program; raises what kept it from that."""
        receive(self.channel)

    def kill(self) -> None:
        """End a child that has become another program, and so does not listen to us."""
        os.kill(self.pid, signal.SIGKILL)

    def end(self) -> None:
        """Tell the child to end, see to it that it does, and collect it."""
        with contextlib.suppress(OSError):
            self.channel.shutdown(socket.SHUT_WR)
        # One deadline for all that it still has to say: it may report without end.
        deadline = time.monotonic() + END_LIMIT_S
        try:
            while (left_s := deadline - time.monotonic()) > 0:
                self.channel.settimeout(left_s)
                if not self.channel.recv(MESSAGE_BYTES):
                    break
            else:
                raise TimeoutError
        except ConnectionError:
            pass
        except TimeoutError:
            os.kill(self.pid, signal.SIGKILL)
        self.channel.close()
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)


@contextlib.contextmanager
def forked(
    body: Callable[[socket.socket], None], *, name: str, keep: Sequence[int] = ()
) -> Iterator[Forked]:
    """Run ``body`` in a child that has no other descriptors than ``keep`` and its channel.

    At the end of the block the channel is closed and the child waited for.
    """
    child = start_forked(body, name=name, keep=keep)
    try:
        yield child
    finally:
        child.end()


def start_forked(
    body: Callable[[socket.socket], None], *, name: str, keep: Sequence[int] = ()
) -> Forked:
    """Do as ``forked`` for a caller that does not wait: it calls ``end`` some time."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        pid = os.fork()
        if pid == 0:
            _run(body, theirs, keep)
    ours.settimeout(ANSWER_LIMIT_S)
    return Forked(pid=pid, name=name, channel=ours)


def report(
    channel: socket.socket, fds: Sequence[int] = (), error: MayflyError | None = None
) -> None:
    """Send a message to the other end: descriptors, or the reason why there are none."""
    words: dict[str, str] = {}
    if error is not None:
        kind = type(error).__name__
        words = {"kind": kind, "message": error.message[:2000], "hint": error.hint[:2000]}
    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack(f"{len(fds)}i", *fds))
    channel.sendmsg([json.dumps(words).encode()], [rights] if fds else [])


def receive(channel: socket.socket) -> list[int] | None:
    """Wait for one message of ``report``; None when the other end is closed."""
    try:
        # Not recv_fds: in Python 3.11 it forgets the flags, and every program would inherit them.
        space = socket.CMSG_SPACE(MESSAGE_FDS * struct.calcsize("i"))
        data, rights, _, _ = channel.recvmsg(MESSAGE_BYTES, space, socket.MSG_CMSG_CLOEXEC)
    except ConnectionError:
        return None
    except TimeoutError:
        raise Failed("a helper process gave no answer") from None
    if not data:
        return None
    words = json.loads(data)
    if words:
        raise _ERRORS[words["kind"]](words["message"], hint=words["hint"])
    fds = b"".join(content for _, _, content in rights)
    return [fd for (fd,) in struct.iter_unpack("i", fds)]


def wait_for_end(channel: socket.socket) -> None:
    """Return when the maker of this process has no more use for it, or is gone."""
    with contextlib.suppress(ConnectionError):
        while channel.recv(1):
            pass


def _run(
    body: Callable[[socket.socket], None], channel: socket.socket, keep: Sequence[int]
) -> NoReturn:
    # Never leaves this function: above it are the maker's own blocks, which would clean up for it.
    status = None
    try:
        _settle({channel.fileno(), *keep})
        channel.settimeout(None)
        body(channel)
        status = 0
    except MayflyError as error:
        status = _complain(channel, error)
    except OSError as error:
        status = _complain(channel, Failed(str(error)))
    finally:
        if status is None:
            # Not through sys.stderr, whose lock or file may be the maker's.
            with contextlib.suppress(OSError):
                os.write(2, traceback.format_exc().encode("utf-8", "replace"))
        os._exit(1 if status is None else status)


def _complain(channel: socket.socket, error: MayflyError) -> int:
    with contextlib.suppress(OSError):
        report(channel, error=error)
    return 1


def _settle(keep: set[int]) -> None:
    leave_behind(keep)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
