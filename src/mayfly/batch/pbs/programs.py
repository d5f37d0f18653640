"""The programs that PBS calls: Torque's prologue and epilogue, OpenPBS's hook, and the starter."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import replace

from mayfly.batch.ending import say
from mayfly.batch.job import Ticket, refused
from mayfly.batch.pbs.job import (
    Shown,
    check_one_host,
    job_of,
    number_of,
    options_of,
    parse_attributes,
    parse_variables,
    shown_of,
)
from mayfly.batch.program import Call, Program, Site, main_of
from mayfly.batch.registration import register as register_job
from mayfly.batch.registration import unregister
from mayfly.batch.tickets import leave, take
from mayfly.batch.wish import parse_wish
from mayfly.command import run
from mayfly.errors import Failed, Invalid, MayflyError

NAMES = ("prologue", "epilogue", "filter", "register", "release", "verify", "starter")
TORQUE, OPENPBS = ("prologue", "epilogue", "filter"), ("register", "release", "verify")
ELSEWHERE = 2
"""Of Torque's prologue: any status above 1 puts the job back into its queue."""
ASK_LIMIT_S = 30.0
LONGEST = 1 << 20


main = main_of(lambda: _PROGRAMS, roots=("prologue", "epilogue", "register", "release"))


# --- Torque's, on the job's host, as root --------------------------------------------------------


def prologue(call: Call) -> int:
    """Register the job that Torque names (id, user, group, ...), and leave its ticket."""
    try:
        if len(call.words) < 2:
            raise Invalid("Torque named no job")
        job = call.words[0]
        text = run(["qstat", "-f", job], timeout_s=ASK_LIMIT_S).text()
        shown = shown_of(job, parse_attributes(text))
        # Whose the job is, Torque says in its own words.
        _register(replace(shown, user=call.words[1]), call.site)
    except MayflyError as error:
        say(f"the job cannot be registered: {error.message}")
        return ELSEWHERE
    return 0


def epilogue(call: Call) -> int:
    """Take the right of a job back, whose end Torque tells (id, user, group, name, ...)."""
    try:
        _release(number_of(call.words[0] if call.words else ""), call.site)
    except MayflyError as error:
        say(error.message)
    return 0


# --- common to both ------------------------------------------------------------------------------


def _register(shown: Shown, site: Site) -> Ticket:
    """Register a job and leave its ticket; raises ``MayflyError`` when that cannot be left."""
    settings = site.settings()
    plain = job_of(replace(shown, resources={}), site.cluster)
    try:
        wish = parse_wish(options_of(shown))
        ticket = register_job(job_of(shown, site.cluster), wish, settings)
        if ticket.image:
            check_one_host(shown)
    except MayflyError as error:
        ticket = refused(plain, error)
    leave(settings, shown.job, ticket, plain.uid)
    return ticket


def _release(job: str, site: Site) -> str:
    """Take a job's right back; gives why it is to be begun again, "" when it is not."""
    settings = site.settings()
    reason = take(settings, job)
    try:
        unregister(f"{site.cluster}/{job}/*", settings)
    except MayflyError as error:
        say(error.message)
    return reason


# --- OpenPBS's hook asks these: one line of JSON each way -----------------------------------------


def register(call: Call) -> int:
    """Root's, on the job's host: register a job; says whether the starter is to run it."""
    try:
        ticket = _register(read_shown(sys.stdin.read(LONGEST)), call.site)
        return _answer(machine=bool(ticket.image) or ticket.fault is not None)
    except MayflyError as error:
        return _answer(reason=error.message)


def release(call: Call) -> int:
    """Root's, on the job's host: take a right back; says whether the job is begun again."""
    try:
        return _answer(again=_release(read_shown(sys.stdin.read(LONGEST)).job, call.site))
    except MayflyError as error:
        return _answer(reason=error.message)


def verify(call: Call) -> int:
    """The server's, at submission: says why a job is refused."""
    from mayfly.batch.refusal import check_submission, person_called, words_of  # noqa: PLC0415

    try:
        shown = read_shown(sys.stdin.read(LONGEST), new=True)
        person = person_called(shown.user, shown.queue)
        image = check_submission(options_of(shown), person, call.site.settings())
        if image:
            check_select(shown.resources)
        return _answer(image=image)
    except MayflyError as error:
        return _answer(reason=words_of(error))


def check_select(resources: Mapping[str, str]) -> None:
    """Refuse a job that asks for several chunks of hosts; raises ``Invalid``."""
    select = resources.get("select", "")
    chunks = [part.partition(":")[0] for part in select.split("+") if part]
    count = sum(int(part) if part.isascii() and part.isdigit() else 1 for part in chunks)
    if count > 1 and resources.get("place", "").partition(":")[0] != "pack":
        raise Invalid(
            "a machine is on one host, and the job may get several",
            hint="add -l place=pack; without a machine it runs on several",
        )


def read_shown(text: str, *, new: bool = False) -> Shown:
    """Read what the hook tells of a job; raises ``Failed``."""
    try:
        told = json.loads(text)
        values = {name: told.get(name) or "" for name in ("job", "user", "queue", "hosts")}
        resources = told.get("resources") or {}
        if not all(isinstance(value, str) for value in (*values.values(), *resources.values())):
            raise TypeError
        begun = int(told.get("begun") or 1)
        job = "new" if new else number_of(values["job"])
        variables = parse_variables(str(told.get("variables") or ""))
    except (ValueError, AttributeError, TypeError, RecursionError) as error:
        raise Failed(f"PBS's hook told nonsense of the job: {text[:100]!r}") from error
    return Shown(
        job=job,
        user=values["user"],
        queue=values["queue"],
        hosts=values["hosts"],
        resources=dict(resources),
        variables=variables,
        begun=begun,
    )


def _answer(**told: object) -> int:
    print(json.dumps(told))
    return 0


# --- the user's ----------------------------------------------------------------------------------


def starter(call: Call) -> int:
    """In the place of the job's shell."""
    from mayfly.batch.pbs.starting import start_job  # noqa: PLC0415 - not for the others

    try:
        return start_job(call.words, call.environ, call.site.settings())
    except MayflyError as error:
        say(error.message)
        return 125


def torque_filter(call: Call) -> int:
    """At submission with Torque's ``qsub``: refuses, or hands the job's script on as it is."""
    from mayfly.batch.pbs.submission import check_script  # noqa: PLC0415
    from mayfly.batch.refusal import person_called, words_of  # noqa: PLC0415
    from mayfly.batch.registration import names_of  # noqa: PLC0415

    script = sys.stdin.buffer.read()
    try:
        user, _ = names_of(os.getuid())
        check_script(call.words, script, person_called(user), call.site.settings())
    except MayflyError as error:
        print(words_of(error), file=sys.stderr)
        return 1
    sys.stdout.buffer.write(script)
    sys.stdout.flush()
    return 0


_PROGRAMS: Mapping[str, Program] = {
    "prologue": prologue,
    "epilogue": epilogue,
    "register": register,
    "release": release,
    "verify": verify,
    "filter": torque_filter,
    "starter": starter,
}
