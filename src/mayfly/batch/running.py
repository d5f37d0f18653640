"""The starter's way through a job: without a machine, in one, or back to the batch system."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping

from mayfly.batch.ending import end_by, say
from mayfly.batch.job import Fault, Ticket
from mayfly.batch.settings import BatchSettings
from mayfly.batch.starter import Payload, outcome_lines, run_bare, start
from mayfly.engine.session.job import signal_of

Again = Callable[[str], int]
"""Is told why Mayfly failed; gives the exit status by which the batch system takes the job back."""


def run_task(ticket: Ticket, payload: Payload, settings: BatchSettings, again: Again) -> int:
    """Run a job in its machine; gives the exit status, or ends by the signal that ended it."""
    # Should the service be restarted meanwhile, it is asked again there.
    os.environ["MAYFLY_HOST_SOCKET"] = str(settings.socket)
    ended = start(ticket, payload, settings, say)
    for line in outcome_lines(ended):
        say(line)
    if ended.fault in (Fault.MAYFLY, Fault.SITE):
        return again(ended.outcome.reason)
    if number := signal_of(ended.outcome):
        end_by(number)
    return ended.outcome.code


def is_bare(ticket: Ticket) -> bool:
    """Tell whether the job runs on the host itself."""
    return not ticket.image and ticket.fault is None


def become(argv: tuple[str, ...], environ: Mapping[str, str]) -> int:
    """Become the job's program on the host; gives an exit status where that cannot be."""
    try:
        run_bare(argv, environ)
    except OSError as error:
        print(f"{argv[0]}: {error.strerror}", file=sys.stderr)
        return 127 if isinstance(error, FileNotFoundError) else 126
    return 0


def has_tries(ticket: Ticket, settings: BatchSettings) -> bool:
    """Tell whether a job that Mayfly failed is begun again, and say so."""
    if ticket.restart < settings.tries:
        say("the job will be begun again")
        return True
    say(f"the job was begun again {ticket.restart} times: that is enough")
    return False
