"""Whether KVM really runs guests here: found by booting one, since opening /dev/kvm says little.

On some hosts /dev/kvm opens, makes virtual machines, and then hangs any real kernel. So a Linux
kernel with one tiny program is booted once, and the verdict is kept per QEMU and host kernel.
"""

from __future__ import annotations

import json
import os
import pwd
import stat
import struct
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from mayfly.config import Settings
from mayfly.engine.probe import Qemu

DEVICE = "/dev/kvm"
WORD = b"MAYFLY-GUEST-RUNS\n"
NEGATIVE_S = 24 * 3600.0
"""How long a failed trial is believed: firmware and modules change without a new kernel."""
PATIENCE_S = 25.0
"""A tiny guest is up in about a second where KVM works."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Which accelerator is used, and why."""

    accelerator: str
    reason: str
    mend: str = ""
    """The command that lets KVM be used, where it is not."""


def choose_accelerator(
    qemu: Qemu, settings: Settings, cache: Path, kernels: list[Path], *, fresh: bool = False
) -> Verdict:
    """Decide between KVM and emulation; ``kernels`` are Linux kernels to prove KVM with.

    ``fresh``: try again what failed before.
    """
    if settings.accelerator in ("kvm", "tcg"):
        mend = 'write accelerator = "auto" in config.toml'
        return Verdict(accelerator=settings.accelerator, reason="chosen in the settings", mend=mend)
    obstacle = _obstacle(qemu)
    if obstacle:
        return obstacle
    file = cache / "probe" / f"kvm-{qemu.identity}-{os.uname().release}.json"
    known = _remembered(file)
    if known and not (fresh and known.accelerator != "kvm"):
        return known
    readable = [kernel for kernel in kernels if os.access(kernel, os.R_OK)]
    if not readable:
        return _emulation(
            "there is no Linux kernel here to prove KVM with", "mayfly image build debian-12"
        )
    verdict = _verdict(works=boots(qemu, readable[0], "kvm", patience_s=PATIENCE_S))
    _remember(file, verdict)
    return verdict


def _emulation(reason: str, mend: str) -> Verdict:
    return Verdict(accelerator="tcg", reason=reason, mend=mend)


def _obstacle(qemu: Qemu) -> Verdict | None:
    """Give why KVM cannot be used, where that is seen without a trial."""
    if not qemu.has_kvm:
        return _emulation("this QEMU has no KVM", "apt-get install qemu-system-x86")
    try:
        device = os.stat(DEVICE)
    except OSError:
        return _emulation(f"{DEVICE} is not there", "modprobe kvm_intel || modprobe kvm_amd")
    for_group = device.st_mode & 0o060 == 0o060
    open_it = f"chgrp kvm {DEVICE} && chmod 0660 {DEVICE}"
    if not os.access(DEVICE, os.R_OK | os.W_OK):
        mend = f"adduser {_user()} kvm  # then log in again"
        reason = f"{DEVICE} may not be opened by this user"
        return _emulation(reason, mend if for_group else f"{open_it} && {mend}")
    if os.geteuid() == 0 and device.st_mode & 0o066 == 0:
        word = "is for root alone, and machines run as other users (chmod 0660, group kvm)"
        return _emulation(f"{DEVICE} {word}", open_it)
    if qemu.root:
        word = "a QEMU in a tree of its own; the setting 'accelerator' decides"
        return _emulation(
            f"KVM cannot be proved with {word}", 'write accelerator = "kvm" in config.toml'
        )
    return None


def _user() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return "USER"


def _verdict(*, works: bool) -> Verdict:
    if works:
        return Verdict(accelerator="kvm", reason="a guest booted under KVM")
    return _emulation(
        f"{DEVICE} opens, but a guest did not boot under KVM",
        "nothing needs to be done: emulation is used, and 'mayfly doctor' tries KVM again",
    )


