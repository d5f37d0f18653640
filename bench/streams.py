"""How fast a job's standard streams are, and that every byte arrives."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable

from bench.client import BenchError
from bench.report import Findings, Metric, median, spread
from bench.setting import IMAGE, Setting

MIB = 1 << 20
LINE = "Every job gets a machine of its own, for as long as the job lives\n"
"""Not all zero, and cheap to make in the machine."""
PIECE_MIB = 16
"""The machine makes so much of it once, and sends it again and again."""
OUT = f"""\
yes "$1" | head -c {PIECE_MIB}M > /tmp/piece
for number in $(seq "$2"); do
    set -- "$@" /tmp/piece
done
shift 2
exec cat "$@"
"""
RANDOM_MIB = 64
GOAL_MIB_S = 40
RUN = ("run", IMAGE, "--no-workdir", "--")


def streams(setting: Setting) -> Findings:
    """Move a pattern out and in against the clock, and compare checksums."""
    setting.warm()
    size = setting.counts.stream_mib * MIB
    pattern = _memory(_pattern(size))
    try:
        expected = checksum(pattern)
        out = _passes(setting, "out", lambda: _out(setting, size, expected))
        into = _passes(setting, "in", lambda: _in(setting, pattern, size))
        setting.say("streams: checksums of what goes in")
        _compare(setting, pattern, expected)
    finally:
        os.close(pattern)
    random = _memory(os.urandom(min(RANDOM_MIB * MIB, size)))
    try:
        setting.say("streams: checksums of random bytes, in and out")
        _compare(setting, random, checksum(random))
        _echo(setting, random)
    finally:
        os.close(random)
    return _findings(size, out, into)


def _passes(setting: Setting, name: str, measure: Callable[[], float]) -> list[float]:
    seconds = []
    for number in range(setting.counts.passes):
        setting.say(f"streams: {name}, pass {number + 1} of {setting.counts.passes}")
        seconds.append(measure())
    return seconds


def _out(setting: Setting, size: int, expected: str) -> float:
    target = os.memfd_create("bench-out")
    try:
        words = ("sh", "-c", OUT, "sh", LINE.strip(), str(size // (PIECE_MIB * MIB)))
        with setting.children.done(setting.start(*RUN, *words, stdout=target)) as child:
            seconds = child.seconds
        if checksum(target) != expected:
            raise BenchError(
                f"what came out is not what was sent: {os.fstat(target).st_size} bytes"
            )
    finally:
        os.close(target)
    return seconds


def _in(setting: Setting, pattern: int, size: int) -> float:
    with setting.children.done(setting.start(*RUN, "wc", "-c", stdin=_again(pattern))) as child:
        if child.said() != str(size):
            raise BenchError(f"of {size} bytes that went in the job read {child.said()}")
        return child.seconds


def _compare(setting: Setting, source: int, expected: str) -> None:
    with setting.children.done(setting.start(*RUN, "sha256sum", stdin=_again(source))) as child:
        if child.said().split()[:1] != [expected]:
            raise BenchError(f"what arrived has the checksum {child.said()}, not {expected}")


def _echo(setting: Setting, source: int) -> None:
    target = os.memfd_create("bench-echo")
    try:
        child = setting.start(*RUN, "cat", stdin=_again(source), stdout=target)
        with setting.children.done(child):
            if checksum(target) != checksum(source):
                raise BenchError("what came back from 'cat' is not what was sent")
    finally:
        os.close(target)


def _pattern(size: int) -> bytes:
    line, piece = LINE.encode(), PIECE_MIB * MIB
    return (line * (piece // len(line) + 1))[:piece] * (size // piece)


def _memory(content: bytes) -> int:
    """Put bytes into a file in memory: no disk shall slow them down."""
    fd = os.memfd_create("bench-pattern")
    with open(fd, "wb", closefd=False) as file:
        file.write(content)
    return fd


def _again(fd: int) -> int:
    """Give a file to be read from its start; it is read by one process at a time."""
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def checksum(fd: int) -> str:
    """Give the SHA-256 of a whole file."""
    with open(fd, "rb", closefd=False) as file:
        file.seek(0)
        return hashlib.file_digest(file, "sha256").hexdigest()


def _findings(size: int, out: list[float], into: list[float]) -> Findings:
    mib = size // MIB
    against = f"{mib} MiB, equal checksums, the machine's start and end included"
    metrics = tuple(
        Metric(
            key=key,
            value=mib / median(seconds),
            unit="MiB/s",
            goal=GOAL_MIB_S,
            better="higher",
            against=against,
        )
        for key, seconds in (("stream_out_mib_s", out), ("stream_in_mib_s", into))
    )
    notes = (f"{mib} MiB out: {spread(out)}", f"{mib} MiB in: {spread(into)}")
    return Findings(metrics=metrics, notes=notes)
