"""Tasks of Slurm as the plugin tells of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from mayfly.batch.slurm.task import (
    BATCH_STEP,
    Known,
    cpus_of,
    find_cgroup,
    job_of,
    parse_known,
    parse_time,
    split_words,
    step_name,
)
from mayfly.errors import Failed, Invalid, Unavailable

WORDS = [
    "job=17",
    "step=0",
    "task=1",
    "uid=1000",
    "tasks=2",
    "cpus=4",
    "cores=0-3",
    "step_cores=0-1",
    "memory_mib=2001",
    "restart=1",
    "array=15",
    "element=3",
    "node=n1",
]
KNOWN = Known(queue="virt", wall_s=600)


def facts(**changes: object) -> dict[str, str]:
    return {**split_words(WORDS)[0], **{name: str(value) for name, value in changes.items()}}


def test_all_of_a_job_on_a_node_is_one() -> None:
    job = job_of(facts(), "lab", KNOWN, "/slurm/job_17")
    assert (job.key, job.task, job.restart, job.shared) == ("lab/17/n1.1", "3", 1, True)
    # Four cores of two threads each, of which the step has two.
    assert (job.cpus, job.memory_mib, job.queue, job.wall_s) == (8, 1985, "virt", 600)
    batch = job_of(facts(step=BATCH_STEP, tasks=1, task=0, cpus=8, step_cores="0-3"), "lab", KNOWN)
    assert (batch.key, batch.cpus, batch.memory_mib) == (job.key, job.cpus, 2001)
    assert [step_name(facts(step=step)) for step in (BATCH_STEP, 3)] == ["batch", "3"]


@pytest.mark.parametrize(
    ("cores", "cpus"), [("0", 2), ("", 4), ("0-", 4), ("0,2-4,7", 10), ("x" * 99, 4)]
)
def test_cores_are_counted(cores: str, cpus: int) -> None:
    assert cpus_of(facts(cores=cores, step_cores="0-1")) == cpus


def test_where_memory_is_not_counted_a_machine_has_the_usual() -> None:
    assert job_of(facts(memory_mib=0, tasks=1), "lab").memory_mib == 640
    assert job_of(facts(memory_mib=20, tasks=9), "lab").memory_mib == 1


@pytest.mark.parametrize(
    "changes", [{"job": ""}, {"uid": "-1"}, {"node": "a/b"}, {"memory_mib": "9" * 30}]
)
def test_nonsense_of_the_plugin_is_refused(changes: dict[str, str]) -> None:
    with pytest.raises(Failed, match="Slurm's plugin told no good"):
        job_of({**facts(), **changes}, "lab")


def test_options_and_facts_are_told_apart() -> None:
    assert split_words(["job=1", "vm-image=a=b", "vm-root=yes"]) == (
        {"job": "1"},
        {"image": "a=b", "root": "yes"},
    )
    with pytest.raises(Invalid, match="is not NAME=VALUE"):
        split_words(["job"])


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("10:00", 600),
        ("1:00:00", 3600),
        ("2-00:00:01", 172_801),
        ("UNLIMITED", 0),
        ("", 0),
        ("NOT_SET", 0),
    ],
)
def test_times_of_slurm(text: str, seconds: float) -> None:
    assert parse_time(text) == seconds


def test_how_often_a_job_was_begun_the_controller_knows() -> None:
    known = parse_known("virt|10:00|2026-12-01T02:30:31|2|\n")
    assert (known.restart, known.submitted_at > 0) == (2, True)
    assert parse_known("virt|10:00|N/A|x|\n") == KNOWN
    job = job_of(facts(restart=0), "lab", known)
    assert (job.key, job.restart) == ("lab/17/n1.2", 2)


def test_what_squeue_says() -> None:
    assert parse_known("virt|10:00|\n") == KNOWN
    for text in ("", "\n", "|", "slurm_load_jobs error"):
        with pytest.raises(Unavailable, match="knows no such job"):
            parse_known(text)


def test_the_cgroup_of_a_job_is_found_from_its_tasks(tmp_path: Path) -> None:
    own = tmp_path / "cgroup"
    own.write_text("4:memory:/slurm_n1/uid_1000/job_17/step_batch/task_0\n1:cpu:/\n")
    assert find_cgroup(17, top=tmp_path, own=own) == ""
    (tmp_path / "memory/slurm_n1/uid_1000/job_17/step_batch").mkdir(parents=True)
    assert find_cgroup(17, top=tmp_path, own=own) == ""
    (tmp_path / "memory/slurm_n1/uid_1000/job_17/step_extern").mkdir(parents=True)
    assert find_cgroup(17, top=tmp_path, own=own) == "/slurm_n1/uid_1000/job_17"
    assert find_cgroup(1, top=tmp_path, own=own) == ""
    assert find_cgroup(17, top=tmp_path, own=tmp_path / "none") == ""
