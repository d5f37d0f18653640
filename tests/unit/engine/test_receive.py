"""The work directory on its way back, from an honest machine to a user who works on."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from mayfly.engine.session.fake_agent import FakeAgent
from mayfly.guest.framing import Stream
from mayfly.guest.tree import Entry, Type
from tests.unit.engine.receiving import Receiving, entry, file, link
from tests.unit.engine.sessions import run, workdir

BESIDE = ".mayfly-from-machine"


@pytest.fixture(params=[False, True], ids=["openat2", "by steps"])
def here(request: pytest.FixtureRequest, tmp_path: Path) -> Receiving:
    return Receiving(tmp_path, walk=request.param)


def names(here: Receiving) -> list[str]:
    return sorted(os.listdir(here.path))


# --- what simply comes ---------------------------------------------------------------------------


def test_new_things_appear_with_their_properties(here: Receiving) -> None:
    said = here.receive(
        entry(Type.DIRECTORY, "dir", mode=0o510),
        file("dir/script", b"#!/bin/sh\n", mode=0o4751),
        link("dir/link", "../dir/script"),
        file("empty", b""),
        file(os.fsdecode(b"\xff\n"), b"hard"),
    )

    assert said == ()
    directory = os.stat(here.path / "dir")
    assert (stat.S_IMODE(directory.st_mode), directory.st_mtime_ns) == (0o510, 10**18)
    script = os.stat(here.path / "dir/script")
    assert (stat.S_IMODE(script.st_mode), script.st_mtime_ns) == (0o751, 10**18)
    assert (here.path / "dir/link").read_bytes() == b"#!/bin/sh\n"
    assert (here.path / "empty").read_bytes() == b""
    assert (here.path / os.fsdecode(b"\xff\n")).read_bytes() == b"hard"
    here.assert_contained()


def test_changed_file_is_replaced_not_written_into(here: Receiving) -> None:
    old = here.path / "file"
    old.write_bytes(b"old content")
    with old.open("rb") as reader:
        assert here.receive(file("file", b"new")) == ()
        assert reader.read() == b"old content"
    assert old.read_bytes() == b"new"


def test_same_path_twice_is_no_conflict(here: Receiving) -> None:
    (here.path / "file").write_bytes(b"old")

    assert (
        here.receive(file("file", b"one"), file("file", b"two"), link("l", "a"), link("l", "b"))
        == ()
    )
    assert (here.path / "file").read_bytes() == b"two"
    assert os.readlink(here.path / "l") == "b"


def test_large_file(here: Receiving) -> None:
    data = os.urandom(3_000_000)
    here.receive(file("big", data))
    assert (here.path / "big").read_bytes() == data


def test_special_bits_of_a_directory_of_the_user_stay(here: Receiving) -> None:
    (here.path / "shared").mkdir()
    (here.path / "shared").chmod(0o2775)
    here.receive(
        entry(Type.DIRECTORY, "shared", mode=0o1700), entry(Type.DIRECTORY, "", mode=0o750)
    )
    assert stat.S_IMODE(os.stat(here.path / "shared").st_mode) == 0o2700
    assert stat.S_IMODE(os.stat(here.path).st_mode) == 0o750


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_owner_of_a_replaced_file_stays(here: Receiving) -> None:
    (here.path / "file").write_bytes(b"old")
    os.chown(here.path / "file", 1234, 5678)
    here.receive(file("file", b"new", mode=0o640))
    status = os.stat(here.path / "file")
    assert (status.st_uid, status.st_gid, status.st_mode & 0o7777) == (1234, 5678, 0o640)


# --- what the user did meanwhile -----------------------------------------------------------------


def test_file_changed_on_both_sides_is_kept_and_ours_is_put_beside(here: Receiving) -> None:
    (here.path / "file").write_bytes(b"old")
    taking = here.begin()
    (here.path / "file").write_bytes(b"mine")
    (here.path / f"file{BESIDE}").write_bytes(b"also mine")
    here.feed(taking, file("file", b"one"), file("file", b"two"))
    taking.close()

    assert {name: (here.path / name).read_bytes() for name in names(here)} == {
        "file": b"mine",
        f"file{BESIDE}": b"also mine",
        f"file{BESIDE}.1": b"one",
        f"file{BESIDE}.2": b"two",
    }
    words = "changed here meanwhile and kept; the machine's version is beside it"
    assert here.notes.lines() == (f"{words}: file (file{BESIDE}.1), file (file{BESIDE}.2)",)


def touch(path: Path) -> None:
    os.utime(path, ns=(0, 1))


def replace_with_equal(path: Path) -> None:
    """Another file with the same size and time: only its number tells."""
    before = os.stat(path)
    path.rename(path.with_suffix(".old"))
    path.write_bytes(path.with_suffix(".old").read_bytes())
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def make_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("../canary/file")


def make_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def make_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize(
    "change", [touch, replace_with_equal, make_link, make_directory, make_fifo]
)
@pytest.mark.parametrize("arriving", [file("file"), link("file", "x")], ids=["file", "link"])
def test_every_change_of_the_user_counts(
    here: Receiving, change: Callable[[Path], None], arriving: bytes
) -> None:
    (here.path / "file").write_bytes(b"old")
    taking = here.begin()
    change(here.path / "file")
    here.before["tree/file"] = kept = here_look(here)
    here.feed(taking, arriving)
    taking.close()

    assert here_look(here) == kept
    assert os.path.lexists(here.path / f"file{BESIDE}")
    here.assert_contained()


def here_look(here: Receiving) -> tuple[object, ...]:
    status = os.lstat(here.path / "file")
    return (status.st_mode, status.st_ino, status.st_mtime_ns, status.st_size)


def test_file_that_appeared_on_both_sides(here: Receiving) -> None:
    taking = here.begin()
    (here.path / "new").write_bytes(b"mine")
    here.feed(taking, file("new", b"theirs"))
    taking.close()
    assert (here.path / "new").read_bytes() == b"mine"
    assert (here.path / f"new{BESIDE}").read_bytes() == b"theirs"


def test_file_that_the_user_deleted_comes_back_with_its_directory(here: Receiving) -> None:
    (here.path / "a/b").mkdir(parents=True)
    (here.path / "a/b/file").write_bytes(b"old")
    taking = here.begin()
    (here.path / "a/b/file").unlink()
    (here.path / "a/b").rmdir()
    (here.path / "a").rmdir()
    here.feed(taking, file("a/b/file", b"new"))
    taking.close()
    assert (here.path / "a/b/file").read_bytes() == b"new"
    assert here.notes.lines() == ()


def test_change_in_the_last_moment_is_seen(here: Receiving) -> None:
    """What counts is what stands there when the whole file has come."""
    (here.path / "file").write_bytes(b"old")
    taking = here.begin()
    stream = file("file", b"x" * 5000)
    here.feed(taking, stream[:3000])
    (here.path / "file").write_bytes(b"mine")
    here.feed(taking, stream[3000:])
    taking.close()
    assert (here.path / "file").read_bytes() == b"mine"
    assert (here.path / f"file{BESIDE}").read_bytes() == b"x" * 5000


def test_name_with_no_room_for_the_suffix(here: Receiving) -> None:
    name = "\u00e4" * 127 + "b"
    (here.path / name).write_bytes(b"old")
    taking = here.begin()
    (here.path / name).write_bytes(b"mine")
    here.feed(taking, file(name, b"new"))
    taking.close()
    assert (here.path / name).read_bytes() == b"mine"
    other = next(found for found in names(here) if found != name)
    assert other.endswith(BESIDE)
    assert len(os.fsencode(other)) == 255


# --- changes of kind -----------------------------------------------------------------------------


def test_file_became_a_directory_and_back(here: Receiving) -> None:
    (here.path / "a").write_bytes(b"old")
    (here.path / "b").mkdir()
    said = here.receive(entry(Type.DIRECTORY, "a"), file("a/in"), file("b", b"file"))
    assert said == ()
    assert (here.path / "a/in").read_bytes() == b"new"
    assert (here.path / "b").read_bytes() == b"file"


def test_directory_that_holds_something_is_not_replaced(here: Receiving) -> None:
    (here.path / "dir").mkdir()
    (here.path / "dir/in").write_bytes(b"mine")
    here.receive(file("dir", b"file"), link("dir", "x"))
    assert (here.path / "dir/in").read_bytes() == b"mine"
    assert (here.path / f"dir{BESIDE}").read_bytes() == b"file"
    assert os.readlink(here.path / f"dir{BESIDE}.1") == "x"


def test_directory_where_the_user_has_a_file_by_now(here: Receiving) -> None:
    """What the job put into it follows it to its other name."""
    taking = here.begin()
    (here.path / "out").write_bytes(b"mine")
    here.feed(
        taking,
        entry(Type.DIRECTORY, "out", mode=0o700),
        file("out/a", b"1"),
        entry(Type.DIRECTORY, "out/deep", mode=0o711),
        file("out/deep/b", b"2"),
        link("out/up", "../out/a"),
    )
    taking.close()
    beside = here.path / f"out{BESIDE}"
    assert (here.path / "out").read_bytes() == b"mine"
    assert ((beside / "a").read_bytes(), (beside / "deep/b").read_bytes()) == (b"1", b"2")
    assert stat.S_IMODE(os.stat(beside / "deep").st_mode) == 0o711
    assert os.readlink(beside / "up") == "../out/a"


# --- deletions -----------------------------------------------------------------------------------


def test_deletions_only_if_wanted(here: Receiving) -> None:
    (here.path / "file").write_bytes(b"old")
    said = here.receive(entry(Type.DELETED, "file"))
    assert said == ("refused from the machine: file (to delete what was not sent)",)
    assert names(here) == ["file"]


def test_deletions_of_what_is_still_as_it_was_sent(here: Receiving) -> None:
    (here.path / "dir/sub").mkdir(parents=True)
    for name in ("dir/sub/a", "dir/b", "changed", "gone"):
        (here.path / name).write_bytes(b"old")
    (here.path / "link").symlink_to("dir")
    os.mkfifo(here.path / "fifo")
    (here.path / "busy").mkdir()
    taking = here.begin(sync_delete=True)
    (here.path / "changed").write_bytes(b"mine")
    (here.path / "gone").unlink()
    (here.path / "busy/new").write_bytes(b"mine")
    paths = ["gone", "dir/sub/a", "dir/sub", "dir/b", "dir", "link", "fifo", "changed", "busy"]
    here.feed(taking, *(entry(Type.DELETED, path) for path in paths))
    taking.close()

    assert names(here) == ["busy", "changed"]
    assert here.notes.lines() == (
        "deleted in the machine, but changed here meanwhile: kept: changed, busy",
    )


@pytest.mark.parametrize("path", ["never", "", ".", "../canary/file", "dir/../file"])
def test_deletions_of_what_was_never_sent(here: Receiving, path: str) -> None:
    (here.path / "file").write_bytes(b"old")
    assert "refused" in here.receive(entry(Type.DELETED, path), sync_delete=True)[0]
    assert names(here) == ["file"]
    here.assert_contained()


# --- what goes wrong here ------------------------------------------------------------------------


def test_full_disk_is_named_and_the_rest_goes_on(
    here: Receiving, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here.path / "big").write_bytes(b"old")
    write = os.write

    def full(fd: int, data: memoryview) -> int:
        if len(data) > 500 or bytes(data).startswith(b"B"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(fd, data)

    monkeypatch.setattr(os, "write", full)
    said = here.receive(file("big", b"B" * 9000), file("small", b"s"))

    assert said == ("could not be written here: big (No space left on device)",)
    assert {name: (here.path / name).read_bytes() for name in names(here)} == {
        "big": b"old",
        "small": b"s",
    }
    here.assert_contained()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a user to become")
def test_directory_that_is_closed_to_us(here: Receiving) -> None:
    (here.path / "closed").mkdir(mode=0o555)
    here.path.chmod(0o777)
    # However deep a directory of a test lies: beneath the one that everybody may enter.
    for above in (here.path, *here.path.parents):
        if above == Path(tempfile.gettempdir()):
            break
        above.chmod(above.stat().st_mode | 0o055)
    os.seteuid(65534)
    try:
        said = here.receive(file("closed/a"), link("closed/b", "x"), file("open"))
    finally:
        os.seteuid(0)
    assert said == (
        "could not be written here: closed/a (Permission denied), closed/b (Permission denied)",
    )
    assert names(here) == ["closed", "open"]


def test_what_could_not_be_read_in_the_machine_is_told(here: Receiving) -> None:
    note = Entry(type=Type.NOTE, path="x\x1b[2J", target="Permission\ndenied")
    said = here.receive(entry(note.type, note.path, target=note.target))
    assert said == ("could not be read in the machine: x\\x1b[2J (Permission\\ndenied)",)


# --- limits --------------------------------------------------------------------------------------


def test_too_many_bytes(here: Receiving) -> None:
    said = here.receive(
        file("a", b"1" * 600), file("b", b"2" * 600), file("c", b"3" * 300), limit_bytes=1000
    )
    assert said == ("not copied back, over the limit (--workdir-limit): b",)
    assert names(here) == ["a", "c"]


def test_too_many_files(here: Receiving) -> None:
    said = here.receive(*(file(f"f{number:02}") for number in range(20)), limit_files=5)
    assert names(here) == ["f00", "f01", "f02", "f03", "f04"]
    assert said[0].endswith("f13, f14 and 5 more")


def test_unfinished_file_leaves_no_trace(here: Receiving) -> None:
    (here.path / "file").write_bytes(b"old")
    here.receive(file("file", b"half", size=5000), end=False)
    assert (here.path / "file").read_bytes() == b"old"
    assert names(here) == ["file"]


def test_directories_get_their_modes_even_if_the_end_is_missing(here: Receiving) -> None:
    here.receive(entry(Type.DIRECTORY, "dir", mode=0o755), end=False)
    assert stat.S_IMODE(os.stat(here.path / "dir").st_mode) == 0o755


def test_machine_that_sends_far_more_than_the_limit_is_cut_off(tmp_path: Path) -> None:
    sent = [0]

    def script(agent: FakeAgent) -> None:
        agent.start()
        agent.exit(0)
        while agent.write(Stream.FILES_OUT, file("big", b"x" * 60_000)):
            sent[0] += 1
            assert sent[0] < 5000
        agent.eof(Stream.FILES_OUT)
        agent.say("bye")

    result = run(script, workdir=workdir(tmp_path, limit_bytes=100_000)).result

    assert (result.code, result.phase) == (125, "copy-out")
    assert "over the limit" in result.reason
    assert "ended at its limits, at big" in result.warnings[0]
    assert os.listdir(tmp_path) == ["big"]
