"""Sends a job that Mayfly failed on one host to the others.

Grid Engine would begin it again wherever there is room, and a host that fails fast has most of it.
So the job's resources say ``hostname=!HOST``; that it may come nowhere at all is never said.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from mayfly.batch.gridengine.verifier import READY
from mayfly.command import run

ASK_LIMIT_S = 30.0
RESOURCE = "hostname"
_NAMES = (RESOURCE, "h")
_NOT_THERE = re.compile(r"![A-Za-z0-9.-]+(?:&![A-Za-z0-9.-]+)*")


def parse_resources(shown: str) -> dict[str, str]:
    """Give the hard resources of what ``qstat -j`` shows of a job."""
    for line in shown.splitlines():
        name, colon, values = line.partition(":")
        if colon and name.strip() == "hard resource_list":
            return dict(part.partition("=")[::2] for part in values.strip().split(",") if part)
    return {}


def elsewhere(resources: Mapping[str, str], here: str, others: Sequence[str]) -> dict[str, str]:
    """Give a job's hard resources without this host; nothing where they are to stay as they are.

    They stay when the job names hosts itself, and when no other host would take it.
    """
    said = next((resources[name] for name in _NAMES if name in resources), "")
    if not here or (said and not _NOT_THERE.fullmatch(said)):
        return {}
    gone = [name.removeprefix("!") for name in said.split("&") if name]
    left = [name for name in others if name not in (*gone, here)]
    if here in gone or not left:
        return {}
    rest = {name: value for name, value in resources.items() if name not in _NAMES}
    return {**rest, RESOURCE: "&".join(f"!{name}" for name in (*gone, here))}


def ready_hosts(queue: str) -> list[str]:
    """Give the hosts of a queue that take jobs in machines now; raises ``Failed``."""
    argv = ["qselect", "-q", queue, "-l", f"{READY}=TRUE"]
    done = run(argv, timeout_s=ASK_LIMIT_S, check=False)
    # Where there is none, that is an error to qselect(1).
    lines = done.text().split() if done.code == 0 else []
    return [line.partition("@")[2] for line in lines if "@" in line]


def joined(resources: Mapping[str, str]) -> str:
    """Give resources as options have them."""
    return ",".join(f"{name}={value}" if value else name for name, value in resources.items())
