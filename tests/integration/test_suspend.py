"""Machines that are written to disk and go on later, and what may be wrong with it."""

from __future__ import annotations

import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest

from mayfly.engine import resume as resume_module
from mayfly.engine.machine import Machine
from mayfly.engine.probe import probe_qemu
from mayfly.engine.records import is_alive, read_record
from mayfly.engine.refresh import begin_refresh, end_refresh, read_drawn
from mayfly.engine.saved import read_saved
from mayfly.engine.suspend import (
    bring_back,
    cannot_suspend,
    check_here,
    flush_saved,
    resume,
    suspend,
)
from mayfly.errors import Conflict, Failed, Missing, Unavailable
from mayfly.model import State
from tests.conftest import CACHE
from tests.integration.machines import (
    LIFE,
    ORDER,
    STILL,
    Workshop,
    attempt,
    clock_error_s,
    in_background,
    lines,
    quiet,
    resumed,
    run,
)
from tests.integration.waiting import wait_until

pytestmark = pytest.mark.integration

OTHER_QEMU = CACHE / "trixie-qemu"


def test_a_program_goes_on_where_it_was(workshop: Workshop, saved: Path) -> None:
    one = resumed(workshop, saved)
    try:
        assert clock_error_s(one) < 2
        assert run(one, STILL) == "same\n"
        assert run(one, "readlink /proc/$(cat /root/pid)/fd/3") == "/root/log\n"
        before = lines(one)
        run(one, "sleep 1")
        assert lines(one) > before > 0
        record = read_record(one.place.path)
        assert (record.state, record.pid) == (State.RUNNING, one.process.pid)
    finally:
        one.delete()
    assert read_saved(saved).notes == {"owner": 7}, "it stays until its keeper removes it"


def test_a_keeper_without_time_does_the_rest_itself(workshop: Workshop, saved: Path) -> None:
    one = bring_back(workshop.engine, saved, workshop.image, ORDER, quiet)
    try:
        assert read_record(one.place.path).state is State.PAUSED
        assert not one.process.monitor.call("query-status")["running"]
        one.process.monitor.call("cont")
        underway = begin_refresh(one)
        wait_until(lambda: one.control.arrived(underway.number), "the answer")
        end_refresh(one, underway, saved)
        assert len(read_drawn(saved)) == 1
        assert clock_error_s(one) < 2
        again = saved.with_name("again")
        suspend(one, None, workshop.image, again, flush=False)
        flush_saved(again)
    finally:
        one.delete()
    assert check_here(workshop.engine, again).layers == 3


def test_a_machine_that_may_write_little_can_be_suspended(workshop: Workshop, shelf: Path) -> None:
    one = workshop.start(order=replace(ORDER, disk_bytes=64 << 20))
    try:
        run(one, LIFE)
        suspend(one, workshop.template, workshop.image, shelf / "saved")
    finally:
        one.delete()
    one = resumed(workshop, shelf / "saved")
    try:
        assert run(one, STILL) == "same\n"
    finally:
        one.delete()


def test_it_can_be_done_again_and_again(
    workshop: Workshop, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resume_module, "LAYERS_MOST", 2)
    layers = []
    for turn in range(4):
        one = resumed(workshop, saved)
        try:
            run(one, f"echo {turn} >> /root/turns; head -c 1M /dev/urandom > /root/part{turn}")
            shutil.rmtree(saved)
            saved = saved.with_name(f"saved-{turn}")
            # By now the template is not needed any more.
            suspend(one, None, workshop.image, saved)
        finally:
            one.delete()
        layers.append(read_saved(saved).layers)
    assert layers == [3, 1, 2, 3], "files that are too many become one"
    one = resumed(workshop, saved)
    try:
        assert run(one, "cat /root/turns").split() == ["0", "1", "2", "3"]
        assert run(one, STILL) == "same\n"
        assert run(one, "dd if=/dev/vda of=/dev/null bs=1M iflag=direct count=500 2>&1; fsck -V")
        assert lines(one)
    finally:
        one.delete()


def test_a_machine_that_is_resumed_twice_draws_other_numbers(
    workshop: Workshop, saved: Path
) -> None:
    for _ in range(2):
        one = resumed(workshop, saved)
        one.delete()
    drawn = read_drawn(saved)
    assert len(drawn) == len(set(drawn)) == 2


