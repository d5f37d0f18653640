"""A job of LSF, as bjobs(1) shows it, made a job of ours; and what its user asked for.

What he asked for goes from the esub to root's pre-execution command in a variable of the job: it is
the user's word. Everything else root asks LSF itself.
"""

from __future__ import annotations

import pwd
import re
from collections.abc import Mapping, Sequence
from urllib.parse import parse_qsl, urlencode

from mayfly.batch.job import BatchJob
from mayfly.batch.spelling import PREFIX, options_in
from mayfly.batch.wish import OPTIONS
from mayfly.command import run
from mayfly.errors import Failed, Invalid, MayflyError, Unavailable
from mayfly.host.limits import OVERHEAD_TCG_MIB

VARIABLE = "MAYFLY_JOB"
LONGEST = 8192
FIELDS = ("user", "queue", "nalloc_slot", "exec_host", "memlimit", "runtimelimit")
MEMORY_MIB = 512
"""For each slot of a job that has no limit of memory."""
ASK_LIMIT_S = 30.0
_LIMIT = re.compile(r"([0-9]{1,15}(?:\.[0-9]+)?)\s*([KMGTP]?)(?:B|bytes)?", re.IGNORECASE)
_SHIFTS = {"": 10, "K": 10, "M": 20, "G": 30, "T": 40, "P": 50}
"""LSF's own unit is KB, unless the site says otherwise; then bjobs writes it."""


# --- what is asked for ---------------------------------------------------------------------------


def words_to_options(words: Sequence[str]) -> dict[str, str]:
    """Read what stands in ``-a "mayfly(...)"``: ``NAME=VALUE``, or the name of an image alone."""
    values: dict[str, str] = {}
    for word in words:
        name, equals, value = word.strip().partition("=")
        if not equals:
            name, value = "image", name
        values[PREFIX + name.removeprefix(PREFIX)] = value
    found = options_in(values)
    known = {PREFIX + name for name in (*OPTIONS, "name")}
    for name in values:
        if name not in known:
            raise Invalid(
                f"there is no option '{name.removeprefix(PREFIX)[:40]}'",
                hint=f"known: {', '.join(OPTIONS)}",
            )
    return found


def write_options(options: Mapping[str, str]) -> str:
    """Give options as one word."""
    return urlencode(dict(options))


def read_options(text: str) -> dict[str, str]:
    """Read that word, none when it is empty; raises ``Invalid``."""
    if len(text) > LONGEST:
        raise Invalid("what the job asks for is too long")
    values = dict(parse_qsl(text, keep_blank_values=True, errors="replace"))
    if text and not values:
        raise Invalid(f"what the job asks for is nonsense: {text[:60]!r}")
    return values


# --- what LSF says -------------------------------------------------------------------------------


def name_of(environ: Mapping[str, str]) -> str:
    """Give ``12`` or ``12[3]`` from a job's variables; raises ``Failed``."""
    job, index = environ.get("LSB_JOBID", ""), environ.get("LSB_JOBINDEX", "0") or "0"
    if not (_is_number(job) and _is_number(index)):
        raise Failed(f"LSF named no job: LSB_JOBID={job[:40]!r}, LSB_JOBINDEX={index[:40]!r}")
    return job if index == "0" else f"{job}[{index}]"


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 12


def ask_lsf(name: str) -> dict[str, str]:
    """Ask LSF about a job; raises ``Unavailable``."""
    wanted = f"{' '.join(FIELDS)} delimiter='|'"
    try:
        text = run(["bjobs", "-noheader", "-o", wanted, name], timeout_s=ASK_LIMIT_S).text()
    except MayflyError as error:
        raise Unavailable(f"LSF does not tell of job {name}: {error}") from error
    return parse_shown(text)


def parse_shown(text: str) -> dict[str, str]:
    """Read one line of ``bjobs -o``; raises ``Unavailable`` when it is none."""
    values = [word.strip() for word in text.partition("\n")[0].split("|")]
    if len(values) != len(FIELDS) or not values[0]:
        raise Unavailable(f"LSF knows no such job: {text[:100]!r}")
    return {name: "" if value == "-" else value for name, value in zip(FIELDS, values, strict=True)}


def job_of(name: str, shown: Mapping[str, str], cluster: str) -> BatchJob:
    """Make the job; raises ``Failed``, ``Invalid``."""
    try:
        uid = pwd.getpwnam(shown["user"]).pw_uid
    except (KeyError, ValueError) as error:
        raise Failed(f"the job's owner {shown['user']!r} is nobody on this host") from error
    slots = int(shown["nalloc_slot"]) if _is_number(shown["nalloc_slot"]) else 1
    return BatchJob(
        system="lsf",
        cluster=cluster,
        job=name,
        uid=uid,
        cpus=max(1, slots),
        memory_mib=memory_of(shown["memlimit"], max(1, slots)),
        wall_s=60.0 * minutes_of(shown["runtimelimit"]),
        queue=shown["queue"],
    )


def memory_of(limit: str, slots: int) -> int:
    """Give the memory of a machine and its QEMU in MiB; raises ``Invalid``."""
    if not limit:
        return MEMORY_MIB * slots + OVERHEAD_TCG_MIB
    match = _LIMIT.fullmatch(limit)
    if match is None:
        raise Invalid(f"LSF's limit of memory is not understood: {limit[:40]!r}")
    return max(1, int(float(match[1]) * (1 << _SHIFTS[match[2].upper()])) >> 20)


def minutes_of(limit: str) -> float:
    """Give minutes of ``60.0``, ``60.0/host1``, ``1:30``; 0 for what is no time."""
    text = limit.partition("/")[0].strip()
    if re.fullmatch(r"[0-9]{1,7}(\.[0-9]+)?", text):
        return float(text)
    match = re.fullmatch(r"([0-9]{1,5}):([0-9]{1,2})", text)
    return 60.0 * int(match[1]) + int(match[2]) if match else 0.0


def check_one_host(shown: Mapping[str, str]) -> None:
    """Refuse a job on several hosts (``4*a:2*b``); raises ``Invalid``."""
    names = {part.rpartition("*")[2] for part in shown["exec_host"].split(":") if part}
    if len(names) > 1:
        raise Invalid(
            f"the job has slots on {len(names)} hosts, and a machine is on one",
            hint="-R 'span[hosts=1]' keeps it on one; without a machine it runs on several",
        )
