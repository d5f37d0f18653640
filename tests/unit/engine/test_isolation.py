"""What QEMU is kept from, as it is decided before QEMU starts."""

from __future__ import annotations

import os
import resource
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from mayfly.engine import process
from mayfly.engine.launch import Isolation
from mayfly.engine.process import Bounds, bounds_for, isolation_for, namespaces_work
from mayfly.model import Shape
from mayfly.units import GIB, MIB
from tests.unit.engine.machines import QEMU as AT_HOME
from tests.unit.engine.machines import sleeping

QEMU = replace(AT_HOME, root="/srv/tree")

BOUNDS = Bounds(memory=5 * GIB, disk=3 * GIB)


def isolation(*, uid: int | None = 4711, kvm: bool = False, die: bool = True) -> Isolation:
    return isolation_for(QEMU, BOUNDS, uid=uid, kvm=kvm, die_with_parent=die)


def test_a_machine_has_the_uid_and_tree_that_it_should() -> None:
    found = isolation()
    assert (found.uid, found.groups, found.tree) == (4711, (), "/srv/tree")
    assert (
        isolation_for(
            replace(QEMU, root=""), BOUNDS, uid=None, kvm=False, die_with_parent=True
        ).tree
        == ""
    )


@pytest.mark.parametrize("die", [True, False])
def test_whether_it_dies_with_us_is_for_the_caller_to_say(die: bool) -> None:
    assert isolation(die=die).die_with_parent is die


def test_it_may_take_no_more_than_its_bounds() -> None:
    limits = dict(isolation().limits)
    assert limits[resource.RLIMIT_AS] == BOUNDS.memory
    assert limits[resource.RLIMIT_FSIZE] == BOUNDS.disk
    assert limits[resource.RLIMIT_CORE] == 0
    assert 0 < limits[resource.RLIMIT_NOFILE] <= 4096


def test_processes_are_counted_only_where_the_uid_is_the_machines_own() -> None:
    assert 0 < dict(isolation().limits)[resource.RLIMIT_NPROC] <= 4096
    assert resource.RLIMIT_NPROC not in dict(isolation(uid=None).limits)


@pytest.mark.parametrize("mib", [256, 4096])
def test_the_bounds_leave_room_for_the_guest_and_not_much_more(mib: int) -> None:
    bounds = bounds_for(Shape(cpus=1, memory_mib=mib), 2 * GIB)
    assert mib * MIB < bounds.memory <= mib * MIB + 8 * GIB
    # One file may hold the guest's disk and what a snapshot keeps of it, or its memory.
    largest = max(2 * 2 * GIB, mib * MIB)
    assert largest < bounds.disk <= largest + 2 * GIB


def test_only_kvm_opens_more_devices(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert isolation().devices == ("/dev/null", "/dev/urandom")
    group = os.stat(tmp_path)
    monkeypatch.setattr(process, "os", SimpleNamespace(stat=lambda _: group, geteuid=os.geteuid))
    found = isolation(kvm=True)
    assert found.devices == ("/dev/null", "/dev/urandom", "/dev/kvm")
    assert found.groups == (group.st_gid,)


# --- namespaces ----------------------------------------------------------------------------------


class Sysctls:
    """Stands for /proc/sys."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, values: dict[str, str]) -> None:
        self._values = values
        monkeypatch.setattr(process, "Path", self)

    def __call__(self, name: str) -> Sysctls:
        self._name = name.removeprefix("/proc/sys/")
        return self

    def read_text(self) -> str:
        if self._name not in self._values:
            raise FileNotFoundError(self._name)
        return self._values[self._name]


@pytest.mark.parametrize(
    ("values", "work"),
    [
        ({}, True),
        ({"user/max_user_namespaces": "96365\n"}, True),
        ({"user/max_user_namespaces": "0\n"}, False),
        ({"kernel/unprivileged_userns_clone": "0\n"}, False),
        ({"kernel/unprivileged_userns_clone": "1\n", "user/max_user_namespaces": "5\n"}, True),
    ],
)
def test_a_user_may_make_namespaces_unless_the_host_forbids_it(
    monkeypatch: pytest.MonkeyPatch, values: dict[str, str], work: bool
) -> None:
    Sysctls(monkeypatch, values)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert namespaces_work() is work
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert namespaces_work()


# --- while it runs -------------------------------------------------------------------------------


def test_a_process_may_write_more_for_a_while() -> None:
    with sleeping() as child:
        resource.prlimit(child.pid, resource.RLIMIT_FSIZE, (1000, 10_000))
        assert process.file_limit(child.pid) == 1000
        with process.writing(child.pid, 5000):
            assert process.file_limit(child.pid) == 5000
        with process.writing(child.pid, 10):
            assert process.file_limit(child.pid) == 1000
        with pytest.raises(KeyError), process.writing(child.pid, 10_000):
            raise KeyError
        assert process.file_limit(child.pid) == 1000


def test_a_limit_that_cannot_be_raised_stays() -> None:
    with sleeping() as child:
        resource.prlimit(child.pid, resource.RLIMIT_FSIZE, (1000, 1000))
        with process.writing(child.pid, 5000):
            # Only a process with CAP_SYS_RESOURCE may exceed what it once was given.
            assert process.file_limit(child.pid) in (1000, 5000)
        assert process.file_limit(child.pid) == 1000


def test_what_has_ended_or_has_no_limit_is_not_limited() -> None:
    with sleeping() as child:
        assert process.file_limit(child.pid) == sys.maxsize
        child.kill()
        child.wait()
        process.limit_files(child.pid, 1000)
        assert process.file_limit(child.pid) == sys.maxsize
