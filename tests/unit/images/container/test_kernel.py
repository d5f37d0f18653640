"""The kernel is fetched once, kept, fetched again when it is old, and used on when that fails."""

from __future__ import annotations

import io
import json
import logging
import os
import tarfile
import time
from pathlib import Path

import pytest

from mayfly.errors import Failed, Missing
from mayfly.images.build.mirror import DEFAULT
from mayfly.images.container.kernel import FRESH_S, kernel_kit, packages_argv
from mayfly.images.follow import silent
from mayfly.images.sources import container_opener

KO = "lib/modules/6.1.0-9/kernel"
FAKE = """#!/bin/sh
for word; do case "$word" in *packages.tar) cp {0} "$word" ;; esac; done
"""


def packages(path: Path, **more: bytes) -> Path:
    """Write what mmdebstrap would: the unpacked packages, as one tar."""
    files = {
        "./boot/vmlinuz-6.1.0-9": b"kernel",
        "./bin/busybox": b"busybox",
        f"./{KO}/virtio_blk.ko": b"block",
        "./lib/modules/6.1.0-9/modules.order": b"kernel/virtio_blk.ko\n",
        "./lib/modules/6.1.0-9/modules.builtin": b"kernel/ext4.ko\n",
        "./etc/passwd": b"not wanted",
        "./boot/../../../outside": b"not wanted",
        **more,
    }
    with tarfile.open(path, "w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


@pytest.fixture
def mmdebstrap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in that delivers these packages; it is gone when it is deleted."""
    program = tmp_path / "bin/mmdebstrap"
    program.parent.mkdir()
    program.write_text(FAKE.format(packages(tmp_path / "packages.tar")))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    return program


def test_a_kernel_is_fetched_once(mmdebstrap: Path, tmp_path: Path) -> None:
    kit = kernel_kit(tmp_path / "cache", DEFAULT, report=silent)
    assert kit.version == "6.1.0-9"
    assert kit.kernel.read_bytes() == b"kernel"
    with tarfile.open(kit.layer) as layer:
        names = layer.getnames()
        assert {member.uid for member in layer} == {0}
    wanted = {"boot", "boot/vmlinuz-6.1.0-9", "boot/initrd.img-6.1.0-9", f"{KO}/virtio_blk.ko"}
    assert wanted <= set(names)
    assert "lib/modules/6.1.0-9/modules.dep" in names
    assert not any("passwd" in name or "outside" in name for name in names)
    mmdebstrap.unlink()
    assert kernel_kit(tmp_path / "cache", DEFAULT, report=silent) == kit
    assert sorted(path.name for path in (tmp_path / "cache/kernels").iterdir()) == [
        "bookworm-1",
        "bookworm-1.lock",
    ]


def test_an_old_one_is_fetched_again_or_used_on(
    mmdebstrap: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kit = kernel_kit(tmp_path / "cache", DEFAULT, report=silent)
    meta = kit.directory / "kit.json"
    old = {**json.loads(meta.read_text()), "made_at": time.time() - FRESH_S - 1}
    meta.write_text(json.dumps(old))
    assert kernel_kit(tmp_path / "cache", DEFAULT, report=silent).made_at > kit.made_at - 1
    meta.write_text(json.dumps(old))
    mmdebstrap.write_text("#!/bin/sh\necho E: no network\nexit 1\n")
    with caplog.at_level(logging.WARNING):
        again = kernel_kit(tmp_path / "cache", DEFAULT, report=silent)
    assert again.made_at == old["made_at"]
    assert "no network" in caplog.text


def test_packages_without_a_kernel_are_refused(mmdebstrap: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty.tar"
    with tarfile.open(empty, "w"):
        pass
    (tmp_path / "tree").mkdir()
    mmdebstrap.write_text(FAKE.format(empty))
    with pytest.raises(Failed, match="do not hold what they should"):
        kernel_kit(tmp_path / "cache", DEFAULT, report=silent)
    assert not list((tmp_path / "cache/kernels").glob(".new-*"))


def test_what_is_fetched_is_unpacked_and_not_installed() -> None:
    argv = packages_argv(DEFAULT, Path("/t.tar"), as_root=False)
    assert {"--variant=extract", "--format=tar", "--mode=unshare"} <= set(argv)
    assert argv[-3:] == list(DEFAULT.lines("bookworm"))
    assert not any("hook" in word for word in argv)


def test_a_source_is_known_by_how_it_is_written(tmp_path: Path) -> None:
    disk = tmp_path / "disk.raw"
    disk.write_bytes(bytes(1024))
    assert container_opener(str(disk), silent) is None
    for source in ("docker-archive:gone.tar", "oci:gone"):
        opener = container_opener(source, silent)
        assert opener is not None
        with pytest.raises(Missing, match="gone"), opener(tmp_path):
            pass
    with pytest.raises(Missing, match="gone"):
        container_opener(str(tmp_path / "gone"), silent)
