"""The verifier of submissions (JSV): one process beside the master, which asks it of each job.

It refuses what no host would run, with words that the user sees, and writes what a job asks for
into the job's environment, where root's prolog finds it. Grid Engine's protocol is one line each
way; see jsv(1).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Mapping, Sequence

from mayfly.batch.gridengine.request import (
    VARIABLE,
    Request,
    read_size,
    read_time,
    write_request,
)
from mayfly.batch.wish import LIST, OPTIONS, Wish, parse_wish
from mayfly.errors import Denied, Invalid, MayflyError
from mayfly.policy.model import Ask
from mayfly.units import MIB

log = logging.getLogger("mayfly.batch")

PREFIX = "vm_"
ALIASES = {"name": "image"}
"""``vm_name`` is what ancestors of ours called it."""
RESOURCES = ("image", "name", "network")
"""Options that may be written as resources (``-l``), too; all may be context (``-ac``)."""
GUEST_MEMORY, MEMORY, TIME = "vmem", "h_vmem", "h_rt"
READY, HOT = "vm_ready", "vm_hot"
"""What hosts say of themselves: see ``sensor``."""
SEPARATOR = ";"
"""Between several values of one option: a comma is Grid Engine's own."""
INTERACTIVE = ("qsh", "qlogin", "qrsh")
CUT = re.compile(r"[^ -~]+")
WORDS_LONGEST = 900

Params = Mapping[str, str]
Answer = Callable[[Params], Sequence[str]]
Look = Callable[[Wish, Params], str]
"""Gives the image that a job gets as far as that is known, "" for none or unknown; raises
``MayflyError`` when it may not have it."""


def converse(lines: Iterable[str], send: Callable[[str], None], answer: Answer) -> None:
    """Answer for one job after the other until the master hangs up."""
    params: dict[str, str] = {}
    for line in lines:
        words = line.rstrip("\n").split(" ", 2)
        if words[0] == "QUIT":
            return
        if words[0] == "START":
            params = {}
            send("STARTED")
        elif words[0] == "PARAM" and len(words) > 1:
            params[words[1]] = words[2] if len(words) > 2 else ""
        elif words[0] == "BEGIN":
            for told in answer(params):
                send(told)


def answer_for(
    params: Params, look: Look, *, enabled: bool, images: Callable[[], str]
) -> list[str]:
    """Give the lines by which a job is taken, changed or refused; never raises."""
    try:
        options = options_of(params)
        if options.get("image") == LIST:
            return [_refusal(f"images that you may use: {images() or 'none'}")]
        return _changes(params, options, look, enabled=enabled)
    except MayflyError as error:
        hint = f"; {error.hint}" if error.hint else ""
        return [_refusal(f"{error.message}{hint}")]


def _refusal(text: str) -> str:
    """Give the line that refuses a job: plain signs, which are what Grid Engine takes."""
    plain = " ".join(CUT.sub(" ", text).split())
    return f"RESULT STATE REJECT mayfly: {plain[:WORDS_LONGEST]}"


def options_of(params: Params) -> dict[str, str]:
    """Give the options of ours that a job names; what stands in the context goes first."""
    resources = pairs(params.get("l_hard", ""))
    context = pairs(params.get("ac", ""))
    found = {}
    for name, value in {**_ours(resources, RESOURCES), **_ours(context, _NAMES)}.items():
        found[ALIASES.get(name, name)] = value.replace(SEPARATOR, ",")
    return found


_NAMES = (*OPTIONS, *ALIASES)


def _ours(values: Params, names: Sequence[str]) -> dict[str, str]:
    return {name: values[PREFIX + name] for name in names if PREFIX + name in values}


def pairs(text: str) -> dict[str, str]:
    """Read ``a=1,b=2``."""
    return dict(part.partition("=")[::2] for part in text.split(",") if part)


def _changes(params: Params, options: Params, look: Look, *, enabled: bool) -> list[str]:
    wish = parse_wish(options)
    asks = wish.ask in (Ask.IMAGE, Ask.MACHINE)
    if not enabled:
        if asks:
            raise Denied("machines for jobs are switched off at this site")
        return [f"ENV DEL {VARIABLE}", "RESULT STATE CORRECT"]
    if asks and params.get("CLIENT") in INTERACTIVE:
        raise Invalid("interactive jobs run on the host itself", hint="submit with qsub")
    image = look(wish, params)
    resources = pairs(params.get("l_hard", ""))
    request = request_of(options, resources)
    lines = [f"ENV ADD {VARIABLE} {write_request(request)}"]
    if image:
        lines += _for_machine(params, resources, image, request.memory_mib(1))
    return [*lines, "RESULT STATE CORRECT"]


def request_of(options: Params, resources: Params) -> Request:
    """Give what the prolog is told; raises ``Invalid``."""
    sizes = {
        name: -(-read_size(resources[name]) // MIB) if name in resources else 0
        for name in (GUEST_MEMORY, MEMORY)
    }
    return Request(
        options=options,
        guest_mib=sizes[GUEST_MEMORY],
        whole_mib=sizes[MEMORY],
        wall_s=read_time(resources.get(TIME, "")),
    )


def _for_machine(params: Params, resources: Params, image: str, whole_mib: int) -> list[str]:
    """Send it to hosts that are fit, count its memory, and show its image in ``qstat -j``.

    ``whole_mib``: what a slot's machine and its QEMU may have. All of it is counted, so that hosts
    with plain jobs beside machines are never promised twice.
    """
    hard = {name: value for name, value in resources.items() if not _is_option(name)}
    hard[GUEST_MEMORY] = f"{whole_mib}M"
    hard[READY] = "TRUE"
    soft = {**pairs(params.get("l_soft", "")), HOT: f"*{image.partition('@')[0]}*"}
    context = {k: v for k, v in pairs(params.get("ac", "")).items() if k != f"{PREFIX}image"}
    return [
        f"PARAM l_hard {_joined(hard)}",
        f"PARAM l_soft {_joined(soft)}",
        f"PARAM ac {_joined({**context, f'{PREFIX}image': image})}",
    ]


def _is_option(name: str) -> bool:
    return name.removeprefix(PREFIX) in RESOURCES and name.startswith(PREFIX)


def _joined(values: Params) -> str:
    return ",".join(f"{name}={value}" if value else name for name, value in values.items())
