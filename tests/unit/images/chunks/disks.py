"""Disks with content that can be told apart, for tests of chunks."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path

from mayfly.images.chunks.content import content_of
from mayfly.images.chunks.cut import CUTTER, Cutter, cut
from mayfly.images.chunks.index import Index

BLOCK = 4096
SHA512 = "ab" * 64


def blocks(seed: int, count: int) -> bytes:
    """Give blocks of noise, always the same ones for a seed."""
    return random.Random(seed).randbytes(count * BLOCK)


def disk_of(*parts: bytes | int) -> bytes:
    """Put bytes and runs of so many zero blocks together."""
    return b"".join(bytes(part * BLOCK) if isinstance(part, int) else part for part in parts)


def index_of(file: Path, cutter: Cutter = CUTTER, sha512: str = SHA512) -> Index:
    """Cut a file."""
    with content_of(file) as content:
        return cut(content, sha512, cutter)


def qcow2_of(raw: Path, *options: str) -> Path:
    """Make a qcow2 as the catalogue does."""
    target = raw.with_suffix(".qcow2")
    words = ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", *options, str(raw), str(target)]
    subprocess.run(words, check=True)
    return target
