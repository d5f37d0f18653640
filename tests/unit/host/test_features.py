"""Machine and job features."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from mayfly.guest.jobfeatures import parse_features
from mayfly.host.features import features_of
from mayfly.host.rights import Right
from mayfly.model import Shape

SHAPE = Shape(cpus=2, memory_mib=1024)
RIGHT = Right(
    key="cluster/123_4/0",
    uid=1000,
    cpus=2,
    memory_mib=2048,
    wall_s=3600,
    scratch_mib=10,
    created_at=1_000_000.7,
)


def test_a_jobs_machine_tells_the_jobs_limits() -> None:
    assert features_of(SHAPE, RIGHT, started_at=1_000_050.2) == {
        "machine": {
            "total_cpu": "2",
            "log_cores": "2",
            "phys_cores": "2",
            "jobslots": "1",
            "shutdowntime": "1003600",
            "grace_secs": "0",
        },
        "job": {
            "job_id": "123_4",
            "allocated_cpu": "2",
            "jobstart_secs": "1000000",
            "wall_limit_secs": "3600",
            "cpu_limit_secs": "7200",
            "max_rss_bytes": "1073741824",
            "max_swap_bytes": "0",
            "scratch_limit_bytes": "10485760",
            "shutdowntime_job": "1003600",
            "grace_secs_job": "0",
        },
    }


def test_a_machine_without_a_right_has_no_limits_of_time() -> None:
    features = features_of(SHAPE, None, started_at=1_000_050.2, scratch_mib=5, job_id="k3m")
    assert features == {
        "machine": {"total_cpu": "2", "log_cores": "2", "phys_cores": "2", "jobslots": "1"},
        "job": {
            "job_id": "k3m",
            "allocated_cpu": "2",
            "jobstart_secs": "1000050",
            "max_rss_bytes": "1073741824",
            "max_swap_bytes": "0",
            "scratch_limit_bytes": "5242880",
        },
    }


def test_a_job_without_a_wall_time_has_none() -> None:
    features = features_of(SHAPE, replace(RIGHT, wall_s=0), started_at=0)
    for name in ("wall_limit_secs", "cpu_limit_secs", "shutdowntime_job", "grace_secs_job"):
        assert name not in features["job"]
    assert "shutdowntime" not in features["machine"]


def test_what_root_says_wins() -> None:
    right = replace(
        RIGHT,
        machine_features={"hs06": "25.5", "shutdowntime": "1002000"},
        job_features={"hs06_job": "25.5", "grace_secs_job": "60", "job_id": "other"},
    )
    features = features_of(SHAPE, right, started_at=0, scratch_mib=99, job_id="ignored")
    assert features["machine"]["hs06"] == "25.5"
    assert features["machine"]["shutdowntime"] == "1002000"
    assert features["job"]["hs06_job"] == "25.5"
    assert features["job"]["grace_secs_job"] == "60"
    assert features["job"]["job_id"] == "other"
    assert features["job"]["scratch_limit_bytes"] == "10485760"


def test_benchmarks_are_not_invented() -> None:
    features = features_of(SHAPE, RIGHT, started_at=0)
    assert not [name for values in features.values() for name in values if "hs06" in name]


@given(st.integers(1, 255), st.integers(256, 1 << 20), st.none() | st.floats(0, 1e8))
def test_the_guest_takes_all_of_them(cpus: int, memory_mib: int, wall_s: float | None) -> None:
    right = None if wall_s is None else replace(RIGHT, wall_s=wall_s)
    features = features_of(Shape(cpus=cpus, memory_mib=memory_mib), right, started_at=5.5)
    taken = parse_features(dict(features))
    assert (taken.machine, taken.job) == (features["machine"], features["job"])
    for values in features.values():
        assert all(value.isdecimal() for name, value in values.items() if name != "job_id")
