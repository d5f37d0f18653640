"""The same files as a machine and as a container: what a start, memory and disk cost."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
import tarfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.client import BenchError, Child
from bench.density import private_mib
from bench.groups import Bench
from bench.remains import children_named
from bench.report import Findings, Metric, median, spread
from bench.setting import Setting
from mayfly.images.build.mirror import host_apt_options, host_mirror
from mayfly.units import MIB

NAME = "bench-container"
SUITE = "bookworm"
UP_LIMIT_S = 60.0
IDLE_S = 5.0
_LIMIT_S = 900.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """The root file system of the bench, in both forms."""

    tree: Path
    archive: Path


def container(setting: Setting) -> Findings:
    """Start both by turns, and weigh one of each."""
    files = _files(setting)
    import_s = _imported(setting, files)
    _, _, image = setting.warm(NAME)
    ways = _ways(files.tree)
    seconds: dict[str, list[float]] = {"machine": [], **{way: [] for way in ways}}
    for number in range(setting.counts.pairs):
        setting.say(f"container: round {number + 1} of {setting.counts.pairs}")
        seconds["machine"].append(setting.run("run", NAME, "--no-workdir", "--", "true"))
        for way, words in ways.items():
            child = setting.children.start([*words, "true"], stdin=subprocess.DEVNULL)
            with setting.children.done(child, UP_LIMIT_S) as done:
                seconds[way].append(done.seconds)
    machine_mib, sandbox_mib = _weigh(setting, ways["bwrap"])
    tree_mib = sum(path.lstat().st_blocks for path in files.tree.rglob("*")) * 512 / MIB
    return _findings(
        seconds,
        {
            "import_s": import_s,
            "machine_private_mib": machine_mib,
            "bwrap_private_mib": sandbox_mib,
            "machine_disk_mib": image.size_bytes / MIB,
            "tree_disk_mib": tree_mib,
        },
    )


def _ways(tree: Path) -> Mapping[str, list[str]]:
    mounts = ["--dev", "/dev", "--proc", "/proc", "--tmpfs", "/tmp"]  # noqa: S108 - inside
    return {
        "bwrap": ["bwrap", "--unshare-all", "--die-with-parent", "--bind", str(tree), "/", *mounts],
        "chroot": ["chroot", str(tree)],
    }


def _files(setting: Setting) -> Files:
    """Have the files; they are made when they are missing."""
    top = setting.home / "bench-container"
    files = Files(tree=top / "tree", archive=top / "image.tar")
    if files.archive.exists():
        return files
    setting.say("making the root file system")
    top.mkdir(parents=True, exist_ok=True)
    layer = top / "layer.tar"
    options = [f'--aptopt={name} "{value}"' for name, value in host_apt_options().items()]
    argv = ["mmdebstrap", "--mode=root", "--variant=minbase", "--format=tar", *options]
    subprocess.run(
        [*argv, SUITE, str(layer), *host_mirror().lines(SUITE)],
        check=True,
        capture_output=True,
        timeout=_LIMIT_S,
    )
    files.tree.mkdir()
    subprocess.run(["tar", "-C", str(files.tree), "-xf", str(layer)], check=True, timeout=_LIMIT_S)
    partial = top / "image.new"
    _save(partial, layer)
    partial.rename(files.archive)
    layer.unlink()
    return files


def _save(target: Path, layer: Path) -> None:
    """Write the archive that ``docker save`` would."""
    with layer.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    rootfs = {"type": "layers", "diff_ids": [f"sha256:{digest}"]}
    config = {"os": "linux", "architecture": "amd64", "config": {}, "rootfs": rootfs}
    manifest = [{"Config": "c.json", "RepoTags": ["bench:1"], "Layers": ["layer.tar"]}]
    with tarfile.open(target, "w") as archive:
        archive.add(layer, "layer.tar")
        for name, value in (("c.json", config), ("manifest.json", manifest)):
            data = json.dumps(value).encode()
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def _imported(setting: Setting, files: Files) -> float:
    """Import it twice, so that the kernel is there the second time; give what that one took."""
    words = ("image", "import", f"docker-archive:{files.archive}", "--name", NAME, "--force")
    setting.say("importing it")
    setting.run(*words)
    return setting.run(*words)


def _weigh(setting: Setting, sandbox: list[str]) -> tuple[float, float]:
    """Give the private memory of an idle machine's QEMU, and of an idle sandbox."""
    words = ["sh", "-c", "echo up; exec sleep 3600"]
    machine = setting.start("run", NAME, "--no-workdir", "--", *words)
    other = setting.children.start([*sandbox, *words], stdin=subprocess.DEVNULL)
    for child in (machine, other):
        _await_up(child)
    time.sleep(IDLE_S)
    emulators = children_named(machine.process.pid, "qemu")
    if len(emulators) != 1:
        raise BenchError(f"an idle machine has {len(emulators)} QEMUs")
    ours = _private(emulators[0])
    inner = [other.process.pid]
    for pid in inner:
        inner += children_named(pid, "")
    theirs = sum(_private(pid) for pid in inner)
    for child in (machine, other):
        child.process.terminate()
        child.wait()
        setting.children.forget(child)
    return ours, theirs


def _private(pid: int) -> float:
    return private_mib(Path(f"/proc/{pid}/smaps_rollup"))


def _await_up(child: Child) -> None:
    deadline = time.monotonic() + UP_LIMIT_S
    while child.said() != "up":
        if child.process.poll() is not None or time.monotonic() > deadline:
            raise BenchError(f"it did not come up: {child.complained()}")
        time.sleep(0.05)


def _findings(seconds: Mapping[str, list[float]], figures: Mapping[str, float]) -> Findings:
    starts = {f"{way}_start_s": median(taken) for way, taken in seconds.items()}
    metrics = tuple(
        Metric(
            key=f"container_{key}",
            value=value,
            unit="s" if key.endswith("_s") else "MiB",
            better="lower",
            against="Debian 12 (minbase), the same files",
        )
        for key, value in {**starts, **figures}.items()
    )
    notes = tuple(f"{way}: {spread(taken)}" for way, taken in seconds.items())
    return Findings(metrics=metrics, notes=notes)


BENCH = Bench(name="container", text=str(__doc__), groups={"container": container})

if __name__ == "__main__":
    sys.exit(BENCH.main(sys.argv[1:]))
