"""The wrapper of jobs: in the place of a job's program, as its user.

HTCondor calls it with the program and its arguments. What it writes into the file that
``_CONDOR_WRAPPER_ERROR_FILE`` names makes HTCondor put the job back into the queue; a job that ends
with 125 is held, since the transform of submissions says so.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path

from mayfly.batch.htcondor.ads import options_of, parse_ad, whole
from mayfly.batch.htcondor.places import place_of
from mayfly.batch.job import TICKET_LONGEST, Fault, Ticket, read_ticket
from mayfly.batch.running import become, has_tries, is_bare, run_task
from mayfly.batch.settings import BatchSettings
from mayfly.batch.starter import Payload
from mayfly.batch.wish import parse_wish
from mayfly.errors import RUN_FAILED, Failed, Invalid, MayflyError
from mayfly.policy.model import Ask

JOB_AD, ERROR_FILE = "_CONDOR_JOB_AD", "_CONDOR_WRAPPER_ERROR_FILE"
AD_LONGEST = 4 << 20
ANSWER_LIMIT_S = 90.0
HOST_ONLY = (ERROR_FILE, "_CONDOR_CHIRP_CONFIG", "_CONDOR_CREDS")


def start_job(words: Sequence[str], environ: Mapping[str, str], settings: BatchSettings) -> int:
    """Run the job; gives the exit status, or ends by the signal that ended it."""
    if not words:
        raise Invalid("HTCondor gave no program to start")
    ad = read_ad(environ)
    ticket = ticket_for(ad, settings)
    if is_bare(ticket):
        return become(tuple(words), environ)
    env = {name: value for name, value in environ.items() if name not in HOST_ONLY}
    payload = Payload(argv=tuple(words), environ=env, tty=None)

    def again(reason: str) -> int:
        if has_tries(ticket, settings):
            _fail(environ, reason)
        return RUN_FAILED

    return run_task(ticket, payload, settings, again)


def read_ad(environ: Mapping[str, str]) -> dict[str, str]:
    """Read the job's ad, an empty one where HTCondor has left none."""
    name = environ.get(JOB_AD, "")
    if not name:
        return {}
    try:
        with open(name, encoding="utf-8", errors="replace") as file:
            return parse_ad(file.read(AD_LONGEST))
    except OSError as error:
        raise Failed(f"cannot read the job's ad {name}: {error.strerror}") from error


def ticket_for(ad: Mapping[str, str], settings: BatchSettings) -> Ticket:
    """Ask root's program for the job's ticket; what kept it from one stands in the ticket."""
    options = options_of(ad)
    job = f"{whole(ad, 'ClusterId')}.{whole(ad, 'ProcId')}"
    restart = max(0, whole(ad, "NumShadowStarts", 1) - 1)
    try:
        return ask(options, restart, settings)
    except MayflyError as error:
        reason, hint = error.message, error.hint
    try:
        nothing = parse_wish(options).ask in (Ask.NOTHING, Ask.NATIVE)
        fault = None if nothing else Fault.MAYFLY
    except Invalid as error:
        fault, reason, hint = Fault.JOB, error.message, error.hint
    return Ticket(
        system="htcondor",
        job=job,
        key=f"-/{job}/-",
        restart=restart,
        fault=fault,
        reason=reason,
        hint=hint,
    )


def ask(options: Mapping[str, str], restart: int, settings: BatchSettings) -> Ticket:
    """Ask root's program; raises ``MayflyError``."""
    place = place_of(settings)
    told = json.dumps({"options": dict(options), "restart": restart}).encode() + b"\n"
    answer = bytearray()
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(ANSWER_LIMIT_S)
            connection.connect(str(place))
            connection.sendall(told)
            while len(answer) <= 2 * TICKET_LONGEST and (part := connection.recv(1 << 16)):
                answer += part
    except OSError as error:
        raise Failed(
            f"root's program for HTCondor does not answer at {place}: {error}",
            hint="condor_master starts it: 'mayfly batch check htcondor' (root) looks at it",
        ) from error
    try:
        values = json.loads(answer)
        if "ticket" in values:
            return read_ticket(values["ticket"])
        raise Failed(str(values["refused"]))
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise Failed(f"root's program for HTCondor gave no answer at {place}") from error


def _fail(environ: Mapping[str, str], reason: str) -> None:
    """Have HTCondor put the job back: it shows the reason in the job's log of events."""
    name = environ.get(ERROR_FILE, "")
    if not name:
        return
    try:
        Path(name).write_text(f"mayfly: {' '.join(reason.split())[:900]}\n")
    except OSError as error:
        # It is HTCondor's own, in the job's directory: then only the exit status tells.
        os.write(2, f"mayfly: {name}: {error.strerror}\n".encode())
