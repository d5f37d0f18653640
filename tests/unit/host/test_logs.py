"""What each machine said, kept for a while after it is gone."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mayfly.engine.records import RECORD, Record
from mayfly.engine.watch import CONSOLE_LOG
from mayfly.errors import Denied, Missing
from mayfly.host.logs import EVENTS, LEFT_OUT, OWNER, STATUS, STATUS_LENGTH, LogStore
from mayfly.host.settings import Logs
from mayfly.model import State

NAME, OTHER = "k3mk3mk3", "x7wx7wx7"
ADA, BOB, ROOT = 1001, 1002, 0
KIB = 1 << 10


def store(folder: Path, *, machine: int = 64 * KIB, size: int = 1 << 30, days: int = 1) -> LogStore:
    return LogStore(
        folder / "logs", Logs(size_bytes=size, for_s=days * 86_400, machine_bytes=machine)
    )


def record(name: str = NAME, *, owner: int | None = ADA, reason: str = "its job ended") -> Record:
    return Record(
        id=name,
        image="debian-12",
        template="t",
        cpus=1,
        memory_mib=512,
        network="none",
        state=State.STOPPING,
        command="true",
        created_at=5.0,
        owner=owner,
        reason=reason,
    )


def sizes(folder: Path, name: str = NAME) -> int:
    return sum(file.stat().st_size for file in (folder / "logs" / name).iterdir())


# --- what is kept --------------------------------------------------------------------------------


def test_what_a_machine_said_is_read_back(tmp_path: Path) -> None:
    logs = store(tmp_path)
    assert logs.begin(NAME, ADA, image="debian-12", now=5) == ""
    assert logs.console(NAME, b"Linux\n") == ""
    assert logs.console(NAME, b"login: \xff\n") == ""
    assert logs.event(NAME, "started", now=5.25) == ""
    assert logs.status(NAME, {"code": 0}) == ""
    assert logs.read(NAME, ADA) == "Linux\nlogin: \ufffd\n"
    assert json.loads(logs.read(NAME, ADA, EVENTS)) == {"ts": 5.25, "text": "started"}
    assert json.loads(logs.read(NAME, ADA, STATUS)) == {"code": 0}


def test_a_log_in_which_nothing_is_is_empty(tmp_path: Path) -> None:
    logs = store(tmp_path)
    logs.begin(NAME, ADA, image="a", now=5)
    assert [logs.read(NAME, ADA, log) for log in (CONSOLE_LOG, EVENTS, STATUS)] == ["", "", ""]


def test_logs_are_for_root_alone_on_disk(tmp_path: Path) -> None:
    store(tmp_path).console(NAME, b"secret")
    for folder in (tmp_path / "logs", tmp_path / "logs" / NAME):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_an_ended_machine_leaves_what_lay_in_its_directory(tmp_path: Path) -> None:
    place = tmp_path / "machine"
    place.mkdir()
    (place / CONSOLE_LOG).write_text("Linux\nPowered off\n")
    logs = store(tmp_path)
    assert logs.finish(record(), place) == ""
    assert logs.read(NAME, ADA) == "Linux\nPowered off\n"
    (entry,) = logs.entries(ROOT)
    assert (entry.id, entry.uid, entry.image, entry.began_at) == (NAME, ADA, "debian-12", 5.0)
    kept = json.loads((logs.directory(NAME) / RECORD).read_text())
    assert (kept["reason"], kept["state"]) == ("its job ended", "stopping")


def test_the_end_does_not_hide_what_was_there(tmp_path: Path) -> None:
    logs = store(tmp_path)
    logs.begin(NAME, BOB, image="a", now=1)
    logs.console(NAME, b"first\n")
    logs.status(NAME, {"code": 3})
    (tmp_path / CONSOLE_LOG).write_text("then\n")
    assert logs.finish(record(), tmp_path) == ""
    assert logs.read(NAME, BOB) == "first\nthen\n"
    assert json.loads(logs.read(NAME, BOB, STATUS)) == {"code": 3}
    assert logs.entries(ADA) == []


def test_a_machine_that_said_nothing_has_logs_too(tmp_path: Path) -> None:
    logs = store(tmp_path)
    assert logs.finish(record(owner=None), tmp_path / "gone") == ""
    assert logs.read(NAME, ROOT) == ""
    with pytest.raises(Denied):
        logs.read(NAME, ADA)


@pytest.mark.parametrize("kind", ["link", "fifo", "folder"])
def test_only_a_plain_file_is_taken_over(tmp_path: Path, kind: str) -> None:
    secret = tmp_path / "secret"
    secret.write_text("root's password")
    place = tmp_path / "machine"
    place.mkdir()
    if kind == "link":
        (place / CONSOLE_LOG).symlink_to(secret)
    elif kind == "fifo":
        os.mkfifo(place / CONSOLE_LOG)
    else:
        (place / CONSOLE_LOG).mkdir()
    logs = store(tmp_path)
    told = logs.finish(record(), place)
    assert (NAME in told) is (kind == "link")
    assert logs.read(NAME, ADA) == ""


# --- whose they are ------------------------------------------------------------------------------


def test_only_the_owner_and_root_read_and_list(tmp_path: Path) -> None:
    logs = store(tmp_path)
    logs.begin(NAME, ADA, image="a", now=2)
    logs.begin(OTHER, BOB, image="b", now=1)
    assert [entry.id for entry in logs.entries(ADA)] == [NAME]
    assert [entry.id for entry in logs.entries(BOB)] == [OTHER]
    assert [entry.id for entry in logs.entries(ROOT)] == [OTHER, NAME]
    assert logs.entries(1003) == []
    assert logs.read(NAME, ROOT) == logs.read(NAME, ADA) == ""
    for log in (CONSOLE_LOG, EVENTS, STATUS):
        with pytest.raises(Denied, match=f"'{NAME}' is not yours"):
            logs.read(NAME, BOB, log)


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../../etc", "/etc", "k3m/../x7w", "k3mk3mk4", "a" * 65, "k\0", "É"]
)
def test_what_is_no_machine_has_no_logs(tmp_path: Path, name: str) -> None:
    logs = store(tmp_path)
    logs.begin(NAME, ADA, image="a", now=1)
    with pytest.raises(Missing) as caught:
        logs.read(name, ROOT)
    assert "1 days" in caught.value.hint


@pytest.mark.parametrize("log", ["", OWNER, "../k3mk3mk3/owner.json", "console.log.newer"])
def test_only_logs_are_read(tmp_path: Path, log: str) -> None:
    logs = store(tmp_path)
    logs.begin(NAME, ADA, image="a", now=1)
    with pytest.raises(Missing, match="has no log"):
        logs.read(NAME, ADA, log)


@pytest.mark.parametrize("owner", [None, "", "{", "[]", '{"uid": null}', '{"uid": "x"}'])
def test_logs_of_nobody_are_roots(tmp_path: Path, owner: str | None) -> None:
    logs = store(tmp_path)
    logs.console(NAME, b"hello")
    if owner is not None:
        (tmp_path / "logs" / NAME / OWNER).write_text(owner)
    assert logs.entries(ADA) == []
    assert [entry.uid for entry in logs.entries(ROOT)] == [ROOT]
    with pytest.raises(Denied):
        logs.read(NAME, ADA)


# --- how much is kept ----------------------------------------------------------------------------


def test_of_an_endless_console_the_beginning_and_the_end_are_kept(tmp_path: Path) -> None:
    logs = store(tmp_path, machine=64 * KIB)
    for n in range(20_000):
        assert logs.console(NAME, b"line %06d\n" % n) == ""
        assert n % 5000 or sizes(tmp_path) <= 64 * KIB
    lines = logs.read(NAME, ROOT).splitlines()
    at = lines.index(LEFT_OUT)
    assert lines[0] == "line 000000"
    assert lines[-1] == "line 019999"
    head = [line for line in lines[:at] if line]
    assert head == [f"line {n:06}" for n in range(len(head))]
    tail = lines[at + 1 :]
    assert tail == [f"line {20_000 - len(tail) + n:06}" for n in range(len(tail))]
    assert len(head) > 1500
    assert len(tail) > 900


def test_a_line_without_end_is_kept_within_its_quota_too(tmp_path: Path) -> None:
    logs = store(tmp_path, machine=8 * KIB)
    for _ in range(50):
        logs.console(NAME, b"x" * 5000)
    assert sizes(tmp_path) <= 8 * KIB
    text = logs.read(NAME, ROOT)
    assert LEFT_OUT in text
    assert text.startswith("x" * 1000)
    assert text.endswith("x" * 1000)


def test_many_events_stay_readable_line_by_line(tmp_path: Path) -> None:
    logs = store(tmp_path, machine=32 * KIB)
    logs.begin(NAME, ADA, image="a", now=0)
    for n in range(2000):
        logs.event(NAME, f"{n} \u00e9\n" + "." * (n % 50), now=n)
    logs.event(NAME, "x" * 100_000, now=2000)
    for _ in range(2):
        lines = [json.loads(line) for line in logs.read(NAME, ADA, EVENTS).splitlines()]
        assert lines[0]["text"] == "0 \u00e9\n"
        assert {"text": LEFT_OUT} in lines
        assert set(lines[-1]["text"]) == {"x"}
        assert sizes(tmp_path) <= 32 * KIB
        assert logs.finish(record(), tmp_path / "none") == ""


def test_the_parts_become_one_file_at_the_end(tmp_path: Path) -> None:
    logs = store(tmp_path, machine=16 * KIB)
    logs.console(NAME, b"".join(b"%d\n" % n for n in range(10_000)))
    before = logs.read(NAME, ROOT)
    assert logs.finish(record(), tmp_path / "none") == ""
    assert logs.read(NAME, ROOT) == before
    assert {path.name for path in logs.directory(NAME).iterdir()} == {CONSOLE_LOG, OWNER, RECORD}
    assert sizes(tmp_path) <= 16 * KIB


def test_of_a_long_file_the_beginning_and_the_end_are_taken_over(tmp_path: Path) -> None:
    (tmp_path / CONSOLE_LOG).write_text("".join(f"{n}\n" for n in range(1_000_000)))
    logs = store(tmp_path, machine=16 * KIB)
    assert logs.finish(record(), tmp_path) == ""
    lines = logs.read(NAME, ADA).splitlines()
    assert (lines[0], lines[-1]) == ("0", "999999")
    assert LEFT_OUT in lines
    assert sizes(tmp_path) <= 16 * KIB


def test_what_a_client_tells_of_its_job_is_not_without_end(tmp_path: Path) -> None:
    logs = store(tmp_path)
    logs.begin(NAME, ADA, image="a", now=0)
    logs.status(NAME, {"reason": "x" * STATUS_LENGTH})
    assert "too long" in json.loads(logs.read(NAME, ADA, STATUS))["reason"]


@given(
    st.lists(st.binary(max_size=3000), max_size=30),
    st.integers(0, 4096),
    st.booleans(),
)
def test_any_output_stays_within_the_quota(
    tmp_path_factory: pytest.TempPathFactory, parts: list[bytes], machine: int, end: bool
) -> None:
    folder = tmp_path_factory.mktemp("logs")
    logs = store(folder, machine=machine)
    logs.begin(NAME, ADA, image="a", now=1)
    for part in parts:
        assert logs.console(NAME, part) == ""
    if end:
        assert logs.finish(record(), folder / "none") == ""
    console = folder / "logs" / NAME
    kept = sum(file.stat().st_size for file in console.glob("console.log*"))
    assert kept <= machine * 3 / 4
    said = b"".join(parts)
    if len(said) <= machine * 3 // 8 - 100:
        assert logs.read(NAME, ROOT) == said.decode("utf-8", "replace")


# --- how long it is kept -------------------------------------------------------------------------


def aged(folder: Path, name: str, *, mtime: float, size: int = 10) -> None:
    logs = store(folder)
    logs.begin(name, ADA, image="a", now=mtime)
    logs.console(name, b"x" * size)
    for file in (folder / "logs" / name).iterdir():
        os.utime(file, (mtime, mtime))


def test_old_logs_are_removed(tmp_path: Path) -> None:
    aged(tmp_path, NAME, mtime=1000)
    aged(tmp_path, OTHER, mtime=2000)
    logs = store(tmp_path, days=1)
    assert logs.sweep(1000 + 86_399) == []
    assert logs.sweep(1000 + 86_400) == [NAME]
    assert [path.name for path in (tmp_path / "logs").iterdir()] == [OTHER]
    assert logs.sweep(2000 + 86_400, living={OTHER}) == []


def test_the_oldest_go_while_all_are_too_much(tmp_path: Path) -> None:
    names = ["aaaaaaaa", "bbbbbbbb", "cccccccc", "dddddddd"]
    for n, name in enumerate(names):
        aged(tmp_path, name, mtime=1000 + n, size=20 * KIB)
    # Each has 20 KiB of console and one small file.
    logs = store(tmp_path, size=50 * KIB)
    assert logs.sweep(2000, living={"bbbbbbbb"}) == ["aaaaaaaa", "cccccccc"]
    assert logs.sweep(2000) == []
    assert {path.name for path in (tmp_path / "logs").iterdir()} == {"bbbbbbbb", "dddddddd"}


def test_what_is_not_ours_is_left_alone(tmp_path: Path) -> None:
    logs = store(tmp_path, size=0)
    assert logs.sweep(1e12) == []
    (tmp_path / "logs/lost+found").mkdir(parents=True)
    assert logs.sweep(1e12) == []
    assert (tmp_path / "logs/lost+found").exists()


# --- a disk that refuses -------------------------------------------------------------------------


@pytest.fixture
def full(tmp_path: Path) -> Path:
    """A folder in which nothing can be written: a file where the logs should be."""
    (tmp_path / "logs").write_text("")
    return tmp_path


def test_a_disk_that_refuses_is_told_and_never_raised(full: Path) -> None:
    (full / CONSOLE_LOG).write_text("hello")
    logs = store(full)
    notes = [
        logs.begin(NAME, ADA, image="a", now=1),
        logs.console(NAME, b"x"),
        logs.event(NAME, "x", now=1),
        logs.status(NAME, {}),
        logs.finish(record(), full),
    ]
    assert all(f"machine {NAME}: " in note for note in notes), notes
    assert logs.entries(ROOT) == []
    assert logs.sweep(1e12) == []


def test_a_full_disk_keeps_what_was_there(tmp_path: Path) -> None:
    logs = store(tmp_path, machine=16 * KIB)
    logs.begin(NAME, ADA, image="a", now=1)
    logs.console(NAME, b"".join(b"%d\n" % n for n in range(10_000)))
    before = logs.read(NAME, ADA)
    # /dev/full says that the disk is full to whoever writes.
    (logs.directory(NAME) / f"{CONSOLE_LOG}.new").symlink_to("/dev/full")
    told = logs.finish(record(), tmp_path / "none")
    assert told == f"cannot keep the logs of machine {NAME}: No space left on device"
    assert logs.read(NAME, ADA) == before
