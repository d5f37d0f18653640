"""SYSLINUX on a disk: the real programs, on plain files."""

from __future__ import annotations

import shutil
import struct
import subprocess
import time
from pathlib import Path

import pytest

from mayfly.errors import Failed
from mayfly.images.build import syslinux
from mayfly.images.build.builder import check_host, layout_of
from mayfly.images.build.disk import BOOT_BYTES, PARTITION_START, Layout, mke2fs_argv
from mayfly.images.build.recipe import RECIPES, Init, find_recipe
from mayfly.images.formats import check_boot
from mayfly.units import GIB, MIB

LAYOUT = Layout(
    disk_bytes=GIB,
    disk_id=b"\x01\x02\x03\x04",
    uuid="01234567-89ab-cdef-0123-456789abcdef",
    boot_bytes=BOOT_BYTES,
)
EPOCH = 1_700_000_000
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"

needs_syslinux = pytest.mark.skipif(
    bool(syslinux.missing(PATH)), reason="syslinux, mtools or dosfstools is not installed"
)


def make_tree(place: Path) -> Path:
    tree = place / "tree"
    (tree / "boot").mkdir(parents=True)
    for link, content in (("vmlinuz", b"kernel" * 100_000), ("initrd.img", b"initramfs")):
        (tree / f"boot/{link}-6.1").write_bytes(content)
        (tree / link).symlink_to(f"boot/{link}-6.1")
    return tree


def install(place: Path, tree: Path, name: str) -> bytes:
    disk, scratch = place / f"{name}.raw", place / f"scratch-{name}"
    scratch.mkdir()
    with disk.open("xb") as file:
        file.truncate(LAYOUT.disk_bytes)
    syslinux.install(disk, LAYOUT, tree, scratch=scratch, options="root=X quiet", epoch=EPOCH)
    assert not (scratch / "boot.fat").exists()
    with disk.open("rb") as made:
        return made.read(PARTITION_START + BOOT_BYTES)


def mtools(*words: str) -> bytes:
    return subprocess.run(words, check=True, capture_output=True, timeout=30).stdout


@needs_syslinux
def test_kernel_and_settings_lie_in_a_fat_that_is_started_from(tmp_path: Path) -> None:
    made = install(tmp_path, make_tree(tmp_path), "one")
    assert made[446:462] == bytes.fromhex("00feffff83feffff") + struct.pack(
        "<II", (PARTITION_START + BOOT_BYTES) // 512, (GIB - PARTITION_START - BOOT_BYTES) // 512
    )
    assert made[462:478] == bytes.fromhex("80feffff0efeffff") + struct.pack(
        "<II", PARTITION_START // 512, BOOT_BYTES // 512
    )
    assert made[478:512] == bytes(32) + b"\x55\xaa"
    assert made[:439] == syslinux.MBR.read_bytes()[:439]
    fat = tmp_path / "fat"
    fat.write_bytes(made[PARTITION_START:])
    assert mtools("mcopy", "-i", str(fat), "::vmlinuz", "-") == b"kernel" * 100_000
    assert mtools("mcopy", "-i", str(fat), "::initrd.img", "-") == b"initramfs"
    settings = mtools("mcopy", "-i", str(fat), "::syslinux.cfg", "-").decode()
    assert "LINUX vmlinuz\n" in settings
    assert "APPEND root=X quiet\n" in settings
    # Nothing that would wait for somebody, or write to the slow console.
    assert not {"TIMEOUT", "UI", "SERIAL", "SAY", "DISPLAY"} & set(settings.upper().split())
    assert b"SYSLINUX" in made[PARTITION_START : PARTITION_START + 512]


@needs_syslinux
def test_the_same_kernel_gives_the_same_bytes_at_another_time(tmp_path: Path) -> None:
    tree = make_tree(tmp_path)
    first = install(tmp_path, tree, "one")
    begun = time.time()
    while int(time.time() / 2) == int(begun / 2):  # a FAT counts in steps of two seconds
        time.sleep(0.05)
    assert install(tmp_path, tree, "two") == first


@needs_syslinux
@pytest.mark.parametrize("link", ["vmlinuz", "initrd.img"])
@pytest.mark.parametrize("target", ["/etc/passwd", "../../../etc/passwd", "boot/none", "boot/link"])
def test_a_link_that_leads_out_of_the_tree_is_not_followed(
    link: str, target: str, tmp_path: Path
) -> None:
    tree = make_tree(tmp_path)
    (tree / "boot/link").symlink_to("/etc/passwd")
    (tree / link).unlink()
    (tree / link).symlink_to(target)
    with pytest.raises(Failed, match=f"has no /{link}"):
        install(tmp_path, tree, "one")


@needs_syslinux
def test_a_kernel_that_is_too_large_fails_aloud(tmp_path: Path) -> None:
    tree = make_tree(tmp_path)
    with (tree / "boot/vmlinuz-6.1").open("wb") as file:
        file.truncate(BOOT_BYTES)
    with pytest.raises(Failed, match="mcopy"):
        install(tmp_path, tree, "one")


@needs_syslinux
def test_the_disk_counts_as_one_that_boots(tmp_path: Path) -> None:
    made = install(tmp_path, make_tree(tmp_path), "one")
    check_boot(made[:1024], LAYOUT.disk_bytes)


def test_a_host_without_it_is_told_the_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(syslinux, "MBR", tmp_path / "mbr.bin")
    assert syslinux.missing("/nonexistent") == {**syslinux.TOOLS, "mbr.bin": "syslinux"}
    with pytest.raises(Failed, match=r"mbr\.bin") as caught:
        check_host(Init.BUSYBOX)
    assert "syslinux" in caught.value.hint


def test_only_the_image_for_tests_has_it_and_leaves_grub_out() -> None:
    sizes = {name: layout_of(recipe, "").boot_bytes for name, recipe in RECIPES.items()}
    assert {name for name, size in sizes.items() if size} == {"minimal"}


def test_the_root_file_system_begins_behind_the_fat() -> None:
    layout = layout_of(find_recipe("minimal"), "")
    assert layout.root_start == MIB + BOOT_BYTES
    assert layout.partition_bytes == layout.disk_bytes - layout.root_start
    assert f"offset={layout.root_start}," in " ".join(mke2fs_argv(layout, Path("/t"), "/d"))


@pytest.mark.skipif(shutil.which("syslinux") is None, reason="syslinux is not installed")
def test_the_boot_code_is_read_whole() -> None:
    assert len(syslinux.MBR.read_bytes()) in (439, 440)
