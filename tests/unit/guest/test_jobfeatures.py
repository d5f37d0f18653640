"""What a job may know of its machine and of itself, as files that variables lead to."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.guest.claims import claim, guest_tree, refused, renewed
from tests.unit.guest.host import Agent, running_agent

GIVEN: dict[str, Any] = {
    "machine": {"total_cpu": "4", "hs06": "44.5"},
    "job": {"job_id": "77.0", "wall_limit_secs": "3600", "note": "caf\u00e9 \udcff"},
}


@pytest.fixture
def root() -> Iterator[Path]:
    with guest_tree() as top:
        yield top


@pytest.fixture
def agent(root: Path) -> Iterator[Agent]:
    with running_agent(root) as agent:
        agent.control.sync()
        agent.control.message("hello")
        yield renewed(agent)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def variables(agent: Agent, **fields: Any) -> list[str]:
    script = "echo ${MACHINEFEATURES-none} ${JOBFEATURES-none}"
    assert agent.session.run("sh", "-c", script, **fields)["code"] == 0
    return agent.session.text().split()


def test_each_value_is_a_file_of_its_own(agent: Agent, root: Path) -> None:
    assert claim(agent, features=GIVEN)["type"] == "ok"
    machine, job = root / "etc/machinefeatures", root / "etc/jobfeatures"
    assert files(machine) == {"total_cpu": b"4\n", "hs06": b"44.5\n"}
    assert files(job)["note"] == b"caf\xc3\xa9 \xff\n"
    for folder in (machine, job):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o755
        assert folder.stat().st_uid == (root / "etc").stat().st_uid
        assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o644}


@pytest.mark.parametrize("as_root", [False, True])
def test_jobs_find_them(agent: Agent, *, as_root: bool) -> None:
    claim(agent, features=GIVEN, root=True)
    found = ["/etc/machinefeatures", "/etc/jobfeatures"]
    assert variables(agent, root=as_root) == found
    assert variables(agent, env={"JOBFEATURES": "/mine"}) == ["/etc/machinefeatures", "/mine"]


@pytest.mark.parametrize("features", [None, {}, {"machine": None}])
def test_a_host_that_tells_nothing(
    agent: Agent, root: Path, features: dict[str, Any] | None
) -> None:
    assert claim(agent, features=features)["type"] == "ok"
    assert variables(agent) == ["none", "none"]
    assert not (root / "etc/machinefeatures").exists()


def test_only_what_is_told_has_a_variable(agent: Agent, root: Path) -> None:
    claim(agent, features={"machine": {}})
    assert variables(agent) == ["/etc/machinefeatures", "none"]
    assert files(root / "etc/machinefeatures") == {}
    assert not (root / "etc/jobfeatures").exists()


def test_what_was_told_before_is_forgotten(agent: Agent, root: Path) -> None:
    folder = root / "etc/jobfeatures"
    folder.mkdir()
    (folder / "of_the_image").write_text("x")
    (folder / "elsewhere").symlink_to(root / "etc/passwd")
    (folder / "sub").mkdir()
    claim(agent, features=GIVEN)
    claim(agent, features={"job": {"job_id": "78"}})
    assert (folder / "job_id").read_text() == "78\n"
    assert sorted(path.name for path in folder.iterdir()) == ["job_id", "sub"]
    assert "root:x:0" in (root / "etc/passwd").read_text()


@pytest.mark.parametrize(
    ("features", "reason"),
    [
        ({"job": {"../passwd": "x"}}, "cannot be the name of a feature"),
        ({"job": {"Total": "x"}}, "cannot be the name of a feature"),
        ({"job": {"": "x"}}, "cannot be the name of a feature"),
        ({"machine": {"a\n": "x"}}, "cannot be the name of a feature"),
        ({"machine": {"x" * 65: "x"}}, "cannot be the name of a feature"),
        ({"machine": {"total_cpu": 4}}, "'total_cpu' must be text"),
        ({"machine": {"total_cpu": "\0"}}, "zero byte"),
        ({"machine": []}, "'machine' must be an object"),
        ([], "'features' must be an object"),
    ],
)
def test_features_that_make_no_sense(
    agent: Agent, root: Path, features: object, reason: str
) -> None:
    assert reason in refused(claim(agent, features=features))
    assert not (root / "etc/machinefeatures").exists()
