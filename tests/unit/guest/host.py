"""The host's end of a real agent: started as a child process, spoken to over sockets."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mayfly.guest.framing import (
    INITIAL_CREDIT,
    Frame,
    Kind,
    Parser,
    Stream,
    credit_of,
    pack,
    pack_credit,
    pack_message,
    pack_sync,
)
from mayfly.guest.tree import Entry, EntryParser

SOURCE = Path(__file__).parents[3] / "src"
WAIT_S = 20.0
PIECE = 64 << 10


class Peer:
    """One port, seen from the host; gives credit back at once unless told otherwise."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.socket.setblocking(False)
        self._parser = Parser()
        self._out = bytearray()
        self._nonces = 0
        self.generous = True
        self.fresh()

    def fresh(self) -> None:
        """Forget what was received."""
        self.messages: list[dict[str, Any]] = []
        self.received: defaultdict[int, bytearray] = defaultdict(bytearray)
        self.ended: list[int] = []
        self.closed: set[int] = set()
        self.room: defaultdict[int, int] = defaultdict(lambda: INITIAL_CREDIT)
        self.answered = b""
        self.hung_up = False

    # --- moving bytes ---

    def raw(self, data: bytes) -> None:
        """Queue bytes as they are."""
        self._out += data

    def step(self, timeout_s: float) -> None:
        """Send and receive what is possible; wait for something if nothing is."""
        writers = [self.socket] if self._out else []
        ready = select.select([self.socket], writers, [], timeout_s)
        if ready[1]:
            del self._out[: self.socket.send(self._out)]
        if ready[0]:
            self._receive()

    def _receive(self) -> None:
        try:
            data = self.socket.recv(1 << 20)
        except ConnectionResetError:
            data = b""
        if not data:
            self.hung_up = True
        for frame in self._parser.feed(data):
            self._note(frame)

    def _note(self, frame: Frame) -> None:
        if frame.kind is Kind.SYNC:
            self.answered = frame.payload
        elif frame.kind is Kind.MESSAGE:
            self.messages.append(frame.message)
        elif frame.kind is Kind.DATA:
            assert frame.stream not in self.ended
            self.received[frame.stream] += frame.payload
            if self.generous:
                self.raw(pack_credit(frame.stream, len(frame.payload)))
        elif frame.kind is Kind.EOF:
            assert frame.stream not in self.ended
            self.ended.append(frame.stream)
        elif frame.kind is Kind.CREDIT:
            self.room[frame.stream] += credit_of(frame.payload)
            assert self.room[frame.stream] <= INITIAL_CREDIT
        else:
            self.closed.add(frame.stream)

    def until(self, done: Callable[[], bool]) -> None:
        """Move bytes until something is so."""
        deadline = time.monotonic() + WAIT_S
        while not done():
            assert time.monotonic() < deadline, f"still waiting; {self.messages}"
            assert not self.hung_up, f"the agent has gone; {self.messages}"
            self.step(0.5)

    def idle(self, seconds: float) -> None:
        """Move bytes until nothing more comes for a while."""
        while True:
            writers = [self.socket] if self._out else []
            if not any(select.select([self.socket], writers, [], seconds)):
                return
            self.step(0)

    # --- conversations ---

    def sync(self) -> None:
        """Begin a conversation."""
        self._nonces += 1
        nonce = self._nonces.to_bytes(16, "big")
        self._parser.reset()
        self.fresh()
        self.raw(pack_sync(nonce))
        self.until(lambda: self.answered == nonce)

    def say(self, kind: str, **fields: Any) -> None:
        """Queue a message."""
        self.raw(pack_message({"type": kind, **fields}))

    def message(self, kind: str) -> dict[str, Any]:
        """Wait for the next message, which must be of this type."""
        self.until(lambda: bool(self.messages))
        message = self.messages.pop(0)
        assert message["type"] == kind, message
        return message

    def ask(self, kind: str, **fields: Any) -> dict[str, Any]:
        """Send a request on the control port and wait for its answer."""
        self.say(kind, id=7, **fields)
        self.until(lambda: any(message.get("id") == 7 for message in self.messages))
        return self.messages.pop()

    def start(self, *argv: str, **fields: Any) -> None:
        """Ask for a job."""
        message: dict[str, Any] = {
            "argv": argv,
            "env": {},
            "cwd": "/",
            "umask": 0o22,
            "limits": {},
            "tty": None,
            "root": False,
            "stdin": True,
            "workdir": None,
        }
        self.say("start", **{**message, **fields})

    def write(self, stream: Stream, data: bytes) -> None:
        """Send bytes of a stream as credit allows, until all are sent or not wanted."""
        view = memoryview(data)
        while view and stream not in self.closed:
            self.until(lambda: self.room[stream] > 0 or stream in self.closed)
            piece = view[: min(self.room[stream], PIECE)]
            self.raw(pack(Kind.DATA, stream, bytes(piece)))
            self.room[stream] -= len(piece)
            view = view[len(piece) :]
            self.step(0)

    def end(self, stream: Stream) -> None:
        """Send the end of a stream."""
        self.raw(pack(Kind.EOF, stream))

    def run(self, *argv: str, stdin: bytes = b"", **fields: Any) -> dict[str, Any]:
        """Run a job to its end; gives its ``exit`` or ``failed`` message."""
        self.sync()
        self.start(*argv, **fields)
        self.write(Stream.STDIN, stdin)
        self.end(Stream.STDIN)
        self.until(self.over)
        assert self.messages.pop()["type"] == "bye"
        return self.messages.pop()

    def over(self) -> bool:
        """Whether the agent said ``bye``."""
        return any(message["type"] == "bye" for message in self.messages)

    def text(self, stream: Stream = Stream.STDOUT) -> str:
        """Give what came on a stream."""
        return self.received[stream].decode("utf-8", "surrogateescape")

    def files(self) -> list[tuple[Entry, bytes]]:
        """Give the entries that came back, which must be complete."""
        parser = EntryParser()
        found: list[tuple[Entry, bytes]] = []
        for piece in parser.feed(bytes(self.received[Stream.FILES_OUT])):
            if isinstance(piece, Entry):
                found.append((piece, b""))
            else:
                found[-1] = (found[-1][0], found[-1][1] + piece)
        assert parser.ended
        return found


