"""Real machines whose maker has died, or has handed them on."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from dataclasses import replace

import pytest

from mayfly.engine.caller import account_of_caller
from mayfly.engine.machine import Machine
from mayfly.engine.reattach import handles, rebuild, reconnect
from mayfly.engine.records import open_place, read_record
from tests.integration.machines import ORDER, Workshop, run
from tests.unit.engine.machines import in_child

pytestmark = pytest.mark.integration

OUTLIVE = replace(ORDER, outlive=True)


def make(workshop: Workshop, *, standby: bool) -> str:
    """Make a machine that stays; gives its id."""
    machine = workshop.start(order=OUTLIVE)
    if standby:
        machine.control.request({"type": "warm"})
        machine.process.monitor.call("stop")
    else:
        run(machine, "echo made > /root/file")
    return machine.record.id


@pytest.fixture(params=[False, True], ids=["running", "standby"])
def orphan(workshop: Workshop, request: pytest.FixtureRequest) -> Iterator[str]:
    """A machine whose maker was killed."""
    with in_child(lambda: make(workshop, standby=request.param)) as (_, name):
        pass
    yield name
    # If the test has not removed it.
    assert name not in workshop.places()


def test_a_machine_goes_on_under_another_process(workshop: Workshop, orphan: str) -> None:
    place = open_place(workshop.engine.paths.machines, orphan)
    machine = reconnect(read_record(place.path), place, patience_s=10)
    try:
        status = machine.process.monitor.call("query-status")
        if not status["running"]:
            machine.process.monitor.call("cont")
            machine.claim(account_of_caller(), root=True)
        first, second = (machine.control.request({"type": "sample"}) for _ in range(2))
        assert first["random"] != second["random"]
        assert machine.control.features is not None
        assert "refresh" in machine.control.features
        assert run(machine, "echo here") == "here\n"
        if status["running"]:
            assert run(machine, "cat /root/file") == "made\n"
    finally:
        machine.delete()


def test_a_machine_is_handed_on_and_back(workshop: Workshop) -> None:
    machine = workshop.start(order=OUTLIVE)
    try:
        for turn in range(3):
            left, right = socket.socketpair()
            with left, right:
                socket.send_fds(left, [b"x"], handles(machine))
                fds = socket.recv_fds(right, 1, 4)[1]
            other = rebuild(machine.record, machine.place, fds)
            let_go(machine)
            machine = other
            assert machine.control.request({"type": "sample"})["type"] == "ok"
            assert machine.process.monitor.call("query-status")["running"]
            assert run(machine, f"echo {turn}") == f"{turn}\n"
    finally:
        machine.delete()


def let_go(machine: Machine) -> None:
    machine.control.close()
    machine.process.monitor.close()
    os.close(machine.process.handle)
    os.close(machine.process.output)
