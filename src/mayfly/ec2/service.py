"""One request, from bytes to bytes: prove who asks, find the action, put its answer into XML."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from mayfly.ec2.actions import ACTIONS, name_of
from mayfly.ec2.answer import write_answer, write_fault
from mayfly.ec2.call import Call
from mayfly.ec2.credentials import Credentials, Vault, authenticate
from mayfly.ec2.fault import Fault, fault_of
from mayfly.ec2.ports import Backend
from mayfly.ec2.query import Query, merge, parse_pairs
from mayfly.ec2.signature import Request
from mayfly.errors import Failed, MayflyError

PATHS = (b"/", b"/ec2", b"/ec2/")
"""Where the API is: at the root of a host name of its own, or beside others."""
FORM = "application/x-www-form-urlencoded"

log = logging.getLogger(__name__)


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """What goes back."""

    status: int
    request: str
    """The id under which the log has this request."""
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """Answers requests; may be called from many threads at once."""

    backend: Backend
    credentials: Credentials
    vault: Vault
    clock: Callable[[], datetime] = _now

    def answer(self, request: Request, client: str = "") -> Response:
        """Give the response to a request; it never raises.

        ``client`` is the address that it came from, for the log.
        """
        number = str(uuid.uuid4())
        told = {"request_id": number, "client": client}
        try:
            return Response(status=200, request=number, body=self._act(request, number, told))
        except MayflyError as error:
            if isinstance(error, Failed):
                log.exception("ec2.failed", extra=told)
            return refuse(fault_of(error), number, told)
        except Exception as error:
            log.exception("ec2.failed", extra=told)
            return refuse(fault_of(Failed(f"a bug: {error!r}")), number, told)

    def _act(self, request: Request, number: str, told: dict[str, str]) -> bytes:
        check_edge(request)
        now = self.clock()
        find = self.credentials.find_credential
        owner, claim = authenticate(request, find, self.vault, now)
        told["owner"] = owner
        values = read_values(request)
        action, version = name_of(values)
        told["action"] = action
        call = Call(
            owner=owner,
            query=Query(values),
            backend=self.backend,
            now=now,
            signature=claim.signature,
        )
        answer = ACTIONS[action](call)
        log.info("ec2.done", extra=told)
        return write_answer(action, version, number, answer)


def refuse(fault: Fault, number: str, told: dict[str, str] | None = None) -> Response:
    """Give the response that says what is wrong."""
    log.info("ec2.refused", extra={**(told or {"request_id": number}), "code": fault.code})
    return Response(status=fault.status, request=number, body=write_fault(fault, number))


def check_edge(request: Request) -> None:
    """Refuse what cannot be a request to this API, before anything is computed for it.

    :raises Fault: another method, another path, another kind of body
    """
    if request.path not in PATHS:
        raise Fault("InvalidAction", "There is nothing at this address", status=404)
    if request.method not in ("GET", "POST"):
        raise Fault("InvalidRequest", "Only GET and POST are answered", status=405)
    kind = request.header("content-type").partition(";")[0].strip().lower()
    if request.body and (request.method != "POST" or kind != FORM):
        raise Fault("InvalidRequest", f"Only a POST has a body, and it is {FORM}", status=415)
    if request.header("content-encoding") not in ("", "identity"):
        raise Fault("InvalidRequest", "A body must not be packed", status=415)


def read_values(request: Request) -> dict[str, str]:
    """Give the parameters of the address and of the body together.

    :raises Fault: one of them twice, or one that is broken
    """
    pairs = parse_pairs(request.query, form=False) + parse_pairs(request.body, form=True)
    # Those of the signature were read, each once, when it was checked.
    return merge((name, value) for name, value in pairs if not name.startswith("X-Amz-"))
