"""Layers as they are packed: read whole, bounded, and checked."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from mayfly.errors import Invalid, MayflyError, Quota, Untrusted
from mayfly.images.container.packed import Part, check_digest, unpacked
from tests.unit.images.container.making import digest

CONTENT = os.urandom(300_000) + bytes(700_000)


def zstd(data: bytes) -> bytes:
    return subprocess.run(["zstd", "-c"], input=data, capture_output=True, check=True).stdout


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "plain": bytes,
    "gzip": gzip.compress,
    "xz": lzma.compress,
    "bzip2": bz2.compress,
    "zstd": zstd,
    "two gzips": lambda data: gzip.compress(data[:1000]) + gzip.compress(data[1000:]),
}


def unpack(
    tmp_path: Path, data: bytes, *, limit: int = 1 << 30, known: tuple[str, str] = ("", "")
) -> bytes:
    file = tmp_path / "part"
    file.write_bytes(b"before" + data + b"behind")
    with file.open("rb") as opened:
        part = Part(
            fd=opened.fileno(),
            offset=6,
            size=len(data),
            digest=known[0],
            unpacked_digest=known[1],
        )
        with unpacked(part, limit=limit, what="layer 1") as stream:
            pieces = []
            while piece := stream.read(5000):
                pieces.append(piece)
    return b"".join(pieces)


@pytest.mark.parametrize("kind", PACKERS)
def test_what_was_packed_comes_out(kind: str, tmp_path: Path) -> None:
    packed = PACKERS[kind](CONTENT)
    assert unpack(tmp_path, packed, known=(digest(packed), digest(CONTENT))) == CONTENT


@pytest.mark.parametrize("kind", ["gzip", "xz", "bzip2", "zstd"])
def test_what_is_cut_off_is_refused(kind: str, tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="damaged"):
        unpack(tmp_path, PACKERS[kind](CONTENT)[:-50])


@pytest.mark.parametrize("kind", ["gzip", "xz", "bzip2", "zstd"])
def test_noise_behind_a_right_beginning_is_refused(kind: str, tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="damaged"):
        unpack(tmp_path, PACKERS[kind](CONTENT)[:20] + os.urandom(5000))


@pytest.mark.parametrize("kind", PACKERS)
def test_a_bomb_is_stopped_at_the_limit(kind: str, tmp_path: Path) -> None:
    with pytest.raises(Quota, match="unpacks to more than"):
        unpack(tmp_path, PACKERS[kind](bytes(5 << 20)), limit=1 << 20)


@pytest.mark.parametrize("known", [(digest(b"other"), ""), ("", digest(b"other"))])
def test_what_is_not_what_its_digest_says_is_refused(
    known: tuple[str, str], tmp_path: Path
) -> None:
    with pytest.raises(Untrusted, match="not what its digest says"):
        unpack(tmp_path, gzip.compress(CONTENT), known=known)


def test_a_file_that_shrank_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "part"
    file.write_bytes(CONTENT)

    def read() -> None:
        with file.open("rb") as opened:
            part = Part(fd=opened.fileno(), offset=0, size=len(CONTENT))
            with unpacked(part, limit=1 << 30, what="layer 1") as stream:
                os.truncate(file, 100)
                stream.finish()

    with pytest.raises(Invalid, match="truncated"):
        read()


@pytest.mark.parametrize(
    "text", ["", "sha256:", "sha256:../../etc/passwd", "sha256:" + "A" * 64, "md5:" + "a" * 32, 7]
)
def test_what_is_no_digest_is_refused(text: object) -> None:
    with pytest.raises(MayflyError, match="is not a digest"):
        check_digest(text)
