"""Carries a job's script into its machine: batch systems keep it where only the host sees it."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mayfly.errors import Failed, Invalid

PIECE = 96 << 10
"""Bytes in one variable: Linux takes 128 KiB."""
LONGEST = 1 << 20
VARIABLE = "MAYFLY_SCRIPT"
_SHIM = (
    "umask 077; d=$(mktemp -d /tmp/job.XXXXXXXX) || exit 125; f=$d/$1; shift; "
    'printf %s {parts} >"$f" || exit 125; chmod 0700 "$f"; u={umask}; umask $u; '
    'unset u d {names}; exec {reader}"$f" "$@"'
)
"""What becomes the script: not ``exec -a``, which not every shell has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Carried:
    """A command that brings a script along, and the variables that hold it."""

    argv: tuple[str, ...]
    env: Mapping[str, str]


def carry(
    script: Path, words: tuple[str, ...], *, umask: int, interpreter: tuple[str, ...] = ()
) -> Carried:
    """Give what runs a script of the host in a machine; ``words``: its arguments.

    ``interpreter``: the shell that reads it, with options; none: the script itself names it.

    Raises ``Invalid`` when it is too long or no text, ``Failed`` when it cannot be read.
    """
    try:
        with open(script, "rb") as file:
            content = file.read(LONGEST + 1)
    except OSError as error:
        raise Failed(f"cannot read the job's script {script}: {error.strerror}") from error
    if len(content) > LONGEST:
        raise Invalid(f"the job's script is longer than {LONGEST >> 10} KiB")
    if b"\0" in content:
        raise Invalid("the job's script is no text", hint="let a script call the program")
    # Only the shell's own '$(...)' would take newlines from the end; variables keep them.
    pieces = [content[at : at + PIECE] for at in range(0, len(content), PIECE)] or [b""]
    names = [f"{VARIABLE}_{number}" for number in range(len(pieces))]
    parts = " ".join(f'"${name}"' for name in names)
    # %s takes one; printf says it again for each of the others.
    reader = "".join(f"{shlex.quote(word)} " for word in interpreter)
    shim = _SHIM.format(parts=parts, names=" ".join(names), umask=f"{umask:04o}", reader=reader)
    env = {name: os.fsdecode(piece) for name, piece in zip(names, pieces, strict=True)}
    return Carried(argv=("/bin/sh", "-c", shim, "sh", script.name, *words), env=env)
