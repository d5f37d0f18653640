"""Puts Mayfly into a PBS: OpenPBS by a hook, Torque by its prologue, epilogue and job starter."""

from __future__ import annotations

import os
import re
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mayfly.batch.changes import Change, with_block, without_block
from mayfly.batch.findings import program_there, read_text, recorded
from mayfly.batch.launchers import programs_of
from mayfly.batch.pbs import qmgr
from mayfly.batch.pbs.job import parse_attributes
from mayfly.batch.pbs.programs import NAMES, OPENPBS, TORQUE
from mayfly.batch.pbs.starting import AGAIN
from mayfly.batch.program import Site
from mayfly.batch.spelling import spelled
from mayfly.batch.systems import Plan, Where
from mayfly.batch.tools import tools_of
from mayfly.command import run
from mayfly.errors import Failed, MayflyError, Missing
from mayfly.model import Finding

PROGRAMS = Path("/usr/local/libexec/mayfly/pbs")
CONF = Path("/etc/pbs.conf")
TORQUE_HOMES = (Path("/var/spool/torque"), Path("/var/lib/torque"))
HOOK_SOURCE = Path(__file__).with_name("hook.txt")
SETTINGS = "settings.json"
ASK_LIMIT_S = 20.0


class Pbs:
    """PBS as ``mayfly batch`` sees it; which of the two it is, its configuration says."""

    def plan(self, where: Where) -> Plan:
        """Say which files are to be how."""
        conf = conf_of(where)
        programs = where.programs or PROGRAMS
        return (
            _torque_plan(conf, where, programs)
            if conf.is_dir()
            else _openpbs_plan(conf, where, programs)
        )

    def journal(self, where: Where) -> Path:
        """Give where it is written down what was changed."""
        return (where.programs or PROGRAMS) / "installed.json"

    def installed(self, where: Where) -> None:
        """Tell the server of OpenPBS, if it is on this host."""
        conf = conf_of(where)
        if conf.is_file() and serves(conf):
            programs = where.programs or PROGRAMS
            told = qmgr.orders(programs / "hook.py", epilogue=not _own_epilogue(conf))
            qmgr.tell(told, programs / SETTINGS)

    @contextmanager
    def uninstalling(self, where: Where) -> Iterator[None]:
        """Take back what the server was told, before the programs go."""
        journal = (where.programs or PROGRAMS) / SETTINGS
        if journal.exists():
            for words in qmgr.take_back(journal):
                print(f"mayfly: {words}", file=sys.stderr)
        yield
        journal.unlink(missing_ok=True)
        for directory in (journal.parent, journal.parent.parent):
            if directory.exists() and not any(directory.iterdir()):
                directory.rmdir()

    def check(self, where: Where) -> list[Finding]:
        """Say what works on this host and what does not."""
        try:
            conf = conf_of(where)
        except MayflyError as error:
            return [Finding(name="PBS", ok=False, detail=error.message)]
        programs = where.programs or PROGRAMS
        torque = conf.is_dir()
        flavour = "Torque" if torque else "OpenPBS"
        names = [*(TORQUE if torque else OPENPBS), "starter"]
        more = _of_torque(conf, programs) if torque else _of_openpbs(conf)
        return [
            Finding(name="PBS", ok=True, detail=f"{flavour}, {conf}"),
            recorded(flavour),
            *(program_there(programs / name) for name in names),
            *more,
        ]

    def options(self) -> list[tuple[str, str]]:
        """Give what a user writes for each option, and what it means."""
        return [
            *((words, f"{meaning} (OpenPBS)") for words, meaning in spelled("-l ")),
            *((words, f"{meaning} (Torque, OpenPBS)") for words, meaning in spelled("-v ")),
            ("-l mem=2gb", "memory of the machine and its QEMU"),
        ]

    def describe(self, job: str) -> dict[str, str]:
        """Give what PBS says of a job that is not over; nothing where it knows none."""
        try:
            return described(run(["qstat", "-f", job], timeout_s=ASK_LIMIT_S).text())
        except Failed:
            return {}


_SHOWN = {
    "name": "Job_Name",
    "user": "Job_Owner",
    "state": "job_state",
    "queue": "queue",
    "hosts": "exec_host",
    "comment": "comment",
    "image": "Resource_List.vm_image",
}


def described(text: str) -> dict[str, str]:
    """Read what ``qstat -f`` says of one job."""
    values = parse_attributes(text)
    return {name: values[key] for name, key in _SHOWN.items() if values.get(key)}


SYSTEM = Pbs()


# --- the site's configuration --------------------------------------------------------------------


def conf_of(where: Where) -> Path:
    """Give ``pbs.conf`` of OpenPBS, or Torque's home directory; raises ``Missing``."""
    if where.conf is not None:
        if not where.conf.exists():
            raise Missing(f"there is no {where.conf}")
        return where.conf
    named = Path(os.environ.get("PBS_CONF_FILE", CONF))
    for place in (named, *TORQUE_HOMES):
        if place.exists():
            return place
    raise Missing(
        f"there is no PBS here: neither {named} nor {TORQUE_HOMES[0]}",
        hint="--conf names pbs.conf (OpenPBS) or the home directory (Torque)",
    )


