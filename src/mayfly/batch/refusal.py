"""Refuses at submission what no host would run, in words for the user's terminal."""

from __future__ import annotations

import grp
import os
import pwd
from collections.abc import Mapping

from mayfly.batch.admission import Counter
from mayfly.batch.settings import BatchSettings
from mayfly.batch.wish import LIST, parse_wish
from mayfly.config import Paths
from mayfly.errors import Denied, Invalid, MayflyError
from mayfly.policy.model import Ask
from mayfly.policy.people import Person


def check_submission(options: Mapping[str, str], person: Person, settings: BatchSettings) -> str:
    """Give the image of a job as far as it is known, "" for none; raises ``MayflyError``.

    ``options``: by their names in ``OPTIONS``.
    """
    counter = Counter(Paths.for_user())
    if options.get("image") == LIST:
        names = " ".join(counter.names_for(person))
        raise Invalid(f"images that you may use: {names or 'none'}", hint="nothing was submitted")
    wish = parse_wish(options)
    if not settings.enabled:
        if wish.ask in (Ask.IMAGE, Ask.MACHINE):
            raise Denied("machines for jobs are switched off at this site")
        return ""
    return counter.image_for(person, wish)


def person_called(user: str, queue: str = "") -> Person:
    """Give who submits; groups are those of this host, where he may have no account."""
    names: list[str] = []
    try:
        entry = pwd.getpwnam(user)
        names = [grp.getgrgid(gid).gr_name for gid in os.getgrouplist(user, entry.pw_gid)]
    except (KeyError, ValueError, OSError):
        names = []
    return Person(user=user or "nobody", groups=tuple(dict.fromkeys(names)), queue=queue)


def words_of(error: MayflyError) -> str:
    """Give an error in one line, for a batch system that shows one."""
    hint = f"; {error.hint}" if error.hint else ""
    text = f"mayfly: {error.message}{hint}"
    return " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())[:900]
