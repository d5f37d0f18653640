"""Partition table, file system and boot loader, byte for byte."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from mayfly.errors import Failed
from mayfly.images.build.disk import Layout, master_boot_record, mke2fs_argv
from mayfly.images.build.grub import boot_sectors, core_argv
from mayfly.images.formats import check_boot
from mayfly.units import GIB, MIB

LAYOUT = Layout(
    disk_bytes=8 * GIB, disk_id=b"\x01\x02\x03\x04", uuid="01234567-89ab-cdef-0123-456789abcdef"
)


def boot_img(kernel_sector: int = 1) -> bytes:
    image = bytearray(b"\xeb" + b"\x90" * 511)
    struct.pack_into("<Q", image, 0x5C, kernel_sector)
    return bytes(image)


def core_img(*, sectors: int = 50, start: int = 2, count: int | None = None) -> bytes:
    image = bytearray(b"\xcc" * (sectors * 512 - 100))
    struct.pack_into("<QH", image, 500, start, 0)
    struct.pack_into("<H", image, 508, sectors - 1 if count is None else count)
    return bytes(image)


def test_the_master_boot_record_byte_for_byte() -> None:
    sector = master_boot_record(LAYOUT, b"\xeb\x63" + b"\x90" * 510)
    assert len(sector) == 512
    assert sector[:440] == b"\xeb\x63" + b"\x90" * 438
    assert sector[440:446] == b"\x01\x02\x03\x04\0\0"
    assert sector[446:462] == (
        b"\x80\xfe\xff\xff"  # bootable
        b"\x83\xfe\xff\xff"  # Linux
        b"\x00\x08\x00\x00"  # from sector 2048
        b"\x00\xf8\xff\x00"  # 8 GiB - 1 MiB
    )
    assert sector[462:510] == bytes(48)
    assert sector[510:] == b"\x55\xaa"


def test_the_largest_disk_still_fits_into_the_table() -> None:
    layout = Layout(disk_bytes=2048 * GIB, disk_id=bytes(4), uuid=LAYOUT.uuid)
    (count,) = struct.unpack_from("<I", master_boot_record(layout, b"x"), 458)
    assert count * 512 == 2048 * GIB - MIB


def test_short_boot_code_is_padded() -> None:
    assert master_boot_record(LAYOUT, b"x")[:440] == b"x" + bytes(439)


def test_the_file_system_is_made_inside_the_partition() -> None:
    argv = mke2fs_argv(LAYOUT, Path("/s/tree"), "/proc/self/fd/7")
    assert argv[0] == "mke2fs"
    assert argv[argv.index("-d") + 1] == "/s/tree"
    assert argv[argv.index("-U") + 1] == LAYOUT.uuid
    assert "offset=1048576," in argv[argv.index("-E") + 1]
    assert argv[-2:] == ["/proc/self/fd/7", f"{8 * 1024 * 1024 - 1024}k"]


def test_features_are_those_that_the_oldest_guest_reads() -> None:
    argv = mke2fs_argv(LAYOUT, Path("/t"), "d")
    features = argv[argv.index("-O") + 1].split(",")
    assert features[0] == "none"
    assert not {"orphan_file", "metadata_csum_seed", "fast_commit"} & set(features)


def test_boot_sectors_are_the_record_then_core() -> None:
    sectors = boot_sectors(LAYOUT, boot_img(), core_img())
    assert sectors[:512] == master_boot_record(LAYOUT, boot_img())
    assert sectors[512:] == core_img()
    check_boot(sectors, LAYOUT.disk_bytes)


@pytest.mark.parametrize(
    ("boot", "core"),
    [
        (boot_img(kernel_sector=5), core_img()),
        (boot_img()[:100], core_img()),
        (boot_img(), core_img(start=9)),
        (boot_img(), core_img(count=10)),
        (boot_img(), core_img(sectors=2048)),
        (boot_img(), b""),
    ],
)
def test_a_grub_that_would_not_boot_is_refused(boot: bytes, core: bytes) -> None:
    with pytest.raises(Failed, match="GRUB"):
        boot_sectors(LAYOUT, boot, core)


def test_core_finds_its_files_on_the_first_partition() -> None:
    argv = core_argv(Path("/s/core.img"))
    assert argv[:3] == ["grub-mkimage", "-O", "i386-pc"]
    assert argv[argv.index("-p") + 1] == "(hd0,msdos1)/boot/grub"
    assert {"biosdisk", "part_msdos", "ext2", "linux", "normal"} <= set(argv)
