"""The verifier at work: with the policy and the images of the site, for one job after the other."""

from __future__ import annotations

import contextlib
import pwd
from collections.abc import Callable, Iterable

from mayfly.batch.admission import Counter
from mayfly.batch.gridengine.verifier import Params, answer_for, converse
from mayfly.batch.groups import groups_of
from mayfly.batch.settings import BatchSettings
from mayfly.batch.wish import Wish
from mayfly.config import Paths
from mayfly.policy.people import Person


def serve(
    settings: Callable[[], BatchSettings], lines: Iterable[str], send: Callable[[str], None]
) -> None:
    """Answer until the master hangs up; the settings are read for each job: they may change."""
    counter = Counter(Paths.for_user())

    def look(wish: Wish, params: Params) -> str:
        return counter.image_for(person_of(params), wish)

    def answer(params: Params) -> list[str]:
        def images() -> str:
            return " ".join(counter.names_for(person_of(params)))

        return answer_for(params, look, enabled=settings().enabled, images=images)

    converse(lines, send, answer)


def person_of(params: Params) -> Person:
    """Give who submits, as the master knows him; groups are those of this host."""
    user = params.get("USER", "") or "nobody"
    names = [params["GROUP"]] if params.get("GROUP") else []
    # He need not have an account where the master is.
    with contextlib.suppress(KeyError, ValueError, OSError):
        names += groups_of(user, pwd.getpwnam(user).pw_gid)
    queues = params.get("q_hard", "").split(",")
    name = queues[0].partition("@")[0] if len(queues) == 1 else ""
    known = name if name and not any(sign in name for sign in "*?[]!&|()") else ""
    return Person(user=user, groups=tuple(dict.fromkeys(names)), queue=known)
