"""What becomes of jobs that got no machine, on each system: their tickets say whose fault it is."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from mayfly.batch.htcondor import starting as htcondor
from mayfly.batch.htcondor.places import place_of
from mayfly.batch.job import Fault, Ticket, write_ticket
from mayfly.batch.lsf import starting as lsf
from mayfly.batch.pbs import starting as pbs
from mayfly.batch.settings import BatchSettings
from mayfly.batch.tickets import leave, take
from mayfly.errors import RUN_FAILED

TICKET = Ticket(system="x", job="7", key="c/7/0", fault=Fault.MAYFLY, reason="no host service")
OURS, ENOUGH, USERS = TICKET, replace(TICKET, restart=3), replace(TICKET, fault=Fault.JOB)
SITES = replace(TICKET, fault=Fault.SITE)
CASES = [(OURS, True), (SITES, True), (ENOUGH, False), (USERS, False)]


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Starters say in the environment where the service is; it is as before afterwards."""
    monkeypatch.setenv("MAYFLY_HOST_SOCKET", "")
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def settings(tmp_path: Path) -> BatchSettings:
    """A site that tries a job three times."""
    return BatchSettings(socket=tmp_path / "host.sock", tries=3)


@pytest.mark.parametrize(("ticket", "again"), CASES)
def test_pbs(settings: BatchSettings, tmp_path: Path, ticket: Ticket, *, again: bool) -> None:
    script = tmp_path / "7.SC"
    script.write_text("exit 0\n")
    leave(settings, "7", ticket, os.getuid())
    code = pbs.start_job(["/bin/sh", str(script)], {"PBS_JOBID": "7.srv"}, settings)
    assert code == (pbs.AGAIN if again else RUN_FAILED)
    assert take(settings, "7") == ("no host service" if again else "")


@pytest.mark.parametrize("ticket", [OURS, SITES, ENOUGH, USERS])
def test_lsf(settings: BatchSettings, ticket: Ticket) -> None:
    leave(settings, "7", ticket, os.getuid())
    code = lsf.start_job(["exit 0"], {"LSB_JOBID": "7"}, settings)
    # How often is the queue's affair.
    assert code == (RUN_FAILED if ticket.fault is Fault.JOB else lsf.AGAIN)


def answering(place: Path, answer: bytes) -> Callable[[], None]:
    """Answer one request at a place; gives what waits for the end of that."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(place))
    listener.listen()

    def serve() -> None:
        connection, _ = listener.accept()
        with connection, listener:
            connection.recv(1 << 16)
            connection.sendall(answer)

    thread = threading.Thread(target=serve)
    thread.start()
    return thread.join


@pytest.mark.parametrize(("ticket", "again"), CASES)
def test_htcondor(settings: BatchSettings, tmp_path: Path, ticket: Ticket, *, again: bool) -> None:
    answer = json.dumps({"ticket": write_ticket(ticket)}).encode() + b"\n"
    wait = answering(place_of(settings), answer)
    environ = {"_CONDOR_WRAPPER_ERROR_FILE": str(tmp_path / "failed")}
    assert htcondor.start_job(["/bin/true"], environ, settings) == RUN_FAILED
    wait()
    told = (tmp_path / "failed").read_text() if (tmp_path / "failed").exists() else ""
    assert told == ("mayfly: no host service\n" if again else "")


@pytest.mark.parametrize(
    "answer",
    [b"", b"{}\n", b"[]\n", b"\xff", b'{"ticket": 1}\n', b'{"ticket": "x"}\n', b"[" * 9999],
)
def test_a_registrar_that_answers_nonsense(settings: BatchSettings, answer: bytes) -> None:
    wait = answering(place_of(settings), answer)
    ticket = htcondor.ticket_for({"vmimage": "el9"}, settings)
    wait()
    assert ticket.fault is Fault.MAYFLY
    assert ticket.reason
