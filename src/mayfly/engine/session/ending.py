"""How a session comes to its end: the job's status, a failure, a signal, or a deadline."""

from __future__ import annotations

from mayfly.engine.session.job import JobResult
from mayfly.errors import RUN_FAILED, TIME_LIMIT
from mayfly.model import Who


class Ending:
    """The first verdict stands; what comes after it can only add warnings."""

    def __init__(self) -> None:
        self._verdict: tuple[int, str, Who, str] | None = None
        self._limit = ""
        self.job: tuple[int, str] | None = None
        """The job's own exit status, and how it ended in words."""
        self.hurried = False

    @property
    def decided(self) -> bool:
        """Whether the result stands."""
        return self._verdict is not None

    @property
    def limit_reached(self) -> bool:
        """Whether the job was ended at its time limit."""
        return bool(self._limit)

    def hurry(self) -> None:
        """Wait no longer for the readers of what the job wrote."""
        self.hurried = True

    def limit(self, words: str) -> None:
        """From here on the time limit is what ended the job, whatever else happens."""
        self._limit = words

    def by_job(self) -> None:
        """Everything is done: the result is the job's own, or that of its time limit."""
        if self._limit:
            self._decide(TIME_LIMIT, "job", Who.JOB, self._limit)
        elif self.job is not None:
            code, words = self.job
            self._decide(code, "done", Who.JOB, words)

    def by_user(self, code: int, phase: str, reason: str) -> None:
        """The user's signal or limit ended it."""
        self._decide(TIME_LIMIT if self._limit else code, phase, Who.JOB, reason)

    def by_failure(self, phase: str, reason: str) -> None:
        """The machine, or Mayfly, failed."""
        if self._limit:
            self._decide(TIME_LIMIT, phase, Who.JOB, f"{self._limit}; then {reason}")
        elif self.job is not None:
            self._decide(RUN_FAILED, phase, Who.MAYFLY, f"{self.job[1]}, but then {reason}")
        else:
            self._decide(RUN_FAILED, phase, Who.MAYFLY, reason)

    def _decide(self, code: int, phase: str, who: Who, reason: str) -> None:
        if self._verdict is None:
            self._verdict = (code, phase, who, reason)

    def result(self, warnings: tuple[str, ...]) -> JobResult:
        """Give the result, with all that was remarked on the way."""
        code, phase, who, reason = self._verdict or (RUN_FAILED, "start", Who.MAYFLY, "no result")
        return JobResult(code=code, phase=phase, who=who, reason=reason, warnings=warnings)
