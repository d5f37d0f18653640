"""Start QEMU shut in: own namespaces, a root directory with nothing to write, its own uid, limits.

As root each machine gets a uid of its own; otherwise QEMU keeps the caller's uid inside a user
namespace. Where namespaces cannot be had the caller is told (``Isolation.namespaces`` false).
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import select
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mayfly.engine import linux
from mayfly.engine.privileges import map_own_ids, namespace_hint
from mayfly.errors import Failed, Unavailable

NEW_ROOT = "/tmp"  # noqa: S108 - only a mount point, and only inside the new mount namespace
LIBRARY_DIRS = ("usr", "lib", "lib64", "lib32", "libx32", "bin", "sbin", "nix", "gnu")
NAMESPACES = (
    linux.CLONE_NEWNS
    | linux.CLONE_NEWPID
    | linux.CLONE_NEWIPC
    | linux.CLONE_NEWNET
    | linux.CLONE_NEWUTS
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Isolation:
    """What a child is kept from."""

    uid: int | None
    """Uid and gid to become; None keeps the caller's."""
    groups: tuple[int, ...] = ()
    """Supplementary groups, when ``uid`` is given."""
    tree: str = ""
    """Directory whose programs and libraries the child sees as ``/``; "" is the host's."""
    namespaces: bool = True
    devices: tuple[str, ...] = ("/dev/null", "/dev/urandom")
    die_with_parent: bool = True
    limits: tuple[tuple[int, int], ...] = ()
    """Pairs of ``resource.RLIMIT_*`` and value."""


@dataclass(slots=True)
class Launched:
    """A child that is ready to exec, and waits for ``go``."""

    pid: int
    _go: int
    _status: int

    def go(self) -> None:
        """Let it exec; raises ``Failed`` with the step that did not work."""
        with open(self._status, "rb") as status, open(self._go, "wb", buffering=0) as go:
            with contextlib.suppress(BrokenPipeError):
                # Its end is closed when a step before has failed: the status below says which.
                go.write(b"1")
            # Ours stays open until the program runs: the child takes its end for our death.
            trouble = status.read()
        if trouble:
            os.waitpid(self.pid, 0)
            raise Failed(f"cannot start QEMU: {trouble.decode('utf-8', 'replace')}")


def launch(
    argv: Sequence[str], isolation: Isolation, *, pass_fds: Sequence[int], output: int
) -> Launched:
    """Fork a child that will run ``argv``; only ``pass_fds`` stay open in it, at their numbers.

    The child waits for ``Launched.go``, so that its pid can be written down first; it ends when
    that never comes.
    """
    go_read, go_write = os.pipe()
    status_read, status_write = os.pipe()
    flags = NAMESPACES if isolation.namespaces else 0
    if isolation.namespaces and os.geteuid() != 0:
        flags |= linux.CLONE_NEWUSER
    ids = (os.geteuid(), os.getegid())
    try:
        pid = linux.fork_into(flags)
    except OSError as error:
        for fd in (go_read, go_write, status_read, status_write):
            os.close(fd)
        raise Unavailable(
            f"QEMU cannot be shut in, this host lets no namespaces be made: {error.strerror}",
            hint=namespace_hint(Path("/proc/sys")),
        ) from error
    if pid == 0:
        # While the child has our ends too, the pipes would never tell it that we are gone.
        os.close(go_write)
        os.close(status_read)
        _child(argv, isolation, (go_read, status_write), (*pass_fds,), (output, *ids))
    os.close(go_read)
    os.close(status_write)
    return Launched(pid, go_write, status_read)


def _child(
    argv: Sequence[str],
    isolation: Isolation,
    pipes: tuple[int, int],
    pass_fds: tuple[int, ...],
    setting: tuple[int, int, int],
) -> None:
    """Never returns."""
    go, status = pipes
    output, uid, gid = setting
    try:
        for number in range(1, signal.NSIG):
            if number not in (signal.SIGKILL, signal.SIGSTOP, 32, 33):
                signal.signal(number, signal.SIG_DFL)
        # A file at its size limit is a failed write, for QEMU to report, not its death.
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        os.setsid()
        _standard_streams(output)
        _be_killed_before_the_service()
        if isolation.namespaces:
            if os.getpid() == 1 and uid != 0:
                map_own_ids(uid, gid, inside_uid=uid, inside_gid=gid)
            _enter_root(isolation)
        os.umask(0o077)
        _drop(isolation)
        if isolation.die_with_parent:
            linux.die_with_parent()
        # The parent may have died before the line above, even with the word already given.
        if os.read(go, 1) != b"1" or _hung_up(go):
            os._exit(1)
        keep_only(pass_fds, status)
        os.execve(argv[0], list(argv), {"LC_ALL": "C", "PATH": "/usr/bin:/bin"})
    except BaseException as error:  # noqa: BLE001 - the child must end here whatever happens
        os.write(status, str(error).encode("utf-8", "replace")[:4000])
    finally:
        os._exit(127)


