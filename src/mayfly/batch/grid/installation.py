"""Puts the entrance into BLAH: a program, and lines in its scripts of the site."""

from __future__ import annotations

from pathlib import Path

from mayfly.batch.changes import Change, with_block
from mayfly.batch.findings import program_there, read_text, recorded
from mayfly.batch.grid.programs import NAMES
from mayfly.batch.grid.requests import ATTRIBUTES, DIRECTIVES, GLUE
from mayfly.batch.grid.requests import NAMES as VARIABLES
from mayfly.batch.launchers import programs_of
from mayfly.batch.plain import FilesOnly
from mayfly.batch.program import Site
from mayfly.batch.systems import Plan, Where
from mayfly.batch.wish import OPTIONS
from mayfly.errors import MayflyError, Missing
from mayfly.model import Finding

CONF = Path("/etc/blahp")
PROGRAMS = Path("/usr/local/libexec/mayfly/grid")
TORQUE = Path("/var/spool/torque")


def plan(where: Where) -> Plan:
    """Say which files are to be how."""
    programs = where.programs or PROGRAMS
    site = Site(cluster="grid", config=where.config)
    changes = programs_of("grid", NAMES, where, programs, site)
    for script, system in _scripts(where):
        # What a script is told as variables is not in the environment of what it calls.
        lines = [f"export {' '.join(VARIABLES)}", f"{programs}/directives {system}"]
        block = with_block(read_text(script), lines)
        changes.append(Change(path=script, content=block.encode()))
    names = ",".join(ATTRIBUTES)
    note = f'HTCondor-CE, in routes to BLAH: SET default_CERequirements "{names}"'
    return Plan(changes=changes, notes=[note])


def check(where: Where) -> list[Finding]:
    """Say what works on this host and what does not."""
    programs = where.programs or PROGRAMS
    try:
        scripts = _scripts(where)
    except MayflyError as error:
        return [Finding(name="BLAH", ok=False, detail=error.message)]
    with_ours = [
        script.name for script, _ in scripts if f"{programs}/directives" in read_text(script)
    ]
    return [
        Finding(
            name="scripts",
            ok=bool(with_ours),
            detail=" ".join(with_ours) or "none asks for our directives",
        ),
        recorded("BLAH"),
        *(program_there(programs / name) for name in NAMES),
    ]


def options() -> list[tuple[str, str]]:
    """Give what a user writes for each option, and what it means."""
    return [
        *(
            (f'+{attribute} = "{OPTIONS[name][0].split(",")[0]}"', OPTIONS[name][1])
            for attribute, name in ATTRIBUTES.items()
        ),
        (
            f'CeRequirements = "Member(\\"vm_NAME\\", other.{GLUE})"',
            "run the job in a machine of this image",
        ),
    ]


# It has no jobs of its own.
SYSTEM = FilesOnly(
    programs=PROGRAMS, plan=plan, check=check, options=options, describe=lambda job: {}
)


def _scripts(where: Where) -> list[tuple[Path, str]]:
    """Give BLAH's scripts of the site that are there, and the system that each is for."""
    conf = where.conf or CONF
    found = [
        (script, system)
        for system in DIRECTIVES
        if (script := conf / f"{system}_local_submit_attributes.sh").exists()
    ]
    if not found:
        raise Missing(
            f"there is no script of BLAH's in {conf}",
            hint="--conf names the directory with SYSTEM_local_submit_attributes.sh",
        )
    torque = TORQUE.is_dir()
    return [
        (script, "torque" if system == "pbs" and torque else system) for script, system in found
    ]
