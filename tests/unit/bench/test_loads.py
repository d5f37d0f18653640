"""What the benches of disks, networks and computations say to QEMU and read from programs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench import backends
from bench.backends import Subject, host_shell, markdown
from bench.cards import CARDS, Card, Network, bare_tap, card_argv, mac, up_script
from bench.client import BenchError
from bench.disks import DISKS, OURS, Disk, devices_in, disk_argv
from bench.loads import (
    DISK_LOADS,
    Area,
    cpu_load,
    disk_load,
    fio_figures,
    fio_jobs,
    iperf_figure,
    network_load,
    same_results,
)

AREA = Area(path="/dev/vdx", read_mib=64, write_at_mib=64, write_mib=32, seconds=0.5)


def said_by_fio(**changes: Any) -> str:
    """Give what fio prints when each load moved as many MiB in a second as its name has letters."""
    jobs = []
    for name in DISK_LOADS:
        side = "read" if "read" in name else "write"
        sides = {one: {"bw_bytes": 0} for one in ("read", "write")}
        sides[side] = {"bw_bytes": len(name) << 20}
        jobs.append({"jobname": name, "error": 0, **sides, **changes})
    return "note: something\n" + json.dumps({"jobs": jobs})


def test_fio_is_read_by_load() -> None:
    assert fio_figures(said_by_fio()) == {name: len(name) for name in DISK_LOADS}


@pytest.mark.parametrize("text", ["", "fio: no such device", "{", json.dumps({"jobs": []})])
def test_a_fio_that_measured_nothing_is_no_figure(text: str) -> None:
    with pytest.raises(BenchError, match="fio"):
        fio_figures(text)


def test_an_error_of_fio_is_no_figure() -> None:
    with pytest.raises(BenchError, match="error 5"):
        fio_figures(said_by_fio(error=5))


def test_all_loads_are_asked_for_in_turn() -> None:
    text = fio_jobs(AREA)
    found = [line[1:-1] for line in text.splitlines() if line.startswith("[")]
    assert found == ["global", *DISK_LOADS]
    assert text.count("stonewall") == len(DISK_LOADS)
    assert "runtime=500ms" in text


def test_nothing_is_written_where_it_is_read() -> None:
    for job in fio_jobs(AREA).split("\n[")[1:]:
        assert ("offset=64M" in job) == ("rw=write" in job or "rw=randwrite" in job)


def test_a_shell_is_given_the_jobs() -> None:
    given = []

    def shell(script: str) -> str:
        given.append(script)
        return said_by_fio()

    assert set(disk_load(shell, AREA)) == set(DISK_LOADS)
    assert fio_jobs(AREA) in given[0]


def test_iperf_is_read_by_what_arrived() -> None:
    text = json.dumps({"end": {"sum_received": {"bits_per_second": 5e8}, "sum_sent": {}}})
    assert iperf_figure(text) == 500


def test_an_iperf_that_failed_is_tried_again() -> None:
    answers = [json.dumps({"error": "the server is busy"})]
    answers += [json.dumps({"end": {"sum_received": {"bits_per_second": 1e6}}})] * 2
    asked = []

    def shell(script: str) -> str:
        asked.append(script)
        return "" if script.startswith("sleep") else answers.pop(0)

    assert network_load(shell, "192.0.2.1", 0.5) == {"out": 1, "in": 1}
    assert [("--reverse" in one, "--time 1" in one) for one in asked if "iperf3" in one] == [
        (False, True),
        (False, True),
        (True, True),
    ]


def test_computations_are_timed_where_they_run() -> None:
    assert cpu_load(lambda script: f"42\n{1_500_000_000}\n")["xz"] == (1.5, "42")


def test_computations_must_agree() -> None:
    one = {"shell": (1.0, "42")}
    same_results(one, {"shell": (9.0, "42")})
    with pytest.raises(BenchError, match="'42' here and '43' there"):
        same_results(one, {"shell": (1.0, "43")})


def test_the_hosts_shell_tells_why_it_failed() -> None:
    assert host_shell("echo $((6 * 7))") == "42\n"
    with pytest.raises(BenchError, match="exit status 3: broken"):
        host_shell("echo broken >&2; exit 3")


# --- disks and cards -----------------------------------------------------------------------------


def nodes(argv: list[str]) -> list[dict[str, Any]]:
    found = zip(argv[::2], argv[1::2], strict=True)
    return [json.loads(value) for name, value in found if name == "-blockdev"]


@pytest.mark.parametrize("disk", DISKS, ids=lambda disk: disk.key)
def test_a_disk_is_what_its_name_says(disk: Disk) -> None:
    (node,) = nodes(disk_argv([(disk, Path("/work/file"))]))
    direct, lazy = node["cache"]["direct"], node["cache"]["no-flush"]
    assert (direct, lazy) == {
        "unsafe": (False, True),
        "writeback": (False, False),
        "none": (True, False),
    }[disk.cache]
    assert node["file"]["cache"] == node["cache"]
    assert node["file"]["aio"] == disk.aio
    assert ("backing" in node) == (disk.form == "overlay")


def test_every_disk_is_found_again_in_the_guest() -> None:
    argv = disk_argv([(disk, Path("/work/file")) for disk in DISKS])
    for number, disk in enumerate(DISKS):
        (device,) = [word for word in argv if f"serial=bench{number}," in f"{word},"]
        assert device.startswith(f"{disk.device},")
    text = "mayfly-agent /dev/vdb\nbench0 /dev/vdc\n\nbench12 /dev/sda\n"
    assert devices_in(text) == {0: "/dev/vdc", 12: "/dev/sda"}


def test_native_io_is_asked_for_past_the_cache_only() -> None:
    assert {disk.cache for disk in DISKS if disk.aio == "native"} == {"none"}


def test_todays_back_end_is_among_those_that_are_measured() -> None:
    assert (OURS.form, OURS.cache, OURS.aio) == ("overlay", "unsafe", "threads")
    assert DISKS[0] is OURS


def test_each_card_has_its_own_address_and_network() -> None:
    card = Card(key="tap", text="", start=lambda *_: bare_tap())
    cards = [(card, Network(netdev=f"tap,fd={fd}", address="10.0.2.15")) for fd in (7, 8)]
    argv = card_argv(cards)
    assert [word for word in argv if word.startswith("tap,")] == [
        "tap,fd=7,id=bench0",
        "tap,fd=8,id=bench1",
    ]
    assert mac(0) != mac(1)
    assert all(f"netdev=bench{at},mac={mac(at)}" in " ".join(argv) for at in (0, 1))


def test_a_card_beyond_a_gateway_gets_a_route() -> None:
    far = Network(netdev="", address="10.0.2.15", gateway="10.0.2.2", server="203.0.113.2")
    assert "ip route replace 203.0.113.2 via 10.0.2.2" in up_script(0, far)
    near = Network(netdev="", address="10.0.2.15", server="10.0.2.2")
    assert "ip route" not in up_script(0, near)


def test_emulated_devices_are_among_those_that_are_measured() -> None:
    assert {"virtio-blk-pci", "ide-hd"} == {disk.device for disk in DISKS}
    assert {"virtio-net-pci", "e1000"} == {card.device for card in CARDS}


def test_the_table_tells_what_is_left_of_the_host() -> None:
    subjects = [Subject(key="one", text="a disk"), Subject(key="host", text="the host itself")]
    middle = {"one": {"rand_read": 25.0}, "host": {"rand_read": 2000.0}}
    assert markdown(subjects, middle, "MiB/s") == [
        "| MiB/s | rand read |",
        "|---|---|",
        "| a disk | 25 (1.2%) |",
        "| the host itself | 2000 (100.0%) |",
    ]


def test_all_back_ends_are_measured_unless_told_otherwise() -> None:
    assert backends.BENCH.parse([]).only == ["disk", "network", "cpu"]
