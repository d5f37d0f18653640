"""A task of Slurm as the plugin tells of it, made a job of ours."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mayfly.batch.job import BatchJob
from mayfly.command import run
from mayfly.errors import Failed, Invalid, MayflyError, Unavailable
from mayfly.host.rights import CGROUPS

BATCH_STEP, INTERACTIVE_STEP = 0xFFFFFFFB, 0xFFFFFFFA
_STEPS = {BATCH_STEP: "batch", INTERACTIVE_STEP: "interactive"}
UNTOLD_MEMORY_MIB = 640
"""For a job whose memory Slurm does not count."""
STARTER_MIB = 16
"""What the starter of one more task takes: 11 measured before it has moved anything."""
ASK_LIMIT_S = 30.0
OWN_CGROUPS = Path("/proc/self/cgroup")
_NODE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,54}")
_SPAN = re.compile(r"([0-9]{1,6})(?:-([0-9]{1,6}))?")
_TIME = re.compile(r"(?:(\d{1,4})-)?(?:(\d{1,2}):)?(\d{1,3}):(\d{2})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What Slurm's controller says of a job: its user cannot change that."""

    queue: str
    wall_s: float
    submitted_at: float = 0.0
    """Seconds since the epoch; 0: not told."""
    restart: int = 0
    """How often the job was begun before: the plugin's own count stays 0."""


NOTHING = Known(queue="", wall_s=0.0)


def split_words(words: Sequence[str]) -> tuple[dict[str, str], dict[str, str]]:
    """Give the facts and the options of a call, ``NAME=VALUE`` and ``vm-NAME=VALUE``."""
    facts: dict[str, str] = {}
    options: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise Invalid(f"{word[:100]!r} is not NAME=VALUE")
        if name.startswith("vm-"):
            options[name[3:]] = value
        else:
            facts[name] = value
    return facts, options


def number(facts: Mapping[str, str], name: str) -> int:
    """Give a number that the plugin told; raises ``Failed``."""
    text = facts.get(name, "")
    if not text.isascii() or not text.isdigit() or len(text) > 20:
        raise Failed(f"Slurm's plugin told no good '{name}': {text[:40]!r}")
    return int(text)


def node_of(facts: Mapping[str, str]) -> str:
    """Name the node: what of a job is on it, in one try of the job, has one machine."""
    node = facts.get("node", "")
    if not _NODE.fullmatch(node):
        raise Failed(f"Slurm's plugin told no good 'node': {node[:100]!r}")
    return node


def cpus_of(facts: Mapping[str, str]) -> int:
    """Give the CPUs of the job on this node: all of its cores, whatever a step has of them."""
    cores, of_step = count(facts.get("cores", "")), count(facts.get("step_cores", ""))
    cpus = number(facts, "cpus")
    if not cores or not of_step:
        return max(1, cpus)
    return cores * max(1, cpus // of_step)


def memory_of(facts: Mapping[str, str]) -> int:
    """Give the memory that machine and QEMU may have: the starters of other tasks need some too."""
    granted = number(facts, "memory_mib") or UNTOLD_MEMORY_MIB
    return max(1, granted - STARTER_MIB * (max(1, number(facts, "tasks")) - 1))


def count(text: str) -> int:
    """Count what a list such as ``0-3,8`` names; 0 for what is none."""
    spans = [_SPAN.fullmatch(part) for part in text.split(",")]
    if not all(spans):
        return 0
    return sum(int(span[2] or span[1]) - int(span[1]) + 1 for span in spans if span)


def job_of(
    facts: Mapping[str, str], cluster: str, known: Known = NOTHING, cgroup: str = ""
) -> BatchJob:
    """Make the job that a task is of; all of a job on one node is one, with one machine."""
    array = number(facts, "array")
    restart = max(number(facts, "restart"), known.restart)
    return BatchJob(
        system="slurm",
        cluster=cluster,
        job=str(number(facts, "job")),
        step=f"{node_of(facts)}.{restart}",
        task=str(number(facts, "element")) if array else "",
        restart=restart,
        uid=number(facts, "uid"),
        cpus=cpus_of(facts),
        memory_mib=memory_of(facts),
        wall_s=known.wall_s,
        queue=known.queue,
        submitted_at=known.submitted_at,
        cgroup=cgroup,
        shared=True,
    )


def step_name(facts: Mapping[str, str]) -> str:
    """Name the step: a number, ``batch`` or ``interactive``."""
    step = number(facts, "step")
    return _STEPS.get(step, str(step))


def ask_slurm(job: int) -> Known:
    """Ask the controller about a job; raises ``Unavailable``."""
    argv = ["squeue", "--noheader", "--states=all", f"--jobs={job}", "--Format"]
    argv.append("partition:|,timelimit:|,submittime:|,restartcnt:|")
    try:
        text = run(argv, timeout_s=ASK_LIMIT_S).text()
    except MayflyError as error:
        raise Unavailable(f"Slurm's controller does not tell of job {job}: {error}") from error
    return parse_known(text)


def parse_known(text: str) -> Known:
    """Read what squeue says of one job."""
    fields = text.strip().split("\n")[0].split("|")
    if len(fields) < 2 or not fields[0].strip():
        raise Unavailable(f"Slurm's controller knows no such job: {text[:100]!r}")
    return Known(
        queue=fields[0].strip(),
        wall_s=parse_time(fields[1]),
        submitted_at=parse_moment(fields[2]) if len(fields) > 2 else 0.0,
        restart=_count(fields[3]) if len(fields) > 3 else 0,
    )


def _count(text: str) -> int:
    word = text.strip()
    return int(word) if re.fullmatch(r"[0-9]{1,6}", word) else 0


def parse_moment(text: str) -> float:
    """Read ``2026-12-01T02:30:31``, by the clock of the host; what is none is 0."""
    try:
        return time.mktime(time.strptime(text.strip(), "%Y-%m-%dT%H:%M:%S"))
    except (ValueError, OverflowError):
        return 0.0


def parse_time(text: str) -> float:
    """Read ``2-03:04:05``, ``10:00``; what is no time (UNLIMITED) is 0."""
    match = _TIME.fullmatch(text.strip())
    if match is None:
        return 0.0
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return float(((days * 24 + hours) * 60 + minutes) * 60 + seconds)


def find_cgroup(job: int, *, top: Path = CGROUPS, own: Path = OWN_CGROUPS) -> str:
    """Give the cgroup of a job, from the top of the tree; "" where there is none.

    Only one that is there as long as the job, as its step ``extern`` shows, will do.
    """
    unified = (top / "cgroup.controllers").exists()
    trees = [top] if unified else [top / "memory", top / "freezer"]
    try:
        found = re.findall(rf":(/\S*/job_{job})/step_[^/\s]+", own.read_text())
    except OSError:
        return ""
    for each in dict.fromkeys(found):
        if any((tree / each.lstrip("/") / "step_extern").is_dir() for tree in trees):
            return str(each)
    return ""
