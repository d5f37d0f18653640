"""What Torque's ``qsub`` is going to submit: its words, and the script's ``#PBS`` lines."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from mayfly.batch.pbs.job import Shown, options_of, parse_variables
from mayfly.batch.refusal import check_submission
from mayfly.batch.settings import BatchSettings
from mayfly.policy.people import Person

DIRECTIVE = b"#PBS"


def check_script(
    words: Sequence[str], script: bytes, person: Person, settings: BatchSettings
) -> None:
    """Refuse a job that no host would run; raises ``MayflyError``."""
    queue = ""
    variables: dict[str, str] = {}
    extension = ""
    # The command line goes before the script.
    for option, value in [*_pairs(directives(script)), *_pairs(words)]:
        if option == "-v":
            variables.update(parse_variables(value))
        elif option == "-q":
            queue = value.partition("@")[0]
        elif option == "-W" and value.startswith("x="):
            extension = value[2:]
    shown = Shown(job="new", user=person.user, variables=variables, extension=extension)
    who = Person(user=person.user, groups=person.groups, queue=queue)
    check_submission(options_of(shown), who, settings)


def directives(script: bytes) -> list[str]:
    """Give the words of a script's ``#PBS`` lines, up to its first command."""
    found: list[str] = []
    for line in script.splitlines():
        text = line.strip()
        if text and not text.startswith(b"#"):
            break
        if text.startswith(DIRECTIVE):
            plain = text[len(DIRECTIVE) :].decode("utf-8", "replace")
            try:
                found += shlex.split(plain, comments=True)
            except ValueError:
                continue  # No matching quote: qsub itself says what it makes of that.
    return found


def _pairs(words: Sequence[str]) -> list[tuple[str, str]]:
    """Give options with their values, written apart or together."""
    found = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word[:2] in ("-v", "-q", "-W"):
            found.append((word[:2], word[2:] or (rest.pop(0) if rest else "")))
    return found
