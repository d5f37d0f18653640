"""The work directory on its way in."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mayfly.engine.session.fake_agent import FakeAgent
from mayfly.engine.session.notes import Notes
from mayfly.engine.session.openat import Tree
from mayfly.engine.session.send import Source, check_workdir, open_tree, survey
from mayfly.errors import Denied, Invalid, Missing
from mayfly.guest.tree import Entry, EntryParser, Type
from tests.unit.engine.sessions import run, workdir


@pytest.fixture
def top(tmp_path: Path) -> Path:
    path = tmp_path / "work"
    path.mkdir(mode=0o750)
    return path


class Sending:
    """A source on a directory, and what comes out of it."""

    def __init__(self, top: Path) -> None:
        self.notes = Notes()
        self.tree = Tree(top)
        self.source = Source(self.tree, survey(workdir(top), self.tree), self.notes)

    def entries_after_start(self) -> int:
        """Give how many bytes of content come in all, when some were read already."""
        while not self.source.finished:
            self.source.read(1000)
        return self.source.size_bytes

    def entries(self, limit: int = 1000) -> list[tuple[Entry, bytes]]:
        parser = EntryParser()
        entries: list[tuple[Entry, bytes]] = []
        while not self.source.finished:
            data = self.source.read(limit)
            assert len(data) <= limit
            for piece in parser.feed(data):
                if isinstance(piece, Entry):
                    entries.append((piece, b""))
                else:
                    entries[-1] = (entries[-1][0], entries[-1][1] + piece)
        assert parser.ended
        return entries


@pytest.fixture
def sending(top: Path) -> Iterator[Sending]:
    (top / "one").write_bytes(b"1")
    made = Sending(top)
    yield made
    made.tree.close()


def send(top: Path) -> tuple[list[tuple[Entry, bytes]], tuple[str, ...]]:
    made = Sending(top)
    try:
        return made.entries(), made.notes.lines()
    finally:
        made.tree.close()


def test_everything_travels_with_its_properties_parents_first_in_order(top: Path) -> None:
    (top / "b").mkdir()
    (top / "b" / "x").write_bytes(b"content")
    (top / "b" / "x").chmod(0o640)
    os.utime(top / "b" / "x", ns=(5, 1_700_000_000_123_456_789))
    (top / "a").symlink_to("b/../../outside")
    os.mkfifo(top / "c")
    (top / "b-").write_bytes(b"")
    os.makedirs(top / "d" / "e")
    hard = os.fsdecode(b"\xff\n \x1b")
    (top / hard).write_bytes(b"hard")

    entries, notes = send(top)

    assert notes == ()
    assert [(entry.type, entry.path) for entry, _ in entries] == [
        (Type.DIRECTORY, ""),
        (Type.LINK, "a"),
        (Type.DIRECTORY, "b"),
        (Type.FILE, "b/x"),
        (Type.FILE, "b-"),
        (Type.FIFO, "c"),
        (Type.DIRECTORY, "d"),
        (Type.DIRECTORY, "d/e"),
        (Type.FILE, hard),
        (Type.END, ""),
    ]
    assert entries[0][0].mode == 0o750
    assert entries[1][0].target == "b/../../outside"
    assert entries[3] == (
        Entry(type=Type.FILE, path="b/x", mode=0o640, size=7, mtime_ns=1_700_000_000_123_456_789),
        b"content",
    )


def test_contents_are_binary_clean_and_cut_anyhow(top: Path) -> None:
    data = os.urandom(300_001)
    (top / "big").write_bytes(data)
    made = Sending(top)

    assert made.entries(limit=7777)[1][1] == data
    assert made.source.size_bytes == len(data)
    made.tree.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes device nodes")
def test_sockets_and_devices_are_named(top: Path) -> None:
    (top / "kept").write_bytes(b"")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(top / "sock"))
        for number in range(4):
            os.mknod(top / f"null{number}", 0o020666, os.makedev(1, 3))
        entries, notes = send(top)

    assert [entry.path for entry, _ in entries] == ["", "kept", ""]
    devices = ", ".join(f"null{number} (character device)" for number in range(3))
    assert notes == (f"not copied into the machine: {devices} and 2 more",)


def test_what_cannot_be_read_is_named(top: Path) -> None:
    (top / "secret").write_bytes(b"x")
    (top / "closed").mkdir()
    (top / "closed" / "in").write_bytes(b"x")
    (top / "open").write_bytes(b"y")

    entries, notes = as_nobody(top)

    assert [entry.path for entry, _ in entries] == ["", "open", ""]
    assert notes == (
        "not copied into the machine: closed (Permission denied), secret (Permission denied)",
    )


def as_nobody(top: Path) -> tuple[list[tuple[Entry, bytes]], tuple[str, ...]]:
    (top / "secret").chmod(0)
    (top / "closed").chmod(0)
    for path in (top, *top.parents):
        if path.stat().st_uid == os.geteuid() and path != Path("/"):
            path.chmod(path.stat().st_mode | 0o055)
    if os.geteuid() != 0:
        return send(top)
    os.seteuid(65534)
    try:
        return send(top)
    finally:
        os.seteuid(0)


def test_directory_that_is_not_there_or_closed(top: Path) -> None:
    with pytest.raises(Missing, match="No such file"):
        check_workdir(workdir(top / "nonesuch"))
    (top / "file").write_bytes(b"")
    with pytest.raises(Denied, match="Not a directory"):
        check_workdir(workdir(top / "file"))


def test_limits_are_checked_before_anything_starts(top: Path) -> None:
    (top / "big").write_bytes(bytes(2000))
    (top / "dir").mkdir()

    assert check_workdir(workdir(top, limit_bytes=2000, limit_files=2)).size_bytes == 2000
    with pytest.raises(Invalid) as bytes_error:
        check_workdir(workdir(top, limit_bytes=1999))
    assert "holds 2.0 KiB in 2 files; the limit is 2.0 KiB and 1000 files" in str(bytes_error)
    assert "--share" in bytes_error.value.hint
    assert "--no-workdir" in bytes_error.value.hint
    assert "--workdir-limit" in bytes_error.value.hint
    with pytest.raises(Invalid, match="holds more than 1 files"):
        check_workdir(workdir(top, limit_files=1))


def test_run_refuses_a_directory_over_the_limit(top: Path) -> None:
    (top / "big").write_bytes(bytes(2000))
    with pytest.raises(Invalid, match="the limit is"):
        run(lambda agent: agent.next(), workdir=workdir(top, limit_bytes=10))


def become_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("/etc/passwd")


def become_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def become_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("change", "sent", "said"),
    [
        (lambda path: path.write_bytes(b"xyz"), b"xyz", ""),
        (lambda path: path.unlink(), None, "No such file or directory"),
        (become_link, None, "symbolic link"),
        (become_fifo, None, "it became something else"),
        (become_directory, None, "it became something else"),
    ],
)
def test_file_that_changes_between_survey_and_sending(
    sending: Sending, top: Path, change: Callable[[Path], object], sent: bytes | None, said: str
) -> None:
    change(top / "one")

    entries = sending.entries()

    assert [content for entry, content in entries if entry.path == "one"] == (
        [sent] if sent is not None else []
    )
    assert said in "".join(sending.notes.lines())


def test_link_that_became_a_file_is_left_out(top: Path) -> None:
    (top / "link").symlink_to("x")
    made = Sending(top)
    (top / "link").unlink()
    (top / "link").write_bytes(b"secret")
    assert [entry.path for entry, _ in made.entries()] == ["", ""]
    made.tree.close()


def test_directory_that_became_a_link_is_not_followed(top: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "in").write_bytes(b"secret")
    (top / "dir").mkdir()
    (top / "dir" / "in").write_bytes(b"mine")
    made = Sending(top)
    (top / "dir" / "in").unlink()
    (top / "dir").rmdir()
    (top / "dir").symlink_to(tmp_path / "other")

    entries = made.entries()

    assert [entry.path for entry, _ in entries] == ["", "dir", ""]
    assert not any(content for _, content in entries)
    made.tree.close()


@pytest.mark.parametrize("size", [100, 500_000])
def test_file_that_shrinks_or_grows_while_it_is_read(top: Path, size: int) -> None:
    (top / "log").write_bytes(b"a" * 300_000)
    made = Sending(top)
    made.source.read(200)
    os.truncate(top / "log", size)

    assert made.entries_after_start() == 300_000
    assert "changed while being copied into the machine: log" in made.notes.lines()[0]
    made.tree.close()


def test_progress_of_a_large_directory(top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mayfly.engine.session.notes.QUIET_S", 0.0)
    monkeypatch.setattr("mayfly.engine.session.notes.INTERVAL_S", 0.0)
    (top / "big").write_bytes(bytes(3 << 20))

    def script(agent: FakeAgent) -> None:
        agent.start()
        agent.exit(0)
        agent.send_files((Entry(type=Type.FILE, path="new", size=2), b"12"))

    ran = run(script, workdir=workdir(top))

    assert "copying the work directory in (3.0 MiB of 3.0 MiB)" in ran.reports
    assert ran.reports[-1] == "work directory: 2 B in 1 files copied back"


def test_the_whole_way_in(top: Path) -> None:
    for number in range(200):
        (top / f"file{number:03}").write_bytes(os.urandom(number * 97))
    got: list[tuple[Entry, bytes]] = []

    def script(agent: FakeAgent) -> None:
        request = agent.request()
        assert request["workdir"] == {
            "path": "/work",
            "in": True,
            "out": False,
            "sync_delete": False,
        }
        got.extend(agent.files())
        agent.say("started", pid=1)
        agent.exit(0)

    assert run(script, workdir=workdir(top, copy_back=False)).result.code == 0
    contents = {entry.path: content for entry, content in got if entry.type is Type.FILE}
    assert contents == {path.name: path.read_bytes() for path in top.iterdir()}


def test_tree_opened_by_a_link_of_the_user(top: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(top)
    tree = open_tree(workdir(tmp_path / "link"))
    tree.close()
    assert check_workdir(workdir(tmp_path / "link")).files == 0
