"""What ``mayfly doctor`` finds out about this host, each with the command that mends it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mayfly.config import Paths
from mayfly.engine.privileges import namespace_hint
from mayfly.engine.process import namespaces_work
from mayfly.engine.share import SERVERS
from mayfly.model import Finding
from mayfly.units import GIB, show_size

NEEDED_FREE = 2 * GIB


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A program that some part of Mayfly runs."""

    program: str
    package: str
    purpose: str
    needed: bool = False


TOOLS = (
    Tool(program="qemu-img", package="qemu-utils", purpose="disks of templates", needed=True),
    Tool(program="xorriso", package="xorriso", purpose="the agent disk", needed=True),
    Tool(program="mmdebstrap", package="mmdebstrap", purpose="image build"),
    Tool(program="mke2fs", package="e2fsprogs", purpose="image build"),
    Tool(program="grub-mkimage", package="grub-common", purpose="image build"),
    Tool(program="depmod", package="kmod", purpose="image import of containers"),
    Tool(program="zstd", package="zstd", purpose="image import of containers, some"),
    Tool(program="sqfs2tar", package="squashfs-tools-ng", purpose="image import of SIFs"),
    Tool(program="sshfs", package="sshfs", purpose="--share, on the agent disk"),
)


def look_at_host(paths: Paths) -> Iterator[Finding]:
    """Look at programs, rights and room; what QEMU, KVM and networks say is added by the caller."""
    for tool in TOOLS:
        yield _tool(tool)
    yield _sftp_server()
    yield _namespaces()
    yield _memory()
    for directory in dict.fromkeys((paths.state, paths.cache)):
        yield _room(directory)


def _tool(tool: Tool) -> Finding:
    found = shutil.which(tool.program)
    return Finding(
        name=tool.program,
        ok=found is not None,
        detail=found or f"missing; needed for {tool.purpose}",
        mend=f"apt-get install {tool.package}",
        needed=tool.needed,
    )


def _sftp_server() -> Finding:
    found = [path for path in SERVERS if os.access(path, os.X_OK)]
    return Finding(
        name="sftp-server",
        ok=bool(found),
        detail=found[0] if found else "missing; needed for --share",
        mend="apt-get install openssh-sftp-server",
        needed=False,
    )


def _namespaces() -> Finding:
    ok = namespaces_work()
    good = "machines are shut in: as root, each with its own uid"
    if os.geteuid() != 0:
        good = "machines are shut in, but run as your own uid: nothing keeps them from each other"
    bad = "user namespaces are off: a hostile guest that breaks QEMU has all your rights"
    return Finding(
        name="namespaces",
        ok=ok,
        detail=good if ok else bad,
        mend=namespace_hint(Path("/proc/sys")),
        needed=False,
    )


def _memory() -> Finding:
    lines = Path("/proc/meminfo").read_text().splitlines()
    values = {line.split(":")[0]: int(line.split()[1]) << 10 for line in lines}
    free = values.get("MemAvailable", 0)
    return Finding(
        name="memory",
        ok=free >= GIB,
        detail=f"{show_size(free)} available of {show_size(values['MemTotal'])}, "
        f"{len(os.sched_getaffinity(0))} CPUs",
        mend="end something: a machine of 512 MiB and its template need 1 GiB",
        needed=False,
    )


def _room(directory: Path) -> Finding:
    there = directory
    while not there.exists():
        there = there.parent
    free = shutil.disk_usage(there).free
    writable = os.access(there, os.W_OK)
    return Finding(
        name=str(directory),
        ok=free >= NEEDED_FREE and writable,
        detail=f"{show_size(free)} free" if writable else f"{there} may not be written to",
        mend="set MAYFLY_HOME to a directory of yours on a roomier disk",
    )
