"""The kernel for machines that were container images: Debian's own, fetched once and kept.

A container image has no kernel. What is put beneath it is a small archive, made here: the kernel,
all its modules, and an initramfs with a static busybox. It is applied as one more layer.
"""

from __future__ import annotations

import fcntl
import io
import json
import logging
import os
import shutil
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from mayfly.command import run
from mayfly.errors import Failed, MayflyError
from mayfly.images.build.mirror import host_apt_options
from mayfly.images.build.recipe import Mirror, milestone
from mayfly.images.container.initramfs import FIRST_MODULES, initramfs, load_order, module_name
from mayfly.images.follow import Report, follow
from mayfly.images.room import check_room
from mayfly.units import MIB

log = logging.getLogger("mayfly.images")

FORMAT = 1
SUITE = "bookworm"
PACKAGES = ("linux-image-cloud-amd64", "busybox-static")
FRESH_S = 7 * 86400.0
"""After so long it is fetched anew: kernels have security updates."""
LAYER, KERNEL, META = "layer.tar", "vmlinuz", "kit.json"
_ROOM = 600 * MIB
_TIMEOUT_S = 1800.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Kit:
    """A kernel with all that belongs to it."""

    directory: Path
    version: str
    made_at: float

    @property
    def layer(self) -> Path:
        """Give the archive that is put on top of a container's layers."""
        return self.directory / LAYER

    @property
    def kernel(self) -> Path:
        """Give the kernel alone."""
        return self.directory / KERNEL


def kernel_kit(cache: Path, mirror: Mirror, *, report: Report) -> Kit:
    """Give the kernel, fetching it when there is none, or none that is fresh."""
    top = cache / "kernels"
    top.mkdir(parents=True, exist_ok=True, mode=0o700)
    place = top / f"{SUITE}-{FORMAT}"
    with _locked(top / f"{place.name}.lock"):
        for left in top.glob(".new-*"):
            shutil.rmtree(left, ignore_errors=True)
        found = _read(place)
        if found is not None and 0 <= time.time() - found.made_at < FRESH_S:
            return found
        try:
            _fetch(place, mirror, report)
        except MayflyError as error:
            if found is None:
                raise
            log.warning("the kernel of %s is used again: %s", found.version, error.message)
            return found
        fresh = _read(place)
    if fresh is None:
        raise Failed(f"the kernel in {place} is gone again")
    return fresh


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    """Let one process fetch; the others wait for it."""
    with file.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _read(place: Path) -> Kit | None:
    try:
        meta = json.loads((place / META).read_text())
        return Kit(directory=place, version=str(meta["version"]), made_at=float(meta["made_at"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _fetch(place: Path, mirror: Mirror, report: Report) -> None:
    check_room(place.parent, _ROOM)
    with tempfile.TemporaryDirectory(dir=place.parent, prefix=".new-") as name:
        work = Path(name)
        archive = work / "packages.tar"
        report("kernel", 0.0)
        follow(
            packages_argv(mirror, archive, as_root=os.geteuid() == 0),
            timeout_s=_TIMEOUT_S,
            on_line=lambda line: _tell(report, line),
            env=_environment(),
        )
        made = work / "kit"
        _make(archive, made, work)
        old = work / "old"
        if place.exists():
            place.rename(old)
        made.rename(place)


def packages_argv(mirror: Mirror, archive: Path, *, as_root: bool) -> list[str]:
    """Give the command that fetches the packages, checks their signatures and unpacks them."""
    argv = [
        "mmdebstrap",
        f"--mode={'root' if as_root else 'unshare'}",
        # Nothing is installed, so nothing of the packages is run.
        *("--variant=extract", "--format=tar", "--architectures=amd64"),
        f"--include={','.join(PACKAGES)}",
    ]
    argv += [f'--aptopt={name} "{value}"' for name, value in host_apt_options().items()]
    return [*argv, SUITE, str(archive), *mirror.lines(SUITE)]


def _tell(report: Report, line: str) -> None:
    fraction = milestone(line)
    if fraction is not None:
        report("kernel", fraction)


def _environment() -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if key.lower().endswith("_proxy")}
    # Some users' PATH lacks the folders of programs for root.
    path = f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin".lstrip(":")
    # /tmp is often memory, and 300 MB are unpacked there.
    place = os.environ.get("TMPDIR") or "/var/tmp"  # noqa: S108
    fixed = {"PATH": path, "HOME": "/nonexistent", "LC_ALL": "C.UTF-8"}
    return {**kept, **fixed, "TMPDIR": place}


def _make(archive: Path, made: Path, work: Path) -> None:
    """Make the kit of the unpacked packages."""
    tree = work / "tree"
    busybox = _pick(archive, tree)
    versions = sorted(path.name for path in tree.glob("lib/modules/*"))
    kernels = sorted((tree / "boot").glob("vmlinuz-*"))
    if not busybox or len(versions) != 1 or len(kernels) != 1:
        raise Failed(f"the packages {', '.join(PACKAGES)} do not hold what they should")
    version = versions[0]
    run(["depmod", "-b", str(tree), version], timeout_s=120, env=_environment())
    folder = tree / "lib/modules" / version
    order = load_order((folder / "modules.dep").read_text(), FIRST_MODULES)
    modules = {module_name(file): (folder / file).read_bytes() for file in order}
    made.mkdir()
    _pack(made / LAYER, tree, version, initramfs(busybox, modules))
    shutil.copyfile(kernels[0], made / KERNEL)
    meta = {"format": FORMAT, "version": version, "made_at": time.time()}
    (made / META).write_text(json.dumps(meta))


def _pick(archive: Path, tree: Path) -> bytes:
    """Take kernel and modules out of the archive; give the busybox."""
    busybox = b""
    with tarfile.open(archive) as packages:
        for member in packages:
            path = PurePosixPath(member.name)
            parts = [part for part in path.parts if part not in (".", "/")]
            if not member.isfile() or ".." in parts:
                continue
            parts = parts[1:] if parts[:1] == ["usr"] else parts
            content = packages.extractfile(member)
            assert content is not None
            if parts == ["bin", "busybox"]:
                busybox = content.read()
            elif parts[:2] == ["lib", "modules"] or (
                parts[:1] == ["boot"] and parts[-1].startswith("vmlinuz-")
            ):
                target = tree.joinpath(*parts)
                target.parent.mkdir(parents=True, exist_ok=True)
                with target.open("xb") as file:
                    shutil.copyfileobj(content, file)
    return busybox


def _pack(target: Path, tree: Path, version: str, initrd: bytes) -> None:
    """Write the layer: owned by root, in one order."""
    with tarfile.open(target, "w", format=tarfile.PAX_FORMAT) as layer:
        _add_folder(layer, "boot")
        for file in sorted((tree / "boot").iterdir()):
            _add(layer, f"boot/{file.name}", file.read_bytes())
        _add(layer, f"boot/initrd.img-{version}", initrd)
        for file in sorted((tree / "lib/modules").rglob("*")):
            if file.is_file():
                _add(layer, str(file.relative_to(tree)), file.read_bytes())


def _add_folder(layer: tarfile.TarFile, name: str) -> None:
    info = tarfile.TarInfo(name)
    info.type, info.mode = tarfile.DIRTYPE, 0o755
    layer.addfile(info)


def _add(layer: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(data), 0o644
    layer.addfile(info, io.BytesIO(data))
