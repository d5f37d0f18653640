"""Whether KVM really runs guests: the choice, and the tiny guest that decides it.

The tiny program restarts the computer it runs on: nothing here may execute it.
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
import struct
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest

from mayfly.config import Settings
from mayfly.engine import kvm
from mayfly.engine.kvm import choose_accelerator, tiny_initramfs, tiny_program
from mayfly.engine.probe import Qemu
from tests.unit.engine.machines import QEMU

WORD = kvm.WORD.decode().strip()


# --- the choice ----------------------------------------------------------------------------------


class Trial:
    """Stands for booting the tiny guest; counts how often that was tried."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, works: bool) -> None:
        self.tried: list[tuple[Path, str]] = []
        self._works = works
        monkeypatch.setattr(kvm, "boots", self)

    def __call__(self, qemu: Qemu, kernel: Path, accelerator: str, *, patience_s: float) -> bool:
        self.tried.append((kernel, accelerator))
        return self._works


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A /dev/kvm that may be opened."""
    file = tmp_path / "kvm-device"
    file.touch()
    monkeypatch.setattr(kvm, "DEVICE", str(file))
    return file


@pytest.fixture
def kernel(tmp_path: Path) -> Path:
    file = tmp_path / "vmlinuz"
    file.touch()
    return file


@pytest.mark.parametrize("wanted", ["kvm", "tcg"])
@pytest.mark.usefixtures("device")
def test_a_setting_decides_without_a_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kernel: Path, wanted: str
) -> None:
    trial = Trial(monkeypatch, works=wanted != "kvm")
    verdict = choose_accelerator(QEMU, Settings(accelerator=wanted), tmp_path, [kernel])
    assert (verdict.accelerator, trial.tried) == (wanted, [])
    assert "settings" in verdict.reason


@pytest.mark.parametrize("works", [True, False])
@pytest.mark.usefixtures("device")
def test_a_trial_decides_and_is_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kernel: Path, works: bool
) -> None:
    trial = Trial(monkeypatch, works=works)
    first = choose_accelerator(QEMU, Settings(), tmp_path, [kernel])
    assert first.accelerator == ("kvm" if works else "tcg")
    assert choose_accelerator(QEMU, Settings(), tmp_path, [kernel]) == first
    assert trial.tried == [(kernel, "kvm")]


@pytest.mark.usefixtures("device")
def test_another_qemu_or_kernel_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kernel: Path
) -> None:
    trial = Trial(monkeypatch, works=True)
    choose_accelerator(QEMU, Settings(), tmp_path, [kernel])
    choose_accelerator(replace(QEMU, identity="f" * 16), Settings(), tmp_path, [kernel])
    assert len(trial.tried) == 2
    later = os.uname_result(("Linux", "host", "99.9", "#1", "x86_64"))
    monkeypatch.setattr(os, "uname", lambda: later)
    choose_accelerator(QEMU, Settings(), tmp_path, [kernel])
    assert len(trial.tried) == 3


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"accelerator": "kvm"}', "null"])
@pytest.mark.usefixtures("device")
def test_a_spoilt_memory_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kernel: Path, text: str
) -> None:
    Trial(monkeypatch, works=True)
    expected = choose_accelerator(QEMU, Settings(), tmp_path, [kernel])
    (file,) = (tmp_path / "probe").iterdir()
    file.write_text(text)
    trial = Trial(monkeypatch, works=True)
    assert choose_accelerator(QEMU, Settings(), tmp_path, [kernel]) == expected
    assert len(trial.tried) == 1


def test_without_kvm_machines_are_emulated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: Path, kernel: Path
) -> None:
    trial = Trial(monkeypatch, works=True)
    no_kvm = choose_accelerator(replace(QEMU, has_kvm=False), Settings(), tmp_path, [kernel])
    assert (no_kvm.accelerator, no_kvm.reason) == ("tcg", "this QEMU has no KVM")
    monkeypatch.setattr(os, "access", lambda path, mode: path != str(device))
    closed = choose_accelerator(QEMU, Settings(), tmp_path, [kernel])
    assert (closed.accelerator, "may not be opened" in closed.reason) == ("tcg", True)
    device.unlink()
    gone = choose_accelerator(QEMU, Settings(), tmp_path, [kernel])
    assert (gone.accelerator, "is not there" in gone.reason) == ("tcg", True)
    assert trial.tried == []


@pytest.mark.usefixtures("device")
def test_without_a_kernel_nothing_is_proved_or_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kernel: Path
) -> None:
    trial = Trial(monkeypatch, works=True)
    verdict = choose_accelerator(QEMU, Settings(), tmp_path, [tmp_path / "nowhere"])
    assert (verdict.accelerator, "no Linux kernel" in verdict.reason) == ("tcg", True)
    assert choose_accelerator(QEMU, Settings(), tmp_path, [kernel]).accelerator == "kvm"
    assert len(trial.tried) == 1


@pytest.mark.usefixtures("device")
def test_a_failure_is_believed_for_a_day_and_a_success_for_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kernel: Path
) -> None:
    now = [1e9]
    monkeypatch.setattr(time, "time", lambda: now[0])
    bad = Trial(monkeypatch, works=False)
    verdict = choose_accelerator(QEMU, Settings(), tmp_path, [kernel])
    assert verdict.reason == f"{kvm.DEVICE} opens, but a guest did not boot under KVM"
    now[0] += 24 * 3600 - 1
    assert choose_accelerator(QEMU, Settings(), tmp_path, [kernel]) == verdict
    assert len(bad.tried) == 1
    now[0] += 1
    good = Trial(monkeypatch, works=True)
    assert choose_accelerator(QEMU, Settings(), tmp_path, [kernel]).accelerator == "kvm"
    now[0] += 1e9
    assert choose_accelerator(QEMU, Settings(), tmp_path, [kernel]).accelerator == "kvm"
    assert len(good.tried) == 1


@pytest.mark.usefixtures("device")
def test_only_a_failure_is_tried_again_on_demand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kernel: Path
) -> None:
    Trial(monkeypatch, works=False)
    choose_accelerator(QEMU, Settings(), tmp_path, [kernel])
    trial = Trial(monkeypatch, works=True)
    for _ in range(2):
        verdict = choose_accelerator(QEMU, Settings(), tmp_path, [kernel], fresh=True)
        assert verdict.accelerator == "kvm"
    assert len(trial.tried) == 1


def test_each_obstacle_has_its_own_mend(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: Path, kernel: Path
) -> None:
    def mend() -> str:
        return choose_accelerator(QEMU, Settings(), tmp_path, [kernel]).mend

    Trial(monkeypatch, works=False)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    device.chmod(0o600)
    assert mend() == f"chgrp kvm {device} && chmod 0660 {device}"
    device.chmod(0o660)
    assert "'mayfly doctor' tries KVM again" in mend()
    monkeypatch.setattr(os, "geteuid", lambda: 65534)
    monkeypatch.setattr(os, "access", lambda path, mode: path != str(device))
    assert mend() == "adduser nobody kvm  # then log in again"
    device.unlink()
    assert mend() == "modprobe kvm_intel || modprobe kvm_amd"


def pretended(folder: Path, *, says: bytes, goes_on: bool) -> Qemu:
    """Make a program that prints something and then ends, or does not."""
    program = folder / "qemu"
    ending = "exec /usr/bin/sleep 600" if goes_on else "exit 1"
    program.write_text(f"#!/bin/sh\nprintf '{says.decode()}'\n{ending}\n")
    program.chmod(0o755)
    return replace(QEMU, path=str(program))


@pytest.mark.parametrize(
    ("says", "boots"),
    [(b"noise MAYFLY-GUEST-RUNS\\r\\n", True), (b"MAYFLY-GUEST", False), (b"", False)],
)
def test_only_a_guest_that_spoke_has_booted(
    tmp_path: Path, kernel: Path, says: bytes, boots: bool
) -> None:
    qemu = pretended(tmp_path, says=says, goes_on=False)
    assert kvm.boots(qemu, kernel, "kvm", patience_s=20) is boots


@pytest.mark.parametrize(("says", "boots", "patience_s"), [("", False, 0.1), (WORD, True, 2)])
def test_a_guest_that_hangs_has_booted_only_if_it_spoke(
    tmp_path: Path, kernel: Path, says: str, boots: bool, patience_s: float
) -> None:
    qemu = pretended(tmp_path, says=says.encode(), goes_on=True)
    assert kvm.boots(qemu, kernel, "kvm", patience_s=patience_s) is boots


def test_the_tiny_guest_sees_the_right_accelerator(tmp_path: Path, kernel: Path) -> None:
    program = tmp_path / "qemu"
    program.write_text(f"#!/bin/sh\nprintf '%s\\n' \"$@\" > {tmp_path}/argv\n")
    program.chmod(0o755)
    qemu = replace(QEMU, path=str(program))
    for accelerator in ("kvm", "tcg"):
        assert not kvm.boots(qemu, kernel, accelerator, patience_s=20)
        words = (tmp_path / "argv").read_text().split("\n")
        assert words[words.index("-accel") + 1] == accelerator
        assert words[words.index("-kernel") + 1] == str(kernel)
        assert ("host" in words) is (accelerator == "kvm")


# --- the tiny guest ------------------------------------------------------------------------------


def unpacked(archive: bytes) -> dict[str, tuple[int, tuple[int, int], bytes]]:
    """Read a newc archive: mode, device and content of each name, up to the trailer."""
    found: dict[str, tuple[int, tuple[int, int], bytes]] = {}
    at = 0
    while True:
        assert at % 4 == 0
        assert archive[at : at + 6] == b"070701"
        numbers = [int(archive[at + 6 + 8 * n : at + 14 + 8 * n], 16) for n in range(13)]
        mode, size, device, length = numbers[1], numbers[6], tuple(numbers[9:11]), numbers[11]
        start = at + 110
        raw = archive[start : start + length]
        assert raw.endswith(b"\0")
        data = (start + length + 3) & ~3
        at = (data + size + 3) & ~3
        if raw == b"TRAILER!!!\0":
            assert at == len(archive)
            return found
        name = raw[:-1].decode()
        found[name] = (mode, (device[0], device[1]), archive[data : data + size])


def test_the_archive_holds_a_console_and_the_program() -> None:
    assert unpacked(tiny_initramfs()) == {
        "dev": (0o040755, (0, 0), b""),
        "dev/console": (0o020600, (5, 1), b""),
        "init": (0o100755, (0, 0), tiny_program()),
    }


@pytest.mark.skipif(shutil.which("cpio") is None, reason="cpio is not installed")
def test_cpio_reads_the_archive_too() -> None:
    listed = subprocess.run(
        ["cpio", "-it", "--quiet"], input=tiny_initramfs(), capture_output=True, check=True
    )
    assert listed.stdout.split() == [b"dev", b"dev/console", b"init"]
    assert not listed.stderr


def test_the_program_is_a_static_executable_for_this_kind_of_computer() -> None:
    program = tiny_program()
    assert program[:7] == b"\x7fELF\x02\x01\x01"
    kind, machine, version, entry, segments_at = struct.unpack_from("<HHIQQ", program, 16)
    assert (kind, machine, version) == (2, 62, 1)  # ET_EXEC, EM_X86_64
    size, count = struct.unpack_from("<HH", program, 54)
    assert (size, count) == (56, 1)
    segment = struct.unpack_from("<IIQQQQQQ", program, segments_at)
    assert segment[:2] == (1, 5)  # PT_LOAD, readable and executable
    offset, address, _, in_file, in_memory, align = segment[2:]
    assert in_file == in_memory == len(program)
    assert (address - offset) % align == 0
    assert segments_at + 56 <= entry - address < len(program)


@pytest.fixture
def instructions(tmp_path: Path) -> list[tuple[int, str]]:
    """The program's instructions, as objdump reads them, each with its address."""
    if shutil.which("objdump") is None:
        pytest.skip("objdump is not installed")
    program = tiny_program()
    entry = struct.unpack_from("<Q", program, 24)[0]
    (tmp_path / "program").write_bytes(program[entry - 0x400000 :])
    words = ["objdump", "-D", "-b", "binary", "-m", "i386:x86-64", "-M", "intel"]
    done = subprocess.run(
        [*words, f"--adjust-vma={entry:#x}", str(tmp_path / "program")],
        capture_output=True,
        check=True,
        text=True,
    )
    lines = re.findall(r"^ *([0-9a-f]+):\t[0-9a-f ]+\t(.*?) *$", done.stdout, re.MULTILINE)
    return [(int(at, 16), re.sub(r"\s+", " ", text)) for at, text in lines]


def test_the_program_writes_its_word_and_restarts_the_guest(
    instructions: list[tuple[int, str]],
) -> None:
    program = tiny_program()
    message = 0x400000 + program.index(kvm.WORD)
    until_jump = itertools.takewhile(lambda item: not item[1].startswith("jmp"), instructions)
    expected = [
        "mov eax,0x1",  # write
        "mov edi,0x1",
        f"movabs rsi,{message:#x}",
        f"mov edx,{len(kvm.WORD):#x}",
        "syscall",
        "mov eax,0xa9",  # reboot
        "mov edi,0xfee1dead",
        "mov esi,0x28121969",
        "mov edx,0x1234567",
        "syscall",
    ]
    assert [text for _, text in until_jump] == expected
    at, jump = instructions[len(expected)]
    assert jump == f"jmp {at:#x}", "it goes nowhere if reboot should fail"
    assert program.endswith(kvm.WORD)
