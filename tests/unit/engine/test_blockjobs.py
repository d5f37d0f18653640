"""Jobs inside QEMU: their end, and whose end it is."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mayfly.engine.blockjobs import NO_ROOM, qemu_job
from mayfly.engine.monitor import Monitor
from mayfly.errors import Failed, Quota, Unavailable
from tests.unit.engine.qmp import FakeQmp, monitored


@pytest.fixture
def both() -> Iterator[tuple[FakeQmp, Monitor]]:
    with monitored() as pair:
        yield pair


def save(monitor: Monitor, *, timeout_s: float = 10) -> None:
    arguments = {"tag": "x"}
    qemu_job(monitor, "snapshot-save", arguments, what="save it", timeout_s=timeout_s)


def test_a_job_is_waited_for_and_dismissed(both: tuple[FakeQmp, Monitor]) -> None:
    qmp, monitor = both
    qmp.jobs_end()
    save(monitor)
    assert qmp.names() == ["snapshot-save", "query-jobs", "job-dismiss"]
    (_, arguments), _, (_, dismissed) = qmp.asked
    assert arguments == {"job-id": dismissed["id"], "tag": "x"}


def test_each_job_has_a_name_of_its_own_and_ends_by_its_own_event(
    both: tuple[FakeQmp, Monitor],
) -> None:
    qmp, monitor = both
    qmp.jobs_end()
    # What the first one leaves behind must not end the second, which does not end.
    save(monitor)
    qmp.answers["snapshot-save"] = lambda _: {}
    with pytest.raises(Unavailable):
        save(monitor, timeout_s=0.05)
    names = [arguments["job-id"] for name, arguments in qmp.asked if name == "snapshot-save"]
    assert len(set(names)) == 2


@pytest.mark.parametrize("words", ["Error -5 while writing", "device is locked"])
def test_a_failure_has_qemus_words(both: tuple[FakeQmp, Monitor], words: str) -> None:
    qmp, monitor = both
    qmp.jobs_end(error=words)
    with pytest.raises(Failed, match=f"QEMU could not save it: {words}"):
        save(monitor)
    assert qmp.names()[-1] == "job-dismiss"


@pytest.mark.parametrize("words", NO_ROOM)
def test_no_room_is_told_apart(both: tuple[FakeQmp, Monitor], words: str) -> None:
    qmp, monitor = both
    qmp.jobs_end(error=f"write failed: {words}")
    with pytest.raises(Quota, match=words):
        save(monitor)


def test_a_job_that_does_not_start(both: tuple[FakeQmp, Monitor]) -> None:
    qmp, monitor = both
    qmp.refuse("snapshot-save", "no such node")
    with pytest.raises(Failed, match="no such node"):
        save(monitor)
