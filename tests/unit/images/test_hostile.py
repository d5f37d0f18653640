"""A hostile disk is read without root's rights, and its reader is not believed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from mayfly.errors import Invalid, Untrusted
from mayfly.images.catalogue import Catalogue
from mayfly.images.hostile import NOBODY, guard, writable
from mayfly.images.importer import import_image
from mayfly.units import GIB, MIB
from tests.unit.images.disks import content, raw_disk

pytestmark = pytest.mark.skipif(shutil.which("qemu-img") is None, reason="needs qemu-img")
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

TELL = """#!/bin/sh
{ echo "step $1"; cat /proc/self/status /proc/self/limits; env; } >> %s
exec %s "$@"
"""


@pytest.fixture
def catalogue(tmp_path: Path) -> Catalogue:
    return Catalogue(own=tmp_path / "images", dirs=(tmp_path / "images",))


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    return raw_disk(tmp_path / "disk.raw")


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give a directory that all can enter, whose programs are found first."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        monkeypatch.setenv("PATH", f"{name}:{os.environ['PATH']}")
        yield Path(name)


def put(path: Path, script: str) -> None:
    path.write_text(script)
    path.chmod(0o755)


@as_root
@pytest.mark.parametrize("mode", [0o600, 0o644, 0o666])
def test_qemu_img_has_no_rights_of_root(
    raw: Path, catalogue: Catalogue, programs: Path, monkeypatch: pytest.MonkeyPatch, mode: int
) -> None:
    told = programs / "told"
    told.touch()
    told.chmod(0o666)
    put(programs / "qemu-img", TELL % (told, shutil.which("qemu-img")))
    monkeypatch.setenv("SECRET_OF_ROOT", "hidden")
    qcow2 = raw.with_name("disk.qcow2")
    words = ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(raw), str(qcow2)]
    subprocess.run(words, check=True)
    told.write_text("")
    qcow2.chmod(mode)
    made = import_image(qcow2, "mine", catalogue)
    text = told.read_text()
    steps = re.findall(r"^step (\S+)$", text, re.MULTILINE)
    assert steps == ["check", "measure", "convert", "dd", "--version"]
    for field, value in (
        ("Uid", "\t".join([str(NOBODY)] * 4)),
        ("Gid", "\t".join([str(NOBODY)] * 4)),
        ("Groups", ""),
        ("NoNewPrivs", "1"),
        *((f"Cap{name}", "0" * 16) for name in ("Inh", "Prm", "Eff", "Bnd", "Amb")),
    ):
        values = re.findall(rf"^{field}:\t(.*?) *$", text, re.MULTILINE)
        assert values == [value] * len(steps), field
    assert len(re.findall(rf"^Max address space +{4 * GIB} ", text, re.MULTILINE)) == len(steps)
    assert "hidden" not in text
    assert (made.disk.stat().st_uid, made.disk.stat().st_mode & 0o777) == (0, 0o444)
    monkeypatch.undo()
    assert content(made.disk, raw.parent) == raw.read_bytes()


def test_a_reader_that_was_taken_over_cannot_make_a_layer_over_a_secret(
    raw: Path, catalogue: Catalogue, programs: Path
) -> None:
    real = shutil.which("qemu-img")
    layer = programs / "layer.qcow2"
    words = ["create", "-q", "-u", "-f", "qcow2", "-b", "/etc/shadow", "-F", "raw", str(layer)]
    subprocess.run(["qemu-img", *words, str(8 * MIB)], check=True)
    layer.chmod(0o644)
    script = (
        f'[ "$1" = convert ] || exec {real} "$@"\nfor last; do :; done\ncat {layer} > "$last"\n'
    )
    put(programs / "qemu-img", f"#!/bin/sh\n{script}")
    with pytest.raises(Invalid, match="backing file"):
        import_image(raw, "mine", catalogue)
    assert catalogue.list() == []


def test_a_result_that_somebody_still_writes_to_is_untrusted(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    with pytest.raises(Untrusted, match="still writes"), writable(path) as file:
        left = os.dup(file.fileno())
    os.close(left)
    assert path.exists()


def test_an_ordinary_user_keeps_the_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    words = guard(5 * MIB)
    assert words[0] == "prlimit"
    assert f"--fsize={5 * MIB}" in words
    assert "setpriv" not in words
