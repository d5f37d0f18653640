"""Disk, network card and ports, as far as they can be known without a machine."""

from __future__ import annotations

import os
import stat
import struct
from pathlib import Path

import pytest

from mayfly.guest import agent, disk, lines, network
from mayfly.guest.disk import Partition, file_system_of, find_partition, grown
from mayfly.guest.fields import Refused


def table(*entries: tuple[int, int, int]) -> bytes:
    """Make a partition table of (type, start, size)."""
    rows = b"".join(
        struct.pack("<B3xB3xII", 0x80, sort, start, size) for sort, start, size in entries
    )
    return bytes(446) + rows.ljust(64, b"\0") + b"\x55\xaa"


ROOT = Partition("vda", 1, 2048, 1000)


def test_the_size_of_a_partition_is_changed_and_nothing_else() -> None:
    before = table((0x83, 2048, 1000), (0x82, 9000, 5))
    assert grown(before, ROOT, 7000) == table((0x83, 2048, 7000), (0x82, 9000, 5))


@pytest.mark.parametrize(
    "before",
    [
        b"",
        bytes(512),
        table((0xEE, 2048, 1000)),
        table((0x83, 4096, 1000)),
    ],
)
def test_a_table_that_is_not_understood_is_left_alone(before: bytes) -> None:
    assert grown(before, ROOT, 7000) is None


def test_only_four_partitions_stand_in_the_first_sector() -> None:
    before = table((0x83, 2048, 1000))
    assert grown(before, Partition("vda", 5, 2048, 1000), 7000) is None
    assert grown(before, ROOT, 1 << 32) is None


def test_a_partition_is_found(tmp_path: Path) -> None:
    place = tmp_path / "devices/vda/vda1"
    place.mkdir(parents=True)
    for name, number in (("partition", 1), ("start", 2048), ("size", 1000)):
        (place / name).write_text(f"{number}\n")
    (tmp_path / "link").symlink_to(place)
    assert find_partition(str(tmp_path / "link")) == ROOT
    assert find_partition(str(tmp_path / "devices/vda")) is None


def test_the_type_of_the_root_is_that_of_the_last_mount(tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text("rootfs / rootfs rw 0 0\n/dev/root / ext4 rw 0 0\nproc /proc proc rw 0 0\n")
    assert file_system_of("/", str(mounts)) == "ext4"
    assert file_system_of("/nosuch", str(mounts)) == "unknown"


def test_kernel_structures_have_their_size() -> None:
    # struct rtentry, struct sockaddr.
    assert network._ROUTE.size == 120
    assert network._ADDRESS.size == 16
    assert disk.SECTOR == 512


def test_addresses_and_resolver() -> None:
    assert network.netmask_of(0) == 0
    assert network.netmask_of(24) == 0xFFFFFF00
    assert network.netmask_of(32) == 0xFFFFFFFF
    assert network.resolver(["10.0.2.3", "1.1.1.1"]) == "nameserver 10.0.2.3\nnameserver 1.1.1.1\n"


def test_the_card_is_the_first_device(tmp_path: Path) -> None:
    for name in ("lo", "dummy0", "eth1/device", "ens3/device"):
        (tmp_path / name).mkdir(parents=True)
    assert network.find_card(str(tmp_path)) == "ens3"
    (tmp_path / "empty").mkdir()
    with pytest.raises(Refused, match="no network card"):
        network.find_card(str(tmp_path / "empty"))


def test_a_port_is_found_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "DEVICES", str(tmp_path / "dev"))
    monkeypatch.setattr(lines, "SYSFS", str(tmp_path / "sys"))
    assert lines.find_device(lines.CONTROL) is None
    for port, name in (("vport1p1", "other"), ("vport1p2", lines.CONTROL), ("vport1p3", None)):
        (tmp_path / "sys" / port).mkdir(parents=True)
        if name is not None:
            (tmp_path / "sys" / port / "name").write_text(f"{name}\n")
    (tmp_path / "sys/vport1p2/dev").write_text("1:3\n")
    if os.geteuid() == 0:
        path = lines.find_device(lines.CONTROL, node_folder=str(tmp_path))
        assert path == f"{tmp_path}/mayfly-vport1p2"
        assert stat.S_ISCHR(os.stat(path).st_mode)
        assert os.stat(path).st_rdev == os.makedev(1, 3)
        assert lines.find_device(lines.CONTROL, node_folder=str(tmp_path)) == path
    assert lines.wait_for_device(lines.SESSION, timeout_s=0) is None
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev" / lines.CONTROL).touch()
    assert lines.find_device(lines.CONTROL) == f"{tmp_path}/dev/{lines.CONTROL}"


@pytest.mark.parametrize(
    ("files", "left"),
    [
        (["cgroup.controllers", "cgroup.procs", "a.mount/cgroup.procs"], ["cgroup.procs"]),
        (["cpu/cgroup.procs", "memory/cgroup.procs"], ["cpu/cgroup.procs", "memory/cgroup.procs"]),
        ([], []),
    ],
)
def test_the_agent_leaves_the_group_of_its_service(
    tmp_path: Path, files: list[str], left: list[str]
) -> None:
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    agent._leave_cgroups(str(tmp_path))
    assert [name for name in files if (tmp_path / name).read_text() == "0"] == left
