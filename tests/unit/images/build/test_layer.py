"""The files of ours in an image."""

from __future__ import annotations

import io
import subprocess
import tarfile

import pytest

from mayfly.images.build.layer import START_AGENT, Item, image_items, kernel_options, pack
from mayfly.images.build.recipe import Init

UUID = "01234567-89ab-cdef-0123-456789abcdef"


def by_path(init: Init) -> dict[str, Item]:
    items = image_items(UUID, init)
    assert len({item.path for item in items}) == len(items)
    return {item.path: item for item in items}


@pytest.mark.parametrize("init", list(Init))
def test_every_image_boots_from_its_own_file_system(init: Init) -> None:
    items = by_path(init)
    assert f"root=UUID={UUID} rw console=ttyS0,115200 " in kernel_options(UUID)
    assert "net.ifnames=0" in kernel_options(UUID)
    if init is not Init.BUSYBOX:
        grub = items["boot/grub/grub.cfg"].content
        assert f"linux /vmlinuz {kernel_options(UUID)}\n" in grub
        assert grub.endswith("initrd /initrd.img\nboot\n")
    assert items["etc/fstab"].content.startswith(f"UUID={UUID} / ext4 ")
    assert items["etc/fstab"].content.endswith(" 0 0\n")


@pytest.mark.parametrize("init", list(Init))
def test_no_image_has_an_identity(init: Init) -> None:
    items = by_path(init)
    assert items["etc/machine-id"].content == ""
    assert items["etc/hostname"].content == "localhost\n"
    assert items["etc/resolv.conf"].content == ""


@pytest.mark.parametrize("init", list(Init))
def test_every_image_loads_what_the_agent_needs(init: Init) -> None:
    items = by_path(init)
    assert items["etc/modules-load.d/mayfly.conf"].content.split() == [
        "virtio_console",
        "isofs",
        "fuse",
    ]
    initramfs = items["usr/share/initramfs-tools/modules.d/mayfly"].content.split()
    assert {"virtio_pci", "virtio_blk", "ext4"} <= set(initramfs)


def test_systemd_starts_the_agent_and_no_timers() -> None:
    items = by_path(Init.SYSTEMD)
    unit = items["usr/lib/systemd/system/mayfly-agent.service"].content
    assert "ExecStart=/usr/lib/mayfly/start-agent\n" in unit
    wanted = items["etc/systemd/system/multi-user.target.wants/mayfly-agent.service"]
    assert wanted.target == "/usr/lib/systemd/system/mayfly-agent.service"
    for timer in ("apt-daily", "apt-daily-upgrade", "fstrim", "logrotate", "man-db"):
        assert items[f"etc/systemd/system/{timer}.timer"].target == "/dev/null"


def test_sysvinit_starts_the_agent_and_a_login_on_the_serial_line() -> None:
    items = by_path(Init.SYSVINIT)
    assert items["etc/init.d/mayfly-agent"].mode == 0o755
    assert "ttyS0" in items["etc/inittab"].content


def test_the_shell_scripts_are_valid() -> None:
    for script in (START_AGENT, by_path(Init.SYSVINIT)["etc/init.d/mayfly-agent"].content):
        assert subprocess.run(["sh", "-n"], input=script.encode(), check=False).returncode == 0


def test_the_tar_file_has_files_modes_and_links() -> None:
    items = (
        Item(path="etc/a", content="text\n"),
        Item(path="usr/b", content="#!/bin/sh\n", mode=0o755),
        Item(path="etc/c", target="/dev/null"),
        Item(path="etc/empty"),
    )
    with tarfile.open(fileobj=io.BytesIO(pack(items))) as tar:
        a, b, c, empty = tar.getmembers()
        file = tar.extractfile(a)
        assert file is not None
        assert file.read() == b"text\n"
    assert (a.mode, a.uid, a.gid, b.mode) == (0o644, 0, 0, 0o755)
    assert c.issym()
    assert c.linkname == "/dev/null"
    assert empty.isfile()
    assert empty.size == 0


def test_nothing_but_files_and_links_goes_in_so_no_directory_changes_its_mode() -> None:
    with tarfile.open(fileobj=io.BytesIO(pack(image_items(UUID, Init.SYSTEMD)))) as tar:
        assert all(member.isfile() or member.issym() for member in tar)
