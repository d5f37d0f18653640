"""What a job asks for, on its way from the verifier of submissions to root's prolog.

The verifier runs where jobs are submitted to, the prolog on the host of the job. Between them it is
one variable of the job's environment, which the verifier sets or removes for every job: what a user
put there himself is never seen.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlencode

from mayfly.batch.wish import OPTIONS
from mayfly.errors import Invalid
from mayfly.host.limits import OVERHEAD_TCG_MIB
from mayfly.units import MIB, round_memory

VARIABLE = "MAYFLY_JOB"
LONGEST = 8192
MEMORY_MIB = 512
"""For a job that asks for none."""
GUEST, WHOLE, WALL = "guest_mib", "whole_mib", "wall_s"
_NUMBERS = (GUEST, WHOLE, WALL)
_SIZE = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,9})?)([kKmMgGtT]?)")
_TIME = re.compile(r"(?:([0-9]{0,7}):)?(?:([0-9]{0,7}):)?([0-9]{1,10})")
_SHIFTS = {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a job asks for: options of ours, and of its resources those that matter."""

    options: Mapping[str, str]
    """By their names in ``mayfly.batch.wish.OPTIONS``."""
    guest_mib: int = 0
    """Memory of the machine, for each slot; 0: not said."""
    whole_mib: int = 0
    """Memory of the machine and its QEMU, for each slot; 0: not said."""
    wall_s: int = 0
    """0: not said."""

    def memory_mib(self, slots: int) -> int:
        """Give all that the machine and its QEMU may have."""
        if not self.guest_mib and self.whole_mib:
            return self.whole_mib * slots
        guest_mib = (self.guest_mib or MEMORY_MIB) * slots
        return round_memory(guest_mib * MIB) + OVERHEAD_TCG_MIB


def write_request(request: Request) -> str:
    """Give a request as one word."""
    numbers = {GUEST: request.guest_mib, WHOLE: request.whole_mib, WALL: request.wall_s}
    told = {name: str(number) for name, number in numbers.items() if number}
    return urlencode({"v": "1", **request.options, **told})


def read_request(text: str) -> Request:
    """Read a request, an empty one when there is none; raises ``Invalid``."""
    if len(text) > LONGEST:
        raise Invalid("what the job asks for is too long")
    values = dict(parse_qsl(text, keep_blank_values=True))
    if text and values.pop("v", "") != "1":
        raise Invalid("what the job asks for was written by another version of Mayfly")
    numbers = {name: _whole(name, values.pop(name, "0")) for name in _NUMBERS}
    for name in values:
        if name not in OPTIONS:
            raise Invalid(f"what the job asks for has an unknown part '{name[:40]}'")
    return Request(options=values, **numbers)


def _whole(name: str, text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise Invalid(f"what the job asks for has no good '{name}'")
    return int(text)


def read_size(text: str) -> int:
    """Give bytes of Grid Engine's ``2g``, ``512M``; raises ``Invalid``.

    A small letter is as large as its capital: nobody who writes 2g means less than a whole machine
    of 2 GiB, and the line of old ``-l vmem=2g`` stays as it was.
    """
    match = _SIZE.fullmatch(text)
    if match is None:
        raise Invalid(f"{text[:40]!r} is no size of memory", hint="write 2G or 512M")
    number, letter = match.groups()
    return int(float(number) * (1 << _SHIFTS[letter.upper()]))


def read_time(text: str) -> int:
    """Give seconds of ``3600`` or ``1:0:0``; 0 for what is no time."""
    match = _TIME.fullmatch(text)
    if match is None:
        return 0
    parts = [int(part or 0) for part in text.split(":")]
    total = 0
    for part in parts:
        total = total * 60 + part
    return min(total, 999_999_999)
