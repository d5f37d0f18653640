"""The end of machines: who sees it, who is told, what is left."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from mayfly.engine.linux import start_time
from mayfly.errors import Conflict, Missing
from mayfly.host import watching
from mayfly.model import State
from tests.unit.host.services import ALICE, BOB, Asked, Desk, claim_fields, desk, refused

__all__ = ["desk"]

POWER_OFF = {"event": "SHUTDOWN", "data": {"guest": True, "reason": "guest-shutdown"}}
NO_SPACE = {"event": "BLOCK_IO_ERROR", "data": {"nospace": True, "reason": "No space left"}}
AGENT_GONE = {"event": "VSERPORT_CHANGE", "data": {"id": "psession", "open": False}}


def with_machine(desk: Desk, uid: int = ALICE) -> Asked:
    client = desk.connect(uid)
    client.claim()
    return client


def last_words(desk: Desk, client: Asked) -> dict[str, object]:
    """Give what a client is told of the end of its machine."""
    desk.until(lambda: client.of("ended") != [], "the last words")
    (words,) = client.of("ended")
    return words


def test_a_qemu_that_was_killed_is_told_to_its_client(desk: Desk) -> None:
    client = with_machine(desk)
    os.kill(desk.only().record.pid, signal.SIGKILL)
    words = last_words(desk, client)
    assert (words["who"], "its QEMU ended" in str(words["reason"])) == ("mayfly", True)
    desk.emptied()


def test_a_guest_that_powers_off_ends_its_machine(desk: Desk) -> None:
    desk.script(events=(("query-status", POWER_OFF),))
    client = with_machine(desk)
    machine = desk.only().machine
    assert machine is not None
    machine.process.monitor.send("query-status")
    assert "powered off" in str(last_words(desk, client)["reason"])
    desk.emptied()


def test_a_full_disk_of_the_host_is_the_sites_doing(desk: Desk) -> None:
    desk.script(events=(("query-status", NO_SPACE),))
    client = with_machine(desk)
    machine = desk.only().machine
    assert machine is not None
    machine.process.monitor.send("query-status")
    words = last_words(desk, client)
    assert (words["who"], "no room left" in str(words["reason"])) == ("site", True)
    desk.emptied()


@pytest.mark.parametrize("verb", ["pause", "logs"])
def test_what_happens_while_it_is_talked_with_is_not_missed(desk: Desk, verb: str) -> None:
    """The event comes before the answer, in the same breath."""
    desk.script(events=(("stop", POWER_OFF), ("ringbuf-read", POWER_OFF)))
    client = with_machine(desk)
    desk.connect(ALICE).send(verb, machine=desk.only().id)
    assert "powered off" in str(last_words(desk, client)["reason"])
    desk.emptied()


def test_an_agent_that_is_gone_ends_its_machine(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mayfly.engine.watch.AGENT_GRACE_S", 0.05)
    desk.script(events=(("query-status", AGENT_GONE),))
    client = with_machine(desk)
    machine = desk.only().machine
    assert machine is not None
    machine.process.monitor.send("query-status")
    assert "the agent in it was killed" in str(last_words(desk, client)["reason"])


def test_a_machine_that_is_deleted_ends_and_says_so(desk: Desk) -> None:
    client = with_machine(desk)
    hosted = desk.only()
    pid = hosted.record.pid
    desk.connect(ALICE).ask("delete", machine=hosted.id)
    assert last_words(desk, client)["reason"] == "it was deleted"
    desk.emptied()
    assert start_time(pid) is None
    assert isinstance(refused(lambda: desk.connect(ALICE).ask("show", machine=hosted.id)), Missing)


def test_it_can_be_deleted_while_it_is_being_made(desk: Desk, tmp_path: Path) -> None:
    desk.script(gate=tmp_path / "gate")
    client = desk.connect(ALICE)
    client.send("claim", **claim_fields())
    desk.until(lambda: desk.service.starting == 1, "the start")
    desk.connect(ALICE).ask("delete", machine=desk.only().id)
    (tmp_path / "gate").touch()
    assert "it was deleted" in refused(client.answer).message
    desk.emptied()


def test_it_can_be_deleted_while_its_qemu_does_not_answer(desk: Desk) -> None:
    desk.script(deaf=("stop",))
    client = with_machine(desk)
    pausing = desk.connect(ALICE)
    pausing.send("pause", machine=desk.only().id)
    desk.until(lambda: desk.only().busy == "pausing", "it to be busy")
    error = refused(lambda: desk.connect(ALICE).ask("pause", machine=desk.only().id))
    assert isinstance(error, Conflict)
    assert "busy: pausing" in error.message
    desk.connect(ALICE).ask("delete", machine=desk.only().id)
    assert last_words(desk, client)["reason"] == "it was deleted"
    assert refused(pausing.answer).message
    desk.emptied()


def test_what_was_answered_too_late_is_not_taken_for_another_answer(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_machine(desk)
    hosted = desk.only()
    os.kill(hosted.record.pid, signal.SIGSTOP)
    monkeypatch.setattr("mayfly.host.qemu.REPLY_LIMIT_S", 0.05)
    assert (
        "did not answer 'stop'"
        in refused(lambda: desk.connect(ALICE).ask("pause", machine=hosted.id)).message
    )
    monkeypatch.setattr("mayfly.host.qemu.REPLY_LIMIT_S", 20.0)
    os.kill(hosted.record.pid, signal.SIGCONT)
    assert hosted.record.state is State.RUNNING
    desk.connect(ALICE).ask("logs", machine=hosted.id)
    assert "login: " in desk.service.logs.read(hosted.id, ALICE)


def test_the_console_is_kept_when_it_is_gone(desk: Desk) -> None:
    desk.script(console="the last words of a guest")
    client = with_machine(desk)
    name = desk.only().id
    client.close()
    desk.emptied()
    assert "the last words of a guest" in desk.service.logs.read(name, ALICE)
    assert "ended: its client ended" in desk.service.logs.read(name, ALICE, log="events.jsonl")


def test_a_sites_script_gets_what_was_logged(desk: Desk, tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    script = tmp_path / "collect"
    script.write_text(f'#!/bin/sh\nls "$1" > {seen}.new && mv {seen}.new {seen}\n')
    script.chmod(0o755)
    desk.settings(collect=script)
    with_machine(desk).close()
    desk.until(seen.exists, "the script")
    assert {"console.log", "events.jsonl", "record.json"} <= set(seen.read_text().split())


@pytest.mark.parametrize("text", ["#!/bin/sh\nexit 7\n", "#!/no/such/interpreter\n"])
def test_a_sites_script_that_fails_does_no_harm(
    desk: Desk, tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    script = tmp_path / "collect"
    script.write_text(text)
    script.chmod(0o755)
    desk.settings(collect=script)
    with_machine(desk).close()
    desk.until(lambda: "the site's script failed" in caplog.text, "a word of it")
    assert desk.connect(BOB).claim()["path"] == "clone"


def test_a_standby_leaves_no_logs(desk: Desk) -> None:
    desk.keep_ready()
    name = desk.only().id
    desk.service.hot.clear()
    desk.service.changed()
    desk.emptied()
    with pytest.raises(Missing):
        desk.service.logs.read(name, 0)


def test_who_waits_goes_on_when_one_ends(desk: Desk) -> None:
    desk.limit(machines=1)
    with_machine(desk)
    waiting = desk.connect(BOB)
    waiting.send("claim", **claim_fields())
    desk.until(lambda: waiting.of("line") != [], "the line")
    os.kill(desk.only().record.pid, signal.SIGKILL)
    assert waiting.answer()["path"] == "clone"


def test_nothing_is_done_twice(desk: Desk) -> None:
    client = with_machine(desk)
    hosted = desk.only()
    for reason in ("one", "two"):
        watching.end(desk.service, hosted, reason)
    assert last_words(desk, client)["reason"] == "one"
    desk.emptied()
    watching.end(desk.service, hosted, "three")
    assert hosted.doomed == "one"


def test_no_descriptor_stays_open(desk: Desk) -> None:
    with_machine(desk).close()
    desk.emptied()
    desk.settle()
    before = sorted(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with_machine(desk).close()
        desk.emptied()
    desk.until(lambda: sorted(os.listdir("/proc/self/fd")) == before, "all to be closed")
    assert desk.made == 4
