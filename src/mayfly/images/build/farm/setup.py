"""How a recipe's users, files and scripts get into the tree: one tar file, and one script in it.

mmdebstrap unpacks the tar file and runs the script within the tree, when all packages are there.
Hooks are shell text by mmdebstrap's own rules: none holds a value that comes from a recipe.
"""

from __future__ import annotations

import io
import shlex
import tarfile
from collections.abc import Iterator

from mayfly.images.build.farm.blueprint import Blueprint, NewUser, PlacedFile, Script

PLACE = ".mayfly"
"""Directory at the root of the tree that is there during the build only."""
RUN = f"{PLACE}/run"
SAYS = "mayfly-build: "
"""What our own lines in the output begin with."""
FAILED = "failed: "
BEGINS, ENDS = "script ", "scripts done"

# What a program needs to install things, and nothing by which it would get out of the tree: the
# tree is a directory of the host, and its root is the host's when root builds.
_KEPT = (
    "audit_write",
    "chown",
    "dac_override",
    "fowner",
    "fsetid",
    "kill",
    "net_bind_service",
    "setfcap",
    "setgid",
    "setpcap",
    "setuid",
)
_BOUND = ",".join(("-all", *(f"+{name}" for name in _KEPT)))
_GRACE_S = 10


def hooks(tar: str) -> list[str]:
    """Give the options of mmdebstrap that put the tar file in and run what it brings."""
    return [
        f"--customize-hook=tar-in {tar} /",
        f'--customize-hook=chroot "$1" /bin/sh /{RUN}',
        f'--customize-hook=rm -rf "$1"/{PLACE}',
    ]


def runner(blueprint: Blueprint) -> str:
    """Give the script that does everything within the tree, in order: users, files, scripts."""
    lines = ["#!/bin/sh", "umask 022", "cd / || exit 1"]
    for user in blueprint.users:
        lines += _add(user)
    for file in blueprint.files:
        if (file.owner, file.group) != ("root", "root"):
            owner = shlex.quote(f"{file.owner}:{file.group}")
            path = shlex.quote(f"/{file.path}")
            lines.append(f"chown -h {owner} {path} || {_fail(f'file /{file.path}: no such owner')}")
    for number, script in enumerate(blueprint.scripts, start=1):
        lines += _run(number, script, len(blueprint.scripts), blueprint.script_limit_s)
    return "\n".join([*lines, f"echo '{SAYS}{ENDS}'", ""])


def _add(user: NewUser) -> Iterator[str]:
    # Ours come first, so that a group of their own has the same number as the user.
    for group in user.groups:
        yield f"groupadd -f {group} || {_fail(f'group {group}')}"
    options = ["-m", "-s", user.shell]
    options += ["-u", str(user.uid)] if user.uid is not None else []
    options += ["-d", user.home] if user.home else []
    options += ["-G", ",".join(user.groups)] if user.groups else []
    yield f"useradd {shlex.join([*options, user.name])} || {_fail(f'user {user.name}')}"


def _run(number: int, script: Script, count: int, limit_s: float) -> Iterator[str]:
    name = script.name
    yield f"echo {shlex.quote(f'{SAYS}{BEGINS}{number}/{count} {name}')}"
    shell = "" if script.content.startswith(b"#!") else "/bin/sh "
    command = f"{shell}/{PLACE}/{number}"
    yield (
        f"timeout -k {_GRACE_S} {limit_s:g} setpriv --bounding-set={_BOUND} {command}"
        " < /dev/null 2>&1"
    )
    yield "code=$?"
    text = shlex.quote(f"{SAYS}{FAILED}script {name}: ")
    yield f'[ "$code" = 124 ] && {{ echo {text}"no end within {limit_s:g} s"; exit 1; }}'
    yield f'[ "$code" = 0 ] || {{ echo {text}"exit status $code"; exit 1; }}'


def _fail(what: str) -> str:
    return f"{{ echo {shlex.quote(f'{SAYS}{FAILED}{what}')}; exit 1; }}"


def pack_setup(blueprint: Blueprint) -> bytes:
    """Make the tar file: the recipe's files in their places, ours in a directory that goes."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for file in blueprint.files:
            _put(tar, file)
        directory = tarfile.TarInfo(PLACE)
        directory.type, directory.mode = tarfile.DIRTYPE, 0o700
        tar.addfile(directory)
        _put(tar, PlacedFile(path=RUN, content=runner(blueprint).encode(), mode=0o700))
        for number, script in enumerate(blueprint.scripts, start=1):
            _put(tar, PlacedFile(path=f"{PLACE}/{number}", content=script.content, mode=0o700))
    return buffer.getvalue()


def _put(tar: tarfile.TarFile, file: PlacedFile) -> None:
    info = tarfile.TarInfo(file.path)
    info.mode, info.size = file.mode, len(file.content)
    tar.addfile(info, io.BytesIO(file.content))
