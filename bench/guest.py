"""A guest behind a QEMU line written by hand, talked to by our agent, with nothing else of ours.

It is what a machine of Mayfly is measured against: no isolation, no template, no records.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.client import BenchError, Child
from bench.floor import renew
from bench.setting import Setting
from mayfly.engine.agentdisk import agent_disk
from mayfly.engine.caller import account_of_caller
from mayfly.engine.control import Control
from mayfly.engine.machine import account_message
from mayfly.engine.template import Engine
from mayfly.guest.framing import (
    NONCE_LENGTH,
    Frame,
    Kind,
    Parser,
    Stream,
    pack,
    pack_credit,
    pack_message,
    pack_sync,
)

BOOT_LIMIT_S = 300.0
RUN_LIMIT_S = 300.0
LISTEN_LIMIT_S = 20.0
PORTS = ("control", "session")


@dataclass(slots=True, kw_only=True)
class Guest:
    """A running guest; its commands run as root."""

    child: Child
    place: Path
    gone: int

    def follow(self, pid: int) -> None:
        """Go on with another QEMU, in which the guest was restored."""
        os.close(self.gone)
        self.gone = os.pidfd_open(pid)

    def run(self, script: str, limit_s: float = RUN_LIMIT_S) -> str:
        """Run a shell script to its end, which must be a success; gives what it printed."""
        with connect(self.place / "session", self.child) as port:
            talk = _Talk(port, self.gone)
            code = talk.run(script, time.monotonic() + limit_s)
        output, errors = (bytes(text).decode("utf-8", "replace") for text in talk.texts.values())
        if code != 0:
            raise BenchError(f"exit status {code} in the guest: {errors.strip() or output.strip()}")
        return output


class _Talk:
    """One conversation on the session port: just what a script without input needs."""

    def __init__(self, port: socket.socket, gone: int) -> None:
        self.texts = {Stream.STDOUT: bytearray(), Stream.STDERR: bytearray()}
        self._port = port
        self._gone = gone
        self._nonce = os.urandom(NONCE_LENGTH)
        self._ours = False
        self._code: int | None = None

    def run(self, script: str, deadline: float) -> int:
        start = pack_message(_start(script))
        end_of_input = pack(Kind.EOF, Stream.STDIN)
        self._port.sendall(pack_sync(self._nonce) + start + end_of_input)
        parser = Parser()
        while self._code is None:
            left = deadline - time.monotonic()
            port = self._port.fileno()
            ready = select.select([port, self._gone], [], [], max(0.0, left))[0]
            if port not in ready:
                raise BenchError("the guest ended" if ready else f"no end in time of: {script}")
            for frame in parser.feed(self._port.recv(1 << 16)):
                self._take(frame)
        return self._code

    def _take(self, frame: Frame) -> None:
        if frame.kind is Kind.SYNC:
            self._ours = frame.payload == self._nonce
        elif not self._ours:
            return
        elif frame.kind is Kind.DATA:
            self.texts[Stream(frame.stream)] += frame.payload
            self._port.sendall(pack_credit(frame.stream, len(frame.payload)))
        elif frame.message.get("type") == "failed":
            raise BenchError(f"the guest could not start the script: {frame.message}")
        elif frame.message.get("type") == "exit":
            code = frame.message.get("code")
            self._code = code if isinstance(code, int) else 255


def _start(script: str) -> dict[str, object]:
    return {
        "type": "start",
        "argv": ["/bin/sh", "-ec", script],
        "env": {"LC_ALL": "C"},
        "cwd": "/",
        "umask": 0o22,
        "limits": {},
        "tty": None,
        "root": True,
        "stdin": True,
        "workdir": None,
    }


def guest_argv(
    engine: Engine, place: Path, disk: Path, *, memory_mib: int, more: Sequence[str] = ()
) -> list[str]:
    """Write the QEMU line: what anybody would write, and the two ports of the agent."""
    if engine.qemu.root:
        raise BenchError(f"no QEMU that lives in a tree is measured: {engine.qemu.root}")
    agent = agent_disk(engine.paths.cache)
    words = [
        *(engine.qemu.path, "-nodefaults", "-no-user-config", "-display", "none"),
        *("-machine", "q35", "-accel", engine.accelerator),
        *("-cpu", "host" if engine.accelerator == "kvm" else "max"),
        *("-smp", "1", "-m", str(memory_mib)),
        *("-drive", f"file={disk},format=qcow2,if=none,id=disk,cache=unsafe,discard=unmap"),
        *("-device", "virtio-blk-pci,drive=disk,bootindex=1"),
        *("-drive", f"file={agent},format=raw,if=none,id=agent,readonly=on"),
        *("-device", "virtio-blk-pci,drive=agent,serial=mayfly-agent"),
        *("-device", "virtio-rng-pci", "-device", "virtio-serial-pci"),
        *("-serial", f"file:{place}/console"),
        *("-chardev", f"socket,id=qmp,path={place}/qmp,server=on,wait=off"),
        *("-mon", "chardev=qmp,mode=control"),
    ]
    for name in PORTS:
        words += ["-chardev", f"socket,id={name},path={place}/{name},server=on,wait=off"]
        words += ["-device", f"virtserialport,chardev={name},name=org.mayfly.{name}"]
    return [*words, *more]


@contextlib.contextmanager
def booted(
    setting: Setting, place: Path, argv: Sequence[str], pass_fds: Sequence[int] = ()
) -> Iterator[Guest]:
    """Boot a guest and make it root's; QEMU is killed at the end."""
    child = setting.children.start(argv, bare=True, pass_fds=pass_fds)
    guest = Guest(child=child, place=place, gone=os.pidfd_open(child.process.pid))
    try:
        with connect(place / "control", child) as port:
            control = Control(port, guest.gone)
            control.begin()
            control.hello(timeout_s=BOOT_LIMIT_S)
            control.request(renew())
            control.request(claim_for_root())
            yield guest
    finally:
        os.close(guest.gone)
        setting.children.stop(child)


def claim_for_root(network: dict[str, object] | None = None) -> dict[str, object]:
    """Give the message that makes a machine the caller's, with root."""
    account = account_message(account_of_caller())
    return {
        "type": "claim",
        "account": account,
        "root": True,
        "network": network,
        "shares": [],
        "time_ns": time.time_ns(),
    }


def connect(path: Path, child: Child) -> socket.socket:
    """Connect to a socket that a QEMU is about to make."""
    deadline = time.monotonic() + LISTEN_LIMIT_S
    connection = socket.socket(socket.AF_UNIX)
    while True:
        try:
            connection.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            if child.process.poll() is not None or time.monotonic() > deadline:
                connection.close()
                raise BenchError(f"QEMU does not listen: {child.complained()}") from None
            time.sleep(0.005)
        else:
            return connection
