"""A job that Grid Engine suspends stands still with its machine."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from mayfly.batch.gridengine.pausing import resume_task, suspend_task
from mayfly.batch.settings import BatchSettings
from tests.integration.waiting import wait_until

NOBODY = BatchSettings(socket=Path("/nonexistent/sock"))


@pytest.fixture
def job() -> Iterator[subprocess.Popen[bytes]]:
    """A job on the host, the leader of its group."""
    with subprocess.Popen(["/usr/bin/sleep", "600"], start_new_session=True) as process:
        yield process
        process.kill()


def state(process: subprocess.Popen[bytes]) -> str:
    return Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0]


@pytest.mark.parametrize("config", ["job_id=7\nja_task_id=0\n", "", "job_id=x\n"])
def test_without_a_service_the_jobs_processes_stop_and_go_on(
    tmp_path: Path, job: subprocess.Popen[bytes], config: str
) -> None:
    (tmp_path / "config").write_text(config)
    environ = {"SGE_JOB_SPOOL_DIR": str(tmp_path)}
    assert suspend_task("default", (str(job.pid),), environ, NOBODY) == 1
    wait_until(lambda: state(job) == "T", "it to stop")
    assert resume_task("default", (str(job.pid),), environ, NOBODY) == 1
    wait_until(lambda: state(job) == "S", "it to go on")


@pytest.mark.parametrize("words", [(), ("",), ("0",), ("1",), ("-1",), ("$job_pid",), ("1 2",)])
def test_nobody_is_stopped_by_a_number_that_is_none(
    words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[tuple[int, signal.Signals]] = []
    monkeypatch.setattr("os.killpg", lambda pid, number: sent.append((pid, number)))
    assert suspend_task("default", words, {}, NOBODY) == 1
    assert sent == []