def _be_killed_before_the_service() -> None:
    """Take back what protects a service from the kernel when memory is short: QEMU inherits it."""
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "r+") as file:
        if int(file.read()) < 0:
            file.write("0")


def _hung_up(pipe: int) -> bool:
    poll = select.poll()
    poll.register(pipe, 0)
    return bool(poll.poll(0))


def _standard_streams(output: int) -> None:
    null = os.open("/dev/null", os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)


def _enter_root(isolation: Isolation) -> None:
    """Build a root directory of read-only binds in a small tmpfs and make it ours."""
    # The child's own uid must get through the directories made here.
    os.umask(0o022)
    root = os.path.realpath(NEW_ROOT)
    # Opened now: the tree itself may lie beneath what is covered next.
    tree = f"/proc/self/fd/{os.open(isolation.tree or '/', os.O_PATH | os.O_DIRECTORY)}"
    linux.mount("none", "/", "", linux.MS_REC | linux.MS_PRIVATE)
    linux.mount("tmpfs", root, "tmpfs", linux.MS_NOSUID | linux.MS_NODEV, "size=1m,mode=755")
    for name in LIBRARY_DIRS:
        _bring(f"{tree}/{name}", f"{root}/{name}")
    os.mkdir(f"{root}/etc")
    _bring_file(f"{tree}/etc/ld.so.cache", f"{root}/etc/ld.so.cache")
    os.mkdir(f"{root}/dev")
    for device in isolation.devices:
        _bring_file(device, root + device)
    os.mkdir(f"{root}/proc")
    flags = linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC
    linux.mount("proc", f"{root}/proc", "proc", flags)
    os.chdir(root)
    linux.pivot_root(".", ".")
    linux.unmount(".")
    os.chdir("/")
    flags = linux.MS_REMOUNT | linux.MS_BIND | linux.MS_RDONLY
    linux.mount("none", "/", "", flags | linux.MS_NOSUID | linux.MS_NODEV)


def _bring(source: str, target: str) -> None:
    if os.path.islink(source):
        os.symlink(os.readlink(source), target)
    elif os.path.isdir(source):
        os.mkdir(target)
        linux.mount(source, target, "", linux.MS_BIND | linux.MS_REC)
        _make_read_only(target)
        for point in linux.mounted_beneath(target):
            try:
                _make_read_only(point)
            except PermissionError as error:
                # Where this user does not get at all, QEMU does not either.
                if error.errno != errno.EACCES:
                    raise


def _make_read_only(point: str) -> None:
    # A user namespace may not drop flags that the host's mount has: they are kept.
    kept = os.statvfs(point).f_flag & (linux.MS_NODEV | linux.MS_NOEXEC)
    flags = linux.MS_REMOUNT | linux.MS_BIND | linux.MS_RDONLY | linux.MS_NOSUID
    linux.mount("none", point, "", flags | kept)


def _bring_file(source: str, target: str) -> None:
    if os.path.exists(source):
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY))
        linux.mount(source, target, "", linux.MS_BIND)
        _make_read_only(target)


def _drop(isolation: Isolation) -> None:
    for limit, value in isolation.limits:
        hard = resource.getrlimit(limit)[1]
        bounded = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(limit, (bounded, bounded))
    if isolation.uid is not None:
        os.setgroups(list(isolation.groups))
        os.setresgid(isolation.uid, isolation.uid, isolation.uid)
        os.setresuid(isolation.uid, isolation.uid, isolation.uid)
    linux.no_new_privileges()


def keep_only(fds: tuple[int, ...], status: int) -> None:
    """Close every descriptor but the standard ones, ``fds``, and ``status``, which ends at exec."""
    previous = -1
    for fd in sorted({*fds, 0, 1, 2, status}):
        # Not for an empty range: closerange(0, 0) closes everything (CPython 3.11).
        if fd > previous + 1:
            os.closerange(previous + 1, fd)
        previous = fd
    os.closerange(previous + 1, 1 << 20)
    # The status pipe stays close-on-exec: its end tells the parent that exec succeeded.
    for fd in fds:
        os.set_inheritable(fd, True)
