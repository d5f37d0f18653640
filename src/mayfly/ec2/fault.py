"""What went wrong, in EC2's words: a code, a message, an HTTP status."""

from __future__ import annotations

from mayfly.errors import (
    Conflict,
    Denied,
    Failed,
    Invalid,
    MayflyError,
    Missing,
    Quota,
    Unavailable,
    Untrusted,
)


class Fault(Invalid):
    """A request that is refused with a code of EC2's own list.

    Codes: https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html
    """

    def __init__(self, code: str, message: str, *, status: int = 400) -> None:
        super().__init__(message)
        self.code = code
        self.status = status


class TokenReused(Conflict):
    """A client token was used before, for another order."""


CODES: dict[type[MayflyError], tuple[str, int]] = {
    Invalid: ("InvalidParameterValue", 400),
    Denied: ("UnauthorizedOperation", 403),
    Missing: ("InvalidInstanceID.NotFound", 400),
    TokenReused: ("IdempotentParameterMismatch", 400),
    Conflict: ("IncorrectInstanceState", 400),
    Unavailable: ("Unavailable", 503),
    Quota: ("InstanceLimitExceeded", 400),
    Untrusted: ("UnauthorizedOperation", 403),
    Failed: ("InternalError", 500),
}
"""The one table from our errors to EC2's codes and statuses."""


def fault_of(error: MayflyError) -> Fault:
    """Put an error of ours into EC2's words; what failed inside is not told to a stranger."""
    if isinstance(error, Fault):
        return error
    kinds = (kind for kind in type(error).__mro__ if kind in CODES)
    code, status = CODES[next(kinds, Failed)]
    if status == 500:
        return Fault(code, "the site could not do this; its log says why", status=status)
    return Fault(
        code, f"{error.message}: {error.hint}" if error.hint else error.message, status=status
    )


def invalid(name: str, why: str) -> Fault:
    """Refuse the value of a parameter."""
    return Fault("InvalidParameterValue", f"the value of {name} {why}")
