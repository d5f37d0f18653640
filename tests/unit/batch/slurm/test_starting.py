"""What becomes of a task that got no machine; Slurm's commands are stand-ins that write down."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from mayfly.batch.job import TICKET_VARIABLE, Fault, Ticket, write_ticket
from mayfly.batch.settings import BatchSettings
from mayfly.batch.slurm.starting import _explain, payload_of, start_task

LOST = Ticket(
    system="slurm",
    job="17",
    key="lab/17/n1.0",
    step="batch",
    fault=Fault.MAYFLY,
    reason="no\nservice",
)
COMMAND = """#!/bin/sh
echo "${0##*/} $*" >>"$LOG"
case ${0##*/} in
squeue) case $* in *%k) echo "$COMMENT" ;; *) echo "$STATE" ;; esac ;;
sinfo) printf 'n1\\nn2\\n' ;;
esac
"""


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Have commands of Slurm that write down how they were called."""
    for name in ("squeue", "sinfo", "scontrol"):
        (tmp_path / name).write_text(COMMAND)
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("LOG", str(tmp_path / "log"))
    monkeypatch.setenv("STATE", "RUNNING")
    monkeypatch.setenv("COMMENT", "(null)")
    monkeypatch.setenv("MAYFLY_HOST_SOCKET", "none")
    (tmp_path / "log").touch()
    before = signal.getsignal(signal.SIGTERM)
    yield tmp_path / "log"
    signal.signal(signal.SIGTERM, before)


def start(ticket: Ticket | None, *, tries: int = 3, **env: str) -> int:
    given = {} if ticket is None else {TICKET_VARIABLE: write_ticket(ticket)}
    environ = {"SLURM_JOB_ID": "17", "SLURMD_NODENAME": "n1", "MAYFLY_ARGV0": "/bin/true", **env}
    return start_task((), {**environ, **given}, BatchSettings(tries=tries))


def requeued(log: Path) -> bool:
    return "scontrol requeue 17\n" in log.read_text()


@pytest.mark.parametrize("ticket", [LOST, replace(LOST, fault=Fault.SITE), None])
def test_when_mayfly_fails_the_job_goes_back_to_slurm(log: Path, ticket: Ticket | None) -> None:
    assert start(ticket) == 125
    called = log.read_text()
    assert requeued(log)
    assert "scontrol update jobid=17 comment=mayfly: " in called
    assert called.endswith("scontrol update jobid=17 excnodelist=n1\n")


@pytest.mark.parametrize(("comment", "ours"), [("mayfly: before", True), ("my own words", False)])
def test_what_the_user_has_put_beside_his_job_stays(
    log: Path, monkeypatch: pytest.MonkeyPatch, comment: str, *, ours: bool
) -> None:
    monkeypatch.setenv("COMMENT", comment)
    assert start(LOST) == 125
    assert requeued(log)
    assert ("comment=mayfly: " in log.read_text()) is ours


def test_the_jobs_own_mistake_is_the_jobs(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert start(replace(LOST, fault=Fault.JOB, hint="mend it")) == 125
    assert not requeued(log)
    lines = ["mayfly: no", "mayfly: service", "mayfly:   hint: mend it"]
    assert capsys.readouterr().err.splitlines() == lines


@pytest.mark.parametrize("state", ["COMPLETING", "CANCELLED", ""])
def test_a_job_that_is_to_end_does_not_come_back(
    log: Path, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    monkeypatch.setenv("STATE", state)
    assert start(LOST) == 125
    assert not requeued(log)


@pytest.mark.parametrize("ticket", [replace(LOST, restart=3), replace(LOST, step="0")])
def test_not_for_ever_and_not_a_step(log: Path, ticket: Ticket) -> None:
    assert start(ticket) == 125
    assert not requeued(log)


def test_without_slurms_commands_it_is_said(
    log: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert start(LOST) == 125
    assert "cannot run squeue" in capsys.readouterr().err
    assert not requeued(log)


@pytest.mark.parametrize("count", ["x", "-1", "9" * 50, "²"])
def test_nonsense_in_the_environment_is_none(log: Path, count: str) -> None:
    assert start(None, SLURM_RESTART_COUNT=count) == 125
    assert requeued(log)


def test_a_script_is_told_from_a_program(tmp_path: Path) -> None:
    script = tmp_path / "slurm_script"
    script.write_text("#!/bin/sh\n")
    assert payload_of(str(script), ("a",), {}).script == script
    assert payload_of("/none/slurm_script", (), {}).script is None
    assert payload_of("a.out", ("b",), {}).argv == ("a.out", "b")


def test_slurm_shows_why_a_job_waits(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMMENT", "")
    _explain("17", "booting el9\nonce")
    assert log.read_text().splitlines()[-1] == (
        "scontrol update jobid=17 comment=mayfly: booting el9 once"
    )


def test_a_comment_of_the_users_stays(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMMENT", "mine")
    _explain("17", "booting el9 once")
    assert "scontrol" not in log.read_text()
