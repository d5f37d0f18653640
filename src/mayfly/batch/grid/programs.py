"""The program that BLAH's scripts call."""

from __future__ import annotations

from collections.abc import Mapping

from mayfly.batch.ending import say
from mayfly.batch.grid.requests import directives
from mayfly.batch.program import Call, Program, main_of
from mayfly.errors import MayflyError

NAMES = ("directives",)


main = main_of(lambda: _PROGRAMS)


def print_directives(call: Call) -> int:
    """Print lines for a local job's script; the word is BLAH's name of the batch system."""
    try:
        lines, wrong = directives(" ".join(call.words), call.environ)
    except MayflyError as error:
        say(error.message)
        return 1
    for line in lines:
        print(line)
    if wrong:
        say(wrong)
    return 0


_PROGRAMS: Mapping[str, Program] = {"directives": print_directives}
