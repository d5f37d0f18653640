"""Who is at the other end of a socket, as the kernel tells."""

from __future__ import annotations

import grp
import os
import pwd
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mayfly.engine.linux import start_time
from mayfly.errors import Denied
from mayfly.host.peer import Accounts, Peer, account_of, peer_of
from mayfly.model import Group

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")

CLIENT = """
import os, socket, sys
path, uid, gid, groups = sys.argv[1:]
if uid:
    os.setgroups(range(1000, 1000 + int(groups)))
    os.setresgid(int(gid), int(gid), int(gid))
    os.setresuid(int(uid), int(uid), int(uid))
connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
connection.connect(path)
connection.recv(1)
"""


class Client:
    """A process that connects, as whom it is told."""

    def __init__(self, folder: Path, uid: str = "", gid: str = "", groups: int = 0) -> None:
        path = str(folder / "sock")
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
            listener.bind(path)
            folder.chmod(0o755)
            os.chmod(path, 0o666)
            listener.listen()
            argv = [sys.executable, "-I", "-c", CLIENT, path, uid, gid, str(groups)]
            self.process = subprocess.Popen(argv)
            self.connection = listener.accept()[0]

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def folder() -> Iterator[Path]:
    """A directory that everybody may enter, unlike pytest's own."""
    path = Path(subprocess.check_output(["mktemp", "-d"], text=True).strip())
    yield path
    subprocess.run(["rm", "-r", path], check=True)


def test_a_peer_is_the_process_that_connected(folder: Path) -> None:
    client = Client(folder)
    with client.connection as connection:
        found = peer_of(connection)
        assert (found.pid, found.uid, found.gid) == (client.process.pid, os.geteuid(), os.getegid())
        assert found.started == start_time(client.process.pid)
        assert set(found.gids) == set(os.getgroups())
        client.end()


@as_root
@pytest.mark.parametrize("count", [0, 1, 64, 65, 300, 5000])
def test_all_groups_of_a_peer_are_known_however_many(folder: Path, count: int) -> None:
    client = Client(folder, "4321", "5432", count)
    with client.connection as connection:
        found = peer_of(connection)
        assert (found.uid, found.gid) == (4321, 5432)
        assert found.gids == tuple(range(1000, 1000 + count))
        client.end()


def test_a_peer_that_has_ended_is_refused(folder: Path) -> None:
    client = Client(folder)
    with client.connection as connection:
        client.end()
        with pytest.raises(Denied, match=f"pid {client.process.pid}"):
            peer_of(connection)


# --- accounts ------------------------------------------------------------------------------------


def somebody(uid: int, gid: int, *gids: int) -> Peer:
    return Peer(pid=1, uid=uid, gid=gid, gids=gids, started=1)


def test_an_account_has_the_names_of_the_system_and_the_groups_of_the_kernel() -> None:
    account = account_of(somebody(0, 0, 1, 0, 2))
    entry = pwd.getpwuid(0)
    assert (account.name, account.uid, account.gid) == (entry.pw_name, 0, 0)
    assert (account.home, account.shell) == (entry.pw_dir, entry.pw_shell)
    names = [Group(name=grp.getgrgid(gid).gr_name, gid=gid) for gid in (0, 1, 2)]
    assert account.groups == tuple(names)


def test_numbers_without_a_name_get_one() -> None:
    account = account_of(somebody(3_999_999, 3_999_998, 3_999_997))
    assert (account.name, account.home) == ("user3999999", "/home/user3999999")
    assert account.shell == "/bin/sh"
    assert [group.name for group in account.groups] == ["group3999998", "group3999997"]


def test_a_made_up_name_is_nobody_elses(monkeypatch: pytest.MonkeyPatch) -> None:
    root, wheel = pwd.getpwuid(0), grp.getgrgid(0)

    def user(name: str) -> object:
        return {"user3999999": root}[name]

    def group(name: str) -> object:
        return {"group3999998": wheel, "group3999998x": wheel}[name]

    monkeypatch.setattr(pwd, "getpwnam", user)
    monkeypatch.setattr(grp, "getgrnam", group)
    account = account_of(somebody(3_999_999, 3_999_998))
    assert account.name == "user3999999x"
    assert account.groups == (Group(name="group3999998xx", gid=3_999_998),)


def test_accounts_are_remembered_for_a_while_by_all_their_numbers() -> None:
    accounts = Accounts(max_age_s=10)
    one = somebody(0, 0, 1)
    account = account_of(one)
    assert accounts.get(one, now=100) is None
    accounts.put(one, account, now=100)
    assert accounts.get(one, now=109.9) is account
    later = Peer(pid=99, uid=0, gid=0, gids=(1,), started=7)
    assert accounts.get(later, now=105) is account
    assert accounts.get(one, now=110) is None
    assert accounts.get(one, now=99) is None
    for other in (somebody(1, 0, 1), somebody(0, 1, 1), somebody(0, 0), somebody(0, 0, 1, 2)):
        assert accounts.get(other, now=105) is None


def test_no_more_accounts_are_remembered_than_allowed() -> None:
    accounts = Accounts(most=3)
    peers = [somebody(uid, 0) for uid in range(5)]
    account = account_of(peers[0])
    for one in peers[:3]:
        accounts.put(one, account, now=0)
    # Put in again: not the oldest any more.
    accounts.put(peers[0], account, now=1)
    for one in peers[3:]:
        accounts.put(one, account, now=1)
    known = [one.uid for one in peers if accounts.get(one, now=1)]
    assert known == [0, 3, 4]
