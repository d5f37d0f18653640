"""The programs that LSF calls: esub, pre- and post-execution commands, and the starter."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

from mayfly.batch.ending import say
from mayfly.batch.job import BatchJob, refused
from mayfly.batch.lsf.job import (
    VARIABLE,
    ask_lsf,
    check_one_host,
    job_of,
    name_of,
    read_options,
    words_to_options,
    write_options,
)
from mayfly.batch.program import Call, Program, Site, main_of
from mayfly.batch.registration import register as register_job
from mayfly.batch.registration import unregister
from mayfly.batch.tickets import leave, take
from mayfly.batch.wish import parse_wish
from mayfly.errors import RUN_FAILED, MayflyError

NAMES = ("esub", "register", "release", "starter")
ABORT = 97
"""For an LSF that does not say by ``LSB_SUB_ABORT_VALUE`` how a submission is refused."""


main = main_of(lambda: _PROGRAMS, roots=("register", "release"))


# --- root's, on the job's host -------------------------------------------------------------------


def register(call: Call) -> int:
    """``PRE_EXEC``: register the job, and leave its ticket.

    Any status but 0 puts the job back into its queue.
    """
    try:
        name = name_of(call.environ)
        shown = ask_lsf(name)
        _register(job_of(name, {**shown, "memlimit": ""}, call.site.cluster), shown, call)
    except MayflyError as error:
        say(f"the job cannot be registered: {error.message}")
        return 1
    return 0


def _register(plain: BatchJob, shown: Mapping[str, str], call: Call) -> None:
    settings = call.site.settings()
    try:
        wish = parse_wish(read_options(call.environ.get(VARIABLE, "")))
        job = job_of(plain.job, shown, call.site.cluster)
        ticket = register_job(job, wish, settings)
        if ticket.image:
            check_one_host(shown)
    except MayflyError as error:
        ticket = refused(plain, error)
    leave(settings, plain.job, ticket, plain.uid)


def release(call: Call) -> int:
    """``POST_EXEC``: take the job's right back."""
    try:
        _release(name_of(call.environ), call.site)
    except MayflyError as error:
        say(error.message)
    return 0


def _release(name: str, site: Site) -> None:
    settings = site.settings()
    take(settings, name)
    unregister(f"{site.cluster}/{name}/*", settings)


# --- the user's ----------------------------------------------------------------------------------


def esub(call: Call) -> int:
    """At submission: refuse what cannot be had, or hand what is asked for on to the job."""
    from mayfly.batch.refusal import check_submission, person_called, words_of  # noqa: PLC0415
    from mayfly.batch.registration import names_of  # noqa: PLC0415

    try:
        options = words_to_options(call.words)
        user, _ = names_of(os.getuid())
        check_submission(options, person_called(user), call.site.settings())
        target = call.environ.get("LSB_SUB_MODIFY_ENVFILE", "")
        if target:
            with open(target, "a", encoding="utf-8") as file:
                file.write(f'{VARIABLE}="{write_options(options)}"\n')
    except (MayflyError, OSError) as error:
        told = words_of(error) if isinstance(error, MayflyError) else f"mayfly: {error}"
        print(told, file=sys.stderr)
        text = call.environ.get("LSB_SUB_ABORT_VALUE", "")
        return int(text) if text.isascii() and text.isdigit() and len(text) < 4 else ABORT
    return 0


def starter(call: Call) -> int:
    """``JOB_STARTER``: in the place of the job's command."""
    from mayfly.batch.lsf.starting import start_job  # noqa: PLC0415 - not for the others

    try:
        return start_job(call.words, call.environ, call.site.settings())
    except MayflyError as error:
        say(error.message)
        return RUN_FAILED


_PROGRAMS: Mapping[str, Program] = {
    "esub": esub,
    "register": register,
    "release": release,
    "starter": starter,
}
