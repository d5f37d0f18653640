"""Puts Mayfly into an HTCondor: programs, and one file of configuration."""

from __future__ import annotations

import os
import shutil
import socket
import stat
from pathlib import Path

from mayfly.batch.changes import Change
from mayfly.batch.findings import program_there, read_text, recorded
from mayfly.batch.htcondor.ads import ATTRIBUTES, parse_ad
from mayfly.batch.htcondor.places import place_of
from mayfly.batch.htcondor.programs import CONDOR_STARTER, DEFAULT_STARTER, NAMES
from mayfly.batch.htcondor.snippet import snippet
from mayfly.batch.launchers import programs_of
from mayfly.batch.plain import FilesOnly
from mayfly.batch.program import Site
from mayfly.batch.settings import load_batch_settings
from mayfly.batch.systems import Plan, Where
from mayfly.batch.tools import tools_of
from mayfly.batch.wish import OPTIONS
from mayfly.command import run
from mayfly.errors import Failed, MayflyError, Missing
from mayfly.model import Finding

CONF = Path("/etc/condor/config.d")
FILE = "60-mayfly.conf"
PROGRAMS = Path("/usr/local/libexec/mayfly/htcondor")
ASK_LIMIT_S = 20.0
_EXAMPLES = {"image": "NAME", "allow": "HOST:PORT,...", "share": "DIR[:ro],..."}


def plan(where: Where) -> Plan:
    """Say which files are to be how."""
    conf = _conf(where)
    programs = where.programs or PROGRAMS
    site = Site(cluster=socket.gethostname().split(".")[0], config=where.config)
    tools = tools_of("condor_status", "CONDOR_CONFIG")
    trusted = _value("STARTER") or DEFAULT_STARTER
    tools = {**tools, CONDOR_STARTER: os.path.realpath(trusted)}
    changes = programs_of("htcondor", NAMES, where, programs, site, tools)
    daemons = (_value("DAEMON_LIST") or "STARTD SCHEDD").replace(",", " ").upper().split()
    text = snippet(programs, executes="STARTD" in daemons, submits="SCHEDD" in daemons)
    changes.append(Change(path=conf / FILE, content=text.encode()))
    notes = ["restart HTCondor on this host: condor_restart, or condor_reconfig and condor_on"]
    wrapper = _value("USER_JOB_WRAPPER")
    if wrapper and wrapper != str(programs / "starter"):
        notes.append(f"there is a wrapper of jobs already, {wrapper}: it is not called any more")
    return Plan(changes=changes, notes=notes)


def check(where: Where) -> list[Finding]:
    """Say what works on this host and what does not."""
    try:
        conf = _conf(where)
    except MayflyError as error:
        return [Finding(name="HTCondor", ok=False, detail=error.message)]
    programs = where.programs or PROGRAMS
    ours = str(programs) in read_text(conf / FILE)
    return [
        Finding(name="configuration", ok=ours, detail=f"{conf / FILE}"),
        recorded("HTCondor"),
        *(program_there(programs / name) for name in NAMES),
        _wrapper(programs),
        _registrar(where),
    ]


def options() -> list[tuple[str, str]]:
    """Give what a user writes for each option, and what it means."""
    return [
        *(
            (f'+{ATTRIBUTES[name]} = "{_EXAMPLES.get(name, values)}"', meaning)
            for name, (values, meaning) in OPTIONS.items()
        ),
        ("request_memory = 2GB", "memory of the machine and its QEMU"),
    ]


def describe(job: str) -> dict[str, str]:
    """Give what HTCondor says of a job in the queue; nothing where it knows none."""
    try:
        return described(run(["condor_q", "-long", job], timeout_s=ASK_LIMIT_S).text())
    except Failed:
        return {}


_SHOWN = {
    "user": "Owner",
    "state": "JobStatus",
    "hosts": "RemoteHost",
    "image": "VMImage",
    "restarts": "NumShadowStarts",
    "comment": "HoldReason",
}


def described(text: str) -> dict[str, str]:
    """Read what ``condor_q -long`` says of one job."""
    ad = parse_ad(text)
    return {name: ad[key.lower()] for name, key in _SHOWN.items() if ad.get(key.lower())}


SYSTEM = FilesOnly(programs=PROGRAMS, plan=plan, check=check, options=options, describe=describe)


def _conf(where: Where) -> Path:
    conf = where.conf or CONF
    if not conf.is_dir():
        raise Missing(
            f"there is no HTCondor configuration {conf}",
            hint="--conf names a directory that LOCAL_CONFIG_DIR has",
        )
    return conf


def _value(name: str) -> str:
    """Ask HTCondor for a setting, "" when it is not here or has none."""
    if shutil.which("condor_config_val") is None:
        return ""
    done = run(["condor_config_val", name], timeout_s=ASK_LIMIT_S, check=False)
    return done.text().strip() if done.code == 0 else ""


def _wrapper(programs: Path) -> Finding:
    now = _value("USER_JOB_WRAPPER")
    ok = now == str(programs / "starter")
    detail = f"USER_JOB_WRAPPER = {now}" if now else "condor_config_val does not tell of it"
    return Finding(name="wrapper", ok=ok, detail=detail, needed=bool(now))


def _registrar(where: Where) -> Finding:
    try:
        place = place_of(load_batch_settings(where.config if where.config.exists() else None))
        ok = stat.S_ISSOCK(os.stat(place).st_mode)
        detail = f"listens at {place}"
    except OSError as error:
        ok, detail = False, f"{error.filename}: {error.strerror}; condor_master starts it"
    except MayflyError as error:
        ok, detail = False, error.message
    return Finding(name="registrar", ok=ok, detail=detail, needed=False)
