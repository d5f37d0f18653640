"""A job in a machine that the service gives: what is asked, what is told, whose failure it was."""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from mayfly.engine.jobs import Job, Steps
from mayfly.engine.session.fake_agent import FakeAgent, playing
from mayfly.engine.session.job import JobRequest
from mayfly.errors import Quota
from mayfly.host import client, protocol
from mayfly.host.run import claim_fields, make_machine, run_hosted
from mayfly.model import (
    Account,
    MachineSpec,
    NetworkMode,
    Outcome,
    Shape,
    ShareDir,
    Who,
)

ACCOUNT = Account(name="ada", uid=1, gid=1, groups=(), home="/", shell="/bin/sh")
REQUEST = JobRequest(
    argv=("make", "test"),
    env={"LANG": "C"},
    cwd="/",
    umask=0o022,
    limits={},
    root=False,
    tty=False,
    workdir=None,
    time_limit_s=None,
)
SPEC = MachineSpec(
    image="debian-12",
    shape=Shape(cpus=2, memory_mib=1024),
    disk_mib=None,
    network=NetworkMode.RESTRICTED,
    allow=("example.org:443",),
)
JOB = Job(spec=SPEC, account=ACCOUNT, request=REQUEST, label="make test")
PLAIN = claim_fields(JOB, wait=True)
ID = "a2b3c4d5"

Talk = Callable[["Desk", socket.socket], None]


@dataclass(slots=True)
class Desk:
    """Somebody who plays the service, in a thread, and remembers what was asked."""

    path: Path
    session: socket.socket
    qemu: int
    """Handle of a process that stands for QEMU."""
    asked: list[dict[str, Any]] = field(default_factory=list)

    def next(self, port: socket.socket) -> dict[str, Any]:
        """Wait for a request."""
        got = protocol.receive(port)
        assert got is not None
        self.asked.append(got[0])
        return got[0]

    def give(self, port: socket.socket, **more: Any) -> None:
        """Answer a claim with a machine."""
        self.next(port)
        fields = {"type": "ok", "machine": ID, "env": {}, "service_ms": 1.5, **more}
        protocol.send(port, fields, [self.session.fileno(), self.qemu])


@dataclass(slots=True)
class Run:
    """What came of a run."""

    outcome: Outcome
    reported: list[str]
    noted: list[str]
    service_ms: float | None


@pytest.fixture
def qemu() -> Iterator[subprocess.Popen[bytes]]:
    """A process that stands for QEMU."""
    with subprocess.Popen(["/usr/bin/sleep", "600"]) as process:
        yield process
        process.kill()


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


@contextmanager
def serving(path: Path, desk: Desk, talk: Talk) -> Iterator[None]:
    """Listen at a path, and talk with the one who connects."""

    def serve() -> None:
        with listener.accept()[0] as port:
            talk(desk, port)

    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(path))
        listener.listen()
        thread = threading.Thread(target=serve)
        thread.start()
        yield
        thread.join()


@dataclass(slots=True)
class Place:
    """Where runs are tried."""

    folder: Path
    qemu: subprocess.Popen[bytes]
    asked: list[dict[str, Any]] = field(default_factory=list)

    def run(self, agent: Callable[[FakeAgent], object], talk: Talk, job: Job = JOB) -> Run:
        """Run a job with these at the other ends."""
        reported: list[str] = []
        noted: list[str] = []
        steps = Steps(report=reported.append, note=noted.append)
        handle = os.pidfd_open(self.qemu.pid)
        with ExitStack() as stack:
            stack.callback(os.close, handle)
            session = stack.enter_context(playing(agent))
            desk = Desk(self.folder / "host.sock", session, handle, self.asked)
            stack.enter_context(serving(desk.path, desk, talk))
            connection = client.require(desk.path)
            outcome = run_hosted(connection, job, steps, claim_fields(job, wait=True))
        return Run(outcome, reported, noted, steps.service_ms)


@pytest.fixture
def place(folder: Path, qemu: subprocess.Popen[bytes]) -> Place:
    return Place(folder, qemu)


