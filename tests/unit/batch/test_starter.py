"""What a job's machine is asked for, before there is one."""

from __future__ import annotations

from pathlib import Path

import pytest

from mayfly.batch.job import Fault, Ticket
from mayfly.batch.place import Place
from mayfly.batch.settings import BatchSettings
from mayfly.batch.starter import Payload, environment, job_of, outcome_lines, start
from mayfly.engine.jobs import Job, Steps, failed_outcome
from mayfly.errors import Failed
from mayfly.host import client
from mayfly.host.run import claim_fields
from mayfly.model import Account, NetworkMode, Outcome, ShareDir

ADA = Account(name="ada", uid=1, gid=1, groups=(), home="/home/ada", shell="/bin/sh")
TICKET = Ticket(system="slurm", job="17", key="lab/17/0.0", image="el9", network="open")
PLACE = Place(shares=(), workdir=None, cwd="/home/ada", words="")
PAYLOAD = Payload(argv=("a.out", "-x"), environ={"A": "b"})


def test_the_machine_is_as_large_as_the_job() -> None:
    fields = claim_fields(job_of(TICKET, PAYLOAD, PLACE, ADA), key=TICKET.key)
    assert (fields["cpus"], fields["memory_mib"]) == (None, None)
    assert (fields["job"], fields["image"], fields["network"]) == ("lab/17/0.0", "el9", "open")


def test_the_environment_is_the_jobs_own() -> None:
    environ = {
        "PATH": "/a:/b",
        "SLURM_JOB_ID": "7",
        "BASH_FUNC_x%%": "() {\n true\n}",
        "MAYFLY_TICKET": "{}",
        "SSH_AUTH_SOCK": "/tmp/agent",
        "https_proxy": "http://proxy",
    }
    kept = environment(environ, NetworkMode.OPEN)
    assert {"PATH", "SLURM_JOB_ID", "BASH_FUNC_x%%", "https_proxy"} <= kept.keys()
    assert not {"MAYFLY_TICKET", "SSH_AUTH_SOCK"} & kept.keys()
    # There, the way out is the machine's own.
    assert "https_proxy" not in environment(environ, NetworkMode.RESTRICTED)


@pytest.mark.parametrize("fault", list(Fault))
def test_a_ticket_that_says_no_is_the_end(fault: Fault) -> None:
    ticket = Ticket(
        system="slurm", job="17", key="a/17/0", fault=fault, reason="no image", hint="ask"
    )
    ended = start(ticket, PAYLOAD, BatchSettings(), print)
    assert (ended.fault, ended.outcome.code) == (fault, 125)
    assert outcome_lines(ended) == ["no image", "  hint: ask"]


def test_without_a_service_the_fault_is_ours(tmp_path: Path) -> None:
    said: list[str] = []
    ended = start(TICKET, PAYLOAD, BatchSettings(socket=tmp_path / "none"), said.append)
    assert ended.fault is Fault.MAYFLY
    assert "no host service listens" in ended.outcome.reason
    assert said[0].startswith("machine of el9, network open; ")


def test_a_share_that_is_not_there_is_the_jobs_mistake(tmp_path: Path) -> None:
    ticket = Ticket(system="slurm", job="1", key="a/1/0", image="el9", shares=("/none/here",))
    ended = start(ticket, PAYLOAD, BatchSettings(live=(ShareDir(path=tmp_path),)), print)
    assert ended.fault is Fault.JOB
    assert "/none/here cannot be shared" in ended.outcome.reason


def test_a_job_that_waits_says_why_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(_: object, __: Job, steps: Steps, ___: object) -> Outcome:
        steps.report("booting el9 once (2 s)")
        steps.report("booting el9 once (3 s)")
        steps.machine = "abc"
        steps.report("a step of the session")
        return failed_outcome(Failed("gone"), steps)

    monkeypatch.setattr(client, "connect", lambda *_, **__: object())
    monkeypatch.setattr("mayfly.batch.starter.run_hosted", run)
    said: list[str] = []
    waited: list[str] = []
    start(TICKET, PAYLOAD, BatchSettings(), said.append, waits=waited.append)
    assert waited == ["booting el9 once (2 s)"]
    assert said[1:] == ["no machine yet: booting el9 once (2 s)"]
