"""A machine's layers become one disk, and what a guest wrote into them decides nothing."""

from __future__ import annotations

import os
import struct
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from mayfly.errors import Invalid
from mayfly.images.catalogue import Catalogue
from mayfly.images.catalogue.record import Facts
from mayfly.images.flatten import copy_sparse
from mayfly.images.follow import silent
from mayfly.images.saving import admit_machine
from mayfly.model import Image
from mayfly.units import MIB

DISK = 8 * MIB


def qemu_img(*words: str | Path) -> None:
    subprocess.run(["qemu-img", *words], check=True, capture_output=True)


def write(disk: Path, offset: int, letter: str, *options: str) -> None:
    pattern = f"write -P {ord(letter)} {offset} 65536"
    words = ["qemu-io", *options, "-f", "qcow2", "-c", pattern, str(disk)]
    subprocess.run(words, check=True, capture_output=True)


@pytest.fixture
def catalogue(tmp_path: Path) -> Catalogue:
    return Catalogue(own=tmp_path / "images", dirs=(tmp_path / "images",))


@pytest.fixture
def base(catalogue: Catalogue) -> Image:
    with catalogue.draft("debian-12", work="test") as draft:
        qemu_img("create", "-q", "-f", "qcow2", draft.disk, str(DISK))
        write(draft.disk, 0, "a")
        write(draft.disk, MIB, "a")
        write(draft.disk, 2 * MIB, "a")
        return draft.admit(Facts(os="debian 12", source="a test", disk_bytes=DISK))


def layer(place: Path, name: str, below: Path, kind: str = "qcow2") -> Path:
    path = place / name
    qemu_img("create", "-q", "-f", "qcow2", "-F", kind, "-b", below, path)
    return path


@pytest.fixture
def layers(base: Image, tmp_path: Path) -> list[Path]:
    """The top one first, as a machine has them."""
    template = layer(tmp_path, "template", base.disk)
    write(template, MIB, "b")
    top = layer(tmp_path, "top", template)
    write(top, 2 * MIB, "c")
    return [top, template]


@contextmanager
def opened(paths: list[Path]) -> Iterator[list[int]]:
    with ExitStack() as stack:
        yield [stack.enter_context(path.open("rb")).fileno() for path in paths]


def save(catalogue: Catalogue, base: Image, layers: list[Path]) -> Image:
    with opened(layers) as fds, catalogue.draft("tools", work="test") as draft:
        return admit_machine(
            draft, fds, base, machine="7c2kq9xv", marks=("1", ("ci",)), report=silent
        )


def letters(disk: Path, tmp_path: Path) -> str:
    raw = tmp_path / "raw"
    qemu_img("convert", "-O", "raw", disk, raw)
    with raw.open("rb") as file:
        found = []
        for place in range(4):
            file.seek(place * MIB)
            found.append(file.read(1).decode())
    return "".join(found)


def test_the_disk_is_what_the_machine_saw(
    catalogue: Catalogue, base: Image, layers: list[Path], tmp_path: Path
) -> None:
    # Their names in each other are only for people: the machine's have none that leads anywhere.
    for path in layers:
        qemu_img("rebase", "-u", "-F", "qcow2", "-b", "nowhere.qcow2", path)
    made = save(catalogue, base, layers)
    assert letters(made.disk, tmp_path) == "abc\0"
    assert (made.version, made.tags, made.os) == ("1", ("ci",), "debian 12")
    assert made.derived[0] == f"made of {base.pin}"
    assert "qemu-img" in made.derived[2]
    assert made.endorsed_sha512 == ""
    info = subprocess.run(["qemu-img", "info", made.disk], check=True, capture_output=True)
    assert b"backing file" not in info.stdout
    assert list((catalogue.own / ".work").iterdir()) == []


def test_a_file_of_the_host_that_a_layer_names_is_not_read(
    catalogue: Catalogue, base: Image, layers: list[Path], tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"s" * DISK)
    qemu_img("rebase", "-u", "-F", "raw", "-b", secret, layers[0])
    qemu_img("rebase", "-u", "-F", "raw", "-b", secret, layers[1])
    made = save(catalogue, base, layers)
    assert letters(made.disk, tmp_path) == "abc\0"


def test_a_layer_with_its_content_in_another_file_is_refused(
    catalogue: Catalogue, base: Image, layers: list[Path], tmp_path: Path
) -> None:
    evil = tmp_path / "evil"
    data = tmp_path / "data"
    qemu_img("create", "-q", "-f", "qcow2", "-o", f"data_file={data}", evil, str(DISK))
    with pytest.raises(Invalid, match="keeps its content in another file"):
        save(catalogue, base, [evil, layers[1]])
    assert catalogue.list() == [base]


@pytest.mark.parametrize("content", [b"", b"QFI\xfb", os.urandom(1 << 16), bytes(1 << 16)])
def test_a_layer_that_is_none_is_refused(
    catalogue: Catalogue, base: Image, layers: list[Path], content: bytes
) -> None:
    layers[0].write_bytes(content)
    with pytest.raises(Invalid):
        save(catalogue, base, layers)
    assert catalogue.list() == [base]
    assert list((catalogue.own / ".work").iterdir()) == []


def test_a_layer_of_another_size_is_refused(
    catalogue: Catalogue, base: Image, layers: list[Path]
) -> None:
    with layers[0].open("r+b") as file:
        file.seek(24)
        file.write(struct.pack(">Q", 2 * DISK))
    with pytest.raises(Invalid, match="layer 0"):
        save(catalogue, base, layers)


def test_a_damaged_layer_is_refused(catalogue: Catalogue, base: Image, layers: list[Path]) -> None:
    with layers[0].open("r+b") as file:
        file.seek(40)
        file.write(struct.pack(">Q", 12345))  # where its first table is
    with pytest.raises(Invalid, match="damaged"):
        save(catalogue, base, layers)


@pytest.mark.parametrize("size", [0, 1, 4096, 3 * MIB])
def test_holes_stay_holes(tmp_path: Path, size: int) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    with source.open("xb") as file:
        file.truncate(size)
        if size:
            file.write(b"begin")
            file.seek(max(0, size - 3))
            file.write(b"end"[-size:])
    with opened([source]) as (fd,):
        copy_sparse(fd, target)
    assert target.read_bytes() == source.read_bytes()
    assert target.stat().st_blocks <= source.stat().st_blocks
