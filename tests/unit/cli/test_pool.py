"""``mayfly pool`` as it is typed."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from mayfly.errors import Failed, Invalid, Missing
from tests.unit.cli.endorsing import command, refused

SAMPLE = Path(__file__).parents[2] / "material/sample.swf"
PAGE = (Path(__file__).parents[3] / "docs/reference/pools.md").read_text()
SITE = """\
[provider.cheap]
cpus = 40
[[provider.cheap.offer]]
name = "small"
cpus = 2
price_hour = 0.1
boot = "2m"
[provider.dear]
[[provider.dear.offer]]
name = "large"
cpus = 8
price_hour = 0.8
boot = "2m"
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "site.toml"
    file.write_text(SITE)
    return file


def simulated(config: Path, *words: object) -> dict[str, Any]:
    typed = ("pool", "simulate", SAMPLE, "--config", config, *words, "--json", "--quiet")
    found: dict[str, Any] = json.loads(command(*typed).stdout)
    return found


def test_jobs_run_and_cost(config: Path) -> None:
    found = simulated(config)
    assert found["jobs"] == 600
    assert (found["impossible"], found["unfinished"], found["dropped"]) == (0, 0, 3)
    assert found["cost"] == pytest.approx(sum(each["cost"] for each in found["offers"]), abs=0.01)
    # No cheaper than if every core-hour had been had at the lowest price.
    assert found["cost"] >= 0.05 * found["core_hours"]
    assert 0 <= found["wait_p50_s"] <= found["wait_p95_s"] <= found["wait_p99_s"]
    assert found["reasons"]["started at cheap/small"] > 0
    assert found["compared"][0]["cost"] is not None


def test_patience_makes_jobs_wait(config: Path) -> None:
    config.write_text('[pool]\npatience = "30m"\n' + SITE)
    assert simulated(config)["wait_p95_s"] > 1800


def test_a_budget_leaves_jobs_waiting(config: Path) -> None:
    config.write_text("[pool]\nbudget = 1.0\nwindow = '3650d'\n" + SITE)
    found = simulated(config, "--cycle", "10m")
    assert found["unfinished"] > 0
    assert any("budget of group" in reason for reason in found["reasons"])


def test_people_see_why(config: Path) -> None:
    text = command("pool", "simulate", SAMPLE, "--config", config, "--quiet").stdout
    assert re.search(r"^600 jobs, [0-9.]+ core-hours; wait at most: 50 % of them", text)
    assert "What was done, and why:" in text
    assert re.search(r"^ +[0-9]+  started at cheap/small$", text, re.MULTILINE)
    assert "dear/large: 0.8 an hour" in text


def test_jobs_that_can_never_run_are_named(config: Path) -> None:
    config.write_text(SITE.split("[provider.dear]", maxsplit=1)[0])
    text = command("pool", "simulate", SAMPLE, "--config", config, "--quiet").stdout
    assert re.search(r"[0-9]+ jobs can never run: no offer has more than 2 CPUs", text)


def test_a_plot_is_drawn(config: Path, tmp_path: Path) -> None:
    plot = tmp_path / "pool.svg"
    simulated(config, "--plot", plot)
    assert plot.read_text().startswith("<svg ")
    error = refused("pool", "simulate", SAMPLE, "--config", config, "--plot", tmp_path / "no/where")
    assert isinstance(error, Failed)


def test_wrong_words_are_refused(config: Path, tmp_path: Path) -> None:
    typed = ("pool", "simulate", SAMPLE, "--config")
    assert isinstance(refused(*typed, tmp_path / "none"), Missing)
    assert isinstance(refused(*typed, SAMPLE), Invalid)
    assert isinstance(refused(*typed, config, "--cycle", "0s"), Invalid)
    assert isinstance(refused(*typed, config, "--cycle", "soon"), Invalid)
    assert isinstance(refused("pool", "simulate", config, "--config", config), Invalid)
    nothing = ("pool", "simulate", tmp_path / "none", "--config", config)
    assert isinstance(refused(*nothing), Missing)


def test_the_page_has_every_figure(config: Path) -> None:
    part = PAGE.split("## `--json`")[1]
    for key in simulated(config):
        assert f"`{key}`" in part