def succeeds(agent: FakeAgent) -> None:
    agent.run()
    agent.exit(0)


def fails(agent: FakeAgent) -> None:
    agent.run()
    agent.exit(3)


def never_begins(agent: FakeAgent) -> None:
    agent.next()


def gives(desk: Desk, port: socket.socket) -> None:
    """Give a machine, and take it back."""
    desk.give(port)
    desk.next(port)


def test_what_is_asked_for() -> None:
    fields = claim_fields(
        replace(JOB, shares=(ShareDir(path=Path("/data"), read_only=True),)), wait=False
    )
    assert (fields["image"], fields["cpus"], fields["memory_mib"]) == ("debian-12", 2, 1024)
    assert (fields["network"], fields["allow"]) == ("restricted", ["example.org:443"])
    assert fields["shares"] == [{"path": "/data", "read_only": True}]
    assert (fields["wait"], fields["outlive"], fields["job"]) == (False, False, "")
    # Who it is for is not for the client to say.
    assert not fields.keys() & {"uid", "gid", "user", "account", "groups"}


def test_a_batch_job_asks_for_what_it_was_granted_unless_it_says_otherwise() -> None:
    plain = replace(JOB, sized=False)
    fields = claim_fields(plain, key="site/1/0", wait=True)
    assert (fields["job"], fields["cpus"], fields["memory_mib"]) == ("site/1/0", None, None)
    sized = claim_fields(replace(plain, sized=True), key="site/1/0", wait=True)
    assert (sized["cpus"], sized["memory_mib"]) == (2, 1024)


@pytest.mark.parametrize(("agent", "code"), [(succeeds, 0), (fails, 3)])
def test_a_job_ends_as_it_ends(
    place: Place, agent: Callable[[FakeAgent], object], code: int
) -> None:
    run = place.run(agent, gives)
    assert (run.outcome.who, run.outcome.code, run.outcome.machine) == (Who.JOB, code, ID)
    claim, release = place.asked
    assert (claim["op"], claim["v"], claim["image"]) == ("claim", 1, "debian-12")
    assert (release["op"], release["machine"], release["keep"]) == ("release", ID, False)
    assert release["outcome"]["code"] == code
    assert run.service_ms == 1.5


def test_a_job_gets_the_environment_of_its_network(place: Place) -> None:
    seen: dict[str, Any] = {}

    def agent(fake: FakeAgent) -> None:
        seen.update(fake.start())
        fake.exit(0)

    def talk(desk: Desk, port: socket.socket) -> None:
        desk.give(port, env={"http_proxy": "http://10.0.2.2:3128", "LANG": "xx"})
        desk.next(port)

    assert place.run(agent, talk).outcome.code == 0
    # What the user has set is stronger.
    assert seen["env"] == {"http_proxy": "http://10.0.2.2:3128", "LANG": "C"}


def test_a_refusal_is_mayflys_or_the_sites(place: Place) -> None:
    def talk(desk: Desk, port: socket.socket) -> None:
        desk.next(port)
        protocol.send(port, protocol.error_message(Quota("no room", hint="elsewhere")))

    outcome = place.run(never_begins, talk).outcome
    assert (outcome.who, outcome.code, outcome.phase) == (Who.SITE, 125, "start")
    assert outcome.reason == "no room\n  hint: elsewhere"


def test_who_waits_is_told(place: Place) -> None:
    def talk(desk: Desk, port: socket.socket) -> None:
        protocol.send(port, {"type": "line", "place": 2, "ahead": 1, "why": "it wants 1 machine"})
        protocol.send(port, {"type": "progress", "text": "booting debian-12 once"})
        protocol.send(port, {"type": "news of a later version"})
        gives(desk, port)

    run = place.run(succeeds, talk)
    assert run.outcome.code == 0
    assert run.reported[:2] == [
        "waiting in line, place 2: it wants 1 machine",
        "booting debian-12 once",
    ]


def test_a_service_that_ends_before_it_gave_anything_is_mayflys_failure(place: Place) -> None:
    outcome = place.run(never_begins, lambda desk, port: None).outcome
    assert (outcome.who, outcome.code) == (Who.MAYFLY, 125)
    assert "the host service is not there" in outcome.reason


