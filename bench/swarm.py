"""Hosts as network namespaces on one bridge, each behind a link of 100 Mbit/s both ways."""

from __future__ import annotations

import contextlib
import json
import os
import random
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.client import REPOSITORY, BenchError
from mayfly.images.chunks.content import content_of
from mayfly.images.chunks.cut import cut
from mayfly.images.chunks.gather import take_local
from mayfly.images.chunks.have import INDEX, open_have
from mayfly.images.chunks.index import Index, render

RATE = "100mbit"
PORT = 7575
_PREFIX = "mayfly-swarm-"
_SOURCE = 1
_LIMIT_S = 900.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """The hosts; number 1 is the source."""

    place: Path
    index: Index
    hosts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Swarmed:
    """How a fetch by several hosts went."""

    seconds: float
    """Until the last had all."""
    source_bytes: int


@contextlib.contextmanager
def fleet(place: Path, mib: int, hosts: int) -> Iterator[Fleet]:
    """Make the hosts, and a disk of noise at the source."""
    index = _make_disk(place / "source", mib)
    (place / "index").write_text(render(index))
    _clear()
    try:
        _ip("netns", "add", f"{_PREFIX}0")
        _in(0, "ip", "link", "add", "bridge", "type", "bridge")
        _in(0, "ip", "link", "set", "bridge", "up")
        for number in range(_SOURCE, _SOURCE + hosts + 1):
            _add_host(number)
        yield Fleet(place=place, index=index, hosts=hosts)
    finally:
        _clear()


def _make_disk(source: Path, mib: int) -> Index:
    source.mkdir()
    disk, chance = source / "noise", random.Random(1)  # noqa: S311  # chance, not secrecy
    with disk.open("wb") as file:
        for _ in range(mib):
            file.write(chance.randbytes(1 << 20))
    with content_of(disk) as content:
        index = cut(content, "0" * 128)
        place = source / f"index-{index.key}"
        place.mkdir()
        with open_have(index, place) as have:
            take_local(have, [(index, content)])
    (place / INDEX).write_text(render(index))
    return index


def _add_host(number: int) -> None:
    _ip("netns", "add", f"{_PREFIX}{number}")
    link = ("ip", "link", "add", f"host{number}", "type", "veth", "peer", "name", "up0")
    _in(0, *link, "netns", f"{_PREFIX}{number}")
    _in(0, "ip", "link", "set", f"host{number}", "master", "bridge", "up")
    _in(number, "ip", "link", "set", "lo", "up")
    _in(number, "ip", "address", "add", f"{address(number)}/24", "dev", "up0")
    _in(number, "ip", "link", "set", "up0", "up")
    shape = ("root", "tbf", "rate", RATE, "burst", "128kb", "latency", "100ms")
    _in(number, "tc", "qdisc", "add", "dev", "up0", *shape)
    _in(0, "tc", "qdisc", "add", "dev", f"host{number}", *shape)


def address(number: int) -> str:
    """Give the address of a host."""
    return f"198.18.0.{number}"


def _clear() -> None:
    for name in os.listdir("/run/netns") if os.path.isdir("/run/netns") else ():
        if name.startswith(_PREFIX):
            _ip("netns", "delete", name)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, timeout=30)


def _in(number: int, *words: str) -> None:
    _ip("netns", "exec", f"{_PREFIX}{number}", *words)


# --- runs ----------------------------------------------------------------------------------------


def in_chunks(made: Fleet, count: int) -> Swarmed:
    """Have so many hosts fetch the disk at once, from the source and from each other."""
    with contextlib.ExitStack() as stack:
        numbers = range(_SOURCE + 1, _SOURCE + 1 + count)
        source = f"{address(_SOURCE)}:{PORT}"
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=made.place)))
        stack.enter_context(_host(_SOURCE, "give", str(made.place / "source"), source))
        words = {
            number: (
                *("fetch", str(work / str(number)), str(made.place / "index")),
                *(f"{address(number)}:{PORT}", source),
                *(f"{address(other)}:{PORT}" for other in numbers if other != number),
            )
            for number in numbers
        }
        children = [stack.enter_context(_host(number, *words[number])) for number in numbers]
        found = _run(children)
        return Swarmed(
            seconds=max(each["seconds"] for each in found),
            source_bytes=sum(each["fetched"].get(source, 0) for each in found),
        )


def by_http(made: Fleet, count: int, mib: int) -> float:
    """Have so many hosts fetch so much at once by plain HTTP; gives the seconds of the last."""
    with contextlib.ExitStack() as stack:
        web = made.place / "web"
        web.mkdir(exist_ok=True)
        (web / "file").write_bytes(os.urandom(mib << 20))
        words = ("http.server", str(PORT), "--bind", address(_SOURCE), "--directory", str(web))
        stack.enter_context(_process(_SOURCE, *words))
        _await_port(_SOURCE)
        url = f"http://{address(_SOURCE)}:{PORT}/file"
        numbers = range(_SOURCE + 1, _SOURCE + 1 + count)
        children = [stack.enter_context(_host(number, "plain", url)) for number in numbers]
        return float(max(each["seconds"] for each in _run(children)))


def _await_port(number: int) -> None:
    """Wait until a web server answers."""
    probe = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 1)"
    words = [sys.executable, "-c", probe, address(number), str(PORT)]
    argv = ["ip", "netns", "exec", f"{_PREFIX}{number}", *words]
    deadline = time.monotonic() + 30
    while subprocess.run(argv, check=False, capture_output=True, timeout=30).returncode:
        if time.monotonic() > deadline:
            raise BenchError("the web server of the swarm does not answer")
        time.sleep(0.1)


Child = subprocess.Popen[str]


def _run(children: Sequence[Child]) -> list[dict[str, Any]]:
    """Let all begin at once, and give what each of them says at its end."""
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
    return [json.loads(_line(child)) for child in children]


@contextlib.contextmanager
def _host(number: int, *words: str) -> Iterator[Child]:
    """Run a host until the end; it is ready to begin."""
    with _process(number, "bench.swarm_host", *words) as child:
        if _line(child) != "ready":
            raise BenchError(f"host {number} of the swarm is not ready")
        yield child


@contextlib.contextmanager
def _process(number: int, *words: str) -> Iterator[Child]:
    argv = ["ip", "netns", "exec", f"{_PREFIX}{number}", sys.executable, "-m", *words]
    child = subprocess.Popen(
        argv,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stderr=subprocess.DEVNULL,
    )
    try:
        yield child
    finally:
        # 'ip netns exec' becomes the program itself.
        child.kill()
        child.communicate()


def _line(child: Child) -> str:
    assert child.stdout is not None
    if not select.select([child.stdout], [], [], _LIMIT_S)[0]:
        raise BenchError(f"a host of the swarm did not end within {_LIMIT_S:g} s")
    line = child.stdout.readline().strip()
    if not line:
        raise BenchError("a host of the swarm broke")
    return line
