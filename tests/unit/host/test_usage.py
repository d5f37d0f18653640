"""What machines of jobs have used: measured, written down, found again."""

from __future__ import annotations

import json
import os
import time
import uuid
from pathlib import Path

import pytest

from mayfly.host import usage
from mayfly.host.rights import parse_right
from mayfly.host.usage import DIRECTORY, event_id, measure, prune, read_events, write_event
from tests.unit.host.services import ALICE, BOB, ROOT, Desk, desk

__all__ = ["desk"]

KEY = "site/17/n1.2"


def test_a_process_is_measured(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(b"x" * 10_000)
    used = measure(os.getpid(), disk)
    assert used["cpu_s"] > 0
    assert used["memory_peak_bytes"] > 1 << 20
    assert used["disk_bytes"] >= 10_000
    assert used["written_bytes"] >= 0


def test_a_process_that_has_ended_and_was_not_collected_is_measured(tmp_path: Path) -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    used = measure(pid, tmp_path / "none")
    os.waitpid(pid, 0)
    assert "cpu_s" in used
    assert "memory_peak_bytes" not in used


def test_what_cannot_be_seen_is_left_out(tmp_path: Path) -> None:
    assert measure(1 << 30, tmp_path / "none") == {}
    place = tmp_path / "7"
    place.mkdir()
    for name in ("stat", "status", "io"):
        (place / name).write_text("")
    assert measure(7, tmp_path / "none", proc=tmp_path) == {}
    (place / "stat").write_text("7 (a) b) S " + "1 " * 10 + "150 50 0\n")
    assert measure(7, tmp_path / "none", proc=tmp_path) == {"cpu_s": 200 / usage.TICKS}


def test_ids_sort_by_time_and_are_of_version_7() -> None:
    ids = [event_id(now) for now in (1.0, 2.0, 1e9, 2e9)]
    assert ids == sorted(ids)
    assert {one.version for one in ids} == {7}
    assert {one.variant for one in ids} == {uuid.RFC_4122}
    assert event_id(1.0) != event_id(1.0)


def event(
    job: str = "17", uid: int = ALICE, at: str = "2026-12-01T00:00:00.000+00:00"
) -> dict[str, object]:
    return {"at": at, "job": job, "uid": uid}


def test_events_of_a_job_are_found_the_latest_first(tmp_path: Path) -> None:
    for day in ("2026-11-30", "2026-12-01"):
        for job in ("17", "18"):
            write_event(tmp_path, event(job, at=f"{day}T10:00:00"))
    found = list(read_events(tmp_path, "17", ALICE))
    assert [one["at"][:10] for one in found] == ["2026-12-01", "2026-11-30"]
    assert len(list(read_events(tmp_path, "17", ROOT))) == 2
    assert list(read_events(tmp_path, "17", BOB)) == []
    assert list(read_events(tmp_path / "none", "17", ROOT)) == []


def test_a_line_that_was_cut_short_spoils_no_other(tmp_path: Path) -> None:
    write_event(tmp_path, event())
    (file,) = tmp_path.iterdir()
    with open(file, "ab") as stream:
        stream.write(b'{"job": "17", "ui')
    write_event(tmp_path, event())
    with open(file, "ab") as stream:
        stream.write(b'[1, "17"]\n\xff"17"\n')
    assert len(list(read_events(tmp_path, "17", ALICE))) == 2


def test_old_days_are_removed(tmp_path: Path) -> None:
    write_event(tmp_path, event())
    write_event(tmp_path, event(at="2026-01-01T00:00:00"))
    prune(tmp_path, 1_796_000_000)
    assert [file.name for file in tmp_path.iterdir()] == ["2026-12-01.jsonl"]


def used(desk: Desk) -> list[dict[str, object]]:
    """Read the service's own files."""
    files = (desk.service.settings.state / DIRECTORY).glob("*.jsonl")
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def job_of(desk: Desk) -> str:
    """Have a job's machine come and go; gives its id."""
    identity = {"array_task": "3", "restart": "2", "submitted_at": "1796000000"}
    right = {"key": KEY, "uid": ALICE, "cpus": 1, "memory_mib": 2048, "identity": identity}
    desk.service.rights.register(parse_right(right, created_at=time.time()))
    client = desk.connect(ALICE)
    answer = client.claim(job=KEY, cpus=None, memory_mib=None)
    desk.connect(ROOT).ask("unregister", job=KEY)
    desk.emptied()
    return str(answer["machine"])


def test_the_machine_of_a_job_leaves_one_event(desk: Desk) -> None:
    machine = job_of(desk)
    (found,) = used(desk)
    assert found["machine"] == machine
    named = ("cluster", "job", "part", "array_task", "restart", "submitted_at")
    assert [found[name] for name in named] == ["site", "17", "n1.2", "3", "2", "1796000000"]
    assert (found["uid"], found["why"]) == (ALICE, "its job has ended")
    assert isinstance(found["memory_peak_bytes"], int)
    assert isinstance(found["start_ms"], dict)
    assert set(found["start_ms"]) == {"line", "clone", "service"}


def test_a_machine_without_a_job_leaves_none(desk: Desk) -> None:
    client = desk.connect(ALICE)
    client.claim()
    client.close()
    desk.emptied()
    assert used(desk) == []


def test_users_are_shown_their_own(desk: Desk) -> None:
    machine = job_of(desk)
    for uid, count in ((ALICE, 1), (ROOT, 1), (BOB, 0)):
        client = desk.connect(uid)
        client.send("usage", job="17")
        desk.until(lambda client=client: client.of("ok") != [], "an answer")  # type: ignore[misc]
        items = [item for one in client.of("items") for item in one["items"]]
        assert [item["machine"] for item in items] == [machine] * count


def test_a_full_disk_ends_nothing(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(directory: Path, event: object) -> None:
        raise OSError(28, f"{directory} {event}")

    monkeypatch.setattr(usage, "write_event", full)
    job_of(desk)
    assert used(desk) == []
