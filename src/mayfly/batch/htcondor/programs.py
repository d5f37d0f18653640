"""The programs that HTCondor calls: the wrapper of jobs, root's registrar, and the sensor."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from mayfly.batch.ending import say
from mayfly.batch.program import Call, Program, main_of
from mayfly.errors import RUN_FAILED, MayflyError

NAMES = ("starter", "registrar", "sensor")
CONDOR_STARTER = "CONDOR_STARTER"
"""Which program of HTCondor's is believed, as the installation found it."""
DEFAULT_STARTER = "/usr/sbin/condor_starter"


main = main_of(lambda: _PROGRAMS, roots=("registrar",))


def registrar(call: Call) -> int:
    """Root's, a daemon of condor_master: registers jobs until it is ended."""
    from mayfly.batch.htcondor.desk import serve  # noqa: PLC0415 - not for each job

    try:
        serve(call.site, Path(call.environ.get(CONDOR_STARTER, DEFAULT_STARTER)))
    except MayflyError as error:
        say(error.message)
    return 1


def sensor(call: Call) -> int:
    """The startd's: says whether this host takes jobs in machines, and which images are hot."""
    from mayfly.batch.htcondor.ads import quoted  # noqa: PLC0415 - not for each job
    from mayfly.batch.status import ask_status, ready_images  # noqa: PLC0415

    try:
        status = ask_status(call.site.settings())
    except MayflyError:
        status = None
    ready = status is not None and not status.get("draining")
    hot = ready_images(status) if status is not None and ready else []
    print(f"HasMayfly = {str(ready).lower()}")
    print(f"MayflyHot = {quoted(','.join(hot))}")
    print("-", flush=True)
    return 0


def starter(call: Call) -> int:
    """The user's: ``USER_JOB_WRAPPER``."""
    from mayfly.batch.htcondor.starting import start_job  # noqa: PLC0415 - not for the others

    try:
        return start_job(call.words, call.environ, call.site.settings())
    except MayflyError as error:
        print(f"mayfly: {error.message}", file=sys.stderr)
        return RUN_FAILED


_PROGRAMS: Mapping[str, Program] = {
    "starter": starter,
    "registrar": registrar,
    "sensor": sensor,
}
