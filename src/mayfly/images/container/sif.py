"""Where the root file system lies in a SIF, the file of Apptainer and Singularity.

A SIF is a global header, a table of descriptors, and the objects that these point to. Wanted is the
primary system partition, a squashfs. Only numbers are read here.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from mayfly.errors import Invalid

MAGIC = b"SIF_MAGIC\0"
MAGIC_AT = 32
_HEADER = struct.Struct("<32s10s3s3s16s8q")
_DESCRIPTOR = struct.Struct("<i?IIIqqqqqqq128s384s")
_MOST = 1000
HEADER_BYTES = _HEADER.size
_PARTITION = 0x4004
_FILE_SYSTEMS = {1: "squashfs", 2: "ext3", 3: "an archive", 4: "raw", 5: "encrypted squashfs"}
_PRIMARY = 2
_AMD64 = b"02"
_ARCHES = {b"01": "386", b"02": "amd64", b"03": "arm", b"04": "arm64", b"05": "ppc64"}
_SQUASHFS = b"hsqs"


@dataclass(frozen=True, slots=True, kw_only=True)
class Partition:
    """Where the root file system lies in the file."""

    offset: int
    size: int


def is_sif(head: bytes) -> bool:
    """Tell whether a file that begins so is a SIF."""
    return head[MAGIC_AT : MAGIC_AT + len(MAGIC)] == MAGIC


def find_table(head: bytes, size: int) -> tuple[int, int]:
    """Give offset and number of the descriptors in a file of ``size`` bytes that begins so."""
    if len(head) < _HEADER.size:
        raise Invalid("the SIF is truncated: even its header is not complete")
    _, magic, version, _, _, _, _, _, total, offset, length, _, _ = _HEADER.unpack_from(head)
    if magic != MAGIC or version.rstrip(b"\0") != b"01":
        raise Invalid(f"the SIF has version {version!r}; 01 is known")
    if not 0 <= total <= _MOST or length < 0:
        raise Invalid(f"the SIF is damaged: it has {total} descriptors")
    if not _HEADER.size <= offset <= size - total * _DESCRIPTOR.size:
        raise Invalid("the SIF is truncated or damaged: its table is not in the file")
    return int(offset), int(total)


def find_partition(table: bytes, size: int) -> Partition:
    """Give the primary system partition of a table of descriptors."""
    seen = []
    for start in range(0, len(table) - _DESCRIPTOR.size + 1, _DESCRIPTOR.size):
        kind, used, _, _, _, offset, length, *_, extra = _DESCRIPTOR.unpack_from(table, start)
        if not used or kind != _PARTITION:
            continue
        system, role, arch = struct.unpack_from("<ii3s", extra)
        if role != _PRIMARY:
            continue
        name = _FILE_SYSTEMS.get(system, f"of type {system}")
        seen.append(name)
        if system != 1:
            continue
        if arch.rstrip(b"\0") != _AMD64:
            shown = _ARCHES.get(arch.rstrip(b"\0"), "another architecture")
            raise Invalid(f"the SIF is for {shown}; only amd64 can be run")
        if not 0 < offset <= size - length or length <= len(_SQUASHFS):
            raise Invalid("the SIF is truncated: its file system is not whole")
        return Partition(offset=offset, size=length)
    found = f"its root file system is {seen[0]}" if seen else "it has no root file system"
    raise Invalid(
        f"the SIF cannot be read: {found}",
        hint="one with a squashfs can; 'apptainer build' makes such a SIF",
    )


def table_bytes(total: int) -> int:
    """Give how long a table of so many descriptors is."""
    return total * _DESCRIPTOR.size
