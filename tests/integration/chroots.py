"""Debian systems to install something into: without a network, and forgotten after the test.

A system is made once for each set of packages and kept in the test cache; what a test changes lies
in memory above it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mayfly.images.build.mirror import host_apt_options, host_mirror
from tests.conftest import CACHE

BUILD_LIMIT_S = 900
ENVIRONMENT = (
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME=/root",
    "LC_ALL=C.UTF-8",
    "DEBIAN_FRONTEND=noninteractive",
)
# The first process of the system: its number outside of it is printed, then it only waits.
_START = """
set -e
mount -t tmpfs -o mode=755 tmpfs "$2"
mkdir "$2/changes" "$2/work" "$2/root"
mount -t overlay -o "lowerdir=$1,upperdir=$2/changes,workdir=$2/work" overlay "$2/root"
read -r pid rest </proc/self/stat
mount -t proc proc "$2/root/proc"
# Said from inside, when there is no way left to the files outside.
# The shell stays: it collects what ends in here.
exec chroot "$2/root" sh -c 'cd /; echo "$0"; sleep infinity & wait' "$pid"
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chroot:
    """A running system; ``pid`` is its first process, as seen from outside."""

    pid: int

    def __call__(
        self, *words: str, check: bool = True, timeout_s: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """Run a program in it to its end."""
        spaces = ("--mount", "--net", "--pid", "--root", "--wd")
        argv = ["nsenter", f"--target={self.pid}", *spaces, "env", "-i", *ENVIRONMENT, *words]
        done = subprocess.run(
            argv,
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )
        if check and done.returncode != 0:
            raise AssertionError(f"{words}: {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def path(self, inside: str) -> Path:
        """Give where a path of the system is found from outside; links to ``/`` lead astray."""
        return Path(f"/proc/{self.pid}/root{inside}")

    def take(self, file: Path) -> str:
        """Copy a file into it; gives its path there."""
        shutil.copy(file, self.path("/root"))
        return f"/root/{file.name}"

    def files(self) -> set[str]:
        """Give mode and path of everything that lies in it, but for what dpkg keeps for itself."""
        own = ("/proc", "/dev", "/var/lib/dpkg", "/var/log", "/var/cache/debconf", "/root")
        skipped = [word for path in own for word in ("-path", path, "-prune", "-o")]
        listed = self("find", "/", *skipped, "-printf", "%M %u %p\n")
        return set(listed.stdout.splitlines())


def tree_with(packages: Sequence[str]) -> Path:
    """Give a minimal Debian 12 with these packages, made first when it is not there."""
    key = hashlib.sha256(" ".join(sorted(packages)).encode()).hexdigest()[:16]
    top = CACHE / "chroots"
    top.mkdir(parents=True, exist_ok=True)
    tree = top / key
    with open(top / f".{key}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not tree.is_dir():
            _make_tree(top / f"{key}.new", packages)
            (top / f"{key}.new").rename(tree)
    return tree


def _make_tree(tree: Path, packages: Sequence[str]) -> None:
    if tree.exists():
        shutil.rmtree(tree)
    argv = ["mmdebstrap", "--mode=root", "--variant=minbase", "--format=directory"]
    argv += [f'--aptopt={name} "{value}"' for name, value in host_apt_options().items()]
    argv += [f"--include={','.join(packages)}", "bookworm", str(tree)]
    argv += host_mirror().lines("bookworm")
    subprocess.run(argv, check=True, capture_output=True, timeout=BUILD_LIMIT_S)


@contextlib.contextmanager
def chroot(tree: Path, scratch: Path) -> Iterator[Chroot]:
    """Run a system above ``tree``; all its processes end, and all changes go, with the block."""
    scratch.mkdir()
    spaces = ["--mount", "--net", "--pid", "--fork", "--kill-child", "--propagation=private"]
    argv = ["unshare", *spaces, "sh", "-c", _START, "sh", str(tree), str(scratch)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, "the system did not start"
            system = Chroot(pid=int(line))
            # What is installed must never land on this computer itself.
            assert not system.path("/").samefile("/")
            yield system
        finally:
            process.kill()
