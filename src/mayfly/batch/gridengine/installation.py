"""Puts Mayfly into a Grid Engine: programs, and attributes of queues, hosts and the cell."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from mayfly.batch.gridengine.configuration import (
    GLOBAL,
    NONE,
    Setting,
    parse_complexes,
    put,
    read,
    read_journal,
    show,
    take_back,
    write_journal,
)
from mayfly.batch.gridengine.programs import NAMES
from mayfly.batch.gridengine.task import parse_context
from mayfly.batch.gridengine.verifier import GUEST_MEMORY, HOT, READY, SEPARATOR
from mayfly.batch.launchers import programs_of
from mayfly.batch.program import Site
from mayfly.batch.systems import Plan, Where
from mayfly.batch.wish import OPTIONS
from mayfly.command import run
from mayfly.errors import Failed, Invalid, MayflyError, Missing
from mayfly.model import Finding

PROGRAMS = Path("/usr/local/libexec/mayfly/gridengine")
SETTINGS = "settings.json"
ASK_LIMIT_S = 30.0
COMPLEXES = {
    "vm_image": "vm_image vm_image RESTRING == YES NO NONE 0",
    "vm_name": "vm_name vm_name RESTRING == YES NO NONE 0",
    "vm_network": "vm_network vm_network RESTRING == YES NO NONE 0",
    READY: f"{READY} {READY} BOOL == YES NO FALSE 0",
    HOT: f"{HOT} {HOT} RESTRING == YES NO NONE 0",
    GUEST_MEMORY: f"{GUEST_MEMORY} {GUEST_MEMORY} MEMORY <= YES YES 0 0",
}
"""What jobs ask for, and hosts say of themselves."""
_MEMORY = re.compile(r"mem_total=([\d.]+[KMGT]?)")


class GridEngine:
    """Grid Engine as ``mayfly batch`` sees it."""

    def plan(self, where: Where) -> Plan:
        """Say which programs and settings are to be how."""
        _check_root_directory()
        programs = where.programs or PROGRAMS
        cell = os.environ.get("SGE_CELL", "default")
        site = Site(cluster=cell, config=where.config)
        changes = programs_of("gridengine", NAMES, where, programs, site)
        settings, notes = wanted(where, programs)
        return Plan(changes=changes, notes=[*(each.words() for each in settings), *notes])

    def journal(self, where: Where) -> Path:
        """Give where it is written down what was changed."""
        return (where.programs or PROGRAMS) / "installed.json"

    def installed(self, where: Where) -> None:
        """Set what there is to be set in the cell."""
        programs = where.programs or PROGRAMS
        settings, _ = wanted(where, programs)
        write_journal(programs / SETTINGS, settings)
        put(settings)

    @contextmanager
    def uninstalling(self, where: Where) -> Iterator[None]:
        """Set what was set as it was, before the programs go: no job may look for them in vain."""
        journal = (where.programs or PROGRAMS) / SETTINGS
        told: list[str] = []

        def tell(words: str) -> None:
            if words not in told:
                told.append(words)
                print(f"mayfly: {words}", file=sys.stderr)

        for words in take_back(read_journal(journal), tell):
            tell(words)
        yield
        journal.unlink(missing_ok=True)
        for directory in (journal.parent, journal.parent.parent):
            if directory.exists() and not any(directory.iterdir()):
                directory.rmdir()

    def check(self, where: Where) -> list[Finding]:
        """Say what works on this host and what does not."""
        programs = where.programs or PROGRAMS
        try:
            _check_root_directory()
            queues = [name for name in queues_of(where) if _is_ours(name, programs)]
            cell = read("conf", GLOBAL)
            known = parse_complexes(show("-sc"))
        except MayflyError as error:
            return [Finding(name="Grid Engine", ok=False, detail=error.message)]
        return [
            Finding(
                name="queues",
                ok=bool(queues),
                detail=" ".join(queues) or "none has our prolog, epilog and starter",
            ),
            *(_there(programs / name) for name in NAMES),
            *_of_the_cell(cell, programs),
            _complexes(known),
            _submit_hosts(),
            *(finding for name in queues for finding in _of_queue(name)),
        ]

    def options(self) -> list[tuple[str, str]]:
        """Give what a user writes for each option, and what it means."""
        more = f"; several with {SEPARATOR} between"
        listed = ("allow", "share")
        return [
            ("-l vm_image=NAME", "as -ac vm_image, and in '#$ -l' lines"),
            ("-l vmem=2G", "memory of the machine, for each slot"),
            *(
                (f"-ac vm_{name}={values.split(',')[0]}", meaning + more * (name in listed))
                for name, (values, meaning) in OPTIONS.items()
            ),
        ]

    def describe(self, job: str) -> dict[str, str]:
        """Give what Grid Engine says of a job that is not over; nothing where it knows none."""
        try:
            return described(run(["qstat", "-j", job], timeout_s=ASK_LIMIT_S).text())
        except Failed:
            return {}


def described(text: str) -> dict[str, str]:
    """Read what ``qstat -j`` says of one job."""
    values = dict(line.partition(":")[::2] for line in text.splitlines() if ":" in line)
    told = {name: values[key].strip() for name, key in _SHOWN.items() if key in values}
    context = parse_context(text)
    return {**told, **{name: context[name] for name in context if name.startswith("vm_")}}


_SHOWN = {
    "name": "job_name",
    "user": "owner",
    "queue": "hard_queue_list",
    "array": "job-array tasks",
}

SYSTEM = GridEngine()


def _check_root_directory() -> None:
    if not os.environ.get("SGE_ROOT"):
        raise Missing("SGE_ROOT is not set", hint="read the cell's settings.sh first")


# --- what is to be -------------------------------------------------------------------------------


def queues_of(where: Where) -> list[str]:
    """Give the queues that were named, or all; raises ``Invalid``."""
    known = show("-sql").split()
    unknown = [name for name in where.queues if name not in known]
    if unknown:
        raise Invalid(f"there is no queue {unknown[0]}", hint=f"known: {' '.join(known)}")
    return list(where.queues) or known


def wanted(where: Where, programs: Path) -> tuple[list[Setting], list[str]]:
    """Give the settings that lack something of ours, and what is the admin's to see to."""
    settings: list[Setting] = []
    notes: list[str] = []
    queues = queues_of(where)
    for name in queues:
        _queue(name, read("queue", name), programs, settings, notes)
    _cell(read("conf", GLOBAL), programs, settings, notes)
    known = parse_complexes(show("-sc"))
    settings[:0] = [
        Setting(kind="complex", name=name, attribute="line", before="", after=line)
        for name, line in COMPLEXES.items()
        if name not in known
    ]
    settings += _memory_of_hosts()
    return settings, notes


