"""The import of small disks with the real qemu-img."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from mayfly.errors import Conflict, Invalid, Missing
from mayfly.images.catalogue import Catalogue, Existing, check
from mayfly.images.importer import Origin, import_file, import_image
from mayfly.units import MIB
from tests.unit.images.disks import content, converted, raw_disk

pytestmark = pytest.mark.skipif(shutil.which("qemu-img") is None, reason="needs qemu-img")


@pytest.fixture
def catalogue(tmp_path: Path) -> Catalogue:
    return Catalogue(own=tmp_path / "images", dirs=(tmp_path / "images",))


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    return raw_disk(tmp_path / "disk.raw")


@pytest.mark.parametrize(
    ("form", "options"),
    [
        ("raw", ()),
        ("qcow2", ()),
        ("qcow2", ("-c",)),
        ("qcow2", ("-o", "compat=0.10")),
        ("vmdk", ()),
        ("vmdk", ("-o", "subformat=streamOptimized")),
    ],
)
def test_a_disk_comes_in_whole(
    form: str, options: tuple[str, ...], raw: Path, catalogue: Catalogue, tmp_path: Path
) -> None:
    file = raw if form == "raw" else converted(raw, form, *options)
    phases: list[str] = []
    made = import_image(
        file,
        "mine",
        catalogue,
        os_name="centos 7",
        report=lambda phase, fraction: phases.append(phase),
    )
    assert (made.os, made.disk_bytes, made.format) == ("centos 7", 8 * MIB, "qcow2")
    assert made.source == f"file {file.name} ({form})"
    assert made.endorsed_sha512 == hashlib.sha512(file.read_bytes()).hexdigest()
    (step,) = made.derived
    assert re.fullmatch(rf"qemu-img [0-9.]+[^ ]*: {form} to qcow2", step)
    assert content(made.disk, tmp_path) == raw.read_bytes()
    assert list(dict.fromkeys(phases)) == ["check", "convert", "hash"]
    assert catalogue.find("mine") == made
    check(made)
    assert list((catalogue.own / ".work").iterdir()) == []


def test_a_file_that_others_can_change_is_copied_first(
    raw: Path, catalogue: Catalogue, tmp_path: Path
) -> None:
    raw.chmod(0o666)
    made = import_image(raw, "mine", catalogue)
    assert content(made.disk, tmp_path) == raw.read_bytes()


def test_a_name_that_looks_like_an_address_of_qemu_is_only_a_name(
    raw: Path, catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(raw.parent)
    raw.rename("nbd:localhost:10809,x")
    assert import_image(Path("nbd:localhost:10809,x"), "mine", catalogue).disk_bytes == 8 * MIB


def assert_refused(file: Path, catalogue: Catalogue, said: str) -> None:
    with pytest.raises(Invalid, match=said) as caught:
        import_image(file, "mine", catalogue)
    assert str(file) in caught.value.message
    assert catalogue.list() == []
    assert list((catalogue.own / ".work").iterdir()) == []


def test_a_truncated_qcow2_is_refused(raw: Path, catalogue: Catalogue) -> None:
    file = converted(raw, "qcow2")
    os.truncate(file, file.stat().st_size - 100_000)
    assert_refused(file, catalogue, "truncated or damaged")


def test_a_truncated_vmdk_is_refused(raw: Path, catalogue: Catalogue) -> None:
    file = converted(raw, "vmdk", "-o", "subformat=streamOptimized")
    os.truncate(file, file.stat().st_size // 2)
    assert_refused(file, catalogue, "truncated or damaged")


def test_a_qcow2_with_damaged_tables_is_refused(raw: Path, catalogue: Catalogue) -> None:
    file = converted(raw, "qcow2")
    with file.open("r+b") as stream:
        stream.seek(40)  # where the table of tables is
        stream.write(b"\x00\xff\xff\xff\xff\xff\x00\x00")
    assert_refused(file, catalogue, "truncated or damaged")


def test_a_layer_over_a_secret_is_refused(raw: Path, catalogue: Catalogue, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(raw.read_bytes())
    layer = tmp_path / "layer.qcow2"
    words = ["-f", "qcow2", "-b", str(secret), "-F", "raw", str(layer)]
    subprocess.run(["qemu-img", "create", "-q", *words], check=True)
    assert_refused(layer, catalogue, "backing file")


def test_a_disk_that_cannot_boot_is_refused(catalogue: Catalogue, tmp_path: Path) -> None:
    file = tmp_path / "empty.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(file), "1G"], check=True)
    assert_refused(file, catalogue, "no boot code")


def test_a_directory_and_a_fifo_are_refused(catalogue: Catalogue, tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="it is not a file"):
        import_image(tmp_path, "mine", catalogue)
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(Invalid, match="it is not a file"):
        import_image(tmp_path / "fifo", "mine", catalogue)


def test_a_missing_file_is_missing(catalogue: Catalogue, tmp_path: Path) -> None:
    with pytest.raises(Missing, match="nowhere"):
        import_image(tmp_path / "nowhere", "mine", catalogue)


def test_a_name_in_use_needs_force(raw: Path, catalogue: Catalogue) -> None:
    import_image(raw, "mine", catalogue)
    with pytest.raises(Conflict):
        import_image(raw, "mine", catalogue)
    import_image(raw, "mine", catalogue, existing=Existing.REPLACE)
    assert len(catalogue.versions("mine")) == 1


def test_a_new_version_leaves_the_one_before(raw: Path, catalogue: Catalogue) -> None:
    origin = Origin(version="1")
    before = import_file(raw, "mine", catalogue, origin)
    with raw.open("r+b") as disk:
        disk.seek(1 << 20)
        disk.write(b"another")
    origin = Origin(version="2")
    after = import_file(raw, "mine", catalogue, origin, existing=Existing.KEEP)
    assert before.sha512 != after.sha512
    assert [each.version for each in catalogue.versions("mine")] == ["2", "1"]
    assert catalogue.find("mine").sha512 == after.sha512
    old = catalogue.find("mine@1")
    check(old)
    assert old.sha512 == before.sha512
    with pytest.raises(Conflict, match="version"):
        import_file(raw, "mine", catalogue, Origin(version="1"), existing=Existing.KEEP)
