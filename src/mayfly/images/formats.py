"""Which format a disk file has, and whether it stands alone: decided by us from its first bytes.

The file may come from anyone. A disk format can name other files of this host (a backing file, a
data file, an extent), and whoever opens such a disk reads those files into it; so they are
refused before any tool looks at the file, and the tool is told the format instead of guessing.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from typing import BinaryIO

from mayfly.errors import Invalid, Quota
from mayfly.units import show_size

SECTOR = 512
LARGEST_BYTES = 2 << 40

_QCOW2 = struct.Struct(">4sIQIIQIIQQIIQQQQII")
_QCOW2_KNOWN = 0b11101
"""Incompatible features that do no harm: dirty, external compression type, extended L2 entries."""
_QCOW2_CORRUPT, _QCOW2_DATA_FILE = 0b10, 0b100
_VMDK = struct.Struct("<4sIIQQQQIQQQ")
_VMDK_AT_END = (1 << 64) - 1
_VMDK_DESCRIPTOR = 20 * SECTOR

_VDI_AT = 0x40
_VDI = struct.Struct("<5I256xII4x4x4xI4xQIIII16x16x16s16s")
_VDI_VERSION, _VDI_BLOCK = 0x00010001, 1 << 20
_VDI_KINDS = (1, 2)
"""Growing and of fixed size; the others are layers over another disk."""

_FOREIGN = (
    (0, b"# Disk DescriptorFile", "a VMDK descriptor, which only names the files of the disk"),
    (0, b"COWD", "a VMDK of an ESX 2 host"),
    (0, b"\x1f\x8b", "compressed by gzip: unpack it with gunzip first"),
    (0, b"\xfd7zXZ\0", "compressed by xz: unpack it with unxz first"),
    (0, b"\x28\xb5\x2f\xfd", "compressed by zstd: unpack it with unzstd first"),
    (0, b"BZh", "compressed by bzip2: unpack it with bunzip2 first"),
    (0, b"PK\3\4", "a zip archive: unpack it first"),
    (257, b"ustar", "a tar archive: unpack it first"),
    (0, b"vhdxfile", "a VHDX"),
    (0, b"conectix", "a VHD"),
    (0, b"QED\0", "a QED"),
    (0, b"LUKS\xba\xbe", "encrypted by LUKS"),
    (32769, b"CD001", "an ISO image of a CD, not of a disk"),
)
_HINT = "formats: qcow2, raw, vdi, vmdk (monolithicSparse, streamOptimized); see qemu-img convert"


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """What a disk file says about itself."""

    format: str
    """``qcow2``, ``raw``, ``vmdk`` or ``vdi``."""
    bytes: int
    """Size of the disk that a guest would see."""


def recognise(file: BinaryIO, size: int) -> Disk:
    """Tell what a file of ``size`` bytes is, or refuse it."""
    file.seek(0)
    head = file.read(64 << 10)
    if not head:
        raise Invalid("the file is empty")
    if head.startswith(b"QFI\xfb"):
        disk = Disk(format="qcow2", bytes=_qcow2(head))
    elif head.startswith(b"KDMV"):
        disk = Disk(format="vmdk", bytes=_vmdk(file, head, size))
    elif head[_VDI_AT : _VDI_AT + 4] == b"\x7f\x10\xda\xbe":
        disk = Disk(format="vdi", bytes=_vdi(head, size))
    else:
        disk = Disk(format="raw", bytes=_raw(head, size))
    if not 0 < disk.bytes <= LARGEST_BYTES:
        raise Quota(
            f"the disk has {show_size(disk.bytes)}; at most {show_size(LARGEST_BYTES)} are allowed"
        )
    return disk


def layer_bytes(file: BinaryIO) -> int:
    """Give the size of the disk that a qcow2 layer of ours stands for, or refuse it.

    What it names as the file below it is for whoever opens it to ignore.
    """
    file.seek(0)
    head = file.read(512)
    if not head.startswith(b"QFI\xfb"):
        raise Invalid("the layer is no qcow2")
    return _qcow2(head, layer=True)


def _qcow2(head: bytes, *, layer: bool = False) -> int:
    fields = head.ljust(_QCOW2.size, b"\0")
    _, version, backing, _, cluster_bits, size, crypt, *rest = _QCOW2.unpack_from(fields)
    features = rest[6]
    if len(head) < 72 or (version == 3 and len(head) < 104):
        raise Invalid("the qcow2 is truncated: even its header is not complete")
    if version not in (2, 3):
        raise Invalid(f"the qcow2 has version {version}; 2 and 3 are known", hint=_HINT)
    if backing and not layer:
        raise Invalid(
            "the qcow2 is only a layer over another file, its backing file",
            hint="make it stand alone, where both files are: qemu-img convert -O qcow2 IN OUT",
        )
    if crypt:
        raise Invalid("the qcow2 is encrypted", hint=_HINT)
    if not 9 <= cluster_bits <= 21:
        raise Invalid(f"the qcow2 is damaged: clusters of 2^{cluster_bits} bytes")
    if version == 3:
        _qcow2_features(features)
    return int(size)


def _qcow2_features(features: int) -> None:
    if features & _QCOW2_DATA_FILE:
        raise Invalid(
            "the qcow2 keeps its content in another file",
            hint="make it stand alone, where both files are: qemu-img convert -O qcow2 IN OUT",
        )
    if features & _QCOW2_CORRUPT:
        raise Invalid(
            "the qcow2 is marked as corrupt", hint="repair it: qemu-img check -r all FILE"
        )
    if features & ~_QCOW2_KNOWN:
        raise Invalid(f"the qcow2 needs features that are not known: {features:#x}")


def _vmdk(file: BinaryIO, head: bytes, size: int) -> int:
    capacity, directory = _vmdk_header(head)
    if directory == _VMDK_AT_END:
        file.seek(max(0, size - 2 * SECTOR))
        footer = file.read(SECTOR)
        if not footer.startswith(b"KDMV"):
            raise Invalid("the vmdk is truncated: its footer is missing")
        if _vmdk_header(footer)[0] != capacity:
            raise Invalid("the vmdk is damaged: header and footer contradict each other")
    text = head[SECTOR : SECTOR + _VMDK_DESCRIPTOR].split(b"\0", 1)[0].decode("latin-1")
    kind = re.search(r'^\s*createType\s*=\s*"([^"]*)"', text, re.MULTILINE)
    if kind is None or kind[1] not in ("monolithicSparse", "streamOptimized"):
        raise Invalid(f"the vmdk is of type '{kind[1] if kind else 'unknown'}'", hint=_HINT)
    parent = re.search(r"^\s*parentCID\s*=\s*([0-9a-fA-F]+)", text, re.MULTILINE)
    if "parentFileNameHint" in text or (parent and int(parent[1], 16) != 0xFFFFFFFF):
        raise Invalid("the vmdk is only a layer over another file, its parent", hint=_HINT)
    return capacity * SECTOR


def _vmdk_header(data: bytes) -> tuple[int, int]:
    """Give the capacity in sectors and where the grain directory is."""
    if len(data) < _VMDK.size:
        raise Invalid("the vmdk is truncated: even its header is not complete")
    fields = _VMDK.unpack_from(data)
    _, version, _, capacity, _, descriptor, descriptor_size, _, _, directory, _ = fields
    # Without a capacity, the descriptor inside may name any file of the host as its content.
    if not 1 <= version <= 3 or not capacity or descriptor != 1 or descriptor_size > 1 << 16:
        raise Invalid("the vmdk is not one self-contained file", hint=_HINT)
    return int(capacity), int(directory)


def _vdi(head: bytes, size: int) -> int:
    if len(head) < _VDI_AT + _VDI.size:
        raise Invalid("the vdi is truncated: even its header is not complete")
    fields = _VDI.unpack_from(head, _VDI_AT)
    _, version, _, kind, _, table, data, sector, disk, block, extra, blocks, used, *ids = fields
    if version != _VDI_VERSION:
        raise Invalid(f"the vdi has version {version:#x}; {_VDI_VERSION:#x} is known", hint=_HINT)
    if kind not in _VDI_KINDS or any(map(any, ids)):
        raise Invalid("the vdi is only a layer over another file, its parent", hint=_HINT)
    if sector != SECTOR or block != _VDI_BLOCK or extra:
        raise Invalid(f"the vdi is damaged: sectors of {sector}, blocks of {block} + {extra} bytes")
    if disk > blocks * _VDI_BLOCK or used > blocks or table < _VDI_AT + _VDI.size:
        raise Invalid("the vdi is damaged: its numbers contradict each other")
    if table + 4 * blocks > size or data + used * _VDI_BLOCK > size:
        raise Invalid("the vdi is truncated: it is shorter than its header says")
    return -(-int(disk) // SECTOR) * SECTOR


def _raw(head: bytes, size: int) -> int:
    for offset, magic, what in _FOREIGN:
        if head[offset : offset + len(magic)] == magic:
            raise Invalid(f"the file is {what}", hint=_HINT)
    if size < 1 << 20 or head[510:512] != b"\x55\xaa":
        raise Invalid("the file is not a disk that Mayfly knows: no boot sector", hint=_HINT)
    return -(-size // SECTOR) * SECTOR


def check_boot(start: bytes, disk_bytes: int) -> None:
    """Refuse a disk that no BIOS can boot, or that is shorter than its own partitions.

    ``start`` is the beginning of the disk, two sectors of it.
    """
    start = start.ljust(2 * SECTOR, b"\0")
    if start[510:512] != b"\x55\xaa" or not any(start[:440]):
        raise Invalid(
            "the disk has no boot code for a BIOS machine",
            hint="take an image that boots by BIOS; one that boots only by UEFI cannot run here",
        )
    end = _partition_end(start)
    if end > disk_bytes:
        raise Invalid(
            f"the disk is truncated: its partitions reach to {end} of only {disk_bytes} bytes",
            hint="fetch or copy the file again, and compare its checksum",
        )


def _partition_end(start: bytes) -> int:
    entries = [struct.unpack_from("<B3xB3xII", start, 446 + 16 * number) for number in range(4)]
    if any(kind == 0xEE for _, kind, _, _ in entries):
        if start[SECTOR : SECTOR + 8] != b"EFI PART":
            return 0
        (backup,) = struct.unpack_from("<Q", start, SECTOR + 32)
        return (int(backup) + 1) * SECTOR
    ends = [(first + count) * SECTOR for _, kind, first, count in entries if kind and count]
    return max(ends, default=0)
