"""Root's program beside the startd: registers the jobs whose wrappers ask, and takes that back.

The wrapper asks on a socket; the kernel says which process it is, and ``slots`` which job that is
of. A right ends with the process that asked for it, also when this program was started anew
meanwhile: what it watches is written down.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import selectors
import socket
import struct
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from mayfly.batch.ending import say
from mayfly.batch.htcondor.places import RECORD, place_of
from mayfly.batch.settings import BatchSettings
from mayfly.errors import Failed, Invalid, MayflyError

REQUEST_LONGEST = 64 << 10
REQUEST_LIMIT_S = 5.0
CONNECTIONS_MOST, OF_A_USER_MOST = 1024, 128
WORKERS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """Who asks, as the kernel says."""

    pid: int
    uid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A right, and the process with which it ends."""

    key: str
    pid: int
    began: str
    """When the process began, in the kernel's ticks: a number may be used again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """What became of a request."""

    reply: bytes
    held: Held | None = None


Answer = Callable[[Peer, dict[str, Any]], Answered]
Release = Callable[[Held], None]


@dataclass(slots=True, kw_only=True)
class Asking:
    """A connection whose request is not whole yet, or is being answered."""

    connection: socket.socket
    peer: Peer
    deadline: float
    text: bytearray = field(default_factory=bytearray)


def began(pid: int) -> str:
    """Give when a process began; "" when there is none, or only its remains."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
    except OSError:
        return ""
    fields = stat.rpartition(")")[2].split()
    return "" if fields[0] in "ZX" else fields[19]


class Registrar:
    """One loop that listens and watches; what takes time is done by a few threads."""

    def __init__(self, settings: BatchSettings, answer: Answer, release: Release) -> None:
        self._answer, self._release = answer, release
        self._record = place_of(settings, RECORD)
        self._selector = selectors.DefaultSelector()
        self._pool = ThreadPoolExecutor(WORKERS)
        self._done: SimpleQueue[tuple[Asking, Answered]] = SimpleQueue()
        self._wake, self._woken = socket.socketpair()
        self._asking: list[Asking] = []
        self._held: list[Held] = []
        self._listener = _listen(place_of(settings))
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        self._selector.register(self._woken, selectors.EVENT_READ, self._answered)
        for held in read_record(self._record):
            self._watch(held)

    def serve(self) -> None:
        """Serve until this process is ended."""
        while True:
            self.step(1.0)

    def step(self, limit_s: float) -> None:
        """Do what there is to do, and wait at most so long for it."""
        for key, _ in self._selector.select(limit_s):
            key.data()
        now = time.monotonic()
        for late in list(self._asking):
            if late.deadline < now and self._is_read(late):
                self._drop(late)

    def close(self) -> None:
        """Listen no more; what is held stays held, for the next one."""
        self._pool.shutdown()
        for each in list(self._asking):
            self._drop(each)
        for one in (self._listener, self._wake, self._woken):
            one.close()
        self._selector.close()

    # --- asking ----------------------------------------------------------------------------------

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        connection.setblocking(False)
        size = struct.calcsize("3i")
        found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
        pid, uid, _ = struct.unpack("3i", found)
        own = sum(each.peer.uid == uid for each in self._asking)
        if len(self._asking) >= CONNECTIONS_MOST or own >= OF_A_USER_MOST:
            connection.close()
            return
        deadline = time.monotonic() + REQUEST_LIMIT_S
        asking = Asking(connection=connection, peer=Peer(pid=pid, uid=uid), deadline=deadline)
        self._asking.append(asking)
        self._selector.register(connection, selectors.EVENT_READ, lambda: self._read(asking))

    def _is_read(self, asking: Asking) -> bool:
        return asking.connection in self._selector.get_map()

    def _read(self, asking: Asking) -> None:
        try:
            part = asking.connection.recv(REQUEST_LONGEST)
        except OSError:
            part = b""
        asking.text += part
        if not part or len(asking.text) > REQUEST_LONGEST:
            self._drop(asking)
        elif asking.text.endswith(b"\n"):
            self._selector.unregister(asking.connection)
            self._pool.submit(self._work, asking)

    def _work(self, asking: Asking) -> None:
        try:
            answered = self._answer(asking.peer, parse_request(bytes(asking.text)))
        except MayflyError as error:
            answered = Answered(reply=refusal(error))
        self._done.put((asking, answered))
        with contextlib.suppress(OSError):
            self._wake.send(b".")

    def _answered(self) -> None:
        self._woken.recv(4096)
        while not self._done.empty():
            asking, answered = self._done.get()
            if answered.held is not None:
                # Before the answer: the right is known before anybody uses it.
                self._watch(answered.held)
            with contextlib.suppress(OSError):
                asking.connection.setblocking(True)
                asking.connection.settimeout(REQUEST_LIMIT_S)
                asking.connection.sendall(answered.reply)
            self._drop(asking)

    def _drop(self, asking: Asking) -> None:
        self._asking.remove(asking)
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(asking.connection)
        asking.connection.close()

    # --- watching --------------------------------------------------------------------------------

    def _watch(self, held: Held) -> None:
        self._held = [*(each for each in self._held if each.key != held.key), held]
        write_record(self._record, self._held)
        try:
            fd = os.pidfd_open(held.pid)
        except OSError:
            self._ended(held)
            return
        if began(held.pid) != held.began:
            os.close(fd)
            self._ended(held)
            return
        self._selector.register(fd, selectors.EVENT_READ, lambda: self._gone(fd, held))

    def _gone(self, fd: int, held: Held) -> None:
        self._selector.unregister(fd)
        os.close(fd)
        self._ended(held)

    def _ended(self, held: Held) -> None:
        if held not in self._held:
            return  # The job was begun again, and another process has its right.
        self._held.remove(held)
        write_record(self._record, self._held)
        self._pool.submit(self._let_go, held)

    def _let_go(self, held: Held) -> None:
        try:
            self._release(held)
        except MayflyError as error:
            say(f"{held.key}: {error.message}")


