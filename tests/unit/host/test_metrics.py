"""What the service counts, and how Prometheus reads it."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mayfly.errors import EXIT_AND_HTTP, Failed, Quota
from mayfly.host.metrics import BUCKETS_S, WHOLE, Gauges, Metrics, write_metrics
from mayfly.model import State
from tests.unit.host.exposition import parse

PAGE = Path(__file__).parents[3] / "docs/reference/metrics.md"
GAUGES = Gauges(
    version="1.2.3",
    machines={"running": 3, "standby": 2},
    waiting=7,
    templates=4,
    shared_bytes=1 << 30,
    private_bytes=1 << 29,
    promised_bytes=5,
    promisable_bytes=6,
    draining=True,
)


def samples(metrics: Metrics, name: str, gauges: Gauges = GAUGES) -> dict[frozenset[str], float]:
    """Give the values of a metric by the values of its labels."""
    family = parse(metrics.render(gauges))[name]
    return {
        frozenset(value for _, value in labels): count
        for (sample, labels), count in family.samples.items()
        if sample == name
    }


def value(metrics: Metrics, name: str, *labels: str) -> float:
    return samples(metrics, name)[frozenset(labels)]


def test_starts_are_counted_by_image_and_path() -> None:
    metrics = Metrics()
    for image, path in [("a", "standby"), ("a", "clone"), ("b", "clone"), ("a", "standby")]:
        metrics.started(image, path, 0.2)
    assert samples(metrics, "mayfly_starts_total") == {
        frozenset({"a", "standby"}): 2,
        frozenset({"a", "clone"}): 1,
        frozenset({"b", "clone"}): 1,
    }


def test_how_long_starts_took_is_told_by_step() -> None:
    metrics = Metrics()
    times = [0.01, 0.025, 0.2, 4.0, 1000.0]
    for seconds in times:
        metrics.started("a", "clone", seconds)
    metrics.step("network", 0.5)
    family = parse(metrics.render(GAUGES))["mayfly_start_seconds"]
    bounds = [*BUCKETS_S, float("inf")]
    for bound in bounds:
        shown = "+Inf" if bound == float("inf") else str(bound)
        labels = frozenset({("step", WHOLE), ("le", shown)})
        expected = sum(seconds <= bound for seconds in times)
        assert family.samples["mayfly_start_seconds_bucket", labels] == expected
    step = frozenset({("step", WHOLE)})
    assert family.samples["mayfly_start_seconds_sum", step] == pytest.approx(sum(times))
    assert family.samples["mayfly_start_seconds_count", step] == 5
    assert family.samples["mayfly_start_seconds_count", frozenset({("step", "network")})] == 1


def test_a_clock_that_went_back_makes_no_negative_time() -> None:
    metrics = Metrics()
    metrics.step("network", -5)
    family = parse(metrics.render(GAUGES))["mayfly_start_seconds"]
    assert family.samples["mayfly_start_seconds_sum", frozenset({("step", "network")})] == 0


def test_failures_are_counted_by_class_and_all_classes_are_there() -> None:
    metrics = Metrics()
    for error in (Quota("no"), Quota("no"), Failed("no")):
        metrics.failed(error)
    counts = samples(metrics, "mayfly_failures_total")
    assert counts.keys() == {frozenset({error.__name__}) for error in EXIT_AND_HTTP}
    assert {next(iter(name)): count for name, count in counts.items() if count} == {
        "Quota": 2,
        "Failed": 1,
    }


def test_hits_and_misses_are_counted_by_image() -> None:
    metrics = Metrics()
    for image in ("a", "a", "b"):
        metrics.hit(image)
    metrics.miss("a")
    assert value(metrics, "mayfly_standby_hits_total", "a") == 2
    assert value(metrics, "mayfly_standby_hits_total", "b") == 1
    assert samples(metrics, "mayfly_standby_misses_total") == {frozenset({"a"}): 1}


def test_how_things_stand() -> None:
    metrics = Metrics()
    assert value(metrics, "mayfly_host_info", "1.2.3") == 1
    assert value(metrics, "mayfly_host_up") == 1
    assert value(metrics, "mayfly_host_draining") == 1
    assert value(metrics, "mayfly_waiting") == 7
    assert value(metrics, "mayfly_templates") == 4
    assert value(metrics, "mayfly_memory_bytes", "shared") == 1 << 30
    assert value(metrics, "mayfly_memory_bytes", "private") == 1 << 29
    assert value(metrics, "mayfly_memory_promised_bytes") == 5
    assert value(metrics, "mayfly_memory_promisable_bytes") == 6
    machines = samples(metrics, "mayfly_machines")
    assert machines.keys() == {frozenset({state.value}) for state in State}
    assert machines[frozenset({"running"})] == 3
    assert machines[frozenset({"gone"})] == 0


@given(st.text(max_size=30), st.text(max_size=10))
def test_any_name_of_an_image_is_read_back(image: str, step: str) -> None:
    metrics = Metrics()
    metrics.started(image, "clone", 0.1)
    metrics.hit(image)
    metrics.step(step, 1)
    families = parse(metrics.render(GAUGES))
    key = ("mayfly_starts_total", frozenset({("image", image), ("path", "clone")}))
    assert families["mayfly_starts_total"].samples[key] == 1


def test_a_name_that_is_no_text_does_no_harm() -> None:
    metrics = Metrics()
    metrics.hit(os.fsdecode(b"\xff"))
    assert value(metrics, "mayfly_standby_hits_total", "?") == 1


def test_a_metrics_file_is_whole_and_for_everybody(tmp_path: Path) -> None:
    file = tmp_path / "mayfly.prom"
    mask = os.umask(0o077)
    try:
        assert write_metrics(file, "one\n") == ""
        assert write_metrics(file, "two\n") == ""
    finally:
        os.umask(mask)
    assert file.read_text() == "two\n"
    assert stat.S_IMODE(file.stat().st_mode) == 0o644
    assert [path.name for path in tmp_path.iterdir()] == ["mayfly.prom"]


def test_a_metrics_file_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    told = write_metrics(tmp_path / "none/mayfly.prom", "one\n")
    assert told == f"cannot write metrics to {tmp_path}/none/mayfly.prom: No such file or directory"
    (tmp_path / "mayfly.prom").mkdir()
    assert "mayfly.prom: " in write_metrics(tmp_path / "mayfly.prom", "one\n")
    assert [path.name for path in tmp_path.iterdir()] == ["mayfly.prom"]


def test_the_page_has_a_line_for_each_metric() -> None:
    metrics = Metrics()
    metrics.started("a", "clone", 1)
    metrics.hit("a")
    metrics.miss("a")
    families = parse(metrics.render(GAUGES))
    page = PAGE.read_text()
    rows = re.findall(r"^\| `(mayfly_[a-z_]+)` \| (\w+) \| ([^|]*) \|", page, re.MULTILINE)
    assert {name: kind for name, kind, _ in rows} == {
        name: family.kind for name, family in families.items()
    }
    for name, _, labels in rows:
        used = {label for _, pairs in families[name].samples for label, _ in pairs} - {"le"}
        assert set(re.findall(r"`(\w+)`", labels)) == used, name


def test_a_link_in_the_collectors_directory_is_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("mine")
    (tmp_path / ".mayfly.prom.new").symlink_to(target)
    assert write_metrics(tmp_path / "mayfly.prom", "text\n") == ""
    assert (target.read_text(), (tmp_path / "mayfly.prom").read_text()) == ("mine", "text\n")
