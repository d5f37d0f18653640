"""The first process of a machine that was a container image, and the initramfs that brings it.

The image may have no shell, no init, no C library. So all that runs before the agent is a static
busybox from the initramfs: it mounts what a Linux program expects, starts the agent from its disk,
and then sleeps as process 1, with the kernel told to collect the processes that nobody waits for.
The container's own files are not touched; busybox lies in /run, which is memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

HOME = "/run/mayfly-init"
"""Where the first process lives; the agent knows by it that this machine has no other init."""
ENVIRON = "usr/lib/mayfly/environ"
"""The container's variables, as in /proc/PID/environ; the agent gives them to jobs."""

FIRST_MODULES = ("virtio_pci", "virtio_blk", "ext4")
"""Without which there is no root disk."""
LATER_MODULES = ("virtio_console", "virtio_net", "virtio_rng", "isofs", "fuse")

_INIT = """\
#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /dev /root
/bin/busybox --install -s /bin
PATH=/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev 2>/dev/null
for module in @MODULES@; do
    insmod "/modules/$module.ko"
done
root=
for word in $(cat /proc/cmdline); do
    case "$word" in root=*) root=${word#root=} ;; esac
done
tries=0
until device=$(findfs "$root" 2>/dev/null); do
    tries=$((tries + 1))
    [ "$tries" -lt 600 ] || { echo "mayfly: there is no $root"; poweroff -f; }
    usleep 50000
done
mount -t ext4 -o rw,noatime "$device" /root || { echo "mayfly: no root"; poweroff -f; }
mount -o move /proc /root/proc
mount -o move /sys /root/sys
mount -o move /dev /root/dev
mkdir -p /root/dev/pts /root/dev/shm
mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts /root/dev/pts
mount -t tmpfs -o mode=1777,nosuid,nodev shm /root/dev/shm
mount -t tmpfs -o mode=755,nosuid,nodev run /root/run
mount -t cgroup2 cgroup2 /root/sys/fs/cgroup
mkdir -p /root@HOME@/bin /root/run/mayfly /root/run/lock
cp /bin/busybox /root@HOME@/busybox
cp /second /root@HOME@/start
exec switch_root -c /dev/console /root @HOME@/busybox sh @HOME@/start
"""

_SECOND = """\
# The second half of the first process: inside the container's files.
umask 022
home=@HOME@
$home/busybox --install -s $home/bin
PATH=$home/bin
hostname localhost
ip link set lo up
# Images seldom have a modprobe; the kernel asks for one when a driver is needed.
[ -x /sbin/modprobe ] || echo $home/bin/modprobe > /proc/sys/kernel/modprobe
for link in fd:/proc/self/fd stdin:/proc/self/fd/0 stdout:/proc/self/fd/1 stderr:/proc/self/fd/2; do
    [ -e "/dev/${link%%:*}" ] || ln -s "${link#*:}" "/dev/${link%%:*}"
done
for module in @LATER@; do
    modprobe -q "$module"
done
for block in /sys/block/*; do
    [ -r "$block/serial" ] || continue
    [ "$(cat "$block/serial")" = mayfly-agent ] || continue
    mount -t iso9660 -o ro "/dev/${block##*/}" /run/mayfly && sh /run/mayfly/start
done
# Ignored, the kernel collects every process whose parent is gone; nothing wakes this one up.
trap '' CHLD
exec $home/busybox sleep 2147483647
"""


def initramfs(busybox: bytes, modules: Mapping[str, bytes]) -> bytes:
    """Make the archive that the kernel unpacks; the modules are loaded in their order."""
    init = _INIT.replace("@MODULES@", " ".join(modules)).replace("@HOME@", HOME)
    second = _SECOND.replace("@LATER@", " ".join(LATER_MODULES)).replace("@HOME@", HOME)
    files = [
        ("bin", None, 0o040755),
        ("modules", None, 0o040755),
        ("bin/busybox", busybox, 0o100755),
        ("init", init.encode(), 0o100755),
        ("second", second.encode(), 0o100644),
        *((f"modules/{name}.ko", data, 0o100644) for name, data in modules.items()),
    ]
    entries = [
        _entry(number, name, data or b"", mode)
        for number, (name, data, mode) in enumerate(files, start=1)
    ]
    return b"".join(entries) + _entry(0, "TRAILER!!!", b"", 0)


def _entry(number: int, name: str, data: bytes, mode: int) -> bytes:
    """Make one entry of a cpio archive of the "new" kind, which is the one that Linux reads."""
    raw = name.encode() + b"\0"
    fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(raw), 0)
    head = b"070701" + b"".join(b"%08x" % field for field in fields) + raw
    return _filled(head) + _filled(data)


def _filled(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def load_order(dependencies: str, wanted: Sequence[str]) -> list[str]:
    """Give the files of these modules, each after those that it needs, from modules.dep.

    One that is not listed is built into the kernel.
    """
    needs: dict[str, tuple[str, list[str]]] = {}
    for line in dependencies.splitlines():
        file, _, rest = line.partition(":")
        needs[module_name(file)] = (file, rest.split())
    order: list[str] = []
    for name in wanted:
        if name in needs:
            file, before = needs[name]
            # modules.dep names all of them, the nearest first.
            order += [one for one in [*before[::-1], file] if one not in order]
    return order


def module_name(file: str) -> str:
    """Give a module's name, as the kernel has it."""
    return PurePosixPath(file).name.partition(".")[0].replace("-", "_")
