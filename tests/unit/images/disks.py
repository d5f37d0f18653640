"""Small disks for tests."""

from __future__ import annotations

import subprocess
from pathlib import Path

from mayfly.units import MIB


def raw_disk(path: Path) -> Path:
    """Make a disk of 8 MiB with a boot sector and something to tell it by."""
    path.write_bytes(b"\xeb".ljust(510, b"\x90") + b"\x55\xaa" + bytes(MIB) + b"content" * 5000)
    # The partition table of all 0x90 would reach beyond the end.
    with path.open("r+b") as file:
        file.seek(446)
        file.write(bytes(64))
        file.truncate(8 * MIB)
    path.chmod(0o600)
    return path


def content(disk: Path, tmp_path: Path) -> bytes:
    """Give what a guest would read from a qcow2."""
    back = tmp_path / "back"
    words = ["qemu-img", "convert", "-f", "qcow2", "-O", "raw", str(disk), str(back)]
    subprocess.run(words, check=True)
    return back.read_bytes()


def converted(raw: Path, form: str, *options: str) -> Path:
    """Make the same disk in another format, beside it."""
    target = raw.with_name(f"disk.{form}")
    words = ["qemu-img", "convert", "-f", "raw", "-O", form, *options, str(raw), str(target)]
    subprocess.run(words, check=True)
    target.chmod(0o600)
    return target
