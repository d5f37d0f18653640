"""One request that was proved to be somebody's, on its way through an action."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from mayfly.ec2.answer import Value
from mayfly.ec2.fault import Fault
from mayfly.ec2.ports import Backend
from mayfly.ec2.query import Query


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """Who asks what, of which site, when."""

    owner: str
    query: Query
    backend: Backend
    now: datetime
    signature: str
    """Of the request: the same one again is the same request again."""

    def ready(self) -> None:
        """End the reading of parameters; nothing may be changed before this.

        :raises Fault: a parameter was not read, or only a trial was asked for
        """
        trial = self.query.flag("DryRun")
        self.query.finish()
        if trial:
            message = "Request would have succeeded, but DryRun flag is set."
            raise Fault("DryRunOperation", message, status=412)


def tag_set(tags: Sequence[tuple[str, str]]) -> list[Value]:
    """Give tags as they stand in answers."""
    return [{"key": key, "value": value} for key, value in tags]


def tags_of(call: Call) -> dict[str, list[tuple[str, str]]]:
    """Give the user's tags, by what they are on, sorted."""
    found: dict[str, list[tuple[str, str]]] = {}
    for tag in sorted(call.backend.tags.tags(call.owner), key=lambda tag: tag.key):
        found.setdefault(tag.resource, []).append((tag.key, tag.value))
    return found
