"""Pages of a long list: ``MaxResults`` and ``NextToken``.

A token says after which thing to go on, so things that come or go meanwhile neither double nor hide
others. It is not secret: whatever it says, only the caller's own things are listed.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from mayfly.ec2.fault import Fault
from mayfly.ec2.query import Query

MOST = 1000

Thing = TypeVar("Thing")


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Which part of a list is wanted."""

    most: int
    after: str
    """The key of the last thing of the page before; empty: from the start."""
    question: str
    """A digest of all other parameters: a token serves only the question that it came from."""
    asked: bool
    """Whether the client asked for pages at all."""


def read_page(query: Query, *, least: int = 5) -> Page:
    """Read it from the parameters.

    :raises Fault: a token that is none, or came from another question
    """
    most = query.whole("MaxResults", least=least, most=MOST)
    token = query.text("NextToken", longest=2048)
    rest = sorted(
        (name, value)
        for name, value in query.values.items()
        if name not in ("MaxResults", "NextToken", "DryRun", "Version")
        and not name.startswith("X-Amz-")
    )
    question = hashlib.sha256(json.dumps(rest).encode()).hexdigest()[:16]
    after = _read_token(token, question) if token else ""
    return Page(most=most or MOST, after=after, question=question, asked=most is not None)


def cut(
    things: Sequence[Thing], key: Callable[[Thing], str], page: Page
) -> tuple[list[Thing], str | None]:
    """Give the things of the page, by their keys, and the token of the next one if there is one."""
    left = sorted((each for each in things if key(each) > page.after), key=key)
    wanted = left[: page.most]
    more = len(left) > len(wanted)
    return wanted, _token(key(wanted[-1]), page.question) if more else None


def _token(after: str, question: str) -> str:
    return base64.urlsafe_b64encode(json.dumps([question, after]).encode()).decode()


def _read_token(token: str, question: str) -> str:
    refused = Fault("InvalidPaginationToken", "The NextToken is not one of this list")
    try:
        value = json.loads(base64.b64decode(token.encode(), altchars=b"-_", validate=True))
    except (ValueError, RecursionError):
        raise refused from None
    match value:
        case [str(asked), str(after)] if asked == question:
            return after
    raise refused