def setting(conf: Path, name: str) -> str:
    """Give a setting of ``pbs.conf``, "" when it is not there."""
    found = re.findall(rf"(?m)^[ \t]*{name}[ \t]*=[ \t]*(\S+)", read_text(conf))
    return str(found[-1]) if found else ""


def serves(conf: Path) -> bool:
    """Tell whether this host has the server."""
    return setting(conf, "PBS_START_SERVER") == "1"


def _home(conf: Path) -> Path:
    return Path(setting(conf, "PBS_HOME") or "/var/spool/pbs")


def _own_epilogue(conf: Path) -> bool:
    return (_home(conf) / "mom_priv/epilogue").exists()


def _cluster(name: str) -> str:
    plain = re.sub(r"[^A-Za-z0-9_.-]", "", name.split(".", maxsplit=1)[0])
    return plain or socket.gethostname().split(".")[0]


def _openpbs_plan(conf: Path, where: Where, programs: Path) -> Plan:
    site = Site(cluster=_cluster(setting(conf, "PBS_SERVER")), config=where.config)
    names = [name for name in NAMES if name not in TORQUE]
    changes = programs_of("pbs", names, where, programs, site, tools_of("qstat"))
    hook = HOOK_SOURCE.read_text().replace("@PROGRAMS@", str(programs))
    changes.append(Change(path=programs / "hook.py", content=hook.encode(), mode=0o644))
    if not serves(conf):
        note = "the hook is put into the server where that runs: install there, too"
        return Plan(changes=changes, notes=[note])
    epilogue = not _own_epilogue(conf)
    told = qmgr.orders(programs / "hook.py", epilogue=epilogue)
    notes = [f"qmgr -c '{word}'" for each in told for word in each.words]
    if not epilogue:
        notes.append(
            f"{_home(conf)}/mom_priv/epilogue is there, which PBS would not call beside a hook of "
            "ours: jobs that Mayfly failed are not begun again"
        )
    return Plan(changes=changes, notes=notes)


def _torque_plan(home: Path, where: Where, programs: Path) -> Plan:
    site = Site(cluster=_cluster(read_text(home / "server_name").strip()), config=where.config)
    names = [*TORQUE, "starter"]
    changes = programs_of("pbs", names, where, programs, site, tools_of("qstat"))
    requeue = f"qmgr -c 'set server automatic_requeue_exit_code = {AGAIN}'"
    submit = f"'SUBMITFILTER {programs}/filter' in {home}/torque.cfg"
    notes = [
        "restart pbs_mom, or have it read its configuration (kill -HUP)",
        f"on the server, so that jobs that Mayfly failed are begun again: {requeue}",
        f"for words at submission, on each host where users submit: {submit}",
    ]
    private = home / "mom_priv"
    for name in ("prologue", "epilogue"):
        path = private / name
        ours = f'#!/bin/sh\n# Written by Mayfly.\nexec {programs / name} "$@"\n'
        if read_text(path) not in ("", ours):
            notes.append(f"{path} is there already: have it call {programs / name} as it is called")
            continue
        # Torque takes only those of root that nobody else can write or read.
        changes.append(Change(path=path, content=ours.encode(), mode=0o500))
    config = read_text(private / "config")
    theirs = re.search(r"(?m)^[ \t]*\$job_starter[ \t]+(\S+)", without_block(config))
    if theirs:
        notes.append(
            f"there is a job starter already, {theirs[1]}: have it call {programs}/starter"
        )
    else:
        block = with_block(config, [f"$job_starter {programs}/starter"])
        changes.append(Change(path=private / "config", content=block.encode()))
    return Plan(changes=changes, notes=notes)


# --- findings ------------------------------------------------------------------------------------


def _of_torque(home: Path, programs: Path) -> list[Finding]:
    config = read_text(home / "mom_priv/config")
    starter = f"$job_starter {programs}/starter"
    found = [Finding(name="job starter", ok=starter in config, detail=starter)]
    for name in ("prologue", "epilogue"):
        path = home / "mom_priv" / name
        ok = str(programs / name) in read_text(path)
        ours = ok and path.stat().st_mode & 0o777 == 0o500 and path.stat().st_uid == 0
        detail = str(path) if ours else f"{path} is not there, not ours, or not 0500 of root"
        found.append(Finding(name=name, ok=ours, detail=detail))
    return found


def _of_openpbs(conf: Path) -> list[Finding]:
    if not serves(conf):
        detail = "the server is elsewhere: check there"
        return [Finding(name="hook", ok=True, detail=detail, needed=False)]
    hook = qmgr.is_there("hook", qmgr.HOOK)
    lacking = [name for name in qmgr.RESOURCES if not qmgr.is_there("resource", name)]
    return [
        Finding(name="hook", ok=hook, detail=qmgr.HOOK if hook else "the server has no such hook"),
        Finding(
            name="resources",
            ok=not lacking,
            detail=f"lacking: {' '.join(lacking)}" if lacking else " ".join(qmgr.RESOURCES),
        ),
    ]
