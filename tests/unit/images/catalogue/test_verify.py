"""Every byte of a disk is looked at again."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mayfly.errors import MayflyError, Missing, Untrusted
from mayfly.images.catalogue import Catalogue, check
from mayfly.images.catalogue.record import Facts
from mayfly.images.catalogue.verify import verify
from mayfly.model import Image


@pytest.fixture
def image(tmp_path: Path) -> Image:
    catalogue = Catalogue(own=tmp_path / "images", dirs=(tmp_path / "images",))
    with catalogue.draft("a", work="test") as draft:
        draft.disk.write_bytes(b"x" * 100_000)
        return draft.admit(Facts(os="x", source="a test", disk_bytes=1 << 30))


def test_a_disk_that_is_as_it_was(image: Image) -> None:
    shares: list[float] = []
    verify(image, shares.append)
    assert shares[-1] == 1.0


def test_a_byte_that_was_changed_with_size_and_time_kept_is_found(image: Image) -> None:
    before = image.disk.stat()
    image.disk.chmod(0o600)
    with image.disk.open("r+b") as file:
        file.seek(50_000)
        file.write(b"y")
    os.utime(image.disk, ns=(before.st_atime_ns, before.st_mtime_ns))
    check(image)
    with pytest.raises(Untrusted, match="not the one that was admitted"):
        verify(image)


def test_a_disk_that_is_gone_or_cut(image: Image) -> None:
    image.disk.chmod(0o600)
    os.truncate(image.disk, 10)
    with pytest.raises(Untrusted, match="has 10 bytes"):
        verify(image)
    image.disk.unlink()
    with pytest.raises(Missing):
        verify(image)
    image.disk.mkdir()
    with pytest.raises(MayflyError):
        verify(image)