def _queue(
    name: str,
    values: Mapping[str, str],
    programs: Path,
    settings: list[Setting],
    notes: list[str],
) -> None:
    hooks = {
        "prolog": f"root@{programs / 'prolog'}",
        "epilog": f"root@{programs / 'epilog'}",
        "starter_method": str(programs / "starter"),
        "suspend_method": f"{programs / 'suspend'} $job_pid",
        "resume_method": f"{programs / 'resume'} $job_pid",
    }
    for attribute, ours in hooks.items():
        theirs = values.get(attribute, NONE)
        if theirs == ours:
            continue
        if theirs.lower() != NONE:
            notes.append(f"queue {name} has a {attribute} already, {theirs}: have it call {ours}")
            continue
        settings.append(
            Setting(kind="queue", name=name, attribute=attribute, before=theirs, after=ours)
        )


def _cell(
    values: Mapping[str, str], programs: Path, settings: list[Setting], notes: list[str]
) -> None:
    ours = f"script:{programs / 'verifier'}"
    theirs = values.get("jsv_url", NONE)
    if theirs.lower() == NONE:
        settings.append(
            Setting(kind="conf", name=GLOBAL, attribute="jsv_url", before=theirs, after=ours)
        )
    elif theirs != ours:
        notes.append(f"the cell has a verifier already, {theirs}: jobs in machines need {ours}")
    sensor, sensors = str(programs / "sensor"), values.get("load_sensor", NONE)
    if sensor not in sensors.split(","):
        after = sensor if sensors.lower() == NONE else f"{sensors},{sensor}"
        settings.append(
            Setting(kind="conf", name=GLOBAL, attribute="load_sensor", before=sensors, after=after)
        )


