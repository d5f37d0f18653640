"""A task of Grid Engine, as its own files tell root's hooks of it, made a job of ours."""

from __future__ import annotations

import pwd
import re
from collections.abc import Mapping
from pathlib import Path

from mayfly.batch.gridengine.request import Request
from mayfly.batch.job import BatchJob
from mayfly.errors import Failed, Invalid

SPOOL = "SGE_JOB_SPOOL_DIR"
CONTEXT_LONGEST = 300
_UNFIT = re.compile(r"[^A-Za-z0-9 ._:/@%()'+-]+")
"""What the context of a job does not take, or would take for something else."""


def parse_config(text: str) -> dict[str, str]:
    """Read the file ``config`` of a task: ``name=value`` in lines."""
    return dict(line.partition("=")[::2] for line in text.splitlines() if "=" in line)


def read_config(spool: Path) -> dict[str, str]:
    """Read what Grid Engine wrote down of a task; raises ``Failed``."""
    try:
        return parse_config((spool / "config").read_text("utf-8", "surrogateescape"))
    except OSError as error:
        raise Failed(f"cannot read what Grid Engine says of the job: {error}") from error


def number(config: Mapping[str, str], name: str) -> int:
    """Give a number; raises ``Failed``."""
    text = config.get(name, "")
    if not text.isascii() or not text.isdigit() or len(text) > 12:
        raise Failed(f"Grid Engine tells no good '{name}' of the job: {text[:40]!r}")
    return int(text)


def key_of(config: Mapping[str, str], cluster: str) -> str:
    """Give the key of a task's right."""
    return f"{cluster}/{number(config, 'job_id')}/{number(config, 'ja_task_id')}"


def job_of(
    config: Mapping[str, str], cluster: str, request: Request, *, restart: int = 0
) -> BatchJob:
    """Make the job that a task is; raises ``Failed``."""
    owner = config.get("job_owner", "")
    try:
        uid = pwd.getpwnam(owner).pw_uid
    except (KeyError, ValueError) as error:
        raise Failed(f"the job's owner {owner!r} is nobody on this host") from error
    slots = slots_of(config)
    return BatchJob(
        system="gridengine",
        cluster=cluster,
        job=str(number(config, "job_id")),
        step=str(number(config, "ja_task_id")),
        uid=uid,
        cpus=slots,
        memory_mib=request.memory_mib(slots),
        wall_s=float(request.wall_s),
        queue=config.get("queue", ""),
        restart=restart,
        submitted_at=float(config.get("submission_time", "0") or 0),
    )


def slots_of(config: Mapping[str, str]) -> int:
    """Give the slots that a job has on this host."""
    return max(1, number(config, "host_slots")) if "host_slots" in config else 1


def check_one_host(config: Mapping[str, str], hosts: str) -> None:
    """Refuse a job that has slots on several hosts; raises ``Invalid``."""
    names = {line.split()[0] for line in hosts.splitlines() if line.split()}
    if len(names) > 1:
        raise Invalid(
            f"the job has slots on {len(names)} hosts, and a machine is on one",
            hint=f"a parallel environment with '$pe_slots', other than {config.get('pe', 'this')}, "
            "keeps a job on one host; without a machine it runs on several",
        )


# --- the context, which the job's user sees with qstat -j ----------------------------------------


def context_value(text: str) -> str:
    """Make a text fit for the context: one line, no commas, nothing that means anything there."""
    plain = text.replace("\n  hint:", " --").replace(",", " ").replace("=", ":")
    return " ".join(_UNFIT.sub(" ", plain).split())[:CONTEXT_LONGEST]


def parse_context(text: str) -> dict[str, str]:
    """Give the context of what ``qstat -j`` shows of a job."""
    for line in text.splitlines():
        name, colon, values = line.partition(":")
        if colon and name.strip() == "context":
            return dict(part.partition("=")[::2] for part in values.strip().split(",") if part)
    return {}


def tries_name(task: str) -> str:
    """Give the name under which it is counted how often a task was begun; 0: it is of no array."""
    return f"vm_tries_{task}" if task != "0" else "vm_tries"


def tries_of(context: Mapping[str, str], task: str) -> int:
    """Give how often a task was begun again because we failed."""
    text = context.get(tries_name(task), "0")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 6 else 0
