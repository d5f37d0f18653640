"""The archive that the kernel unpacks first, read back by cpio."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from mayfly.images.build.layer import grub_cfg
from mayfly.images.container.convert import os_name, own_items
from mayfly.images.container.initramfs import initramfs, load_order


def test_cpio_reads_what_was_made(tmp_path: Path) -> None:
    data = initramfs(b"busybox", {"virtio_blk": b"1234567", "ext4": b"x"})
    words = ["cpio", "-id", "--quiet"]
    subprocess.run(words, input=data, check=True, cwd=tmp_path)
    assert (tmp_path / "bin/busybox").read_bytes() == b"busybox"
    assert (tmp_path / "modules/virtio_blk.ko").read_bytes() == b"1234567"
    assert os.access(tmp_path / "init", os.X_OK)
    assert "for module in virtio_blk ext4; do" in (tmp_path / "init").read_text()


def test_both_scripts_are_right_for_a_shell(tmp_path: Path) -> None:
    subprocess.run(
        ["cpio", "-id", "--quiet"], input=initramfs(b"", {"a": b""}), check=True, cwd=tmp_path
    )
    for name in ("init", "second"):
        words = ["sh", "-n", str(tmp_path / name)]
        assert subprocess.run(words, capture_output=True, check=False).stderr == b""
        assert "@" not in (tmp_path / name).read_text()


def test_modules_are_loaded_behind_what_they_need() -> None:
    dependencies = (
        "kernel/drivers/virtio-blk.ko: kernel/virtio_pci.ko kernel/virtio.ko\n"
        "kernel/virtio_pci.ko: kernel/virtio.ko\n"
        "kernel/virtio.ko:\n"
    )
    found = load_order(dependencies, ["virtio_pci", "virtio_blk", "ext4"])
    assert found == ["kernel/virtio.ko", "kernel/virtio_pci.ko", "kernel/drivers/virtio-blk.ko"]


def test_old_programs_find_their_page() -> None:
    items = {item.path: item for item in own_items("u-u-i-d", "6.1", ("A=1", "B=2 3"))}
    assert "root=UUID=u-u-i-d" in items["boot/grub/grub.cfg"].content
    assert "vsyscall=emulate" in items["boot/grub/grub.cfg"].content
    assert "linux /boot/vmlinuz-6.1 " in items["boot/grub/grub.cfg"].content
    assert items["usr/lib/mayfly/environ"].content == "A=1\0B=2 3\0"
    assert "linux /vmlinuz quiet" in grub_cfg("quiet")


def test_the_system_is_named_by_its_os_release() -> None:
    assert os_name('NAME="Tiny"\nID=tiny\nVERSION_ID="3.4"\n') == "tiny 3.4"
    assert os_name("ID='a'") == "a"
    assert os_name("ID=$(reboot)\n\x1b[31m") == "linux"