def test_a_service_that_ends_while_the_job_runs_costs_it_nothing(place: Place) -> None:
    gone = threading.Event()

    def agent(fake: FakeAgent) -> None:
        fake.run()
        assert gone.wait(20)
        fake.exit(3)

    def talk(desk: Desk, port: socket.socket) -> None:
        desk.give(port)
        port.close()
        gone.set()

    run = place.run(agent, talk)
    assert (run.outcome.who, run.outcome.code, run.noted) == (Who.JOB, 3, [])


@pytest.mark.parametrize("who", ["mayfly", "site"])
def test_a_machine_that_ends_is_not_the_jobs_failure(place: Place, who: str) -> None:
    def agent(fake: FakeAgent) -> None:
        fake.run()
        place.qemu.kill()
        place.qemu.wait()

    def talk(desk: Desk, port: socket.socket) -> None:
        desk.give(port)
        protocol.send(port, {"type": "ended", "reason": "it was deleted", "who": who})
        desk.next(port)

    outcome = place.run(agent, talk).outcome
    assert (outcome.who.value, outcome.code) == (who, 125)
    assert outcome.reason == "the machine ended before the job did: it was deleted"


def test_also_without_a_word_of_the_service(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "ENDED_S", 0.05)

    def agent(fake: FakeAgent) -> None:
        fake.run()
        place.qemu.kill()
        place.qemu.wait()

    outcome = place.run(agent, gives).outcome
    assert (outcome.who, outcome.code) == (Who.MAYFLY, 125)
    assert outcome.reason


KEPT = replace(JOB, keep_on_failure=True)


def keeps(desk: Desk, port: socket.socket) -> None:
    desk.next(port)
    protocol.send(port, {"type": "ok", "text": f"failed: machine {ID} is kept"})


def test_a_failed_job_is_kept_when_that_was_asked_for(place: Place) -> None:
    def talk(desk: Desk, port: socket.socket) -> None:
        desk.give(port)
        keeps(desk, port)

    run = place.run(fails, talk, KEPT)
    assert (run.outcome.code, run.noted) == (3, [f"failed: machine {ID} is kept"])
    assert place.asked[-1]["keep"] is True


def test_one_that_succeeds_is_not(place: Place) -> None:
    run = place.run(succeeds, gives, KEPT)
    assert (run.outcome.code, run.noted, place.asked[-1]["keep"]) == (0, [], False)


def test_another_service_keeps_it_when_the_first_was_restarted(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    second = place.folder / "second.sock"
    monkeypatch.setenv("MAYFLY_HOST_SOCKET", str(second))
    desk = Desk(second, socket.socket(), -1, place.asked)
    with desk.session, serving(second, desk, keeps):
        run = place.run(fails, lambda first, port: first.give(port), KEPT)
    assert (run.outcome.code, run.noted) == (3, [f"failed: machine {ID} is kept"])
    assert (place.asked[-1]["op"], place.asked[-1]["machine"]) == ("release", ID)


def test_one_that_cannot_be_kept_is_told_of(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAYFLY_HOST_SOCKET", str(place.folder / "nobody.sock"))
    run = place.run(fails, lambda desk, port: desk.give(port), KEPT)
    assert run.outcome.code == 3
    (note,) = run.noted
    assert "could not be kept" in note


def test_a_machine_that_stays_is_named(place: Place) -> None:
    steps = Steps(report=lambda text: None, note=lambda text: None)
    handle = os.pidfd_open(place.qemu.pid)
    ours, theirs = socket.socketpair()
    desk = Desk(place.folder / "host.sock", ours, handle)
    fields = {**PLAIN, "outlive": True, "life_s": 3600.0}
    with ours, theirs, serving(desk.path, desk, lambda desk, port: desk.give(port)):
        assert make_machine(client.require(desk.path), fields, steps) == ID
    os.close(handle)
    (asked,) = desk.asked
    assert (asked["outlive"], asked["life_s"]) == (True, 3600.0)
