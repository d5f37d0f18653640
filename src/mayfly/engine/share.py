"""Serve directories of the host, live, to one machine: OpenSSH's sftp-server, run as the user.

The guest, which is hostile, speaks to the server. So the server is shut in: a root directory that
holds the program, its libraries and the shared directories, and namespaces without network or other
processes. What it may do there, the user may do.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import signal
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mayfly.command import run
from mayfly.engine import linux
from mayfly.engine.forked import forked, report, wait_for_end
from mayfly.engine.privileges import (
    CAP_CHOWN,
    CAP_DAC_OVERRIDE,
    CAP_DAC_READ_SEARCH,
    CAP_FOWNER,
    CAP_FSETID,
    become,
    limit_capabilities,
    map_own_ids,
    unshare,
)
from mayfly.errors import Denied, Invalid, Missing, Unavailable
from mayfly.model import Account, ShareDir

SERVERS = (
    "/usr/lib/openssh/sftp-server",
    "/usr/libexec/openssh/sftp-server",
    "/usr/lib/ssh/sftp-server",
    "/usr/lib/sftp-server",
)
NEW_ROOT = "/tmp"  # noqa: S108 - only a mount point, and only inside the new mount namespace
DEV_NULL = "/dev/null"
TOOL_LIMIT_S = 10.0

_NAMESPACES = (
    linux.CLONE_NEWNS
    | linux.CLONE_NEWPID
    | linux.CLONE_NEWIPC
    | linux.CLONE_NEWNET
    | linux.CLONE_NEWUTS
)
_ROOT_NEEDS = frozenset((CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_FOWNER, CAP_FSETID))
_NOT_FILES = frozenset(
    (
        *(b"proc", b"sysfs", b"devtmpfs", b"devpts", b"cgroup", b"cgroup2", b"debugfs", b"tracefs"),
        *(b"securityfs", b"configfs", b"bpf", b"binfmt_misc", b"efivarfs", b"autofs"),
    )
)
"""File systems through which a process can be reached, or that mount more by themselves."""


_THE_JOBS = (
    *(signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM),
    *(signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU),
)
"""What batch systems send to all processes of a job, in whatever session.

