"""What of the calling user goes along with a job: name and numbers, time zone, language, limits."""

from __future__ import annotations

import grp
import os
import pwd
import resource
from collections.abc import Mapping
from pathlib import Path

from mayfly.errors import Invalid
from mayfly.model import Account, Group

LIMITS = {
    name.removeprefix("RLIMIT_").lower(): getattr(resource, name)
    for name in (
        "RLIMIT_CORE",
        "RLIMIT_CPU",
        "RLIMIT_DATA",
        "RLIMIT_FSIZE",
        "RLIMIT_NOFILE",
        "RLIMIT_NPROC",
        "RLIMIT_STACK",
    )
}
"""The limits that travel. Not RLIMIT_AS, RSS and MEMLOCK: the machine's memory is its own."""
LOCAL_TIME = Path("/etc/localtime")
SHELL = "/bin/sh"


def account_of_caller() -> Account:
    """Give the calling user as the machine shall have it; a uid without a name gets one."""
    uid, gid = os.geteuid(), os.getegid()
    try:
        entry = pwd.getpwuid(uid)
        name, home, shell = entry.pw_name, entry.pw_dir, entry.pw_shell
    except KeyError:
        name, home, shell = f"user{uid}", f"/home/user{uid}", SHELL
    gids = dict.fromkeys([gid, *os.getgroups()])
    groups = tuple(Group(name=_group_name(number), gid=number) for number in gids)
    return Account(name=name, uid=uid, gid=gid, groups=groups, home=home, shell=shell or SHELL)


def _group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return f"group{gid}"


def caller_limits() -> dict[str, tuple[int, int]]:
    """Give the caller's resource limits by name; -1 is unlimited."""
    return {name: resource.getrlimit(number) for name, number in LIMITS.items()}


def job_environment(
    environ: Mapping[str, str], asked: tuple[str, ...], *, tty: bool
) -> dict[str, str]:
    """Give the job's environment: language, time zone, TERM, and what ``asked`` names.

    ``asked`` holds ``NAME`` (the caller's value) or ``NAME=VALUE``; raises ``Invalid`` for a name
    that is not one, or not set.
    """
    wanted = [name for name in environ if name in ("LANG", "LANGUAGE") or name.startswith("LC_")]
    result = {name: environ[name] for name in wanted}
    if "TZ" in environ:
        result["TZ"] = environ["TZ"]
    elif zone := local_time_zone():
        result["TZ"] = zone
    if tty and "TERM" in environ:
        result["TERM"] = environ["TERM"]
    for item in asked:
        name, equals, value = item.partition("=")
        if not name or "\0" in item:
            raise Invalid(f"--env {item!r} names no variable", hint="write NAME or NAME=VALUE")
        if not equals and name not in environ:
            raise Invalid(f"--env {name}: it is not set here", hint=f"write --env {name}=VALUE")
        result[name] = value if equals else environ[name]
    return result


def local_time_zone(file: Path = LOCAL_TIME) -> str:
    """Give the host's zone as a POSIX TZ rule, which needs no zone files in the guest; "" if none.

    The rule is the last line of a version 2 TZif file (RFC 8536, section 3.3).
    """
    try:
        data = file.read_bytes()
    except OSError:
        return ""
    # Files of version 1, whose fifth byte is 0, have no rule.
    if not data.startswith(b"TZif") or data[4:5] < b"2" or not data.endswith(b"\n"):
        return ""
    rule = data[:-1].rpartition(b"\n")[2]
    return rule.decode("ascii", "replace") if len(rule) < 100 else ""


def umask_of_caller() -> int:
    """Give the caller's umask."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
