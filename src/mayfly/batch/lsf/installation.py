"""Puts Mayfly into an LSF: programs, an esub, and settings of queues."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from mayfly.batch.changes import Change, without_block
from mayfly.batch.findings import program_there, read_text, recorded
from mayfly.batch.launchers import programs_of
from mayfly.batch.lsf.job import FIELDS, parse_shown
from mayfly.batch.lsf.programs import NAMES
from mayfly.batch.lsf.queues import parse_queues, with_settings
from mayfly.batch.lsf.starting import AGAIN
from mayfly.batch.plain import FilesOnly
from mayfly.batch.program import Site
from mayfly.batch.settings import load_batch_settings
from mayfly.batch.systems import Plan, Where
from mayfly.batch.tools import tools_of
from mayfly.batch.wish import OPTIONS
from mayfly.command import run
from mayfly.errors import Invalid, MayflyError, Missing
from mayfly.model import Finding

PROGRAMS = Path("/usr/local/libexec/mayfly/lsf")
SUDOERS = Path("/etc/lsf.sudoers")
ROOT_LINE = "LSB_PRE_POST_EXEC_USER=root"
ESUB = "esub.mayfly"
VARIABLES = ("LSF_ENVDIR", "LSF_SERVERDIR", "LSF_BINDIR", "LSF_LIBDIR")
ASK_LIMIT_S = 20.0


def plan(where: Where) -> Plan:
    """Say which files are to be how."""
    conf = _conf(where)
    programs = where.programs or PROGRAMS
    site = Site(cluster=_cluster(conf), config=where.config)
    tools = tools_of("bjobs", *VARIABLES)
    changes = programs_of("lsf", NAMES, where, programs, site, tools)
    text = read_text(conf)
    wanted, notes = _wanted(text, where, programs)
    if wanted:
        changes.append(Change(path=conf, content=with_settings(text, wanted).encode()))
    server = os.environ.get("LSF_SERVERDIR", "")
    if server:
        ours = f'#!/bin/sh\n# Written by Mayfly.\nexec {programs}/esub "$@"\n'
        changes.append(Change(path=Path(server) / ESUB, content=ours.encode(), mode=0o755))
    else:
        notes.append(f"LSF_SERVERDIR is not set: put {programs}/esub there as {ESUB}")
    notes.append(f"on each host, in {SUDOERS} (of root, 0600): {ROOT_LINE}")
    notes.append("then: lsadmin reconfig; badmin reconfig")
    return Plan(changes=changes, notes=notes)


def check(where: Where) -> list[Finding]:
    """Say what works on this host and what does not."""
    try:
        conf = _conf(where)
    except MayflyError as error:
        return [Finding(name="LSF", ok=False, detail=error.message)]
    programs = where.programs or PROGRAMS
    text = read_text(conf)
    ours = [
        queue.name
        for queue in parse_queues(text)
        if all(str(programs / part) in " ".join(queue.settings.values()) for part in NAMES[1:])
    ]
    root = ROOT_LINE in read_text(SUDOERS).split()
    return [
        Finding(
            name="queues",
            ok=bool(ours),
            detail=" ".join(ours) or "none has our starter, PRE_EXEC and POST_EXEC",
        ),
        recorded("LSF"),
        *(program_there(programs / name) for name in NAMES),
        Finding(
            name="root",
            ok=root,
            detail=f"{SUDOERS} {'has' if root else 'lacks'} {ROOT_LINE}",
            needed=False,
        ),
    ]


def options() -> list[tuple[str, str]]:
    """Give what a user writes for each option, and what it means."""
    return [
        *(
            (f'-a "mayfly({name}={values.split(",")[0]})"', _meaning(name, meaning))
            for name, (values, meaning) in OPTIONS.items()
        ),
        ("-M 2GB", "memory of the machine and its QEMU"),
    ]


def describe(job: str) -> dict[str, str]:
    """Give what LSF says of a job that is not over; nothing where it knows none."""
    wanted = f"{' '.join(FIELDS)} delimiter='|'"
    try:
        done = run(["bjobs", "-noheader", "-o", wanted, job], timeout_s=ASK_LIMIT_S)
        shown = parse_shown(done.text())
    except MayflyError:
        return {}
    names = {"user": "user", "queue": "queue", "hosts": "exec_host"}
    return {name: shown[field] for name, field in names.items() if shown[field]}


def _meaning(name: str, meaning: str) -> str:
    return meaning + "; several with ; between" * (name in ("allow", "share"))


SYSTEM = FilesOnly(programs=PROGRAMS, plan=plan, check=check, options=options, describe=describe)


def _conf(where: Where) -> Path:
    if where.conf is not None:
        if not where.conf.is_file():
            raise Missing(f"there is no {where.conf}", hint="--conf names lsb.queues")
        return where.conf
    top = os.environ.get("LSF_ENVDIR", "")
    found = sorted(Path(top).glob("lsbatch/*/configdir/lsb.queues")) if top else []
    if len(found) != 1:
        raise Missing(
            "lsb.queues is not found: LSF_ENVDIR is not set, or has not one cluster",
            hint="read LSF's profile.lsf first, or let --conf name lsb.queues",
        )
    return found[0]


def _cluster(conf: Path) -> str:
    name = conf.parent.parent.name if conf.parent.name == "configdir" else "lsf"
    return re.sub(r"[^A-Za-z0-9_.-]", "_", name)


def _wanted(text: str, where: Where, programs: Path) -> tuple[dict[str, list[str]], list[str]]:
    queues = {queue.name: queue for queue in parse_queues(without_block(text)) if queue.name}
    unknown = [name for name in where.queues if name not in queues]
    if unknown:
        raise Invalid(f"there is no queue {unknown[0]}", hint=f"known: {' '.join(queues)}")
    settings = load_batch_settings(where.config if where.config.exists() else None)
    ours = {
        "JOB_STARTER": f'{programs}/starter "%USRCMD"',
        "PRE_EXEC": f"{programs}/register",
        "POST_EXEC": f"{programs}/release",
        "REQUEUE_EXIT_VALUES": f"EXCLUDE({AGAIN})",
        "MAX_JOB_REQUEUE": str(settings.tries),
    }
    wanted, notes = {}, []
    for name in where.queues or queues:
        lines, more = _of_queue(name, queues[name].settings, ours)
        wanted[name] = lines
        notes += more
    return wanted, notes


def _of_queue(
    name: str, theirs: Mapping[str, str], ours: Mapping[str, str]
) -> tuple[list[str], list[str]]:
    lines, notes = [], []
    for setting, value in ours.items():
        if setting in theirs:
            notes.append(f"queue {name} has {setting} = {theirs[setting]}: ours is {value}")
        else:
            lines.append(f"{setting} = {value}")
    return lines, notes
