"""Where the processes of a shared machine are put: trees of directories stand for cgroups."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from mayfly.errors import Denied, Failed
from mayfly.host.cgroups import (
    check_member,
    clear,
    has_ended,
    oom_kills,
    settle_in,
    step_of,
    to_extern,
)

JOB = "/slurm/uid_1/job_5"
OWN = os.getpid()


@pytest.fixture
def top(tmp_path: Path) -> Path:
    """Make the cgroups of a job with a batch step, in three hierarchies and an empty one."""
    for hierarchy in ("memory", "freezer", "cpuset"):
        for step in ("step_extern", "step_batch"):
            place = tmp_path / hierarchy / JOB.lstrip("/") / step
            place.mkdir(parents=True)
            (place / "cgroup.procs").touch()
    (tmp_path / "pids").mkdir()
    for name, limit in ((JOB, 100), (f"{JOB}/step_batch", 100), (f"{JOB}/step_0", 50)):
        place = tmp_path / "memory" / name.lstrip("/")
        place.mkdir(exist_ok=True)
        (place / "memory.limit_in_bytes").write_text(f"{limit}\n")
    return tmp_path


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """Have a process of the batch step."""
    (tmp_path / "proc/9").mkdir(parents=True)
    step = f"{JOB}/step_batch"
    (tmp_path / "proc/9/cgroup").write_text(f"4:memory:{step}/task_0\n2:freezer:{step}\n0::/\n")
    return tmp_path / "proc"


def procs(top: Path, path: str) -> str:
    return (top / path.format(JOB.lstrip("/")) / "cgroup.procs").read_text()


@pytest.mark.parametrize("job", [JOB, ""])
def test_a_process_of_the_job_may(top: Path, proc: Path, job: str) -> None:
    check_member(9, job, proc=proc, top=top)


@pytest.mark.parametrize(("pid", "job"), [(9, "/slurm/uid_1/job_55"), (9, f"{JOB}/x"), (8, JOB)])
def test_a_process_that_is_not_of_the_job_may_not(
    top: Path, proc: Path, pid: int, job: str
) -> None:
    with pytest.raises(Denied, match="is not of the job"):
        check_member(pid, job, proc=proc, top=top)


def test_a_machine_counts_for_a_step_that_has_all_of_the_job(top: Path, proc: Path) -> None:
    assert step_of(9, JOB, proc=proc, top=top) == "step_batch"
    (proc / "9/cgroup").write_text(f"4:memory:{JOB}/step_0/task_0\n")
    assert step_of(9, JOB, proc=proc, top=top) == "step_extern"
    for text in (f"4:memory:{JOB}/step_../x\n", "4:memory:/\n", "nonsense\n", f"4:memory:{JOB}\n"):
        (proc / "9/cgroup").write_text(text.replace("nonsense", "a:b:c"))
        assert step_of(9, JOB, proc=proc, top=top) == "step_extern"
    assert step_of(8, JOB, proc=proc, top=top) == "step_extern"


def test_each_hierarchy_is_used_for_what_it_is_good_for(top: Path) -> None:
    ours = top / "freezer" / JOB.lstrip("/") / "step_extern/mayfly"
    settle_in(OWN, JOB, "step_batch", top=top)
    assert procs(top, "memory/{}/step_batch") == str(OWN)
    assert procs(top, "cpuset/{}/step_extern") == str(OWN)
    assert (ours / "cgroup.procs").read_text() == str(OWN)
    assert procs(top, "freezer/{}/step_extern") == ""
    to_extern(OWN, JOB, top=top)
    assert procs(top, "memory/{}/step_extern") == str(OWN)


def test_a_job_that_has_ended_takes_nothing(top: Path) -> None:
    with pytest.raises(Failed, match="the job has ended"):
        settle_in(OWN, "/slurm/uid_1/job_6", "step_extern", top=top)
    to_extern(OWN, "/slurm/uid_1/job_6", top=top)


def test_a_job_has_ended_when_none_of_its_steps_has_a_process(top: Path) -> None:
    assert has_ended(JOB, top=top)
    settle_in(OWN, JOB, "step_batch", top=top)
    assert has_ended(JOB, top=top), "what is ours does not count"
    (top / "freezer" / JOB.lstrip("/") / "step_batch/cgroup.procs").write_text("1\n")
    assert not has_ended(JOB, top=top)
    (top / "cgroup.controllers").touch()
    assert not has_ended("/nowhere", top=top)


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """Have a process that somebody else is to end."""
    with subprocess.Popen(["sleep", "600"]) as process:
        yield process
        process.kill()


def test_what_is_left_is_killed(top: Path, sleeper: subprocess.Popen[bytes]) -> None:
    settle_in(sleeper.pid, JOB, "step_extern", top=top)
    # Directories that hold files cannot be removed, as those of cgroups that hold processes.
    assert not clear(JOB, top=top)
    assert sleeper.wait(10) == -9


def test_empty_ones_are_removed(tmp_path: Path) -> None:
    for hierarchy in ("memory", "freezer"):
        (tmp_path / hierarchy / JOB.lstrip("/") / "step_batch/task_0").mkdir(parents=True)
    (tmp_path / "freezer" / JOB.lstrip("/") / "step_extern/mayfly").mkdir(parents=True)
    assert clear(JOB, top=tmp_path)
    assert not list(tmp_path.rglob("job_5"))
    assert clear(JOB, top=tmp_path)


def test_kills_of_the_kernel_are_counted(top: Path) -> None:
    file = top / "memory" / JOB.lstrip("/") / "step_batch/memory.oom_control"
    assert oom_kills(JOB, top=top) == 0
    file.write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n")
    assert oom_kills(JOB, top=top) == 3
    other = top / "memory" / JOB.lstrip("/") / "step_extern/memory.oom_control"
    other.write_text("oom_kill 1\n")
    assert oom_kills(JOB, top=top) == 4
    other.unlink()
    file.write_text("one two three\n")
    assert oom_kills(JOB, top=top) == 0
