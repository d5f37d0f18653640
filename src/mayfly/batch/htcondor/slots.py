"""Which job a process belongs to, as the kernel and the startd of this host say: not its user.

HTCondor runs no hook as root when a job begins: its prepare hooks and the wrapper are the user's.
So root's program finds the job itself. A job's processes descend from a ``condor_starter`` whose
real user is root; that was started for one slot, which its arguments name; and the startd says what
was granted there.
"""

from __future__ import annotations

import itertools
import os
import re
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mayfly.batch.htcondor.ads import parse_ad, whole
from mayfly.batch.job import BatchJob
from mayfly.command import run
from mayfly.errors import Denied, Failed, MayflyError, Unavailable

STARTER = "condor_starter"
ANCESTORS_MOST = 64
ASK_LIMIT_S = 20.0
PROC = Path("/proc")
_SLOT = re.compile(r"slot[A-Za-z0-9_]{0,40}")
_JOB = re.compile(r"[0-9]{1,12}\.[0-9]{1,9}")
_CGROUP = re.compile(r"(?m)^\d+:(?:[^:\n]*\bmemory\b[^:\n]*)?:(/\S*condor\S*)$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """What the kernel says of a process."""

    parent: int
    uids: tuple[int, ...]
    """Real, effective, saved, of files."""
    argv: tuple[str, ...]
    program: str
    """The file that it executes."""


def process_of(pid: int, top: Path = PROC) -> Process:
    """Look at a process; raises ``OSError`` when there is none."""
    status = (top / str(pid) / "status").read_text()
    parent = re.search(r"(?m)^PPid:\s+(\d+)", status)
    uids = re.search(r"(?m)^Uid:\s+([\d\s]+?)$", status)
    if parent is None or uids is None:
        raise OSError(f"the kernel says nothing of process {pid}")
    words = (top / str(pid) / "cmdline").read_bytes().split(b"\0")[:-1]
    return Process(
        parent=int(parent[1]),
        uids=tuple(map(int, uids[1].split())),
        argv=tuple(map(os.fsdecode, words)),
        program=os.readlink(top / str(pid) / "exe"),
    )


def slot_of(pid: int, uid: int, starter: Path, look: Callable[[int], Process] = process_of) -> str:
    """Give the slot whose job a process of a user is of; raises ``Denied``.

    ``starter``: the program of HTCondor that is believed, if root runs it.
    """
    try:
        process = look(pid)
        if process.uids[0] != uid:
            # Who has asked is gone, and his number is another's.
            raise Denied("the process that asks is gone")
        for _ in range(ANCESTORS_MOST):
            # HTCondor may have been upgraded under a job.
            program = Path(process.program.removesuffix(" (deleted)"))
            if process.uids[0] == 0 and program == starter:
                return _slot(process.argv)
            if process.parent <= 1:
                break
            process = look(process.parent)
    except OSError as error:
        raise Denied(f"the process that asks is gone: {error}") from error
    raise Denied("only a job that HTCondor has started on this host may ask")


def _slot(argv: Sequence[str]) -> str:
    for option, value in itertools.pairwise(argv):
        name = value.partition("@")[0]
        if option == "-a" and _SLOT.fullmatch(name):
            return name
    raise Denied(f"{STARTER} was started for no slot: {' '.join(argv)[:200]!r}")


def ask_slot(slot: str) -> dict[str, str]:
    """Ask this host's startd what it granted; raises ``Unavailable``."""
    host = socket.getfqdn()
    argv = ["condor_status", "-direct", host, "-long"]
    argv += ["-constraint", f'regexp("^{slot}@", Name)']
    try:
        text = run(argv, timeout_s=ASK_LIMIT_S).text()
    except MayflyError as error:
        raise Unavailable(f"the startd of this host does not tell of {slot}: {error}") from error
    return parse_ad(text)


def job_of(ad: dict[str, str], uid: int, cluster: str, cgroup: str = "") -> BatchJob:
    """Make the job of a slot; raises ``Failed``."""
    job = ad.get("jobid", "")
    if not _JOB.fullmatch(job):
        raise Failed(f"the startd names no job of {ad.get('name', 'the slot')}: {job[:40]!r}")
    schedd = ad.get("globaljobid", "").partition("#")[0]
    restart = 0
    return BatchJob(
        system="htcondor",
        cluster=_part(schedd) or cluster,
        job=job,
        step="0",
        restart=restart,
        uid=uid,
        cpus=max(1, whole(ad, "Cpus", 1)),
        memory_mib=whole(ad, "Memory"),
        scratch_mib=max(0, whole(ad, "Disk")) >> 10,
        queue=ad.get("accountinggroup", ""),
        cgroup=cgroup,
    )


def _part(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]", "_", text)[:64].lstrip(".-")


def cgroup_of(pid: int, top: Path = PROC) -> str:
    """Give the cgroup that HTCondor made for the job, "" where it makes none."""
    try:
        found = _CGROUP.search((top / str(pid) / "cgroup").read_text())
    except OSError:
        return ""
    return found[1] if found else ""
