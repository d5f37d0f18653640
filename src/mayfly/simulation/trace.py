"""Read traces of jobs in the Standard Workload Format 2.2 of the Parallel Workloads Archive.

A line has 18 numbers; we use the 2nd (submitted), 4th (run time), 5th (processors used) and 8th
(processors asked for). -1 means unknown. Lines that begin with ``;`` are comments.
"""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from mayfly.errors import Invalid, Missing

FIELDS = 18
LINE_MOST = 4096
JOBS_MOST = 5_000_000
CPUS_MOST = 65_536
SECONDS_MOST = 100 * 366 * 86_400
RUN_MOST_S = 366 * 86_400
NUMBER_MOST = 1 << 53
GZIP = b"\x1f\x8b"


@dataclass(frozen=True, slots=True, order=True)
class TraceJob:
    """One job that ran; all times in seconds since the trace began."""

    submit_s: float
    run_s: float
    cpus: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """The jobs of a trace by time of submission, and what was left out."""

    jobs: tuple[TraceJob, ...]
    dropped: int
    """Jobs without run time or processors: they never ran."""

    @property
    def core_hours(self) -> float:
        """Give what all jobs compute."""
        return sum(job.cpus * job.run_s for job in self.jobs) / 3600


def read_trace(file: Path) -> Trace:
    """Read a trace, plain or compressed by gzip.

    Raises ``Missing`` when there is none, and ``Invalid``, naming file and line, when it is no such
    trace.
    """
    try:
        with _opened(file) as lines:
            return parse_trace(lines, str(file))
    except FileNotFoundError as error:
        raise Missing(f"there is no {file}") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise Invalid(f"{file} is cut off or damaged: {error}") from error
    except OSError as error:
        raise Invalid(f"cannot read {file}: {error.strerror or error}") from error


@contextmanager
def _opened(file: Path) -> Iterator[Iterable[bytes]]:
    with file.open("rb") as raw:
        packed = raw.read(2) == GZIP
        raw.seek(0)
        if not packed:
            yield _bounded(raw, str(file))
            return
        with gzip.open(raw) as plain:
            yield _bounded(plain, str(file))


def _bounded(stream: IO[bytes] | gzip.GzipFile, name: str) -> Iterator[bytes]:
    """Give lines; one without an end would fill the memory."""
    number = 0
    while line := stream.readline(LINE_MOST + 1):
        number += 1
        if len(line) > LINE_MOST:
            raise Invalid(f"{name}, line {number}: longer than {LINE_MOST} bytes")
        yield line


def parse_trace(lines: Iterable[bytes], name: str) -> Trace:
    """Read the lines of a trace; ``name`` is for messages. Raises ``Invalid``."""
    jobs: list[TraceJob] = []
    dropped = 0
    for number, line in enumerate(lines, start=1):
        words = line.split()
        if not words or words[0].startswith(b";"):
            continue
        job = _job(words, f"{name}, line {number}")
        if job is None:
            dropped += 1
            continue
        jobs.append(job)
        if len(jobs) > JOBS_MOST:
            raise Invalid(f"{name} has more than {JOBS_MOST} jobs")
    if not jobs:
        raise Invalid(f"{name} has no job that ran", hint="is it in the Standard Workload Format?")
    jobs.sort()
    first = jobs[0].submit_s
    moved = (TraceJob(job.submit_s - first, job.run_s, job.cpus) for job in jobs)
    return Trace(jobs=tuple(moved), dropped=dropped)


def _job(words: list[bytes], where: str) -> TraceJob | None:
    if len(words) != FIELDS:
        raise Invalid(f"{where}: {len(words)} fields, but the format has {FIELDS}")
    values = [_number(word, where) for word in words]
    submit_s, run_s = values[1], values[3]
    cpus = values[4] if values[4] > 0 else values[7]
    if submit_s < 0:
        raise Invalid(f"{where}: submitted at {submit_s:g}")
    if run_s < 0 or cpus <= 0:
        return None
    if cpus != int(cpus) or cpus > CPUS_MOST:
        raise Invalid(f"{where}: {cpus:g} processors")
    if submit_s > SECONDS_MOST:
        raise Invalid(f"{where}: submitted after more than 100 years")
    if run_s > RUN_MOST_S:
        raise Invalid(f"{where}: a run of more than a year")
    return TraceJob(submit_s, run_s, int(cpus))


def _number(word: bytes, where: str) -> float:
    try:
        value = float(word)
    except ValueError as error:
        raise Invalid(f"{where}: {word[:40]!r} is no number") from error
    # Python also reads "nan", "inf" and "1_0".
    if not math.isfinite(value) or abs(value) > NUMBER_MOST or b"_" in word:
        raise Invalid(f"{where}: {word[:40]!r} is no number of this format")
    return value