None is meant for a share, which ends with its maker: without it the job could not heed them.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """One line of /proc/self/mountinfo."""

    point: bytes
    kind: bytes
    options: frozenset[bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """What a share's process needs to know before it is shut in."""

    port: int
    """Descriptor of the connection to the guest."""
    directories: tuple[ShareDir, ...]
    handles: tuple[int, ...]
    """The directories, opened by the user."""
    program: str
    files: tuple[str, ...]
    """The program and its libraries."""
    account: Account | None
    """Whom to become; None: stay who we are."""
    uid: int
    gid: int


@contextlib.contextmanager
def start_share(
    directories: Sequence[ShareDir],
    port: socket.socket | None = None,
    *,
    account: Account | None = None,
) -> Iterator[int]:
    """Serve ``directories`` until the end of the block.

    The server speaks on ``port``, the connected socket of the machine's share port, or on a new
    socket pair; the descriptor of the former, or of the pair's other end, is given. ``account``:
    the user to serve as, when root calls.

    Raises ``Invalid`` (no such directory can be shared), ``Missing``, ``Denied`` (the user may not
    enter it), ``Unavailable`` (this host cannot).
    """
    check_directories(directories)
    program = find_server()
    with contextlib.ExitStack() as stack:
        given = port
        if port is None:
            near, port = socket.socketpair()
            given = stack.enter_context(near)
            stack.enter_context(port)
        server = Server(
            port=port.fileno(),
            directories=tuple(directories),
            handles=(),
            program=program,
            files=needed_files(program),
            account=account if os.geteuid() == 0 else None,
            uid=os.geteuid(),
            gid=os.getegid(),
        )
        body = forked(lambda channel: _guard(channel, server), name="share", keep=[port.fileno()])
        stack.enter_context(body).receive()
        if given is not port:
            # The server has its own; ours would hide the end of one from the other.
            port.close()
        assert given is not None
        yield given.fileno()


def check_directories(directories: Sequence[ShareDir]) -> None:
    """Raise ``Invalid`` unless each can stand at its own path in the machine, beside the others."""
    paths = [shared.path for shared in directories]
    for number, path in enumerate(paths):
        if path.anchor != "/" or ".." in path.parts:
            raise Invalid(f"'{path}' cannot be shared: it is no absolute path")
        if path == Path("/") or path.parts[1] in {"proc", "sys", "dev"}:
            raise Invalid(
                f"'{path}' cannot be shared: it leads to the host's processes or devices",
                hint="share a directory with your files",
            )
        for other in paths[:number]:
            if path.is_relative_to(other) or other.is_relative_to(path):
                raise Invalid(
                    f"'{path}' and '{other}' cannot both be shared: one lies in the other",
                    hint="share only the outer one",
                )


def find_server() -> str:
    """Give the path of sftp-server; raises ``Unavailable``."""
    for path in SERVERS:
        if os.access(path, os.X_OK):
            return path
    raise Unavailable(
        "sftp-server is not installed, which a shared directory needs",
        hint="sudo apt-get install openssh-sftp-server",
    )


@functools.cache
def needed_files(program: str) -> tuple[str, ...]:
    """Give a program and the shared libraries that it needs."""
    listing = run(["ldd", program], timeout_s=TOOL_LIMIT_S).text()
    libraries = re.findall(r"(/\S+) \(0x", listing)
    # The server asks for its user's name, which older C libraries look up with a plug-in.
    plugins = [os.path.join(os.path.dirname(path), "libnss_files.so.2") for path in libraries]
    found = dict.fromkeys(path for path in plugins if os.path.exists(path))
    return (program, *libraries, *found)


def read_mounts(mountinfo: bytes, beneath: bytes) -> list[Mount]:
    """Give the mounts at and beneath a directory, from the text of /proc/self/mountinfo."""
    mounts = []
    for line in mountinfo.splitlines():
        fields = line.split()
        point = re.sub(rb"\\([0-7]{3})", lambda match: bytes([int(match[1], 8)]), fields[4])
        if point == beneath or point.startswith(beneath + b"/"):
            kind = fields[fields.index(b"-", 6) + 1]
            options = frozenset(fields[5].split(b","))
            mounts.append(Mount(point=point, kind=kind, options=options))
    return mounts


def mount_flags(options: frozenset[bytes], *, read_only: bool) -> int:
    """Give the flags for a shared mount: those that it has may not be taken away."""
    flags = linux.MS_REMOUNT | linux.MS_BIND | linux.MS_NOSUID | linux.MS_NODEV
    if read_only or b"ro" in options:
        flags |= linux.MS_RDONLY
    if b"noexec" in options:
        flags |= linux.MS_NOEXEC
    return flags


def _guard(channel: socket.socket, server: Server) -> None:
    """Start the server in new namespaces, and end it when the maker ends this process."""
    _leave_signals_to_the_job()
    unshare(_NAMESPACES | (linux.CLONE_NEWUSER if server.uid != 0 else 0))
    if server.uid != 0:
        map_own_ids(server.uid, server.gid, inside_uid=server.uid, inside_gid=server.gid)
    # In the new mount namespace: what was opened outside cannot be mounted inside.
    server = replace(server, handles=_open_as_user(server))
    keep = [server.port, *server.handles]
    with forked(lambda _: _become_server(server), name="share", keep=keep) as child:
        try:
            child.wait_exec()
            os.close(server.port)
            report(channel)
            wait_for_end(channel)
        finally:
            child.kill()


def _leave_signals_to_the_job() -> None:
    for which in _THE_JOBS:
        signal.signal(which, signal.SIG_IGN)


def _open_as_user(server: Server) -> tuple[int, ...]:
    """Open the directories with the user's own rights: root would also enter those of others."""
    if server.account is None:
        return tuple(map(_open_directory, server.directories))
    os.setgroups([group.gid for group in server.account.groups])
    os.setegid(server.account.gid)
    os.seteuid(server.account.uid)
    handles = tuple(map(_open_directory, server.directories))
    os.seteuid(0)
    os.setegid(0)
    return handles


def _open_directory(shared: ShareDir) -> int:
    try:
        return os.open(shared.path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise Missing(f"cannot share {shared.path}: no such directory") from error
    except PermissionError as error:
        raise Denied(f"cannot share {shared.path}: this user may not enter it") from error


def _become_server(server: Server) -> None:
    """Shut this process in and become sftp-server: returns only by an error."""
    _leave_signals_to_the_job()  # What is ignored stays so in the program.
    os.umask(0o022)
    linux.mount("none", "/", "", linux.MS_REC | linux.MS_PRIVATE)
    linux.mount("tmpfs", NEW_ROOT, "tmpfs", linux.MS_NOSUID | linux.MS_NODEV, "size=1m,mode=755")
    for file in (*server.files, DEV_NULL):
        _bring_file(file)
    _write_passwd(server)
    for shared, handle in zip(server.directories, server.handles, strict=True):
        _bring_directory(shared, handle)
    if server.uid == 0:
        # Only root's own server keeps any, and no more than what makes root's files reachable.
        limit_capabilities(_ROOT_NEEDS)
    os.chdir(NEW_ROOT)
    linux.pivot_root(".", ".")
    linux.unmount(".")
    os.chdir("/")
    flags = linux.MS_REMOUNT | linux.MS_BIND | linux.MS_RDONLY | linux.MS_NOSUID | linux.MS_NODEV
    linux.mount("none", "/", "", flags)
    if server.account is not None:
        groups = tuple(group.gid for group in server.account.groups)
        become(server.account.uid, server.account.gid, groups)
    linux.no_new_privileges()
    linux.die_with_parent()
    os.set_blocking(server.port, True)
    os.dup2(1, 2)
    os.dup2(server.port, 0)
    os.dup2(server.port, 1)
    # The guest's own umask was applied already: modes come through as they are.
    argv = [server.program, "-u", "0000", "-d", "/", "-l", "QUIET"]
    os.execve(server.program, argv, {})


def _bring_file(path: str) -> None:
    target = NEW_ROOT + path
    os.makedirs(os.path.dirname(target), exist_ok=True)
    os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o644))
    linux.mount(path, target, "", linux.MS_BIND)
    (mount,) = _mounts_beneath(target.encode())
    flags = mount_flags(mount.options, read_only=True)
    linux.mount("none", target, "", flags & ~linux.MS_NODEV if path == DEV_NULL else flags)


