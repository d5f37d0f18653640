"""The files of our own that go into an image: little more than what starts the agent.

The agent itself is not among them; the host carries it in on a small disk.
"""

from __future__ import annotations

import io
import tarfile
from dataclasses import dataclass

from mayfly.images.build.recipe import Init

START_AGENT = """\
#!/bin/sh
# Starts the agent of Mayfly, which the host brings on a small read-only disk.
# Does nothing where there is no such disk.
PATH=/usr/sbin:/usr/bin:/sbin:/bin
modprobe -q -a virtio_blk virtio_console isofs fuse
for block in /sys/block/*; do
    [ -r "$block/serial" ] || continue
    [ "$(cat "$block/serial")" = mayfly-agent ] || continue
    mkdir -p /run/mayfly
    mount -t iso9660 -o ro "/dev/${block##*/}" /run/mayfly || exit 1
    exec /run/mayfly/start
done
exit 0
"""

# The job runs beneath the agent, so no limit of the unit may hold it, and its death from lack
# of memory must not take the agent with it.
_UNIT = """\
[Unit]
Description=Mayfly agent
After=local-fs.target systemd-modules-load.service

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/lib/mayfly/start-agent
KillMode=process
OOMPolicy=continue
TasksMax=infinity

[Install]
WantedBy=multi-user.target
"""

_INIT_SCRIPT = """\
#!/bin/sh
### BEGIN INIT INFO
# Provides:          mayfly-agent
# Required-Start:    $local_fs
# Required-Stop:
# Default-Start:     2 3 4 5
# Default-Stop:
# Short-Description: Mayfly agent
### END INIT INFO
case "$1" in
    start) /usr/lib/mayfly/start-agent ;;
    *) exit 0 ;;
esac
"""

_INITTAB = """\
id:2:initdefault:
si::sysinit:/etc/init.d/rcS
~~:S:wait:/sbin/sulogin --force
l0:0:wait:/etc/init.d/rc 0
l1:1:wait:/etc/init.d/rc 1
l2:2:wait:/etc/init.d/rc 2
l3:3:wait:/etc/init.d/rc 3
l4:4:wait:/etc/init.d/rc 4
l5:5:wait:/etc/init.d/rc 5
l6:6:wait:/etc/init.d/rc 6
T0:2345:respawn:/sbin/agetty -L ttyS0 115200 vt100
"""

# Only what the root disk needs: an initramfs with every driver takes seconds to unpack.
_INITRAMFS = "MODULES=list\nCOMPRESS=gzip\nRESUME=none\n"
_INITRAMFS_MODULES = "virtio_pci\nvirtio_blk\next4\n"
_MODULES = "virtio_console\nisofs\nfuse\n"

# A machine that lives for minutes needs no journal on disk, and its id changes under way.
_JOURNAL = "[Journal]\nStorage=volatile\nRuntimeMaxUse=16M\n"

# A third of what 'apt-get update' fetches, for descriptions that nobody reads in a job.
_APT = 'Acquire::Languages "none";\n'

# --- a machine that only has to be up soon ---

_BUSYBOX_INITTAB = """\
::sysinit:/usr/lib/mayfly/boot
ttyS0::respawn:/sbin/agetty -L ttyS0 115200 vt100
::shutdown:/bin/umount -a -r
::ctrlaltdel:/sbin/reboot
"""

_BOOT = """\
#!/bin/sh
PATH=/usr/sbin:/usr/bin:/sbin:/bin
for kind in proc:proc sysfs:sys devtmpfs:dev tmpfs:run; do
    mountpoint -q "/${kind#*:}" || mount -t "${kind%:*}" "${kind%:*}" "/${kind#*:}"
done
mkdir -p /dev/pts /dev/shm /run/lock
mount -t devpts -o gid=5,mode=620 devpts /dev/pts
mount -t tmpfs -o nosuid,nodev tmpfs /dev/shm
chmod 1777 /dev/shm /run/lock
hostname localhost
busybox ip link set lo up
/usr/lib/mayfly/start-agent
"""

_TINY_INITRAMFS = """\
DEBUG=no
MICROCODE=no
AUTO_MODULES=no
INCLUDE_MODULES="virtio_pci,virtio_blk,ext4,crc32c_generic"
"""

_OPTIONS = "rw console=ttyS0,115200 quiet net.ifnames=0 fsck.mode=skip"

_HOSTS = """\
127.0.0.1 localhost
::1 localhost ip6-localhost ip6-loopback
"""

