"""Which directories can be shared, and how their mounts are read and bound."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mayfly.engine import linux, share
from mayfly.engine.share import check_directories, mount_flags, read_mounts
from mayfly.errors import Invalid, Unavailable
from mayfly.model import ShareDir

MOUNTINFO = rb"""22 1 254:0 / / rw,relatime - ext4 /dev/vda rw
23 22 0:21 / /proc rw,nosuid,nodev,noexec,relatime - proc proc rw
64 22 0:40 / /tmp/srv/data rw,relatime shared:1 - ext4 /dev/vdb rw
65 64 0:41 / /tmp/srv/data/a\040b ro,noexec,relatime master:1 propagate_from:2 - xfs /dev/vdc rw
66 64 0:42 / /tmp/srv/data/proc rw - proc none rw
67 22 0:43 / /tmp/srv/database rw - ext4 /dev/vdd rw
"""


def test_only_the_mounts_at_and_beneath_the_directory_count() -> None:
    mounts = read_mounts(MOUNTINFO, b"/tmp/srv/data")
    assert [(mount.point, mount.kind) for mount in mounts] == [
        (b"/tmp/srv/data", b"ext4"),
        (b"/tmp/srv/data/a b", b"xfs"),
        (b"/tmp/srv/data/proc", b"proc"),
    ]
    assert mounts[1].options == {b"ro", b"noexec", b"relatime"}


@pytest.mark.parametrize(
    ("options", "read_only", "expected"),
    [
        ("rw", False, 0),
        ("rw", True, linux.MS_RDONLY),
        ("ro", False, linux.MS_RDONLY),
        ("rw,noexec,relatime", False, linux.MS_NOEXEC),
    ],
)
def test_a_mount_keeps_its_flags_and_loses_devices(
    options: str, read_only: bool, expected: int
) -> None:
    always = linux.MS_REMOUNT | linux.MS_BIND | linux.MS_NOSUID | linux.MS_NODEV
    found = mount_flags(frozenset(options.encode().split(b",")), read_only=read_only)
    assert found == always | expected


def shared(*paths: str) -> list[ShareDir]:
    return [ShareDir(path=Path(path)) for path in paths]


@pytest.mark.parametrize(
    "paths",
    [
        *(
            ["data"],
            ["/srv/../etc"],
            ["//"],
            ["//srv"],
            ["/"],
            ["/proc"],
            ["/proc/self/root"],
            ["/sys"],
            ["/dev/shm"],
        ),
        *(["/srv", "/srv"], ["/srv", "/srv/a"], ["/srv/a", "/srv"], ["/a", "/b", "/a/c"]),
    ],
)
def test_a_directory_that_cannot_stand_at_its_path_is_refused(paths: list[str]) -> None:
    with pytest.raises(Invalid, match="shared"):
        check_directories(shared(*paths))


def test_neighbours_can_be_shared() -> None:
    check_directories(shared("/srv/a", "/srv/ab", "/process", "/home/x"))
    check_directories([])
    assert True


@given(st.lists(st.from_regex(r"/[a-c/.]{0,6}", fullmatch=True), max_size=3))
def test_whatever_passes_lies_in_its_own_place(paths: list[str]) -> None:
    try:
        check_directories(shared(*paths))
    except Invalid:
        return
    normal = [os.path.normpath(path) for path in paths]
    assert len(set(normal)) == len(paths)
    assert all(not path.startswith(f"{other}/") for path in normal for other in normal)


def test_the_program_comes_with_its_loader_and_libraries() -> None:
    files = share.needed_files("/bin/sh")
    assert files[0] == "/bin/sh"
    assert any("libc.so" in path for path in files)
    assert any("ld-linux" in path for path in files)
    assert all(os.path.exists(path) for path in files)


def test_a_host_without_the_server_is_told_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(share, "SERVERS", ("/nowhere/sftp-server",))
    with pytest.raises(Unavailable, match="sftp-server is not installed") as caught:
        share.find_server()
    assert caught.value.hint == "sudo apt-get install openssh-sftp-server"
