"""What is promised, what never fits, and what is lacking."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mayfly.engine.argv import TRANSLATION_CACHE_MIB
from mayfly.errors import Invalid
from mayfly.host.limits import (
    OVERHEAD_KVM_MIB,
    OVERHEAD_TCG_MIB,
    STANDBY_MIB,
    Bounds,
    Need,
    bounds_of,
    guest_memory_mib,
    need_of,
    never,
    no_place,
    no_room_to_keep,
    sacrifice,
    shape_for,
    spare_mib,
    why,
)
from mayfly.host.settings import Amounts, Disk, HostSettings, Kept, Limits
from mayfly.model import Shape
from tests.unit.host.asking import ADA, BOB, EVE, asks, bounds, has, need, standby

# --- sizes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "given_mib"), [(1, 256), (256, 256), (257, 384), (500, 512), (512, 512), (513, 640)]
)
def test_a_machine_has_one_of_few_sizes(asked: int, given_mib: int) -> None:
    assert shape_for(3, asked) == Shape(cpus=3, memory_mib=given_mib)


def test_no_computer_has_so_much_memory() -> None:
    with pytest.raises(Invalid, match="memory"):
        shape_for(1, 1 << 30)


def test_a_machine_is_promised_its_memory_and_what_qemu_needs() -> None:
    shape = Shape(cpus=2, memory_mib=512)
    assert need_of(shape, 2048, "tcg") == Need(cpus=2, memory_mib=640, disk_mib=2048)
    assert need_of(shape, 2048, "kvm") == Need(cpus=2, memory_mib=560, disk_mib=2048)
    assert OVERHEAD_TCG_MIB - TRANSLATION_CACHE_MIB >= OVERHEAD_KVM_MIB


@given(st.integers(0, 1 << 24), st.sampled_from(["kvm", "tcg"]))
def test_a_jobs_machine_stays_within_what_the_job_was_granted(
    granted_mib: int, accelerator: str
) -> None:
    overhead = OVERHEAD_KVM_MIB if accelerator == "kvm" else OVERHEAD_TCG_MIB
    if granted_mib < 256 + overhead:
        with pytest.raises(Invalid) as caught:
            guest_memory_mib(granted_mib, accelerator)
        assert f"{256 + overhead} MiB or more" in caught.value.hint
        return
    guest = guest_memory_mib(granted_mib, accelerator)
    shape = shape_for(1, guest)
    assert shape.memory_mib == guest
    assert need_of(shape, 0, accelerator).memory_mib <= granted_mib < guest + overhead + 128


# --- what there is -------------------------------------------------------------------------------


def test_what_there_is_comes_from_the_host_and_the_settings() -> None:
    user = Amounts(machines=3)
    settings = HostSettings(
        overcommit=1.5,
        reserve_memory_mib=1000,
        limits=Limits(machines=5, cpus=6, memory_mib=7, disk_mib=8, waiting=9, user=user),
        disk=Disk(room_mib=77),
    )
    assert bounds_of(settings, host_memory_mib=9000, disk_mib=50) == Bounds(
        memory_mib=12_000,
        disk_mib=50,
        everyone=Amounts(machines=5, cpus=6, memory_mib=7, disk_mib=8),
        user=user,
        waiting=9,
        line_user=200,
    )


def test_a_host_smaller_than_its_reserve_has_nothing() -> None:
    settings = HostSettings(reserve_memory_mib=1000)
    limits = bounds_of(settings, host_memory_mib=900, disk_mib=50)
    assert limits.memory_mib == 0
    assert "this host has 0 B" in never(need(), ADA, limits)


def test_spare_memory_is_what_is_promised_to_nobody() -> None:
    held = [has(ADA, need(300)), standby(), standby()]
    assert spare_mib(held, bounds(1000), 100) == 1000 - 100 - 300 - 2 * STANDBY_MIB
    assert spare_mib(held, bounds(300), 100) < 0


# --- what never fits -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "reason"),
    [
        (need(2049), "it wants 2.0 GiB of memory; this host has 2.0 GiB for machines"),
        (need(disk_mib=4097), "it wants 4.0 GiB of disk; this host has 4.0 GiB for machines"),
        (need(cpus=9), "it wants 9 CPUs; limits.cpus allows 8"),
        (need(1025), "it wants 1.0 GiB of memory; limits.user.memory allows 1.0 GiB"),
        (need(cpus=3), "it wants 3 CPUs; limits.user.cpus allows 2"),
        (need(disk_mib=11), "it wants 11 MiB of disk; limits.user.disk allows 10 MiB"),
    ],
)
def test_what_never_fits_is_told_with_the_limit(wanted: Need, reason: str) -> None:
    user = Amounts()
    if "limits.user" in reason:
        user = Amounts(machines=1, cpus=2, memory_mib=1024, disk_mib=10)
    limits = Bounds(memory_mib=2048, disk_mib=4096, everyone=Amounts(cpus=8), user=user)
    assert never(wanted, ADA, limits) == reason


def test_what_fits_alone_may_fit_one_day() -> None:
    limits = Bounds(
        memory_mib=2048,
        disk_mib=10,
        everyone=Amounts(machines=1),
        user=Amounts(machines=1, cpus=2, memory_mib=1024, disk_mib=10),
    )
    assert never(need(1024, cpus=2, disk_mib=10), ADA, limits) == ""


def test_a_machine_never_fits_without_its_template() -> None:
    assert never(need(900), ADA, bounds(1000), template_mib=100) == ""
    assert "this host has 899 MiB" in never(need(900), ADA, bounds(1000), template_mib=101)


def test_the_line_has_an_end_for_all_and_for_each() -> None:
    limits = Bounds(memory_mib=1, disk_mib=1, waiting=4, line_user=2)
    waiting = [asks("a", ADA), asks("b", ADA), asks("c", BOB)]
    assert no_place(waiting, ADA, limits) == "2 of your requests wait; limits.line_user allows 2"
    assert no_place(waiting, BOB, limits) == ""
    full = [*waiting, asks("d", BOB)]
    assert no_place(full, EVE, limits) == "4 requests wait; limits.waiting allows 4"


# --- what is lacking -----------------------------------------------------------------------------


def test_what_is_lacking_is_told_in_words() -> None:
    held = [has(ADA, need(1024, cpus=3))]
    limits = bounds(2048, user=Amounts(cpus=4))
    assert why(need(1024), BOB, held, limits, 0) == ""
    assert why(need(1024), BOB, held, limits, 512) == (
        "it wants 1.0 GiB of memory; free: 512 MiB of 1.5 GiB (this host)"
    )
    assert why(need(cpus=2), ADA, held, limits, 0) == (
        "it wants 2 CPUs; free: 1 of 4 (limits.user.cpus)"
    )
    assert why(need(cpus=2), BOB, held, limits, 0) == ""
    assert why(need(2049), BOB, [standby()], limits, 0) != ""
    assert why(need(2048), BOB, [standby()], limits, 0) == ""


def test_number_of_machines_is_limited_for_all_and_for_each() -> None:
    limits = Bounds(
        memory_mib=1000, disk_mib=0, everyone=Amounts(machines=3), user=Amounts(machines=2)
    )
    held = [has(ADA), has(ADA)]
    assert why(need(), ADA, held, limits, 0) == (
        "it wants 1 machine; free: 0 of 2 (limits.user.machines)"
    )
    assert why(need(), BOB, held, limits, 0) == ""
    assert why(need(), BOB, [*held, has(EVE)], limits, 0) == (
        "it wants 1 machine; free: 0 of 3 (limits.machines)"
    )


# --- giving standbys up --------------------------------------------------------------------------


def test_as_many_standbys_are_given_up_as_are_needed() -> None:
    held = [standby("a"), has(ADA, need(100)), standby("b"), standby("c")]
    total = 100 + 3 * STANDBY_MIB
    assert sacrifice(need(50), held, bounds(total + 50), 0) == []
    assert sacrifice(need(51), held, bounds(total + 50), 0) == ["a"]
    assert sacrifice(need(50 + STANDBY_MIB), held, bounds(total + 50), 0) == ["a"]
    assert sacrifice(need(51 + STANDBY_MIB), held, bounds(total + 50), 0) == ["a", "b"]
    assert sacrifice(need(50), held, bounds(total + 50), 10) == ["a"]


def test_no_standby_is_given_up_in_vain() -> None:
    held = [standby("a"), standby("b")]
    assert sacrifice(need(2 * STANDBY_MIB), held, bounds(2 * STANDBY_MIB), 0) == ["a", "b"]
    assert sacrifice(need(2 * STANDBY_MIB + 1), held, bounds(2 * STANDBY_MIB), 0) == []


def test_a_claimed_standby_is_not_given_up_and_brings_its_memory() -> None:
    held = [standby("a"), standby("b")]
    limits = bounds(2 * STANDBY_MIB)
    assert sacrifice(need(STANDBY_MIB), held, limits, 0, claimed="a") == []
    assert sacrifice(need(STANDBY_MIB + 1), held, limits, 0, claimed="a") == ["b"]
    assert sacrifice(need(STANDBY_MIB + 1), held, limits, 0, claimed="x") == ["a", "b"]


# --- kept machines -------------------------------------------------------------------------------


def test_kept_machines_are_on_a_quota() -> None:
    rules = Kept(machines=3, disk_mib=1000, user_machines=2)
    kept = [has(ADA, need(0, disk_mib=300)), has(ADA, need(0, disk_mib=300))]
    assert no_room_to_keep(BOB, 400, kept, rules) == ""
    assert no_room_to_keep(BOB, 401, kept, rules) == (
        "it takes 401 MiB; of 1.0 GiB (kept.disk), 600 MiB are in use"
    )
    assert no_room_to_keep(ADA, 1, kept, rules) == (
        "2 of your machines are kept; kept.user_machines allows 2"
    )
    full = [*kept, has(BOB, need(0))]
    assert no_room_to_keep(EVE, 1, full, rules) == "3 machines are kept; kept.machines allows 3"
