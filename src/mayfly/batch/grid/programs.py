"""The program that BLAH's scripts call."""

from __future__ import annotations

from collections.abc import Mapping

from mayfly.batch.ending import say
from mayfly.batch.grid.requests import directives
from mayfly.batch.program import Call, Program, call_of, end
from mayfly.errors import MayflyError

NAMES = ("directives",)


def main(name: str, *, cluster: str, config: str, home: str = "") -> None:
    """Run one of the programs; ``home``: as ``MAYFLY_HOME``, where images and policy are."""
    end(_PROGRAMS[name], call_of(cluster, config), home=home)


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
