"""A share, mounted on this computer by the real sshfs in place of the guest."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from mayfly.engine.forked import forked, report, wait_for_end
from mayfly.engine.privileges import become, show_in_proc
from mayfly.engine.share import find_server, start_share
from mayfly.errors import Denied, Invalid, Missing
from mayfly.model import Account, Group, ShareDir
from tests.integration.waiting import descendants, gone, wait_until

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(os.geteuid() != 0, reason="acts as another user"),
    pytest.mark.skipif(shutil.which("sshfs") is None, reason="sshfs is not installed"),
]

REFUSED = r"not permitted|Permission denied|Read-only"
UID, GID, EXTRA_GID = 54321, 54321, 54399
USER = Account(
    name="someone",
    uid=UID,
    gid=GID,
    groups=(Group(name="someone", gid=GID), Group(name="project", gid=EXTRA_GID)),
    home="/nowhere",
    shell="/bin/sh",
)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory that every user can reach, with one of the user's in it."""
    for directory in (tmp_path, *tmp_path.parents[:2]):
        os.chmod(directory, 0o755)
    for name in ("work", "reference"):
        (tmp_path / name).mkdir()
        os.chown(tmp_path / name, UID, GID)
    (tmp_path / "mnt").mkdir()
    (tmp_path / "secret").write_text("not shared")
    return tmp_path


@contextlib.contextmanager
def mounted(fd: int, point: Path) -> Iterator[Path]:
    """Mount what is served on a descriptor, as the guest does it."""
    argv = ["sshfs", "-f", "-o", "passive", "-o", "max_conns=1", ":/", str(point)]
    process = subprocess.Popen(argv, stdin=fd, stdout=fd)
    try:
        wait_until(lambda: os.path.ismount(point), "sshfs to mount")
        yield point
    finally:
        subprocess.run(["fusermount3", "-u", "-z", str(point)], check=False, capture_output=True)
        process.terminate()
        process.wait(20)


@contextlib.contextmanager
def share_of(
    place: Path, *, account: Account | None = USER, names: tuple[str, ...] = ("work", "reference")
) -> Iterator[Path]:
    """Share ``work``, and ``reference`` read-only; gives where they are mounted."""
    directories = [ShareDir(path=place / name, read_only=name == "reference") for name in names]
    with (
        start_share(directories, account=account) as fd,
        mounted(fd, place / "mnt") as point,
    ):
        yield point


def inside(point: Path, path: Path) -> Path:
    return point / path.relative_to("/")


def test_files_go_both_ways_and_belong_to_the_user(place: Path) -> None:
    (place / "work/in").write_bytes(b"from the host")
    with share_of(place) as point:
        there = inside(point, place / "work")
        assert (there / "in").read_bytes() == b"from the host"
        data = os.urandom(3_000_000)
        (there / "out").write_bytes(data)
        (there / "deep/er").mkdir(parents=True)
        (there / "link").symlink_to("out")
        os.rename(there / "in", there / "deep/in")
        assert (place / "work/out").read_bytes() == data
    assert (place / "work/out").stat().st_uid == UID
    assert (place / "work/out").stat().st_gid == GID
    assert (place / "work/deep/in").read_text() == "from the host"
    assert (place / "work/link").readlink() == Path("out")


def test_the_mode_is_the_one_that_the_guest_asked_for(place: Path) -> None:
    with share_of(place) as point:
        there = inside(point, place / "work")
        previous = os.umask(0)
        try:
            os.close(os.open(there / "open", os.O_CREAT | os.O_WRONLY, 0o666))
        finally:
            os.umask(previous)
    assert (place / "work/open").stat().st_mode & 0o777 == 0o666


def test_a_read_only_directory_is_one(place: Path) -> None:
    (place / "reference/data").write_text("kept")
    os.chown(place / "reference/data", UID, GID)
    with share_of(place) as point:
        there = inside(point, place / "reference")
        assert (there / "data").read_text() == "kept"
        with pytest.raises(OSError, match=REFUSED):
            (there / "data").write_text("changed")
        with pytest.raises(OSError, match=REFUSED):
            (there / "new").touch()
        with pytest.raises(OSError, match=REFUSED):
            (there / "data").unlink()
        with pytest.raises(OSError, match=REFUSED):
            os.chmod(there / "data", 0o777)
    assert (place / "reference/data").read_text() == "kept"
    assert [path.name for path in (place / "reference").iterdir()] == ["data"]


def test_nothing_else_of_the_host_is_seen(place: Path) -> None:
    with share_of(place) as point:
        assert {path.name for path in inside(point, place).iterdir()} == {"work", "reference"}
        assert not inside(point, place / "secret").exists()
        assert not (point / "root").exists()
        assert not (point / "proc").exists()
        assert {path.name for path in (point / "etc").iterdir()} == {"passwd"}
        assert (point / "etc/passwd").read_text() == f"user:x:{UID}:{GID}::/:/bin/false\n"
        for directory in (point, point / "etc", inside(point, place)):
            with pytest.raises(OSError, match=REFUSED):
                (directory / "new").touch()


