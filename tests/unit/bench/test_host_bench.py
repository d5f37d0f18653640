"""The bench of the host service, as far as it can be judged without one."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench import host as bench_host
from bench.client import BenchError, Child, Children, environment
from bench.crowd import fairness
from bench.hot import service_share
from bench.idle import main as hold_idle
from bench.inside import mean_ratio
from bench.lanes import run_lanes
from bench.report import percentile, quantiles
from bench.service import Ready, as_user, configuration, is_full, private_mib, qemus_of
from mayfly.host.settings import load_host_settings

STATUS: dict[str, Any] = {
    "machines": {"standby": 2},
    "waiting": 0,
    "starting": 0,
    "standby": [{"ready": 2, "wanted": 2}],
}


def test_a_service_is_configured_as_it_reads_it(tmp_path: Path) -> None:
    file = tmp_path / "host.toml"
    ready = [Ready(image="debian-12", least=1, most=3), Ready(image="stock-12")]
    file.write_text(configuration(tmp_path / "s", tmp_path / "state", ready))
    settings = load_host_settings(file)
    assert (settings.socket, settings.state) == (tmp_path / "s", tmp_path / "state")
    assert settings.allow_emulation
    assert [(one.image, one.least, one.most) for one in settings.standby] == [
        ("debian-12", 1, 3),
        ("stock-12", 2, 4),
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {"standby": [{"ready": 1, "wanted": 2}], "machines": {"standby": 1}},
        {"waiting": 1},
        {"starting": 1},
        {"machines": {"standby": 2, "running": 1}},
        {"machines": {"standby": 2, "stopping": 1}},
    ],
)
def test_a_service_with_anything_under_way_is_not_full(changes: dict[str, Any]) -> None:
    assert is_full(STATUS)
    assert not is_full({**STATUS, **changes})


def test_the_services_share_is_read() -> None:
    assert service_share("mayfly: claim 0.06 s, job 0.02 s, service 5.5 ms") == 5.5


def test_a_run_without_the_service_is_no_hot_start() -> None:
    with pytest.raises(BenchError, match="not served"):
        service_share("mayfly: clone 0.28 s, job 0.05 s")


@pytest.mark.parametrize(("percent", "value"), [(50, 50), (95, 95), (99, 99), (100, 100), (0, 1)])
def test_a_percentile_is_a_value_that_was_seen(percent: float, value: float) -> None:
    assert percentile([*range(100, 0, -1)], percent) == value


def test_of_few_values_the_last_percentile_is_the_greatest() -> None:
    assert quantiles([0.25, 0.5]) == "p50 0.250, p95 0.500, p99 0.500 s (n=2)"


@pytest.mark.parametrize(
    ("users", "fair"), [("abababab", 1.0), ("aaaabbbb", 0.0), ("aababbab", 1 / 3)]
)
def test_who_is_served_first_decides_what_is_fair(users: str, fair: float) -> None:
    assert fairness([(ord(user), at) for at, user in enumerate(users)]) == pytest.approx(fair)


def test_gains_and_losses_are_weighed_alike() -> None:
    assert mean_ratio([2.0, 0.5]) == pytest.approx(1)


def test_the_figures_have_a_group_each() -> None:
    wanted = ["hot", "cold", "sustained", "burst", "inside", "suspend", "revert"]
    assert bench_host.BENCH.parse([]).only == wanted


def test_own_memory_is_weighed() -> None:
    assert 1 < private_mib(os.getpid()) < 4000


def test_nothing_is_taken_for_a_qemu(tmp_path: Path) -> None:
    with open(tmp_path / "disk.qcow2", "w"):
        assert qemus_of(tmp_path) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
def test_another_user_has_just_the_variables_that_he_is_given() -> None:
    words = [sys.executable, "-I", "-c", "import os; print(os.getuid(), sorted(os.environ))"]
    argv = as_user(54_321, words, {"HOME": "/", "LC_ALL": "C"})
    done = subprocess.run(argv, check=True, capture_output=True, text=True)
    assert done.stdout == "54321 ['HOME', 'LC_ALL']\n"


# --- idle connections ----------------------------------------------------------------------------


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Path]:
    """A service that takes two connections, and closes those a moment later."""
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(path))
        listener.listen(16)

        def serve() -> None:
            taken = []
            for number in range(3):
                connection, _ = listener.accept()
                if number < 2:
                    taken.append(connection)
                else:
                    connection.close()
            time.sleep(1.5)
            for connection in taken:
                connection.close()

        thread = threading.Thread(target=serve)
        thread.start()
        yield path
        thread.join()


def test_idle_connections_are_counted(door: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = hold_idle(str(door), 3, 20)
    assert json.loads(capsys.readouterr().out) == {"taken": 2}
    assert (found["taken"], found["refused"]) == (2, 1)
    assert found["closed_after_s"] is not None
    assert 1.4 < found["closed_after_s"] < 20


# --- lanes ---------------------------------------------------------------------------------------


@pytest.fixture
def children(tmp_path: Path) -> Iterator[Children]:
    with Children(environment(tmp_path)) as started:
        yield started


def test_lanes_run_side_by_side(children: Children) -> None:
    ended = []

    def lane(name: str, count: int) -> Iterator[Child]:
        for _ in range(count):
            child = children.start(["sleep", "0.2"])
            yield child
            with children.done(child):
                ended.append(name)

    looked = []
    began = time.monotonic()
    run_lanes(
        [lane("a", 2), lane("b", 2), lane("c", 0)],
        every_s=0.05,
        meanwhile=lambda: looked.append(1),
    )
    assert sorted(ended) == ["a", "a", "b", "b"]
    assert 0.4 <= time.monotonic() - began < 20
    assert len(looked) > 2
