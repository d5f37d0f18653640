"""Stands in for a machine: a namespace whose card is wired to the machine's tap device."""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from mayfly.command import run
from mayfly.engine import linux
from mayfly.engine.forked import forked, report, wait_for_end
from mayfly.engine.network.netns import open_tap, set_address
from mayfly.engine.privileges import unshare

PROBE = """
import errno, json, socket, sys, time
kind, host, port, data, limit_s = json.loads(sys.argv[1])
begin = time.monotonic()
found = ""
s = socket.socket(socket.AF_INET, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM)
s.settimeout(limit_s)
try:
    s.connect((host, port))
    if data:
        s.sendall(bytes.fromhex(data))
        found = s.recv(65536).hex()
    said = "ok"
except TimeoutError:
    said = "timeout"
except OSError as error:
    said = errno.errorcode.get(error.errno, str(error))
print(json.dumps([said, time.monotonic() - begin, found]))
"""

FETCH = """
import sys, urllib.error, urllib.request
try:
    answer = urllib.request.urlopen(sys.argv[1], timeout=15)
except urllib.error.HTTPError as error:
    answer = error
print(answer.status, answer.read().decode(), sep="\\n", end="")
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What a probe met with."""

    said: str
    """``ok``, ``timeout``, or the name of the error."""
    seconds: float
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Guest:
    """The machine's side of the wire."""

    namespace: str

    def argv(self, *words: str) -> list[str]:
        """Give the argument list that runs a command there."""
        return ["nsenter", f"--net={self.namespace}", *words]

    def ask(
        self, kind: str, host: str, port: int, data: bytes = b"", *, limit_s: float = 8
    ) -> Reply:
        """Connect, and send something if there is; ``kind`` is ``tcp`` or ``udp``."""
        words = json.dumps([kind, host, port, data.hex(), limit_s])
        out = run(self.argv(sys.executable, "-I", "-c", PROBE, words), timeout_s=30).stdout
        said, seconds, found = json.loads(out)
        return Reply(said=said, seconds=seconds, data=bytes.fromhex(found))

    def fetch(self, url: str, env: Mapping[str, str]) -> tuple[int, str]:
        """Get a page as a job would, with the environment of one; gives status and content."""
        argv = self.argv(sys.executable, "-I", "-c", FETCH, url)
        out = run(argv, timeout_s=30, env={**os.environ, **env}).text()
        status, _, content = out.partition("\n")
        return int(status), content


@contextlib.contextmanager
def guest_on(tap: int, network: Mapping[str, object]) -> Iterator[Guest]:
    """Wire a namespace, set up as the agent would, to a tap device."""

    def live(channel: socket.socket) -> None:
        unshare(linux.CLONE_NEWNET)
        card = open_tap("eth0")
        set_address("lo", "127.0.0.1")
        set_address("eth0", str(network["address"]))
        if network["gateway"]:
            run(["ip", "route", "add", "default", "via", str(network["gateway"])], timeout_s=10)
        report(channel, [card])
        wait_for_end(channel)

    with forked(live, name="guest") as guest:
        (card,) = guest.receive()
        with forked(lambda channel: _carry(channel, tap, card), name="wire", keep=[tap, card]):
            os.close(card)
            yield Guest(namespace=f"/proc/{guest.pid}/ns/net")


def _carry(channel: socket.socket, one: int, other: int) -> None:
    across = {one: other, other: one}
    while True:
        ready, _, _ = select.select([channel.fileno(), *across], [], [])
        if channel.fileno() in ready:
            return
        for source in ready:
            with contextlib.suppress(BlockingIOError):
                os.write(across[source], os.read(source, 1 << 16))
