"""Our part of HTCondor's configuration: one file in ``config.d``."""

from __future__ import annotations

from pathlib import Path

from mayfly.batch.htcondor.ads import ATTRIBUTES
from mayfly.errors import RUN_FAILED

PERIOD_S = 60
IMAGE = "[A-Za-z0-9][A-Za-z0-9._+-]*(@[A-Za-z0-9][A-Za-z0-9._:+-]*)?"
WANTED = '(VMImage isnt undefined && VMImage isnt "" && VMImage isnt "none")'
"""In an expression about a job that is submitted."""
HOT_RANK = 1000
"""What a standby of the image is worth beside the job's own rank."""

EXECUTE = f"""\
# Hosts of jobs: the wrapper of jobs, root's program that registers them, what the host says.
USER_JOB_WRAPPER = $(MAYFLY_PROGRAMS)/starter
MAYFLY_REGISTRAR = $(MAYFLY_PROGRAMS)/registrar
DAEMON_LIST = $(DAEMON_LIST) MAYFLY_REGISTRAR
STARTD_CRON_JOBLIST = $(STARTD_CRON_JOBLIST) MAYFLY
STARTD_CRON_MAYFLY_EXECUTABLE = $(MAYFLY_PROGRAMS)/sensor
STARTD_CRON_MAYFLY_MODE = Periodic
STARTD_CRON_MAYFLY_PERIOD = {PERIOD_S}s
START = ($(START:True)) && (TARGET.VMImage =?= undefined || TARGET.VMImage =?= "" || \\
  TARGET.VMImage =?= "none" || MY.HasMayfly =?= True)
"""
TRANSFORM = f"""\
# Hosts of submission: jobs that want a machine go where there are some, first where their image is
# hot, and are held when they end with {RUN_FAILED}.
JOB_TRANSFORM_NAMES = $(JOB_TRANSFORM_NAMES) Mayfly
JOB_TRANSFORM_Mayfly @=end
  REQUIREMENTS {WANTED}
  SET Requirements ($(MY.Requirements:True)) && (TARGET.HasMayfly =?= True)
  SET Rank ($(MY.Rank:0.0)) + {HOT_RANK} * (stringListMember(MY.VMImage, TARGET.MayflyHot) =?= True)
  SET OnExitHold ($(MY.OnExitHold:False)) || (ExitBySignal =?= False && ExitCode =?= {RUN_FAILED})
  SET OnExitHoldReason "mayfly: there was no machine for the job; its standard error says why"
@end
"""
_IS_IMAGE = (
    "VMImage is undefined || (isString(VMImage) && "
    f'(VMImage == "" || regexp("^{IMAGE}$", VMImage)))'
)
_REQUIREMENTS = {
    "Universe": (
        f"!{WANTED} || JobUniverse == 5",
        "only jobs of the vanilla universe run in machines of Mayfly",
    ),
    "Image": (
        _IS_IMAGE,
        'VMImage must be the name of an image, in quotes: +VMImage = \\"debian-12\\"',
    ),
    "List": (
        'VMImage isnt "list"',
        "'mayfly image list' on a host with images shows them; nothing was submitted",
    ),
    "Network": (
        'VMNetwork is undefined || stringListMember(VMNetwork, "none,restricted,open") =?= True',
        "VMNetwork must be none, restricted or open",
    ),
    "Allow": (
        'VMAllow is undefined || (isString(VMAllow) && VMNetwork is "restricted")',
        "VMAllow is for VMNetwork restricted only",
    ),
}


def snippet(programs: Path, *, executes: bool, submits: bool) -> str:
    """Give the file, for a host that runs jobs, or submits them, or both."""
    parts = ["# Written by 'mayfly batch install htcondor'.", f"MAYFLY_PROGRAMS = {programs}", ""]
    if executes:
        parts.append(EXECUTE)
    if submits:
        parts += [TRANSFORM, *_requirements()]
        names = " ".join(ATTRIBUTES.values())
        parts.append(f"# Attributes that are understood: {names}")
    return "\n".join(parts) + "\n"


def _requirements() -> list[str]:
    names = [f"Mayfly{name}" for name in _REQUIREMENTS]
    lines = [f"SUBMIT_REQUIREMENT_NAMES = $(SUBMIT_REQUIREMENT_NAMES) {' '.join(names)}"]
    for name, (expression, reason) in _REQUIREMENTS.items():
        lines.append(f"SUBMIT_REQUIREMENT_Mayfly{name} = {expression}")
        lines.append(f'SUBMIT_REQUIREMENT_Mayfly{name}_REASON = "mayfly: {reason}"')
    return [*lines, ""]