class Agent:
    """A running agent with both its ports."""

    def __init__(self, process: subprocess.Popen[bytes], control: Peer, session: Peer) -> None:
        self.process = process
        self.control = control
        self.session = session
        self.hello: dict[str, Any] = {}

    def descriptors(self) -> int:
        """Count its open descriptors."""
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def children(self) -> list[int]:
        """List its child processes, zombies included."""
        path = f"/proc/{self.process.pid}/task/{self.process.pid}/children"
        return [int(pid) for pid in Path(path).read_text().split()]

    def resident_kib(self) -> int:
        """Give its memory."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


def command(root: Path, *options: str) -> list[str]:
    """Give the command of an agent that leaves this computer alone."""
    start = [sys.executable, "-S", "-m", "mayfly.guest.agent"]
    return [*start, "--test-root", str(root), *options]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(SOURCE), "HOME": "/nowhere", "USER": "somebody"}


@contextmanager
def running_agent(root: Path, *options: str) -> Iterator[Agent]:
    """Start an agent on two socket pairs; it must end by itself when they are closed."""
    pairs = {name: socket.socketpair() for name in ("control", "session")}
    fds = {name: pair[1].fileno() for name, pair in pairs.items()}
    ways = [word for name, fd in fds.items() for word in (f"--{name}-fd", str(fd))]
    process = subprocess.Popen(
        command(root, *ways, *options), pass_fds=list(fds.values()), env=environment()
    )
    for _, theirs in pairs.values():
        theirs.close()
    try:
        yield Agent(process, Peer(pairs["control"][0]), Peer(pairs["session"][0]))
        for ours, _ in pairs.values():
            ours.close()
        assert process.wait(WAIT_S) == 0
    finally:
        for ours, _ in pairs.values():
            ours.close()
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            process.wait()


def alive(pid: int) -> bool:
    """Tell whether a process runs; a zombie does not."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return text.rpartition(")")[2].split()[0] not in "ZX"


def assert_soon(condition: Callable[[], bool]) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        select.select([], [], [], 0.01)


def sh(script: str) -> tuple[str, str, str]:
    """Give the command that runs a script."""
    return ("sh", "-c", script)


def exited(code: int) -> dict[str, object]:
    """Give the message for an exit status."""
    return {"type": "exit", "code": code, "signal": None}