def _write_passwd(server: Server) -> None:
    # The server refuses to serve a user without a name.
    uid, gid = server.uid, server.gid
    if server.account is not None:
        uid, gid = server.account.uid, server.account.gid
    directory = Path(f"{NEW_ROOT}/etc")
    directory.mkdir(exist_ok=True)
    (directory / "passwd").write_text(f"user:x:{uid}:{gid}::/:/bin/false\n")


def _bring_directory(shared: ShareDir, handle: int) -> None:
    target = os.fsencode(NEW_ROOT) + os.fsencode(shared.path)
    os.makedirs(target, exist_ok=True)
    _mount_on(target, f"/proc/self/fd/{handle}", linux.MS_BIND | linux.MS_REC)
    for mount in _mounts_beneath(target):
        if mount.kind in _NOT_FILES:
            place = os.fsdecode(mount.point.removeprefix(os.fsencode(NEW_ROOT)))
            raise Invalid(
                f"'{shared.path}' cannot be shared: {place} is of type {mount.kind.decode()}",
                hint="share a directory with your files",
            )
        _mount_on(mount.point, "none", mount_flags(mount.options, read_only=shared.read_only))


def _mounts_beneath(directory: bytes) -> list[Mount]:
    return read_mounts(Path("/proc/self/mountinfo").read_bytes(), directory)


def _mount_on(target: bytes, source: str, flags: int) -> None:
    # By descriptor: a path may hold any bytes.
    handle = os.open(target, os.O_PATH | os.O_CLOEXEC)
    try:
        linux.mount(source, f"/proc/self/fd/{handle}", "", flags)
    finally:
        os.close(handle)
