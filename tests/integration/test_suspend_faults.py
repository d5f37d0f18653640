"""Machines that cannot be suspended, or cannot go on: nothing is lost and nothing is left."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from mayfly.engine.machine import Machine
from mayfly.engine.saved import META, locked, read_saved
from mayfly.engine.suspend import check_here, resume, suspend
from mayfly.errors import Conflict, Failed, Quota, Unavailable
from tests.integration.machines import (
    LIFE,
    ORDER,
    STILL,
    Workshop,
    lines,
    quiet,
    resumed,
    run,
)

pytestmark = pytest.mark.integration


def test_a_machine_that_was_paused_stays_so_when_it_cannot_be_saved(
    workshop: Workshop, machine: Machine, shelf: Path, small_disk: Callable[..., None]
) -> None:
    small = shelf / "small"
    small_disk(small, "size=8m")
    monitor = machine.process.monitor
    monitor.call("stop")
    with pytest.raises(Quota, match="needs up to"):
        suspend(machine, workshop.template, workshop.image, small / "saved")
    assert monitor.call("query-status")["status"] == "paused"
    monitor.call("cont")
    assert run(machine, "echo here") == "here\n"


@pytest.mark.parametrize(
    ("room", "piped"), [("8m", False), ("160m", False), ("160m", True), ("250m", True)]
)
def test_a_disk_that_fills_up_midway(
    workshop: Workshop,
    machine: Machine,
    small_disk: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    *,
    room: str,
    piped: bool,
) -> None:
    small = workshop.engine.paths.state / "small"
    small_disk(small, f"size={room}")
    monkeypatch.setattr("mayfly.engine.suspend._check_room", lambda *_: None)
    if piped:
        monkeypatch.setattr("mayfly.engine.suspend.file_limit", lambda _: 0)
    run(machine, LIFE)
    # What is written is some 200 MiB: the last time, what is linked must be copied, and is too
    # much.
    (small / "ballast").write_bytes(bytes({"250m": 40 << 20}.get(room, 0)))
    with pytest.raises(Quota, match="no room"):
        suspend(machine, workshop.template, workshop.image, small / "saved")
    assert [path.name for path in small.iterdir()] == ["ballast"]
    before = lines(machine)
    assert run(machine, f"sleep 1; {STILL}") == "same\n"
    assert lines(machine) > before
    # Another time, with room, it works.
    directory = workshop.engine.paths.state / "saved"
    suspend(machine, workshop.template, workshop.image, directory)
    assert read_saved(directory).machine == machine.record.id
    shutil.rmtree(directory)


def cut_short(directory: Path) -> None:
    whole = (directory / "memory").rename(directory / "whole")
    with open(whole, "rb") as source, open(directory / "memory", "wb") as target:
        target.write(source.read(50 << 20))


def spoilt(directory: Path) -> None:
    """Change what QEMU itself looks at."""
    whole = (directory / "memory").rename(directory / "whole")
    shutil.copyfile(whole, directory / "memory")
    with open(directory / "memory", "r+b") as file:
        file.seek(4)
        file.write(b"\xff" * 64)


def without_disk(directory: Path) -> None:
    (directory / "disk-1.qcow2").unlink()


def half_description(directory: Path) -> None:
    describe(directory, (directory / META).read_text()[:500])


def describe(directory: Path, text: str) -> None:
    """Put another description in the place of one that may have other names, too."""
    (directory / "new").write_text(text)
    (directory / "new").rename(directory / META)


@pytest.mark.parametrize("harm", [cut_short, spoilt, without_disk, half_description])
def test_what_is_spoilt_does_not_go_on_and_leaves_nothing(
    workshop: Workshop, saved: Path, harm: Callable[[Path], None]
) -> None:
    harm(saved)
    with pytest.raises(Failed, match=f"{saved}"):
        resumed(workshop, saved)
    assert workshop.places() == []
    assert saved.is_dir()


def test_memory_that_ends_early_is_found_out_by_qemu_too(workshop: Workshop, saved: Path) -> None:
    cut_short(saved)
    described = json.loads((saved / META).read_text())
    described["sizes"]["memory"] = 50 << 20
    describe(saved, json.dumps(described))
    with pytest.raises(Failed, match=r"could not read .*memory back"):
        resumed(workshop, saved)
    assert workshop.places() == []


def test_only_one_may_resume_it(workshop: Workshop, saved: Path) -> None:
    with locked(saved), pytest.raises(Conflict, match="just being resumed"):
        resumed(workshop, saved)
    resumed(workshop, saved).delete()


def test_another_image_of_that_name(workshop: Workshop, saved: Path) -> None:
    other = replace(workshop.image, sha512="0" * 128)
    with pytest.raises(Unavailable, match="needs image 'debian-12' with sha512"):
        resume(workshop.engine, saved, other, ORDER, quiet)
    assert check_here(workshop.engine, saved).machine == read_saved(saved).machine


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"accelerator": "kvm"}, "it ran under kvm, machines here run under tcg"),
        ({"machine_type": "pc-q35-99.0"}, "no machine type 'pc-q35-99.0'"),
        ({"cpu_model": "max"}, "its CPU is 'max'"),
        (
            {"qemu": "7.1.0", "cpu": {"sse2": True, "amx": True, "x": False}},
            "the CPU here lacks amx",
        ),
    ],
)
def test_a_host_that_is_not_alike(
    workshop: Workshop, saved: Path, change: dict[str, object], reason: str
) -> None:
    described = json.loads((saved / META).read_text())
    describe(saved, json.dumps({**described, **change}))
    with pytest.raises(Unavailable, match="cannot go on here") as caught:
        check_here(workshop.engine, saved, workshop.image)
    assert reason in caught.value.message
