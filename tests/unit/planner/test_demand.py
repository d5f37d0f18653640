"""Waiting jobs as lines of demand."""

from __future__ import annotations

from dataclasses import replace

from mayfly.model import Shape
from mayfly.planner.demand import Job, group_jobs
from mayfly.planner.model import Kind

ONE = Shape(cpus=1, memory_mib=1000)
JOB = Job(id="1", kind=Kind(image="el9"), shape=ONE, group="physics", submitted_at=100.0)


def test_jobs_that_are_alike_are_one_line() -> None:
    jobs = [JOB, replace(JOB, id="2", run_s=50.0), replace(JOB, id="3", run_s=150.0)]
    (line,) = group_jobs(jobs, now=200.0)
    assert (line.count, line.due, line.run_s) == (3, 3, 100.0)
    assert (line.kind, line.shape, line.group) == (JOB.kind, ONE, "physics")


def test_whatever_makes_a_difference_makes_a_line() -> None:
    jobs = [
        JOB,
        replace(JOB, kind=Kind(image="el7")),
        replace(JOB, kind=Kind(image="el9", partition="long")),
        replace(JOB, kind=Kind(image="el9", constraints=frozenset({"gpu"}))),
        replace(JOB, shape=Shape(cpus=2, memory_mib=1000)),
        replace(JOB, group="biology"),
    ]
    assert len(group_jobs(jobs, now=200.0)) == len(jobs)


def test_a_job_is_due_when_it_has_waited_for_as_long_as_it_may() -> None:
    jobs = [JOB, replace(JOB, id="2", submitted_at=190.0)]
    (line,) = group_jobs(jobs, now=200.0, patience_s=60.0)
    assert (line.count, line.due) == (2, 1)


def test_a_job_that_starts_later_is_demand_when_a_machine_needs_to_boot() -> None:
    later = replace(JOB, starts_at=500.0)
    assert group_jobs([later], now=200.0, lead_s=120.0) == ()
    (line,) = group_jobs([later], now=400.0, patience_s=60.0, lead_s=120.0)
    assert line.due == 1


def test_waiting_counts_from_when_a_job_could_have_begun() -> None:
    (line,) = group_jobs([replace(JOB, starts_at=190.0)], now=200.0, patience_s=60.0)
    assert line.due == 0


def test_a_held_job_is_no_demand() -> None:
    assert group_jobs([replace(JOB, held=True)], now=200.0) == ()


def test_who_has_waited_longest_comes_first() -> None:
    jobs = [replace(JOB, submitted_at=150.0), replace(JOB, group="biology", submitted_at=50.0)]
    assert [line.group for line in group_jobs(jobs, now=200.0)] == ["biology", "physics"]
