"""The agent disk: a small read-only disk that carries the agent into any Linux guest.

It holds this host's Python with the few modules that the agent imports, its loader and libraries,
so that the guest needs no Python and no particular C library. Its label makes it a NoCloud data
source too (https://docs.cloud-init.io, datasource NoCloud): a stock cloud image starts the agent
from it; our own images have a stub that does the same.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

import mayfly.guest
from mayfly.command import run
from mayfly.engine.context import Context
from mayfly.errors import Failed, Missing

DISK_FORMAT = 1
LABEL = "cidata"
MOUNT = "/run/mayfly"
SSHFS = "/usr/bin/sshfs"
LATE_MODULES = (
    "runpy",
    "encodings.idna",
    "encodings.latin_1",
    "encodings.ascii",
    "traceback",
    "linecache",
)
"""What the interpreter imports only when it is needed."""
TOOL_TIMEOUT_S = 120.0

USER_DATA = f"""#cloud-config
users: []
ssh_deletekeys: true
package_update: false
bootcmd:
  - [sh, -c, "mkdir -p {MOUNT} && mount -t iso9660 -o ro LABEL={LABEL} {MOUNT} && sh {MOUNT}/start"]
"""
META_DATA = "instance-id: mayfly-template\nlocal-hostname: localhost\n"
NETWORK_CONFIG = "version: 2\nethernets: {}\n"


def interpreter() -> str:
    """Give the Python program that goes onto the disk: the one this process stands on."""
    return os.path.realpath(getattr(sys, "_base_executable", "") or sys.executable)


def disk_key() -> str:
    """Name a disk by everything that decides its content."""
    python = interpreter()
    digest = hashlib.sha256(f"{DISK_FORMAT} {sys.version} {python}".encode())
    for program in (python, SSHFS):
        if os.path.exists(program):
            stat = os.stat(program)
            digest.update(f"{program} {stat.st_size} {stat.st_mtime_ns}".encode())
    for source in _guest_sources():
        digest.update(source.name.encode() + source.read_bytes())
    digest.update(Path(__file__).read_bytes())
    return digest.hexdigest()[:16]


def agent_disk(cache: Path, context: Context | None = None) -> Path:
    """Give the agent disk, making it first (about a second) when it is not there.

    With a ``context`` it is one for the images of that. Raises ``Missing`` when xorriso is,
    ``Failed`` when the disk cannot be made.
    """
    mark = f"-{context.digest[:16]}" if context is not None else ""
    disk = cache / "agent" / f"{disk_key()}{mark}.iso"
    if disk.exists():
        return disk
    if shutil.which("xorriso") is None:
        raise Missing("cannot make the agent disk: no xorriso", hint="apt-get install xorriso")
    disk.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=disk.parent, prefix=".tree-") as name:
        tree = Path(name) / "tree"
        _fill(tree)
        if context is not None:
            _add(tree, context)
        fresh = Path(name) / "disk.iso"
        words = ["xorriso", "-as", "mkisofs", "-quiet", "-R", "-V", LABEL]
        run([*words, "-o", str(fresh), str(tree)], timeout_s=TOOL_TIMEOUT_S)
        fresh.chmod(0o444)
        fresh.replace(disk)
    for old in disk.parent.glob("*.iso"):
        # Templates hold the one they were made with open, or are made again.
        if old != disk and old.stat().st_mtime < disk.stat().st_mtime - 7 * 86400:
            old.unlink(missing_ok=True)
    return disk


def _fill(tree: Path) -> None:
    modules = _needed_modules()
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    stdlib = tree / "lib" / version
    programs = [Path(interpreter())]
    _copy(Path(interpreter()), tree / "bin/python3")
    libraries: set[Path] = set()
    for name, source in modules:
        if source.suffix == ".so":
            _copy(source, stdlib / "lib-dynload" / source.name)
            libraries |= _libraries_of(source)
        else:
            package = source.name == "__init__.py"
            path = name.replace(".", "/") + ("/__init__.py" if package else ".py")
            _copy(source, stdlib / path)
    _compile(stdlib)
    if os.path.exists(SSHFS):
        _copy(Path(SSHFS), tree / "bin/sshfs")
        programs.append(Path(SSHFS))
    for program in programs:
        libraries |= _libraries_of(program)
    for library in libraries:
        _copy(library.resolve(), tree / "lib" / library.name)
    (tree / "user-data").write_text(USER_DATA)
    (tree / "meta-data").write_text(META_DATA)
    (tree / "network-config").write_text(NETWORK_CONFIG)
    (tree / "start").write_text(_start_script(sshfs=len(programs) > 1))
    (tree / "start").chmod(0o755)
    for folder in (tree, *(path for path in tree.rglob("*") if path.is_dir())):
        # Whatever the maker's umask: the guest's users must get there.
        folder.chmod(0o755)


_COMPILE = """\
import pathlib, py_compile, sys
top, mount = pathlib.Path(sys.argv[1]), sys.argv[2]
for source in sorted(top.rglob("*.py")):
    py_compile.compile(
        str(source),
        dfile=f"{mount}/{source.relative_to(top.parent.parent)}",
        doraise=True,
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
    )