def test_a_machine_that_repeats_itself_does_not_go_on(
    workshop: Workshop, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def not_fresh(*_: object) -> None:
        raise Failed("its random numbers repeat")

    monkeypatch.setattr("mayfly.engine.refresh.check_fresh", not_fresh)
    with pytest.raises(Failed, match="repeat"):
        resumed(workshop, saved)
    assert workshop.places() == []


def test_it_goes_back_into_the_directory_that_it_has(workshop: Workshop, machine: Machine) -> None:
    place = machine.place
    directory = place.path / "saved"
    run(machine, LIFE)
    machine.record = replace(machine.record, owner=4711)
    machine.write_state(State.SUSPENDED)
    suspend(machine, workshop.template, workshop.image, directory)
    machine.process.kill()
    machine.process.let_go()
    machine.control.close()
    held = (place.path.name, place)
    with pytest.raises(Unavailable):
        resume(workshop.engine, directory, replace(workshop.image, sha512="x"), ORDER, quiet, held)
    assert read_record(place.path).state is State.SUSPENDED
    for _ in range(2):
        one = resume(workshop.engine, directory, workshop.image, ORDER, quiet, held)
        assert run(one, STILL) == "same\n"
        assert read_record(place.path).owner == 4711
        one.process.kill()
        one.process.let_go()
        one.control.close()
    assert read_saved(directory).layers == 2
    place.remove()


@pytest.mark.skipif(not OTHER_QEMU.is_dir(), reason="needs a tree with another QEMU")
def test_a_later_qemu_takes_over(workshop: Workshop, saved: Path) -> None:
    setting = f"{OTHER_QEMU}:/usr/bin/qemu-system-x86_64"
    paths = workshop.engine.paths
    other = replace(
        workshop.engine,
        qemu=probe_qemu(replace(workshop.engine.settings, qemu=setting), paths.cache),
    )
    assert other.qemu.version != workshop.engine.qemu.version
    one = resume(other, saved, workshop.image, ORDER, quiet)
    again = saved.with_name("again")
    try:
        assert run(one, STILL) == "same\n"
        assert clock_error_s(one) < 2
        before = lines(one)
        assert run(one, "sleep 1; echo slept") == "slept\n"
        assert lines(one) > before
        suspend(one, None, workshop.image, again)
    finally:
        one.delete()
    with pytest.raises(Unavailable, match="the CPU here lacks"):
        check_here(workshop.engine, again, workshop.image)


def test_an_open_session_ends_on_both_sides(
    workshop: Workshop, machine: Machine, shelf: Path
) -> None:
    directory = shelf / "saved"
    script = ": session42; while :; do sleep 0.1; done"
    with in_background(machine, script) as ended:
        suspend(machine, workshop.template, workshop.image, directory)
        machine.delete()
        assert ended().code == 125
    one = resumed(workshop, directory)
    try:
        gone = "while pgrep -f session4[2]; do sleep 0.1; done"
        assert attempt(one, gone, time_limit_s=30)[0].code == 0, "it must have been hung up"
    finally:
        one.delete()


def test_shared_directories_forbid_it(workshop: Workshop, machine: Machine) -> None:
    with machine.process.connect("share"):
        deadline = time.monotonic() + 20
        while "shared directories" not in cannot_suspend(machine, workshop.template):
            assert time.monotonic() < deadline
        with pytest.raises(Conflict, match="shared directories"):
            suspend(machine, workshop.template, workshop.image, workshop.engine.paths.state / "x")
    assert run(machine, "echo here") == "here\n"


def test_what_does_not_run_cannot_be_suspended(
    workshop: Workshop, machine: Machine, shelf: Path
) -> None:
    assert cannot_suspend(machine, workshop.template) == ""
    assert "template" in cannot_suspend(machine, None)
    old = replace(workshop.template, features=("sshd",))
    assert "agent" in cannot_suspend(machine, old)
    machine.process.monitor.call("system_reset")
    machine.process.monitor.wait_event("SHUTDOWN", timeout_s=30)
    assert "does not run any more" in cannot_suspend(machine, workshop.template)
    with pytest.raises(Conflict, match="does not run any more"):
        suspend(machine, workshop.template, workshop.image, shelf / "saved")
    assert is_alive(machine.record)
    assert list(shelf.iterdir()) == []


def test_a_place_that_is_taken(workshop: Workshop, machine: Machine, tmp_path: Path) -> None:
    with pytest.raises(Conflict, match="already"):
        suspend(machine, workshop.template, workshop.image, tmp_path)
    with pytest.raises(Missing, match="no saved machine"):
        check_here(workshop.engine, tmp_path)
    assert run(machine, "echo here") == "here\n"
