"""The outermost handler of a request: whatever goes wrong in it, its caller gets an answer.

A fault of ours that one request runs into must not be a way to end the service for everybody.
"""

from __future__ import annotations

import logging

from mayfly.errors import Failed, MayflyError
from mayfly.host.caller import Caller
from mayfly.host.loop import Task
from mayfly.host.work import Step

log = logging.getLogger("mayfly.host")


def guarded(step: Step[None], caller: Caller) -> Task:
    """Run a request to its end; what it raises is its answer."""
    try:
        yield from step
    except MayflyError as error:
        caller.fail(error)
    except Exception as error:
        log.exception("a fault in the service itself")
        name = type(error).__name__
        caller.fail(
            Failed(f"a fault in the host service itself: {name}", hint="its log has the details")
        )