"""


def _compile(stdlib: Path) -> None:
    """Compile every module: under emulation the guest would take a second for it at each boot.

    By the interpreter that goes onto the disk, since each has a format of its own. Python looks
    neither at the time nor at the content of the source, which cannot change there; it is only
    read to show a line that failed.
    """
    argv = [interpreter(), "-I", "-S", "-c", _COMPILE, str(stdlib), MOUNT]
    run(argv, timeout_s=TOOL_TIMEOUT_S)
    for compiled in stdlib.rglob("*.pyc"):
        compiled.chmod(0o644)


def _add(tree: Path, context: Context) -> None:
    """Put what the site gives the image beside the agent: cloud-init and images look there."""
    # Another instance is another first boot for cloud-init.
    mark = META_DATA.replace("mayfly-template", f"mayfly-{context.digest[:16]}")
    for name, content in {"meta-data": mark.encode(), **context.on_disk(mark)}.items():
        (tree / name).write_bytes(content)
        (tree / name).chmod(0o755 if name.endswith(".sh") else 0o644)


def _loader() -> str:
    for library in _libraries_of(Path(interpreter())):
        if library.name.startswith("ld-linux"):
            return library.name
    raise Failed(f"{interpreter()} has no dynamic loader: the agent disk needs a dynamic Python")


def _start_script(*, sshfs: bool) -> str:
    lib = f"{MOUNT}/lib"
    loader = f"{lib}/{_loader()}"
    lines = ["#!/bin/sh", "# Starts the agent; run as root by the image's stub or by cloud-init."]
    if sshfs:
        words = ", ".join(f'"{w}"' for w in (loader, "--library-path", lib, f"{MOUNT}/bin/sshfs"))
        lines.append(f"export MAYFLY_SSHFS={shlex.quote(f'[{words}]')}")
    lines.append(f"export PYTHONHOME={MOUNT} PYTHONDONTWRITEBYTECODE=1")
    lines.append("cd /")
    start = f"{loader} --library-path {lib} {MOUNT}/bin/python3 -X utf8 -S -s -m mayfly.guest.agent"
    # What the agent complains of is wanted where the host can read it: on the serial console.
    lines.append(f"exec {start} --daemon 2>/dev/console")
    return "\n".join(lines) + "\n"


def _guest_sources() -> list[Path]:
    return sorted(Path(str(mayfly.guest.__file__)).parent.glob("*.py"))


def _needed_modules() -> list[tuple[str, Path]]:
    """Ask the interpreter itself which files the agent's imports load."""
    top = Path(str(mayfly.__file__)).parent.parent
    names = [f"mayfly.guest.{source.stem}" for source in _guest_sources()]
    wanted = [name.removesuffix(".__init__") for name in (*names, *LATE_MODULES)]
    code = (
        f"import sys, importlib; sys.path.insert(0, {str(top)!r})\n"
        f"for name in {wanted!r}: importlib.import_module(name)\n"
        "for name, module in sorted(sys.modules.items()):\n"
        "    file = getattr(module, '__file__', None)\n"
        "    if file and name != '__main__': print(name, file, sep='\\t')\n"
    )
    found = run([interpreter(), "-I", "-S", "-c", code], timeout_s=TOOL_TIMEOUT_S).text()
    pairs = [line.split("\t") for line in found.splitlines()]
    modules = [(name, Path(file)) for name, file in pairs]
    # The interpreter looks for this module by name to find its home.
    return modules + [("os", Path(os.__file__))] * all(name != "os" for name, _ in modules)


def _libraries_of(program: Path) -> set[Path]:
    listed = run(["ldd", str(program)], timeout_s=TOOL_TIMEOUT_S).text()
    return set(_paths_in(listed.split()))


def _paths_in(words: Iterable[str]) -> Iterable[Path]:
    return (Path(word) for word in words if word.startswith("/") and not word.endswith(":"))


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    target.chmod(0o755)
