"""A machine whose memory is that of an earlier moment: other random numbers, the right clock."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mayfly.guest.control import Control, Surroundings
from mayfly.guest.framing import Frame, Kind, Parser
from mayfly.guest.loop import Loop
from mayfly.guest.machine import Machine
from mayfly.guest.renew import Refresh, refresh
from mayfly.guest.system import no_tool
from tests.unit.guest.claims import IDENTITY, claim, guest_tree, refused, renewed
from tests.unit.guest.host import Agent, running_agent
from tests.unit.guest.test_renew import Recorder

FRESH: dict[str, Any] = {"epoch": IDENTITY["epoch"], "seed": "cd" * 64, "time_ns": 1_800_000_000}


@pytest.fixture(scope="module")
def agent() -> Iterator[Agent]:
    with guest_tree() as root, running_agent(root) as agent:
        agent.control.sync()
        agent.control.message("hello")
        yield agent


def test_a_refresh_comes_after_the_renewal_and_any_number_of_times(agent: Agent) -> None:
    assert refused(agent.control.ask("refresh", **FRESH)) == "this machine was not renewed yet"
    renewed(agent)
    answers = [agent.control.ask("refresh", **FRESH)]
    assert claim(agent)["type"] == "ok"
    answers += [agent.control.ask("refresh", **FRESH) for _ in range(2)]
    sample = agent.control.ask("sample")
    assert len({answer["random"] for answer in (*answers, sample)}) == 4
    for answer in answers:
        assert answer["type"] == "ok"
        assert answer.keys() - {"method"} == sample.keys()
        assert answer["machine_id"] == IDENTITY["machine_id"], "it must stay the same machine"


@pytest.mark.parametrize(
    ("field", "value"),
    [("seed", "cd"), ("seed", "zz" * 64), ("seed", None), ("time_ns", "now"), ("epoch", 1)],
)
def test_what_cannot_be_meant_changes_nothing(agent: Agent, field: str, value: object) -> None:
    renewed(agent)
    assert field in refused(agent.control.ask("refresh", **{**FRESH, field: value}))
    assert agent.control.ask("refresh", **FRESH)["type"] == "ok"


def test_random_numbers_come_before_the_clock() -> None:
    kernel = Recorder()
    assert refresh(Refresh(seed=b"s" * 64, time_ns=7), kernel) == "mix"
    assert kernel.told == [("stir", b"s" * 64), ("clock", 7)]


class Heard:
    """Where the answers go."""

    idle = True

    def __init__(self) -> None:
        self._parser = Parser(synced=True)
        self.messages: list[dict[str, Any]] = []

    def send(self, data: bytes) -> None:
        self.messages += [frame.message for frame in self._parser.feed(data)]

    def relay(self, fd: int, stream: int, limit: int) -> int:
        raise AssertionError(f"{fd} {stream} {limit}")

    def flush(self) -> None:
        pass


@pytest.mark.parametrize("step", ["stir", "clock"])
def test_a_machine_that_cannot_be_refreshed_is_beyond_use(tmp_path: Path, step: str) -> None:
    machine, heard = Machine(), Heard()
    machine.renewed()
    around = Surroundings(system=Recorder(broken=step), tool=no_tool, sshfs=(), root=str(tmp_path))
    control = Control(Loop(), heard, machine, around)
    for kind in ("refresh", "claim"):
        control.frame(Frame(Kind.MESSAGE, 0, b"", {"type": kind, "id": 1, **FRESH}))
    first, second = heard.messages
    assert "not permitted" in refused(first)
    assert "must not be used" in refused(second)