def _remembered(file: Path) -> Verdict | None:
    """Give the verdict of an earlier trial, as far as it is still believed."""
    try:
        kept = json.loads(file.read_text())
        accelerator, made = kept["accelerator"], float(kept["made"])
    except (OSError, ValueError, TypeError, KeyError):
        return None  # Not tried yet.
    if accelerator != "kvm" and not 0 <= time.time() - made < NEGATIVE_S:
        return None
    return _verdict(works=accelerator == "kvm")


def _remember(file: Path, verdict: Verdict) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    fresh = file.with_suffix(f".{os.getpid()}")
    fresh.write_text(json.dumps({"accelerator": verdict.accelerator, "made": time.time()}))
    fresh.replace(file)


def boots(qemu: Qemu, kernel: Path, accelerator: str, *, patience_s: float) -> bool:
    """Boot ``kernel`` with one tiny program and tell whether the program spoke."""
    with tempfile.TemporaryDirectory(prefix="mayfly-kvm-") as name:
        initramfs = Path(name) / "initramfs"
        initramfs.write_bytes(tiny_initramfs())
        argv = [qemu.path, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]
        argv += ["-machine", qemu.machine_type, "-accel", accelerator, "-m", "256M"]
        argv += ["-serial", "stdio", "-kernel", str(kernel), "-initrd", str(initramfs)]
        argv += ["-append", "console=ttyS0 quiet panic=-1"]
        if accelerator == "kvm":
            argv += ["-cpu", "host"]
        try:
            done = subprocess.run(
                argv, check=False, stdin=subprocess.DEVNULL, capture_output=True, timeout=patience_s
            )
        except subprocess.TimeoutExpired as error:
            return WORD.strip() in (error.stdout or b"")
        return WORD.strip() in done.stdout


def tiny_initramfs() -> bytes:
    """Make a cpio archive of /dev/console and an /init that says its word and reboots.

    The format is newc: Documentation/driver-api/early-userspace/buffer-format in Linux.
    """
    entries = [
        ("dev", stat.S_IFDIR | 0o755, 0, b""),
        ("dev/console", stat.S_IFCHR | 0o600, (5 << 8) | 1, b""),
        ("init", stat.S_IFREG | 0o755, 0, tiny_program()),
        ("TRAILER!!!", 0, 0, b""),
    ]
    return b"".join(_cpio(index, *entry) for index, entry in enumerate(entries, start=1))


def _cpio(inode: int, name: str, mode: int, device: int, content: bytes) -> bytes:
    numbers = (inode, mode, 0, 0, 1, 0, len(content), 0, 0, device >> 8, device & 255)
    header = "070701" + "".join(f"{n:08x}" for n in (*numbers, len(name) + 1, 0))
    head = header.encode() + name.encode() + b"\0"
    return _padded(head) + _padded(content)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def tiny_program() -> bytes:
    """Make a static x86-64 ELF program: write(1, WORD), then reboot(2)."""
    code_at = 0x400000 + 64 + 56
    code = b"\xb8\x01\x00\x00\x00\xbf\x01\x00\x00\x00"  # mov eax,1 (write); mov edi,1
    message_at = code_at + 54
    code += b"\x48\xbe" + struct.pack("<Q", message_at)  # mov rsi,message
    code += b"\xba" + struct.pack("<I", len(WORD)) + b"\x0f\x05"  # mov edx,length; syscall
    code += b"\xb8" + struct.pack("<I", 169)  # mov eax,169 (reboot)
    code += b"\xbf" + struct.pack("<I", 0xFEE1DEAD) + b"\xbe" + struct.pack("<I", 672274793)
    code += b"\xba" + struct.pack("<I", 0x01234567) + b"\x0f\x05\xeb\xfe"  # syscall; jmp $
    code = code.ljust(54, b"\x90") + WORD
    size = 64 + 56 + len(code)
    header = b"\x7fELF\x02\x01\x01".ljust(16, b"\0") + struct.pack(
        "<HHIQQQIHHHHHH", 2, 62, 1, code_at, 64, 0, 0, 64, 56, 1, 0, 0, 0
    )
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, 0x400000, 0x400000, size, size, 0x1000)
    return header + segment + code
