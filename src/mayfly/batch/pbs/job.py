"""A job of PBS, as its server shows it, made a job of ours.

``qstat -f`` (Torque, OpenPBS) shows attributes as ``    name = value``, long ones continued in
lines that begin with a tab; hooks of OpenPBS know the same attributes as values.
"""

from __future__ import annotations

import pwd
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from mayfly.batch.job import BatchJob
from mayfly.batch.spelling import options_in
from mayfly.errors import Failed, Invalid
from mayfly.host.limits import OVERHEAD_TCG_MIB

MEMORY_MIB = 512
"""For each CPU of a job that asks for no memory."""
_ID = re.compile(r"([0-9]{1,12})(\[[0-9]{0,10}\])?(?:[.-].*)?")
_SIZE = re.compile(r"([0-9]{1,18})([kmgtp]?)([bw]?)", re.IGNORECASE)
_SHIFTS = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40, "p": 50}
_ATTRIBUTE = re.compile(r"\s+([A-Za-z_][\w.-]*) = (.*)")
_PPN = re.compile(r"(?:^|[:+])ppn=([0-9]{1,5})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What PBS says of a job."""

    job: str
    user: str
    queue: str = ""
    resources: Mapping[str, str] = field(default_factory=dict)
    """As in ``-l``."""
    variables: Mapping[str, str] = field(default_factory=dict)
    """As in ``-v``."""
    extension: str = ""
    """As in ``-W x=`` of Torque."""
    hosts: str = ""
    """``exec_host``."""
    begun: int = 1
    """How often it was begun, this time included."""


def number_of(job: str) -> str:
    """Give ``123`` or ``123[4]`` of ``123[4].server``; raises ``Failed``."""
    match = _ID.fullmatch(job)
    if match is None:
        raise Failed(f"PBS calls the job {job[:60]!r}, which is no name of a job")
    return match[1] + (match[2] or "")


# --- reading qstat -f ----------------------------------------------------------------------------


def parse_attributes(text: str) -> dict[str, str]:
    """Read the first job of ``qstat -f``, in one line each or continued."""
    found: dict[str, str] = {}
    name = ""
    for line in text.splitlines():
        if line.startswith("Job Id:") and found:
            break
        if line.startswith("\t") and name:
            found[name] += line.strip("\t")
        elif match := _ATTRIBUTE.fullmatch(line):
            name = match[1]
            found[name] = match[2]
    return found


def shown_of(job: str, values: Mapping[str, str]) -> Shown:
    """Give what ``qstat -f`` shows of a job; raises ``Failed``."""
    owner = values.get("euser") or values.get("Job_Owner", "").partition("@")[0]
    prefix = "Resource_List."
    begun = values.get("start_count") or values.get("run_count") or "1"
    return Shown(
        job=number_of(job),
        user=owner,
        queue=values.get("queue", ""),
        resources={
            name.removeprefix(prefix): value
            for name, value in values.items()
            if name.startswith(prefix)
        },
        variables=parse_variables(values.get("Variable_List", "")),
        extension=values.get("x", ""),
        hosts=values.get("exec_host", ""),
        begun=int(begun) if begun.isascii() and begun.isdigit() and len(begun) < 6 else 1,
    )


def parse_variables(text: str) -> dict[str, str]:
    """Read ``A=1,B=2``; a comma within a value has a backslash before it."""
    parts = re.split(r"(?<!\\),", text)
    pairs = (part.replace("\\,", ",").partition("=") for part in parts)
    return {name: value for name, equals, value in pairs if equals}


# --- what it is to us ----------------------------------------------------------------------------


def options_of(shown: Shown) -> dict[str, str]:
    """Give the options that a job names: ``-l`` goes before ``-W x=``, and that before ``-v``."""
    extended = {}
    for part in shown.extension.split(";"):
        match = re.fullmatch(r"\s*(\w+)[:=](.*)", part)
        if match:
            extended[match[1]] = match[2]
    return options_in({**shown.variables, **extended, **shown.resources})


def job_of(shown: Shown, cluster: str) -> BatchJob:
    """Make the job; raises ``Failed``, ``Invalid``."""
    try:
        uid = pwd.getpwnam(shown.user).pw_uid
    except (KeyError, ValueError) as error:
        raise Failed(f"the job's owner {shown.user!r} is nobody on this host") from error
    cpus = cpus_of(shown.resources)
    restart = max(0, shown.begun - 1)
    return BatchJob(
        system="pbs",
        cluster=cluster,
        job=shown.job,
        step=str(restart),
        restart=restart,
        uid=uid,
        cpus=cpus,
        memory_mib=memory_of(shown.resources, cpus),
        wall_s=float(seconds_of(shown.resources.get("walltime", ""))),
        queue=shown.queue,
    )


def cpus_of(resources: Mapping[str, str]) -> int:
    """Give the CPUs that a job has on its one host."""
    per_node = _PPN.search(resources.get("nodes", ""))
    text = per_node[1] if per_node else resources.get("ncpus", "1")
    return max(1, int(text)) if text.isascii() and text.isdigit() and len(text) < 6 else 1


def memory_of(resources: Mapping[str, str], cpus: int) -> int:
    """Give the memory of a machine and its QEMU in MiB; raises ``Invalid``."""
    if "mem" in resources:
        return max(1, bytes_of(resources["mem"]) >> 20)
    for name in ("pmem", "pvmem"):
        if name in resources:
            return max(1, (bytes_of(resources[name]) >> 20) * cpus)
    return MEMORY_MIB * cpus + OVERHEAD_TCG_MIB


def bytes_of(text: str) -> int:
    """Give bytes of ``2gb``, ``512mw`` (words of 8 bytes), ``4096``; raises ``Invalid``."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise Invalid(f"{text[:40]!r} is no size of memory")
    words = 8 if match[3].lower() == "w" else 1
    return (int(match[1]) << _SHIFTS[match[2].lower()]) * words


def seconds_of(text: str) -> int:
    """Give seconds of ``3600``, ``1:00:00``, ``2:03:04:05``; 0 for what is no time."""
    parts = text.strip().split(":")
    if not 1 <= len(parts) <= 4 or not all(re.fullmatch(r"[0-9]{1,9}", part) for part in parts):
        return 0
    total = 0
    for part, scale in zip(reversed(parts), (1, 60, 3600, 86400), strict=False):
        total += int(part) * scale
    return min(total, 999_999_999)


def check_one_host(shown: Shown) -> None:
    """Refuse a job on several hosts; raises ``Invalid``."""
    names = {part.partition("/")[0] for part in shown.hosts.split("+") if part}
    if len(names) > 1:
        raise Invalid(
            f"the job has CPUs on {len(names)} hosts, and a machine is on one",
            hint="ask for one host (OpenPBS: -l place=pack; Torque: -l nodes=1:ppn=N); "
            "without a machine it runs on several",
        )