def ask(fd: int, kind: int, path: str, more: bytes = b"") -> int:
    """Send one request in the SFTP protocol and give the type of the answer."""
    name = path.encode()
    body = bytes([kind]) + b"\0\0\0\1" + len(name).to_bytes(4, "big") + name + more
    with socket.socket(fileno=os.dup(fd)) as connection:
        connection.sendall(len(body).to_bytes(4, "big") + body)
        size = int.from_bytes(connection.recv(4, socket.MSG_WAITALL), "big")
        answer = connection.recv(size, socket.MSG_WAITALL)
    return answer[0]


SFTP_STAT, SFTP_OPEN, SFTP_STATUS, SFTP_HANDLE, SFTP_ATTRS = 17, 3, 101, 102, 105
READ = (1).to_bytes(4, "big") + bytes(4)


def test_a_hostile_client_does_not_leave_through_links_or_dots(place: Path) -> None:
    (place / "work/absolute").symlink_to(place / "secret")
    (place / "work/relative").symlink_to("../secret")
    (place / "work/root").symlink_to("/")
    (place / "work/own").write_text("x")
    with start_share([ShareDir(path=place / "work")], account=USER) as fd:
        with socket.socket(fileno=os.dup(fd)) as connection:
            connection.sendall(b"\0\0\0\5\1\0\0\0\3")
            assert connection.recv(1 << 16)[4] == 2
        # What sshfs would not ask, since it resolves links itself.
        for path in ("absolute", "relative", "root/etc/shadow", "../secret", "../../../etc/shadow"):
            asked = f"{place}/work/{path}"
            assert ask(fd, SFTP_OPEN, asked, READ) == SFTP_STATUS, path
            assert ask(fd, SFTP_STAT, asked) == SFTP_STATUS, path
        assert ask(fd, SFTP_OPEN, f"{place}/work/own", READ) == SFTP_HANDLE
        assert ask(fd, SFTP_OPEN, "/proc/self/mem", READ) == SFTP_STATUS
        assert ask(fd, SFTP_STAT, f"{place}/work/../work/own") == SFTP_ATTRS


def test_the_server_has_no_rights_and_no_company(place: Path) -> None:
    with share_of(place):
        (pid,) = [pid for pid in descendants(os.getpid()) if name_of(pid) == "sftp-server"]
        status = dict(
            line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines()
        )
        assert status["Uid"].split() == [str(UID)] * 4
        assert status["Gid"].split() == [str(GID)] * 4
        assert set(status["Groups"].split()) == {str(GID), str(EXTRA_GID)}
        assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == 0
        assert status["NoNewPrivs"] == "1"
        for kind in ("mnt", "pid", "ipc", "net", "uts"):
            ours = os.readlink(f"/proc/self/ns/{kind}")
            assert os.readlink(f"/proc/{pid}/ns/{kind}") != ours
        assert sorted(os.listdir(f"/proc/{pid}/fd")) == ["0", "1", "2"]


def name_of(pid: int) -> str:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return ""


def test_roots_own_share_keeps_only_the_rights_over_files(place: Path) -> None:
    with share_of(place, account=None) as point:
        (pid,) = [pid for pid in descendants(os.getpid()) if name_of(pid) == "sftp-server"]
        status = Path(f"/proc/{pid}/status").read_text()
        assert "CapEff:\t000000000000001f" in status
        program = inside(point, Path(find_server()))
        with pytest.raises(OSError, match=REFUSED):
            # Would change nothing, were it let through.
            os.chmod(program, program.stat().st_mode & 0o7777)
        (inside(point, place / "work") / "by-root").touch()
    assert (place / "work/by-root").stat().st_uid == 0


def test_a_group_opens_what_it_should(place: Path) -> None:
    project = place / "project"
    project.mkdir()
    os.chown(project, 0, EXTRA_GID)
    os.chmod(project, 0o770)
    with share_of(place, names=("project",)) as point:
        (inside(point, project) / "report").write_text("x")
    assert (project / "report").stat().st_uid == UID


def test_a_directory_behind_a_closed_door_is_not_opened_by_roots_help(place: Path) -> None:
    behind = place / "closed/behind"
    behind.mkdir(parents=True)
    os.chmod(place / "closed", 0o700)
    with (
        pytest.raises(Denied, match="this user may not enter it"),
        start_share([ShareDir(path=behind)], account=USER),
    ):
        pass


@pytest.mark.parametrize("name", ["absent", "secret"])
def test_what_is_no_directory_is_not_shared(place: Path, name: str) -> None:
    with (
        pytest.raises(Missing, match=f"cannot share .*/{name}: no such directory"),
        start_share([ShareDir(path=place / name)], account=USER),
    ):
        pass


