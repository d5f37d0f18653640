"""What machines of batch jobs have used: an event for each, in files that are only appended to.

One file a day in a directory of root's, an object in each line; whoever collects them may do so at
any time, and tells doubles by their id. A machine's guest is not asked: all is what the host sees.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import os
import secrets
import socket
import time
import uuid
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mayfly.engine.records import Record
from mayfly.engine.template import DISK
from mayfly.host.caller import Caller
from mayfly.host.rights import Right
from mayfly.host.state import Hosted, Service
from mayfly.host.wish import text_of
from mayfly.host.work import Channel, Step, work

USAGE_FORMAT = 1
KIND = "machine-usage"
DIRECTORY = "usage"
KEPT_DAYS = 90
LOOK_LIMIT_S = 60.0
SHOWN_MOST = 20
TICKS = os.sysconf("SC_CLK_TCK")
_BLOCK = 512

log = logging.getLogger("mayfly.host")
Measures = dict[str, int | float]


# --- measuring -----------------------------------------------------------------------------------


def measure(pid: int, disk: Path, *, proc: Path = Path("/proc")) -> Measures:
    """Give what a QEMU has used so far; of one that has ended only what is left to be seen."""
    found: Measures = {}
    place = proc / str(pid)
    with contextlib.suppress(OSError, ValueError):
        # Behind the name, which may have blanks in it: user and system time, in clock ticks.
        user, system = (place / "stat").read_text().rpartition(")")[2].split()[11:13]
        found["cpu_s"] = round((int(user) + int(system)) / TICKS, 2)
    # One that has ended has no memory any more.
    with contextlib.suppress(OSError, ValueError, KeyError):
        fields = _fields(place / "status")
        found["memory_peak_bytes"] = int(fields["VmHWM"].removesuffix("kB")) << 10
    with contextlib.suppress(OSError, ValueError, KeyError):
        fields = _fields(place / "io")
        found["read_bytes"] = int(fields["rchar"])
        found["written_bytes"] = int(fields["wchar"])
    with contextlib.suppress(OSError):
        found["disk_bytes"] = disk.stat().st_blocks * _BLOCK
    return found


def _fields(file: Path) -> Mapping[str, str]:
    pairs = (line.partition(":") for line in file.read_text().splitlines())
    return {name: value.strip() for name, _, value in pairs}


def sample(hosted: Hosted) -> None:
    """Remember what a machine has used: its QEMU may be gone the next time we look."""
    if hosted.machine is not None and hosted.record.job:
        disk = hosted.place.path / DISK
        hosted.used |= measure(hosted.machine.process.pid, disk)


# --- the event -----------------------------------------------------------------------------------


def event_of(
    record: Record, right: Right | None, used: Measures, start_ms: Mapping[str, float], now: float
) -> dict[str, Any]:
    """Give the event of a machine that ends now."""
    cluster, job, part = (*record.job.split("/"), "", "", "")[:3]
    identity = {} if right is None else dict(right.identity)
    return {
        "format": USAGE_FORMAT,
        "id": str(event_id(now)),
        "kind": KIND,
        "at": datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds"),
        "host": socket.gethostname(),
        "cluster": cluster,
        "job": job,
        "part": part,
        "array_task": identity.get("array_task", ""),
        "restart": identity.get("restart", ""),
        "submitted_at": identity.get("submitted_at", ""),
        "uid": record.owner,
        "machine": record.id,
        "image": record.image_pin,
        "cpus": record.cpus,
        "memory_mib": record.memory_mib,
        "network": record.network,
        "started_at": record.created_at,
        "ended_at": now,
        "start_ms": dict(start_ms),
        **used,
    }


def event_id(now: float) -> uuid.UUID:
    """Make an id that sorts by time (UUID version 7, RFC 9562)."""
    number = (int(now * 1000) & ((1 << 48) - 1)) << 80 | secrets.randbits(80)
    number = number & ~(0xF << 76) | 7 << 76
    return uuid.UUID(int=number & ~(0b11 << 62) | 0b10 << 62)


def note_end(service: Service, hosted: Hosted, why: str) -> None:
    """Write down what a machine of a job has used, once; that there is no room ends nothing."""
    record, now = hosted.record, time.time()
    if record.owner is None or not record.job or hosted.noted:
        return
    hosted.noted = True
    sample(hosted)
    right = hosted.right or service.rights.find(record.job)
    event = {**event_of(record, right, hosted.used, hosted.start_ms, now), "why": why}
    try:
        write_event(service.settings.state / DIRECTORY, event)
    except OSError as error:
        log.warning("what machine %s has used is not written down: %s", hosted.id, error)


def write_event(directory: Path, event: Mapping[str, Any]) -> None:
    """Append an event to the file of its day; raises ``OSError``."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    file = directory / f"{event['at'][:10]}.jsonl"
    with open(file, "a+b") as stream:
        # A line that was cut short, with the host, is not to spoil this one.
        if stream.seek(0, os.SEEK_END) and os.pread(stream.fileno(), 1, stream.tell() - 1) != b"\n":
            stream.write(b"\n")
        stream.write(json.dumps(event).encode() + b"\n")


def prune(directory: Path, now: float) -> None:
    """Remove files of days that are long over."""
    first = datetime.fromtimestamp(now - KEPT_DAYS * 86_400, UTC).date().isoformat()
    for file in directory.glob("*.jsonl"):
        if file.stem < first:
            with contextlib.suppress(OSError):
                file.unlink()


# --- showing -------------------------------------------------------------------------------------


def read_events(directory: Path, job: str, uid: int) -> Iterator[dict[str, Any]]:
    """Give the events of a job, the latest first; root sees those of all users."""
    mark = json.dumps(job).encode()
    for file in sorted(directory.glob("*.jsonl"), reverse=True):
        with contextlib.suppress(OSError), open(file, "rb") as stream:
            # Most lines are of other jobs, and are not looked at closely.
            for line in [line for line in stream if mark in line][::-1]:
                event = _parsed(line)
                if event.get("job") == job and uid in (0, event.get("uid")):
                    yield event


def _parsed(line: bytes) -> dict[str, Any]:
    with contextlib.suppress(ValueError):
        event = json.loads(line)
        if isinstance(event, dict):
            return event
    return {}


def show_usage(service: Service, caller: Caller, message: dict[str, Any]) -> Step[None]:
    """Answer with what the machines of a job have used, of those that have ended."""
    job, directory, uid = (
        text_of(message, "job", 64),
        service.settings.state / DIRECTORY,
        caller.uid,
    )

    def body(channel: Channel) -> None:
        found = read_events(directory, job, uid)
        channel.done({"found": list(itertools.islice(found, SHOWN_MOST))})

    done = yield from work(body, name="reading what was used", limit_s=LOOK_LIMIT_S)
    caller.items(list(done.words["found"]))
