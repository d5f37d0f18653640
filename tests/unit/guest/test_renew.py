"""The identity of a clone, apart from the agent that asks for it."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from mayfly.guest import facts
from mayfly.guest.files import read_text, write_text
from mayfly.guest.mounts import Share
from mayfly.guest.network import Network
from mayfly.guest.renew import Identity, hosts_with, renew

OURS = Identity(
    seed=bytes(64),
    time_ns=5,
    hostname="clone",
    machine_id="a" * 32,
    boot_id="b" * 36,
    host_key=None,
)


class Recorder:
    """A kernel that takes note of what it is told."""

    def __init__(self, *, broken: str = "") -> None:
        self.told: list[object] = []
        self._broken = broken

    def _note(self, what: str, value: object) -> None:
        if what == self._broken:
            raise OSError(1, "Operation not permitted", what)
        self.told.append((what, value))

    def stir(self, seed: bytes) -> str:
        self._note("stir", seed)
        return "mix"

    def set_clock(self, time_ns: int) -> None:
        self._note("clock", time_ns)

    def set_hostname(self, name: str) -> None:
        self._note("hostname", name)

    def set_boot_id(self, boot_id: str) -> None:
        self._note("boot_id", boot_id)

    def bring_up(self, wanted: Network) -> None:
        self._note("network", wanted)

    def mount_shares(self, shares: Sequence[Share], make: Callable[[bytes], None]) -> None:
        self._note("shares", (shares, make))

    def grow_root(self) -> None:
        self._note("grow", None)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "etc").mkdir()
    return tmp_path


def test_random_numbers_come_first_and_the_clock_before_files(root: Path) -> None:
    kernel = Recorder()
    assert renew(OURS, kernel, root=str(root)) == "mix"
    assert kernel.told == [
        ("stir", bytes(64)),
        ("clock", 5),
        ("hostname", "clone"),
        ("boot_id", "b" * 36),
    ]


@pytest.mark.parametrize("step", ["stir", "clock", "hostname", "boot_id"])
def test_any_step_may_fail_the_whole(root: Path, step: str) -> None:
    with pytest.raises(OSError, match=step):
        renew(OURS, Recorder(broken=step), root=str(root))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", "127.0.1.1\tclone\n"),
        ("127.0.0.1 localhost\n", "127.0.0.1 localhost\n127.0.1.1\tclone\n"),
        (
            "# c\n127.0.0.1\tlocalhost\n127.0.1.1 a\n\n127.0.1.1 b\n::1 ip6\n",
            "# c\n127.0.0.1\tlocalhost\n127.0.1.1\tclone\n\n::1 ip6\n",
        ),
    ],
)
def test_the_hosts_table_knows_the_name(before: str, after: str) -> None:
    assert hosts_with(before, "clone") == after
    assert hosts_with(after, "clone") == after


def test_a_long_name_has_its_short_one() -> None:
    assert hosts_with("", "clone.site.org") == "127.0.1.1\tclone.site.org clone\n"


def test_the_dbus_copy_is_left_alone_when_it_is_a_link(root: Path) -> None:
    (root / "var/lib/dbus").mkdir(parents=True)
    (root / "var/lib/dbus/machine-id").symlink_to("/etc/machine-id")
    renew(OURS, Recorder(), root=str(root))
    assert (root / "var/lib/dbus/machine-id").is_symlink()


# --- files ---


def test_a_file_is_replaced_and_keeps_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    path.chmod(0o640)
    with path.open() as before:
        write_text(str(path), "new \udcff")
        assert before.read() == "old"
    assert path.read_bytes() == b"new \xff"
    assert read_text(str(path)) == "new \udcff"
    assert path.stat().st_mode & 0o777 == 0o640
    assert os.listdir(tmp_path) == ["file"]


def test_a_link_is_replaced_not_followed(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("kept")
    (tmp_path / "link").symlink_to("target")
    write_text(str(tmp_path / "link"), "new", mode=0o600)
    assert (tmp_path / "target").read_text() == "kept"
    assert (tmp_path / "link").read_text() == "new"
    assert (tmp_path / "link").lstat().st_mode & 0o777 == 0o600


def test_a_new_file_has_the_mode_that_was_asked_for(tmp_path: Path) -> None:
    write_text(str(tmp_path / "new"), "x", mode=0o400)
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o400
    assert read_text(str(tmp_path / "missing")) == ""


# --- facts ---


@pytest.mark.parametrize(
    ("files", "os_name", "init"),
    [
        ({}, "linux", "unknown"),
        (
            {"etc/os-release": 'ID="centos"\nVERSION_ID="7"\n', "run/systemd/system/x": ""},
            "centos 7",
            "systemd",
        ),
        ({"etc/os-release": "ID=arch\n", "proc/1/comm": "runit\n"}, "arch", "runit"),
        (
            {
                "etc/redhat-release": "CentOS release 6.10 (Final)\n",
                "proc/1/comm": "init\n",
                "etc/inittab": "",
            },
            "CentOS release 6.10 (Final)",
            "sysvinit",
        ),
    ],
)
def test_facts_of_a_machine(tmp_path: Path, files: dict[str, str], os_name: str, init: str) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert facts.os_name(str(tmp_path)) == os_name
    assert facts.init_name(str(tmp_path)) == init


def test_features_are_what_can_be_had(tmp_path: Path) -> None:
    ours = list(facts.ABILITIES)
    assert facts.features(sshfs=["sshfs"], root=str(tmp_path)) == ours
    modules = tmp_path / "lib/modules" / os.uname().release
    modules.mkdir(parents=True)
    (modules / "modules.dep").write_text("kernel/fs/fuse/fuse.ko.xz:\n")
    (tmp_path / "usr/sbin").mkdir(parents=True)
    (tmp_path / "usr/sbin/sshd").write_text("")
    assert facts.features(sshfs=[], root=str(tmp_path)) == [*ours, "sshd", "fuse"]
    everything = [*ours, "sshd", "fuse", "sshfs"]
    assert facts.features(sshfs=["sshfs"], root=str(tmp_path)) == everything
