"""Disk files from anyone, made byte by byte: what they are, and which are refused."""

from __future__ import annotations

import io
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mayfly.errors import Invalid, MayflyError, Quota
from mayfly.images.formats import Disk, check_boot, recognise
from mayfly.units import GIB, MIB

SPARSE = 'createType="monolithicSparse"\nCID=12345678\nparentCID=ffffffff\n'


def qcow2(
    *, version: int = 3, backing: int = 0, size: int = GIB, crypt: int = 0, features: int = 0
) -> bytes:
    start = struct.pack(">4sIQIIQI", b"QFI\xfb", version, backing, 0, 16, size, crypt)
    return (start + bytes(36) + struct.pack(">Q", features)).ljust(4096, b"\0")


def vmdk(
    text: str = SPARSE,
    *,
    capacity: int = GIB // 512,
    descriptor: int = 1,
    directory: int = 21,
    version: int = 1,
) -> bytes:
    fields = (version, 3, capacity, 128, descriptor, 20, 512, 0, directory, 128)
    header = struct.pack("<4sIIQQQQIQQQ", b"KDMV", *fields).ljust(512, b"\0")
    return header + text.encode().ljust(20 * 512, b"\0")


def mbr(*entries: tuple[int, int, int], code: bytes = b"\xeb") -> bytes:
    table = b"".join(struct.pack("<B3xB3xII", 0x80, *entry) for entry in entries)
    return code.ljust(446, b"\0") + table.ljust(64, b"\0") + b"\x55\xaa"


def judge(data: bytes) -> Disk:
    return recognise(io.BytesIO(data), len(data))


def test_a_qcow2_is_known() -> None:
    assert judge(qcow2()) == Disk(format="qcow2", bytes=GIB)
    assert judge(qcow2(version=2, features=0xFFFF)) == Disk(format="qcow2", bytes=GIB)
    assert judge(qcow2(features=0b11001)).bytes == GIB


def test_a_vmdk_is_known() -> None:
    assert judge(vmdk()) == Disk(format="vmdk", bytes=GIB)
    assert (
        judge(vmdk(SPARSE.replace("monolithicSparse", "streamOptimized"), version=3)).bytes == GIB
    )


def test_a_vmdk_with_its_directory_at_the_end_is_known_by_its_footer() -> None:
    at_end = (1 << 64) - 1
    data = vmdk(directory=at_end) + bytes(MIB) + vmdk()[:512] + bytes(512)
    assert judge(data) == Disk(format="vmdk", bytes=GIB)
    with pytest.raises(Invalid, match="footer is missing"):
        judge(data[:-100])
    other = vmdk(directory=at_end) + bytes(MIB) + vmdk(capacity=5)[:512] + bytes(512)
    with pytest.raises(Invalid, match="contradict"):
        judge(other)


def test_a_raw_disk_is_known_by_its_boot_sector() -> None:
    data = mbr((0x83, 2048, 2048)).ljust(2 * MIB, b"\0")
    assert judge(data) == Disk(format="raw", bytes=2 * MIB)
    assert judge(data + b"x").bytes == 2 * MIB + 512


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "empty"),
        (b"x", "no boot sector"),
        (bytes(2 * MIB), "no boot sector"),
        (mbr(), "no boot sector"),
        (qcow2(backing=512), "backing file"),
        (qcow2(crypt=1), "encrypted"),
        (qcow2(crypt=2), "encrypted"),
        (qcow2(features=0b100), "in another file"),
        (qcow2(features=0b10), "corrupt"),
        (qcow2(features=1 << 40), "not known"),
        (qcow2(version=1), "version 1"),
        (qcow2(version=4), "version 4"),
        (b"QFI\xfb", "truncated"),
        (qcow2()[:80], "truncated"),
        (b"KDMV", "truncated"),
        (b"# Disk DescriptorFile\nversion=1\n" + SPARSE.encode(), "descriptor"),
        (vmdk(SPARSE.replace("monolithicSparse", "monolithicFlat")), "monolithicFlat"),
        (vmdk(SPARSE.replace("monolithicSparse", "twoGbMaxExtentSparse")), "twoGbMax"),
        (vmdk(""), "unknown"),
        (vmdk(SPARSE.replace("ffffffff", "0badcafe")), "parent"),
        (vmdk(SPARSE + 'parentFileNameHint="/etc/shadow"\n'), "parent"),
        (vmdk(capacity=0), "self-contained"),
        (vmdk(descriptor=0), "self-contained"),
        (vmdk(descriptor=9), "self-contained"),
        (b"COWD" + bytes(MIB), "ESX"),
        (b"\x1f\x8b" + bytes(MIB), "gunzip"),
        (b"\xfd7zXZ\0" + bytes(MIB), "unxz"),
        (b"PK\3\4" + bytes(MIB), "zip"),
        (b"LUKS\xba\xbe" + bytes(MIB), "LUKS"),
        (b"vhdxfile" + bytes(MIB), "VHDX"),
        (mbr().ljust(32769, b"\0") + b"CD001" + bytes(MIB), "ISO"),
    ],
)
def test_what_is_refused_and_why(data: bytes, said: str) -> None:
    with pytest.raises(Invalid, match=said):
        judge(data)


@pytest.mark.parametrize(
    "data", [qcow2(size=(2 << 40) + 1), qcow2(size=1 << 63), vmdk(capacity=1 << 40), qcow2(size=0)]
)
def test_an_absurd_size_is_refused(data: bytes) -> None:
    with pytest.raises(Quota, match=r"at most 2\.0 TiB"):
        judge(data)


@given(st.sampled_from([b"QFI\xfb", b"KDMV", b""]), st.binary(max_size=1500))
def test_no_bytes_bring_it_down(magic: bytes, rest: bytes) -> None:
    try:
        disk = judge(magic + rest)
    except MayflyError:
        return
    assert 0 < disk.bytes <= 2 << 40


def test_a_disk_boots_when_it_has_code_and_its_partitions_fit() -> None:
    check_boot(mbr((0x83, 2048, 2048)), 2 * MIB)


@pytest.mark.parametrize("start", [b"", bytes(1024), mbr(code=b""), mbr()[:511]])
def test_a_disk_without_boot_code_is_refused(start: bytes) -> None:
    with pytest.raises(Invalid, match="no boot code"):
        check_boot(start, GIB)


def test_a_disk_shorter_than_its_partitions_is_refused() -> None:
    with pytest.raises(Invalid, match="truncated"):
        check_boot(mbr((0x83, 2048, 2048)), 2 * MIB - 512)


def test_a_gpt_disk_shorter_than_its_backup_table_is_refused() -> None:
    header = b"EFI PART" + bytes(24) + struct.pack("<Q", 4095) + bytes(472)
    start = mbr((0xEE, 1, 0xFFFFFFFF)) + header
    check_boot(start, 2 * MIB)
    with pytest.raises(Invalid, match="truncated"):
        check_boot(start, MIB)
