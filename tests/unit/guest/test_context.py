"""A site's script is run as those expect who write it, and what it said is told."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mayfly.guest.context import run_part
from mayfly.guest.linux import run_tool
from tests.unit.guest.claims import guest_tree, refused
from tests.unit.guest.host import Agent, running_agent


@pytest.fixture
def root() -> Iterator[Path]:
    with guest_tree() as top:
        (top / "run/mayfly").mkdir()
        yield top


def ran(root: Path, script: str, *, timeout_s: float = 20) -> dict[str, Any]:
    (root / "run/mayfly/prolog.sh").write_text(script)
    told: dict[str, Any] = json.loads(run_part("prolog.sh", timeout_s, run_tool, root=str(root)))
    return told


@pytest.mark.parametrize(
    ("script", "code", "output"),
    [
        ("echo out; echo err >&2", 0, "out\nerr\n"),
        ("false", 1, ""),
        ("exit 7", 7, ""),
        ("if", 2, "prolog.sh"),
        ("pwd; ls", 0, "/run/mayfly\nprolog.sh\n"),
        ("yes | head -c 1000000", 0, "y\n" * 100),
        ("printf '\\377\\0'", 0, "\ufffd"),
    ],
)
def test_a_script_is_sourced_in_its_directory(
    root: Path, script: str, code: int, output: str
) -> None:
    told = ran(root, script)
    assert told["code"] == code
    assert output in told["output"]
    assert len(told["output"]) <= 8 << 10


def test_a_script_without_end_is_ended(root: Path) -> None:
    assert ran(root, "echo begun; sleep 60", timeout_s=0.3) == {"code": 124, "output": "begun\n"}


def test_the_agent_runs_the_two_that_there_are(root: Path) -> None:
    (root / "run/mayfly/epilog.sh").write_text("echo done")
    with running_agent(root) as agent:
        agent.control.sync()
        agent.control.message("hello")
        answer = ask(agent, "epilog.sh")
        # Outside of a machine an agent runs no programs: it says that there is none.
        assert (answer["type"], answer["code"], answer["output"]) == ("ok", 127, "")
        assert "No such file" in refused(ask(agent, "prolog.sh"))
        for part in ("../start", "start", "", 7):
            assert refused(ask(agent, part))


def ask(agent: Agent, part: object) -> dict[str, Any]:
    return agent.control.ask("context", part=part, timeout_s=20)
