"""What is written down about machines, and how what a dead process left is found."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mayfly.engine import records
from mayfly.engine.records import (
    FRESH_S,
    ID_ALPHABET,
    RECORD,
    Record,
    is_alive,
    keep,
    kill_qemu,
    list_records,
    new_place,
    open_place,
    read_record,
    reap,
    slot,
)
from mayfly.errors import Conflict, Failed, Missing
from mayfly.model import State
from tests.unit.engine.machines import (
    NOW,
    UNREADABLE,
    a_record,
    end,
    in_child,
    left_behind,
    of_process,
    sleeping,
)


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A process that stands for QEMU."""
    with sleeping() as process:
        yield process


# --- places --------------------------------------------------------------------------------------


def test_a_new_place_is_there_and_locked(tmp_path: Path) -> None:
    machines = tmp_path / "state/machines"
    name, place = new_place(machines)
    assert place.path == machines / name
    assert [path.name for path in machines.iterdir()] == [name]
    assert len(name) == 8
    assert set(name) <= set(ID_ALPHABET)
    assert place.path.stat().st_mode & 0o777 == 0o700
    with pytest.raises(Conflict, match=name):
        open_place(machines, name)
    assert reap(machines, NOW + 10 * FRESH_S) == []


def test_a_removed_place_leaves_nothing(tmp_path: Path) -> None:
    _, place = new_place(tmp_path)
    place.write(a_record())
    (place.path / "sub").mkdir()
    (place.path / "sub/disk").write_bytes(b"x")
    place.remove()
    assert not list(tmp_path.iterdir())


def test_a_place_that_is_gone_already_can_be_removed(tmp_path: Path) -> None:
    _, place = new_place(tmp_path)
    place.path.rmdir()
    place.remove()
    assert not list(tmp_path.iterdir())


def test_a_released_place_can_be_opened_by_another(tmp_path: Path) -> None:
    name = left_behind(tmp_path, a_record())
    with in_child(lambda: open_place(tmp_path, name).path.name) as (_, text):
        assert text == name
        with pytest.raises(Conflict):
            open_place(tmp_path, name)
    open_place(tmp_path, name).release()


@pytest.mark.parametrize("name", ["zzzzzzzz", "..", "", ".", "../secret", "a", "/etc", "abcdefg1"])
def test_what_is_no_machine_is_missing(tmp_path: Path, name: str) -> None:
    (tmp_path / "secret").mkdir()
    machines = tmp_path / "machines"
    machines.mkdir()
    (machines / "abcdefg1").mkdir()
    with pytest.raises(Missing) as caught:
        open_place(machines, name)
    assert f"'{name}'" in caught.value.message


# --- slots ---------------------------------------------------------------------------------------


@given(st.text(ID_ALPHABET, min_size=8, max_size=8))
def test_a_slot_is_below_the_number_of_slots(name: str) -> None:
    assert 0 <= slot(name) < 65_536


def test_no_two_machines_share_a_slot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "SLOTS", 5)
    found = {slot(new_place(tmp_path)[0]) for _ in range(5)}
    assert found == set(range(5))


def test_makers_at_once_get_different_slots(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "SLOTS", 12)
    begin, go = os.pipe()
    told, tell = os.pipe()
    children = []
    for _ in range(4):
        pid = os.fork()
        if pid == 0:
            os.close(go)
            os.read(begin, 1)
            names = [new_place(tmp_path)[0] for _ in range(2)]
            os.write(tell, "".join(f"{slot(name)} " for name in names).encode())
            signal.pause()
        children.append(pid)
    os.close(begin)
    os.close(tell)
    os.close(go)
    try:
        text = b""
        while text.count(b" ") < 8:
            piece = os.read(told, 100)
            assert piece, "a maker failed"
            text += piece
    finally:
        os.close(told)
        for pid in children:
            end(pid)
    assert len(set(text.split())) == 8


# --- records -------------------------------------------------------------------------------------


