"""OVAs, and VDIs, which VirtualBox puts beside them, come in; hostile ones do not."""

from __future__ import annotations

import hashlib
import os
import shutil
import struct
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mayfly.errors import Invalid, MayflyError, Untrusted
from mayfly.images.catalogue import Catalogue
from mayfly.images.formats import recognise
from mayfly.images.importer import import_image
from mayfly.units import MIB
from tests.unit.images.container.making import Entry, layer, symlink
from tests.unit.images.disks import content, converted, raw_disk

pytestmark = pytest.mark.skipif(shutil.which("qemu-img") is None, reason="needs qemu-img")


@pytest.fixture
def catalogue(tmp_path: Path) -> Catalogue:
    return Catalogue(own=tmp_path / "images", dirs=(tmp_path / "images",))


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    return raw_disk(tmp_path / "disk.raw")


def ova(path: Path, *entries: Entry) -> Path:
    path.write_bytes(layer(*entries))
    path.chmod(0o644)
    return path


def entry(name: str, data: bytes = b"<xml/>") -> Entry:
    return Entry(name=name, data=data)


def line(kind: str, name: str, data: bytes) -> bytes:
    return f"{kind.upper()}({name})= {hashlib.new(kind, data).hexdigest()}\n".encode()


@pytest.mark.parametrize("kind", ["sha1", "sha256", "sha512"])
def test_the_disk_in_an_ova_comes_in(
    kind: str, raw: Path, catalogue: Catalogue, tmp_path: Path
) -> None:
    disk = converted(raw, "vmdk", "-o", "subformat=streamOptimized").read_bytes()
    sums = line(kind, "a.ovf", b"<xml/>") + line(kind, "a-disk1.vmdk", disk)
    file = ova(tmp_path / "a.ova", entry("a.ovf"), entry("a.mf", sums), entry("a-disk1.vmdk", disk))
    made = import_image(file, "mine", catalogue)
    assert content(made.disk, tmp_path) == raw.read_bytes()
    assert made.endorsed_sha512 == hashlib.sha512(file.read_bytes()).hexdigest()
    assert made.source == "file a.ova (vmdk)"
    assert list((catalogue.own / ".work").iterdir()) == []


DISK = b"KDMV" + bytes(2000)
GOOD = line("sha256", "d.vmdk", DISK)
BAD: list[tuple[tuple[Entry, ...], type[MayflyError], str]] = [
    ((entry("d.vmdk", DISK),), Invalid, "no .ovf in it"),
    ((entry("a.ovf"),), Invalid, "0 disks: none"),
    ((entry("a.ovf"), entry("b.vmdk"), entry("c.vmdk")), Invalid, "2 disks: b.vmdk, c.vmdk"),
    ((entry("a.ovf"), entry("../../d.vmdk", DISK)), Invalid, "else than plain files"),
    ((entry("a.ovf"), entry("/etc/passwd", DISK)), Invalid, "else than plain files"),
    ((entry("a.ovf"), symlink("d.vmdk", "/etc/shadow")), Invalid, "else than plain files"),
    ((entry("a.ovf"), Entry(name="d", kind=tarfile.BLKTYPE)), Invalid, "else than plain files"),
    ((entry("a.ovf"), entry("d.vmdk", DISK), entry("d.vmdk")), Invalid, "two files"),
    (tuple(entry(f"{n}.ovf") for n in range(65)), Invalid, "more than 64"),
    ((entry("a.ovf"), entry("a.mf", b"what?"), entry("d.vmdk")), Invalid, "no digest: 'what.'"),
    ((entry("a.ovf"), entry("a.mf", b""), entry("d.vmdk")), Untrusted, "does not speak of"),
    ((entry("a.ovf"), entry("a.mf", GOOD), entry("d.vmdk")), Untrusted, "not what its a.mf says"),
    (
        (entry("a.ovf"), entry("a.mf", GOOD + line("sha1", "x", b"")), entry("d.vmdk", DISK)),
        Untrusted,
        "lacks 'x'",
    ),
    ((entry("a.ovf"), entry("d.vmdk.gz", b"\x1f\x8b" + bytes(99))), Invalid, "gunzip"),
]


@pytest.mark.parametrize(("entries", "kind", "said"), BAD)
def test_a_bad_ova_is_refused(
    entries: tuple[Entry, ...],
    kind: type[MayflyError],
    said: str,
    catalogue: Catalogue,
    tmp_path: Path,
) -> None:
    with pytest.raises(kind, match=said):
        import_image(ova(tmp_path / "a.ova", *entries), "mine", catalogue)
    assert catalogue.list() == []
    assert list((catalogue.own / ".work").iterdir()) == []


def test_a_truncated_ova_is_refused(raw: Path, catalogue: Catalogue, tmp_path: Path) -> None:
    file = ova(tmp_path / "a.ova", entry("a.ovf"), entry("d.raw", raw.read_bytes()))
    os.truncate(file, 3 * MIB)
    with pytest.raises(Invalid, match="truncated"):
        import_image(file, "mine", catalogue)


# --- VDI -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [(), ("-o", "static=on")])
def test_a_vdi_comes_in(
    options: tuple[str, ...], raw: Path, catalogue: Catalogue, tmp_path: Path
) -> None:
    made = import_image(converted(raw, "vdi", *options), "mine", catalogue)
    assert content(made.disk, tmp_path) == raw.read_bytes()
    assert (made.source, made.disk_bytes) == ("file disk.vdi (vdi)", 8 * MIB)


@pytest.mark.parametrize(
    ("at", "value", "said"),
    [
        (0x44, struct.pack("<I", 0x10000), "has version"),
        (0x4C, struct.pack("<I", 4), "layer over another file"),
        (0x1A8, b"\1" * 16, "layer over another file"),
        (0x1B8, b"\1" * 16, "layer over another file"),
        (0x168, struct.pack("<I", 4096), "sectors of 4096"),
        (0x178, struct.pack("<I", 0), "blocks of 0"),
        (0x170, struct.pack("<Q", 1 << 50), "contradict"),
        (0x180, struct.pack("<I", 1 << 31), "shorter than its header"),
        (0x184, struct.pack("<I", 9), "contradict"),
        (0x158, struct.pack("<I", 0xFFFFFFFF), "shorter than its header"),
    ],
)
def test_a_hostile_vdi_is_refused(
    at: int, value: bytes, said: str, raw: Path, catalogue: Catalogue
) -> None:
    file = converted(raw, "vdi")
    with file.open("r+b") as opened:
        opened.seek(at)
        opened.write(value)
    with pytest.raises(Invalid, match=said):
        import_image(file, "mine", catalogue)


@given(st.binary(max_size=500))
def test_no_bytes_of_a_vdi_bring_it_down(
    tmp_path_factory: pytest.TempPathFactory, rest: bytes
) -> None:
    file = tmp_path_factory.getbasetemp() / "noise.vdi"
    file.write_bytes(bytes(0x40) + b"\x7f\x10\xda\xbe" + rest)
    try:
        with file.open("rb") as opened:
            found = recognise(opened, file.stat().st_size)
    except MayflyError:
        return
    assert found.format == "vdi"