def test_a_directory_with_a_proc_in_it_is_not_shared(place: Path) -> None:
    (place / "work/proc").mkdir()
    subprocess.run(["mount", "-t", "proc", "proc", str(place / "work/proc")], check=True)
    try:
        with (
            pytest.raises(Invalid, match="work/proc is of type proc"),
            start_share([ShareDir(path=place / "work")], account=USER),
        ):
            pass
    finally:
        subprocess.run(["umount", str(place / "work/proc")], check=True)


def test_a_mount_beneath_a_read_only_directory_is_read_only_too(place: Path) -> None:
    (place / "reference/disk").mkdir()
    target = str(place / "reference/disk")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=777", "tmpfs", target], check=True)
    try:
        with share_of(place) as point:
            there = inside(point, place / "reference/disk")
            assert there.is_dir()
            with pytest.raises(OSError, match=REFUSED):
                (there / "new").touch()
        assert not os.listdir(target)
    finally:
        subprocess.run(["umount", target], check=True)


def test_names_of_any_bytes_can_be_shared(place: Path) -> None:
    odd = place / os.fsdecode(b"a b\\040\n\xff")
    odd.mkdir()
    os.chown(odd, UID, GID)
    (odd / "x").write_text("found")
    with share_of(place, names=(odd.name,)) as point:
        assert (inside(point, odd) / "x").read_text() == "found"


def test_a_given_connection_is_served(place: Path) -> None:
    port, guest = socket.socketpair()
    with guest, port:
        port.setblocking(False)
        with start_share([ShareDir(path=place / "work")], account=USER, port=port) as fd:
            assert fd == port.fileno()
            port.close()
            with mounted(guest.fileno(), place / "mnt") as point:
                (inside(point, place / "work") / "x").touch()
    assert (place / "work/x").exists()


def test_a_plain_user_can_share_too(place: Path) -> None:
    near, far = socket.socketpair()

    def serve(channel: socket.socket) -> None:
        become(UID, GID)
        # A change of uid closes /proc/self to the process itself; a login's exec opens it again.
        show_in_proc()
        directories = [
            ShareDir(path=place / "work"),
            ShareDir(path=place / "reference", read_only=True),
        ]
        with start_share(directories, port=far):
            report(channel)
            wait_for_end(channel)

    with near, far, forked(serve, name="plain user", keep=[far.fileno()]) as child:
        child.receive()
        far.close()
        with mounted(near.fileno(), place / "mnt") as point:
            (inside(point, place / "work") / "x").write_text("x")
            assert {path.name for path in inside(point, place).iterdir()} == {"work", "reference"}
            with pytest.raises(OSError, match=REFUSED):
                (inside(point, place / "reference") / "x").touch()
    assert (place / "work/x").stat().st_uid == UID


@pytest.mark.parametrize("how", ["closed", "killed"])
def test_nothing_stays(place: Path, how: str) -> None:
    def client(channel: socket.socket) -> None:
        with start_share([ShareDir(path=place / "work")], account=USER):
            report(channel)
            wait_for_end(channel)

    with forked(client, name="client") as child:
        child.receive()
        pids = descendants(child.pid)
        assert {"sftp-server"} <= {name_of(pid) for pid in pids}
        if how == "killed":
            os.kill(child.pid, signal.SIGKILL)
            wait_until(lambda: all(map(gone, pids)), "the server to end with its maker")
    assert all(map(gone, pids))


def test_the_server_ends_when_the_machine_closes_its_port(place: Path) -> None:
    port, guest = socket.socketpair()
    with port, start_share([ShareDir(path=place / "work")], account=USER, port=port):
        port.close()
        (pid,) = [pid for pid in descendants(os.getpid()) if name_of(pid) == "sftp-server"]
        guest.close()
        wait_until(lambda: gone(pid), "the server to end with the connection")
    assert gone(pid)


def test_what_is_sent_to_the_job_ends_no_share(place: Path) -> None:
    """Batch systems signal all processes of a job: they find them by group or control group."""
    before = set(descendants(os.getpid()))
    with start_share([ShareDir(path=place / "work")], account=USER) as fd:
        servers = set(descendants(os.getpid())) - before
        assert len(servers) >= 2
        with mounted(fd, place / "mnt") as mount:
            for pid in servers:
                for which in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM, signal.SIGXCPU):
                    os.kill(pid, which)
            # One that heeds them ends when it is given a processor, which a round trip allows for.
            (mount / str(place / "work").lstrip("/") / "file").write_text("there")
            assert not any(map(gone, servers))
    assert (place / "work/file").read_text() == "there"
    wait_until(lambda: all(map(gone, servers)), "the servers to end")