any_records = st.builds(
    replace,
    st.just(a_record()),
    command=st.text(max_size=20),
    created_at=st.floats(0, 1e12),
    expires_at=st.none() | st.floats(0, 1e12),
    pid=st.integers(0, 2**22),
    uid=st.none() | st.integers(0, 2**32 - 1),
    state=st.sampled_from(State),
)


@settings(max_examples=50)
@given(any_records)
def test_a_record_is_read_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory, record: Record
) -> None:
    _, place = new_place(tmp_path_factory.getbasetemp() / "records")
    place.write(a_record())
    place.write(record)
    assert read_record(place.path) == record
    assert [path.name for path in place.path.iterdir()] == [RECORD]
    place.remove()


@pytest.mark.parametrize("how", [*UNREADABLE, "missing", "directory"])
def test_what_is_no_record_is_told_by_its_name(tmp_path: Path, how: str) -> None:
    file = tmp_path / RECORD
    if how == "directory":
        file.mkdir()
    elif how != "missing":
        file.write_bytes(UNREADABLE[how])
    with pytest.raises(Failed, match=str(file)):
        read_record(tmp_path)


def test_a_record_of_a_later_version_still_names_its_machine(tmp_path: Path) -> None:
    written = a_record(pid=4711, started=99)
    later = {**asdict(written), "format": 2, "colour": "blue"}
    (tmp_path / RECORD).write_text(json.dumps(later))
    assert read_record(tmp_path) == written


def test_machines_are_listed_oldest_first_without_the_unreadable(tmp_path: Path) -> None:
    assert list_records(tmp_path / "none") == []
    for created in (NOW + 2, NOW, NOW + 1):
        left_behind(tmp_path, a_record(created_at=created))
    left_behind(tmp_path, None)
    (tmp_path / "note.txt").write_text("not ours")
    _, held = new_place(tmp_path)
    held.write(a_record(created_at=NOW + 3))
    assert [record.created_at - NOW for record in list_records(tmp_path)] == [0, 1, 2, 3]


def test_a_kept_machine_says_why_and_until_when() -> None:
    record = keep(a_record(pid=7), reason="exit status 2", expires_at=NOW + 60)
    assert record == a_record(pid=7, state=State.KEPT, reason="exit status 2", expires_at=NOW + 60)


# --- processes -----------------------------------------------------------------------------------


def test_a_process_is_known_by_pid_and_start(sleeper: subprocess.Popen[bytes]) -> None:
    record = of_process(sleeper)
    assert is_alive(record)
    assert not is_alive(replace(record, started=record.started + 1))
    assert not is_alive(replace(record, started=0))
    assert not is_alive(replace(record, pid=0))
    sleeper.kill()
    os.waitid(os.P_PID, sleeper.pid, os.WEXITED | os.WNOWAIT)
    assert not is_alive(record), "a zombie is dead"


@pytest.mark.parametrize("stopped", [False, True])
def test_a_machine_is_ended_for_sure(sleeper: subprocess.Popen[bytes], stopped: bool) -> None:
    if stopped:
        sleeper.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, sleeper.pid, os.WSTOPPED | os.WNOWAIT)
    record = of_process(sleeper)
    kill_qemu(record)
    assert not is_alive(record)
    assert sleeper.wait(20) == -signal.SIGKILL
    kill_qemu(record)  # Once more is no error.


def test_a_later_process_of_the_same_pid_is_not_killed(sleeper: subprocess.Popen[bytes]) -> None:
    record = of_process(sleeper)
    kill_qemu(replace(record, started=record.started - 1))
    kill_qemu(replace(record, pid=0))
    with pytest.raises(subprocess.TimeoutExpired):
        sleeper.wait(0.05)


def test_a_pid_that_changes_hands_meanwhile_is_not_killed(
    sleeper: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = iter([True, False, False])
    monkeypatch.setattr(records, "is_alive", lambda _: next(looks))
    kill_qemu(of_process(sleeper))
    assert next(looks, None) is None
    with pytest.raises(subprocess.TimeoutExpired):
        sleeper.wait(0.05)
