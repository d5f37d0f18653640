"""Tickets and notes in a directory of root's."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mayfly.batch.job import Ticket
from mayfly.batch.settings import BatchSettings
from mayfly.batch.tickets import NOTE_LONGEST, directory_of, find, leave, note, take
from mayfly.errors import Failed, Invalid, Missing

TICKET = Ticket(system="pbs", job="1", key="c/1/0", image="el9")


@pytest.fixture
def settings(tmp_path: Path) -> BatchSettings:
    """A site whose socket is here."""
    return BatchSettings(socket=tmp_path / "host.sock")


def test_there_and_back(settings: BatchSettings) -> None:
    leave(settings, "1[2]", TICKET, os.getuid())
    assert find(settings, "1[2]") == TICKET
    note(settings, "1[2]", "no\n\x01 luck")
    assert take(settings, "1[2]") == "no \x01 luck"
    assert list(directory_of(settings).iterdir()) == []
    assert take(settings, "1[2]") == ""
    with pytest.raises(Missing):
        find(settings, "1[2]")


def test_nobody_asked_for_a_note(settings: BatchSettings) -> None:
    note(settings, "1", "why")
    assert not directory_of(settings).exists()


def test_what_lies_in_the_way_is_not_followed(settings: BatchSettings, tmp_path: Path) -> None:
    directory_of(settings).mkdir()
    other = tmp_path / "other"
    other.write_text("untouched")
    for name in ("1.ticket", "1.note"):
        (directory_of(settings) / name).symlink_to(other)
    note(settings, "1", "x")
    assert take(settings, "1") == ""
    for name in ("1.ticket", "1.note"):
        (directory_of(settings) / name).symlink_to(other)
    leave(settings, "1", TICKET, os.getuid())
    assert other.read_text() == "untouched"
    os.unlink(directory_of(settings) / "1.note")
    os.mkfifo(directory_of(settings) / "1.note")
    assert take(settings, "1") == ""


@pytest.mark.parametrize("job", ["", "..", "../x", "a/b", ".x", "x" * 200, "a\0"])
def test_wrong_names(settings: BatchSettings, job: str) -> None:
    for act in (lambda: find(settings, job), lambda: take(settings, job)):
        with pytest.raises(Invalid):
            act()
    with pytest.raises(Invalid):
        leave(settings, job, TICKET, 0)


@pytest.mark.parametrize("content", [b"", b"\xff", b"{}", b"x" * (1 << 20)])
def test_a_ticket_that_is_none(settings: BatchSettings, content: bytes) -> None:
    directory_of(settings).mkdir()
    (directory_of(settings) / "1.ticket").write_bytes(content)
    with pytest.raises((Invalid, Failed)):
        find(settings, "1")


def test_a_note_has_its_length(settings: BatchSettings) -> None:
    leave(settings, "1", TICKET, os.getuid())
    (directory_of(settings) / "1.note").write_text("x" * 100_000)
    assert len(take(settings, "1")) == NOTE_LONGEST