_MASKED = (
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "getty-static.service",
    "getty@tty1.service",
    "logrotate.timer",
    "man-db.timer",
    "systemd-tmpfiles-clean.timer",
)
"""Work of a computer that lives for months, and logins on screens that do not exist."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One path of the layer: a file, a directory (its path ends in /), or a symbolic link."""

    path: str
    content: str = ""
    mode: int = 0o644
    target: str = ""


def grub_cfg(kernel_options: str, *, kernel: str = "/vmlinuz", initrd: str = "/initrd.img") -> str:
    """Give GRUB's commands; Debian keeps the two links at the newest kernel."""
    return (
        "serial --unit=0 --speed=115200\n"
        "terminal_output serial\n"
        f"linux {kernel} {kernel_options}\n"
        f"initrd {initrd}\n"
        "boot\n"
    )


def image_items(uuid: str, init: Init) -> tuple[Item, ...]:
    """Give all files of ours in an image built by us."""
    common = (
        Item(path="etc/fstab", content=f"UUID={uuid} / ext4 noatime,errors=remount-ro 0 0\n"),
        Item(path="etc/hostname", content="localhost\n"),
        Item(path="etc/hosts", content=_HOSTS),
        Item(path="etc/resolv.conf"),
        Item(path="etc/machine-id"),
        Item(path="etc/initramfs-tools/conf.d/mayfly", content=_INITRAMFS),
        Item(path="usr/share/initramfs-tools/modules.d/mayfly", content=_INITRAMFS_MODULES),
        Item(path="etc/modules-load.d/mayfly.conf", content=_MODULES),
        Item(path="etc/apt/apt.conf.d/90mayfly", content=_APT),
        Item(path="etc/default/locale", content="LANG=C.UTF-8\n"),
        Item(path="usr/lib/mayfly/start-agent", content=START_AGENT, mode=0o755),
    )
    return (*common, *_loader_items(uuid, init), *_INIT_ITEMS[init]())


def kernel_options(uuid: str) -> str:
    """Give what the kernel of an image built by us is told."""
    return f"root=UUID={uuid} {_OPTIONS}"


def _loader_items(uuid: str, init: Init) -> tuple[Item, ...]:
    if init is Init.BUSYBOX:
        return ()  # SYSLINUX reads nothing of this file system.
    return (Item(path="boot/grub/grub.cfg", content=grub_cfg(kernel_options(uuid))),)


def _systemd_items() -> tuple[Item, ...]:
    masks = (Item(path=f"etc/systemd/system/{unit}", target="/dev/null") for unit in _MASKED)
    unit = "usr/lib/systemd/system/mayfly-agent.service"
    wanted = "etc/systemd/system/multi-user.target.wants/mayfly-agent.service"
    journal = "etc/systemd/journald.conf.d/mayfly.conf"
    return (
        Item(path=unit, content=_UNIT),
        Item(path=wanted, target=f"/{unit}"),
        Item(path=journal, content=_JOURNAL),
        *masks,
    )


def _sysvinit_items() -> tuple[Item, ...]:
    return (
        Item(path="etc/inittab", content=_INITTAB),
        Item(path="etc/init.d/mayfly-agent", content=_INIT_SCRIPT, mode=0o755),
    )


def _busybox_items() -> tuple[Item, ...]:
    names = ("init", "halt", "poweroff", "reboot")
    links = (Item(path=f"usr/sbin/{name}", target="/bin/busybox") for name in names)
    return (
        Item(path="etc/inittab", content=_BUSYBOX_INITTAB),
        Item(path="usr/lib/mayfly/boot", content=_BOOT, mode=0o755),
        Item(path="etc/tiny-initramfs/tiny-initramfs.conf", content=_TINY_INITRAMFS),
        *links,
    )


_INIT_ITEMS = {
    Init.SYSTEMD: _systemd_items,
    Init.SYSVINIT: _sysvinit_items,
    Init.BUSYBOX: _busybox_items,
}


def pack(items: tuple[Item, ...]) -> bytes:
    """Make a tar file of these items, owned by root; parent directories are left as they are."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for item in items:
            data = item.content.encode()
            info = tarfile.TarInfo(item.path)
            info.mode = item.mode
            if item.target:
                info.type, info.linkname = tarfile.SYMTYPE, item.target
            elif item.path.endswith("/"):
                info.type = tarfile.DIRTYPE
            else:
                info.size = len(data)
            tar.addfile(info, None if item.target else io.BytesIO(data))
    return buffer.getvalue()