def _memory_of_hosts() -> list[Setting]:
    """Give each host that has not said how much memory there is for machines all of its own."""
    found = []
    for host in show("-sel").split():
        values = read("exechost", host).get("complex_values", "NONE")
        if any(part.startswith(f"{GUEST_MEMORY}=") for part in values.split(",")):
            continue
        told = run(["qhost", "-h", host, "-F", "mem_total"], timeout_s=ASK_LIMIT_S, check=False)
        match = _MEMORY.search(told.text())
        if match is None:
            continue
        ours = f"{GUEST_MEMORY}={match.group(1)}"
        after = ours if values.lower() == NONE else f"{values},{ours}"
        found.append(
            Setting(
                kind="exechost", name=host, attribute="complex_values", before=values, after=after
            )
        )
    return found


# --- findings ------------------------------------------------------------------------------------


def _is_ours(name: str, programs: Path) -> bool:
    values = read("queue", name)
    return all(
        str(programs / program) in values.get(attribute, "")
        for attribute, program in (
            ("prolog", "prolog"),
            ("epilog", "epilog"),
            ("starter_method", "starter"),
        )
    )


def _there(path: Path) -> Finding:
    ok = os.access(path, os.X_OK)
    return Finding(
        name=f"program {path.name}", ok=ok, detail=str(path) if ok else f"{path} is not there"
    )


def _of_the_cell(values: Mapping[str, str], programs: Path) -> list[Finding]:
    verifier = values.get("jsv_url", NONE)
    mods = values.get("jsv_allowed_mod", NONE).split(",")
    ours = verifier == f"script:{programs / 'verifier'}"
    closed = not {"v", "V"} & set(mods)
    sensors = values.get("load_sensor", NONE).split(",")
    return [
        Finding(name="verifier", ok=ours, detail=f"jsv_url {verifier}"),
        Finding(
            name="jsv_allowed_mod",
            ok=closed,
            detail=f"qalter may change {','.join(mods)}"
            + ("" if closed else ": with v or V a user can grant himself memory"),
        ),
        Finding(
            name="load sensor",
            ok=str(programs / "sensor") in sensors,
            detail=f"load_sensor {','.join(sensors)}",
        ),
    ]


def _complexes(known: Mapping[str, str]) -> Finding:
    lacking = [name for name in COMPLEXES if name not in known]
    detail = f"lacking: {' '.join(lacking)}" if lacking else " ".join(COMPLEXES)
    return Finding(name="complexes", ok=not lacking, detail=detail)


def _submit_hosts() -> Finding:
    """Say whether what became of a job can be put on it: only submit hosts may."""
    lacking = sorted(set(show("-sel").split()) - set(show("-ss").split()))
    told = f"no submit hosts: {' '.join(lacking[:20])}; 'qconf -as HOST' makes one"
    return Finding(
        name="submit hosts",
        ok=not lacking,
        detail=told
        if lacking
        else "all execution hosts: the reason of a failure is put on the job",
    )


def _of_queue(name: str) -> list[Finding]:
    shell = read("queue", name).get("shell", "")
    plain = not shell.endswith("csh")
    told = shell if plain else f"{shell}: images without it cannot run jobs that name no -S"
    return [Finding(name=f"shell of {name}", ok=plain, detail=told, needed=False)]