def _listen(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        listener.bind(str(path))
        path.chmod(0o666)  # Whoever asks is known by the kernel.
        listener.listen(128)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise Failed(f"cannot listen at {path}: {error.strerror}") from error
    return listener


# --- requests and the record ---------------------------------------------------------------------


def parse_request(text: bytes) -> dict[str, Any]:
    """Read a request; raises ``Invalid``."""
    try:
        told = json.loads(text)
    except (ValueError, RecursionError):
        told = None
    if not isinstance(told, dict) or not isinstance(told.get("options"), dict):
        raise Invalid("the request is none")
    if not all(isinstance(value, str) for value in told["options"].values()):
        raise Invalid("the request has options that are no text")
    restart = told.get("restart", 0)
    if not isinstance(restart, int) or not 0 <= restart < 1 << 31:
        raise Invalid("the request has no good 'restart'")
    return told


def refusal(error: MayflyError) -> bytes:
    """Give the reply that refuses."""
    return json.dumps({"refused": error.message}).encode() + b"\n"


def write_record(file: Path, held: list[Held]) -> None:
    """Write down what is watched; without it a restart would forget rights."""
    fresh = file.with_name(f".{file.name}.new")
    try:
        fresh.write_text(json.dumps([asdict(each) for each in held]))
        fresh.chmod(0o600)
        fresh.replace(file)
    except OSError as error:
        say(f"cannot write {file}: {error.strerror}")


def read_record(file: Path) -> list[Held]:
    """Give what was watched; nothing when there is no record, or none that can be read."""
    try:
        found: list[dict[str, Any]] = json.loads(file.read_text())
        return [Held(**each) for each in found if _is_good(each)]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError, KeyError) as error:
        say(f"cannot read {file}: {error}")
        return []


def _is_good(one: dict[str, Any]) -> bool:
    pid, key = one["pid"], one["key"]
    return isinstance(pid, int) and pid > 1 and isinstance(key, str) and bool(_KEY.fullmatch(key))


_KEY = re.compile(r"[\w.:+\[\]/-]{1,300}")
