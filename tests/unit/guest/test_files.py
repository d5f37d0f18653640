"""The work directory through a real agent: in, changed by a job, and out."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from mayfly.guest.framing import Kind, Stream, pack
from mayfly.guest.tree import Entry, Type, pack_entry
from tests.unit.guest.host import Agent, Peer, assert_soon

TIME = 1_600_000_000_123_456_789
END = (Entry(type=Type.END), b"")


def file(path: str, content: bytes = b"", *, mode: int = 0o644) -> tuple[Entry, bytes]:
    entry = Entry(type=Type.FILE, path=path, mode=mode, size=len(content), mtime_ns=TIME)
    return entry, content


def folder(path: str, *, mode: int = 0o755) -> tuple[Entry, bytes]:
    return Entry(type=Type.DIRECTORY, path=path, mode=mode, mtime_ns=TIME), b""


def link(path: str, target: str) -> tuple[Entry, bytes]:
    return Entry(type=Type.LINK, path=path, mode=0o777, mtime_ns=TIME, target=target), b""


def fifo(path: str) -> tuple[Entry, bytes]:
    return Entry(type=Type.FIFO, path=path, mode=0o600, mtime_ns=TIME), b""


def stream(*entries: tuple[Entry, bytes]) -> bytes:
    return b"".join(pack_entry(entry) + content for entry, content in (*entries, END))


TREE = (
    folder(""),
    file("a.txt", b"alpha"),
    folder("closed", mode=0o500),
    file("closed/inside", b"inside"),
    folder("sub"),
    file("sub/b.bin", bytes(300_000)),
    file("sub/\udcff odd\n", b"odd"),
    file("tool", b"#!/bin/sh\nexit 5\n", mode=0o755),
    link("sub/up", "../a.txt"),
    fifo("pipe"),
)


def run(
    session: Peer, path: Path, script: str, *entries: tuple[Entry, bytes], delete: bool = False
) -> dict[str, tuple[Entry, bytes]]:
    """Run a script in a work directory; give what came back, by type and path."""
    workdir = {"path": str(path), "in": bool(entries), "out": True, "sync_delete": delete}
    session.start("sh", "-c", script, cwd=str(path), workdir=workdir)
    if entries:
        session.write(Stream.FILES_IN, stream(*entries))
        session.end(Stream.FILES_IN)
    session.end(Stream.STDIN)
    session.until(session.over)
    assert session.messages[-2]["type"] == "exit", session.messages
    assert session.ended[-1] == Stream.FILES_OUT
    found = session.files()
    assert found.pop() == END
    keys = [f"{entry.type.value} {entry.path}" for entry, _ in found]
    assert len(set(keys)) == len(keys)
    return dict(zip(keys, found, strict=True))


def test_files_arrive_as_they_were(session: Peer, tmp_path: Path) -> None:
    top = tmp_path / "new/work"
    assert run(session, top, "./tool; echo $?; find -print0 | tr -cd '\\0' | wc -c", *TREE) == {}
    assert session.text().split() == ["5", "10"]
    for entry, content in TREE:
        path = os.fsencode(top) + b"/" + os.fsencode(entry.path)
        status = os.lstat(path)
        if entry.type is not Type.FIFO:
            assert status.st_mtime_ns == TIME, path
        assert stat.S_IMODE(status.st_mode) == entry.mode
        if entry.type is Type.FILE:
            with open(path, "rb") as opened:
                assert opened.read() == content
    assert os.readlink(top / "sub/up") == "../a.txt"
    assert stat.S_ISFIFO(os.stat(top / "pipe").st_mode)


def test_only_what_changed_comes_back(session: Peer, tmp_path: Path) -> None:
    script = """
        echo more >> a.txt
        chmod 600 tool
        mkdir -p new/deep
        echo fresh > new/deep/file
        ln -s nowhere new/link
        mkfifo new/fifo
        touch sub/b.bin
        rm -r closed sub/up
    """
    found = run(session, tmp_path, script, *TREE)
    assert list(found) == [
        "f a.txt",
        "d new",
        "d new/deep",
        "f new/deep/file",
        "p new/fifo",
        "l new/link",
        "f sub/b.bin",
        "f tool",
    ]
    assert found["f a.txt"][1] == b"alphamore\n"
    assert found["f new/deep/file"][1] == b"fresh\n"
    assert found["l new/link"][0].target == "nowhere"
    assert found["f tool"][0].mode == 0o600
    assert found["f tool"][0].mtime_ns == TIME
    assert found["f sub/b.bin"] == (
        Entry(
            type=Type.FILE,
            path="sub/b.bin",
            mode=0o644,
            size=300_000,
            mtime_ns=(tmp_path / "sub/b.bin").stat().st_mtime_ns,
        ),
        bytes(300_000),
    )


def test_the_same_size_and_time_do_not_hide_a_change(session: Peer, tmp_path: Path) -> None:
    script = "cp -p a.txt keep; printf ALPHA > a.txt; touch -r keep a.txt; rm keep"
    assert list(run(session, tmp_path, script, *TREE)) == ["f a.txt"]


def test_deletions_come_when_they_are_wanted(session: Peer, tmp_path: Path) -> None:
    script = "rm -r closed; rm -r sub; echo file > sub"
    found = run(session, tmp_path, script, *TREE, delete=True)
    assert list(found) == [
        "x sub/\udcff odd\n",
        "x sub/up",
        "x sub/b.bin",
        "x closed/inside",
        "x closed",
        "f sub",
    ]


def test_what_is_no_file_is_named(session: Peer, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        tmp_path.joinpath("w").mkdir()
        listener.bind(str(tmp_path / "w/socket"))
        found = run(session, tmp_path / "w", "true", folder(""))
    assert list(found) == ["n socket"]
    assert found["n socket"][0].target == "a socket: not copied"


def test_without_files_in_everything_is_new(session: Peer, tmp_path: Path) -> None:
    found = run(session, tmp_path / "out", "echo result > result")
    assert list(found) == ["d ", "f result"]


def test_a_directory_that_is_gone_is_told(session: Peer, tmp_path: Path) -> None:
    found = run(session, tmp_path / "w", "rm -r ../w", folder(""), file("a"), delete=True)
    assert list(found) == ["n "]
    assert found["n "][0].target == "cannot be entered: No such file or directory"


def test_existing_files_are_replaced(session: Peer, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("old and longer")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/up").write_text("no link")
    outside = tmp_path.parent / "outside"
    outside.write_text("safe")
    (tmp_path / "tool").symlink_to(outside)
    assert run(session, tmp_path, "cat a.txt", *TREE) == {}
    assert session.text() == "alpha"
    assert outside.read_text() == "safe"


def test_many_files_and_bytes(session: Peer, tmp_path: Path) -> None:
    many = [file(f"file-{number:04}", b"x" * number) for number in range(2000)]
    big = file("big", os.urandom(6 << 20))
    found = run(session, tmp_path, "touch *", folder(""), *many, big)
    assert len(found) == 2001
    assert found["f big"][1] == big[1]
    assert all(found[f"f {entry.path}"][1] == content for entry, content in many)


def test_files_and_stdin_travel_together(session: Peer, tmp_path: Path) -> None:
    workdir = {"path": str(tmp_path), "in": True, "out": True}
    session.start("cat", cwd=str(tmp_path), workdir=workdir)
    session.write(Stream.STDIN, b"early")
    session.write(Stream.FILES_IN, stream(folder(""), file("a", b"a")))
    session.write(Stream.STDIN, b" and late")
    session.end(Stream.STDIN)
    session.until(session.over)
    assert session.text() == "early and late"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (stream(file("../escape", b"x")), "'../escape' leaves the tree"),
        (stream(file("/etc/escape", b"x")), "'/etc/escape' leaves the tree"),
        (stream(file("missing/file", b"x")), "missing/file: No such file or directory"),
        (stream((Entry(type=Type.DELETED, path="a"), b"")), "the stream of files deletes"),
        (b"\xff\xff\xff\xff", "an entry's header of 4294967295 bytes exceeds"),
        (b"", "the stream of files ended too early"),
        (stream(file("a", b"12345"))[:-30], "the stream of files ended too early"),
    ],
)
def test_files_that_cannot_be_unpacked(
    session: Peer, tmp_path: Path, data: bytes, reason: str
) -> None:
    session.start("true", workdir={"path": str(tmp_path), "in": True, "out": True})
    session.write(Stream.FILES_IN, data)
    session.end(Stream.FILES_IN)
    session.until(session.over)
    failed = session.messages[-2]
    assert (failed["type"], failed["code"]) == ("failed", 125)
    assert reason in failed["reason"]


def test_a_file_where_the_directory_should_be(session: Peer, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    session.start("true", workdir={"path": f"{tmp_path}/file", "in": True, "out": False})
    session.until(session.over)
    assert "Not a directory" in session.messages[-2]["reason"]


def test_a_host_that_wants_no_files_gets_no_more(session: Peer, tmp_path: Path) -> None:
    session.generous = False
    workdir = {"path": str(tmp_path), "in": False, "out": True}
    script = "head -c 30000000 /dev/zero > big"
    session.start("sh", "-c", script, cwd=str(tmp_path), workdir=workdir)
    session.until(lambda: len(session.received[Stream.FILES_OUT]) > 100_000)
    session.raw(pack(Kind.CLOSE, Stream.FILES_OUT))
    session.until(session.over)
    assert session.ended[-1] == Stream.FILES_OUT


def test_a_lost_host_stops_the_copying(session: Peer, agent: Agent, tmp_path: Path) -> None:
    session.start("true", workdir={"path": str(tmp_path), "in": True, "out": True})
    session.write(Stream.FILES_IN, stream(folder(""), file("a", bytes(100_000)))[:50_000])
    session.idle(0.05)
    assert agent.children()
    session.sync()
    assert_soon(lambda: not agent.children())
