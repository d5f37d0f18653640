"""Second versions of an image: packages upgraded in place, and built anew from the recipe.

What is upgraded are whole packages of the image, chosen by chance (with a fixed seed) until they
are five percent of all bytes. Their files get new content through and through, since a new version
of a program shares hardly a block with the old one, and a size that differs a little. Everything is
done in files, by debugfs and mke2fs.
"""

from __future__ import annotations

import os
import random
import stat
import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mayfly.images.build.disk import PARTITION_START, Layout, mke2fs_argv

SHARE = 0.05
SEED = 20260101
_LIMIT_S = 900.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Versions:
    """Three raw disks, and how much of the first was replaced."""

    first: Path
    upgraded: Path
    rebuilt: Path
    replaced_bytes: int
    content_bytes: int
    packages: tuple[str, ...]


def make_versions(disk: Path, work: Path) -> Versions:
    """Make the second versions of an image of the catalogue."""
    first, tree = work / "first.raw", work / "tree"
    _run("qemu-img", "convert", "-f", "qcow2", "-O", "raw", str(disk), str(first))
    tree.mkdir()
    _debugfs(first, work, f'rdump / "{tree}"')
    total = sum(size for _, size in _files(tree))
    packages, changed = _choose(tree, total)
    upgraded, rebuilt = work / "upgraded.raw", work / "rebuilt.raw"
    _run("cp", "--sparse=always", str(first), str(upgraded))
    replaced = _renew(changed)
    _upgrade(upgraded, work, tree, changed)
    _rebuild(first, rebuilt, tree)
    return Versions(
        first=first,
        upgraded=upgraded,
        rebuilt=rebuilt,
        replaced_bytes=replaced,
        content_bytes=total,
        packages=tuple(packages),
    )


def _files(tree: Path) -> Iterator[tuple[Path, int]]:
    for directory, _, names in os.walk(tree):
        for name in names:
            path = Path(directory, name)
            found = path.lstat()
            if stat.S_ISREG(found.st_mode):
                yield path, found.st_size


def _choose(tree: Path, total: int) -> tuple[list[str], list[Path]]:
    """Choose packages until they have their share of all bytes; gives them and their files."""
    lists = sorted((tree / "var/lib/dpkg/info").glob("*.list"))
    random.Random(SEED).shuffle(lists)  # noqa: S311  # chance, not secrecy
    packages, chosen, size = [], [tree / "var/lib/dpkg/status"], 0
    for file in lists:
        own = list(_listed(tree, file))
        weight = sum(path.stat().st_size for path in own)
        if not weight or size + weight > total * SHARE:
            continue
        packages.append(file.stem)
        chosen += own
        size += weight
        if size > total * SHARE * 0.98:
            break
    return packages, sorted(set(chosen))


def _listed(tree: Path, file: Path) -> Iterator[Path]:
    for line in file.read_text().splitlines():
        path = tree / line.lstrip("/")
        if path.is_file() and not path.is_symlink() and path.resolve().is_relative_to(tree):
            yield path.resolve()


def _renew(changed: list[Path]) -> int:
    """Give each file new content; its owner, mode and links stay."""
    chance, total = random.Random(SEED + 1), 0  # noqa: S311
    for path in changed:
        size = path.stat().st_size
        size += chance.randrange(-size // 50, size // 50 + 1) if size > 100 else 0
        with path.open("r+b") as file:
            file.write(chance.randbytes(size))
            file.truncate()
        total += size
    return total


def _upgrade(disk: Path, work: Path, tree: Path, changed: list[Path]) -> None:
    """Do to a disk what dpkg does: write all new files beside the old ones, then swap them."""
    lines = []
    for path in changed:
        place = "/" + str(path.relative_to(tree))
        mode = f"{path.stat().st_mode:o}"
        lines += [
            f'cd "{Path(place).parent}"',
            f'write "{path}" "{Path(place).name}.dpkg-new"',
            f'sif "{place}.dpkg-new" mode 0{mode}',
        ]
    for path in changed:
        place = "/" + str(path.relative_to(tree))
        lines += [
            f'rm "{place}"',
            f'ln "{place}.dpkg-new" "{place}"',
            f'unlink "{place}.dpkg-new"',
        ]
    _debugfs(disk, work, *lines, write=True)


def _rebuild(first: Path, disk: Path, tree: Path) -> None:
    """Make a file system of the tree as a build does; the boot loader stays."""
    layout = Layout(disk_bytes=first.stat().st_size, disk_id=os.urandom(4), uuid=str(uuid.uuid4()))
    with first.open("rb") as old, disk.open("x+b") as new:
        new.write(old.read(PARTITION_START))
        new.truncate(layout.disk_bytes)
    _run(*mke2fs_argv(layout, tree, str(disk)))


def _debugfs(disk: Path, work: Path, *lines: str, write: bool = False) -> None:
    commands = work / "commands"
    commands.write_text("\n".join(lines) + "\n")
    options = ["-w"] if write else []
    _run("debugfs", *options, "-f", str(commands), f"{disk}?offset={PARTITION_START}")


def _run(*words: str) -> None:
    subprocess.run(words, check=True, timeout=_LIMIT_S, capture_output=True)
