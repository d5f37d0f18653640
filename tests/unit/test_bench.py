"""The parts of the benches that can be judged without measuring anything."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest

from bench import engine as bench_engine
from bench.client import BenchError, Children, environment
from bench.density import private_mib
from bench.floor_plan import LAYER, clone_plan, cold_plan
from bench.remains import children_named, look
from bench.report import Findings, Metric, as_json, median, show, spread, table
from bench.start import parse_timings
from bench.streams import checksum
from mayfly.config import Paths
from mayfly.engine.linux import start_time
from mayfly.engine.memory import Holder, write_holder
from mayfly.engine.template import AGENT, DISK, EMPTY, STATE, Engine, Template
from mayfly.units import show_duration
from tests.unit.engine.templates import IMAGE, engine_in, made

METRIC = Metric(
    key="start_vs_floor", value=1.25, unit="times", goal=1.5, better="lower", against="a script"
)
FREE = Metric(key="share_files_s", value=412.0, unit="files/s", better="higher", against="1000")


# --- figures -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "goal", "better", "verdict"),
    [
        (1.49, 1.5, "lower", "met"),
        (1.5, 1.5, "lower", "met"),
        (1.51, 1.5, "lower", "missed"),
        (39.9, 40, "higher", "missed"),
        (40, 40, "higher", "met"),
        (0, 0, "lower", "met"),
        (1, 0, "lower", "missed"),
        (1, None, "lower", ""),
    ],
)
def test_a_goal_is_met_or_missed(
    value: float, goal: float | None, better: Literal["lower", "higher"], verdict: str
) -> None:
    metric = replace(METRIC, value=value, goal=goal, better=better)
    assert metric.verdict == verdict


@pytest.mark.parametrize(
    ("values", "middle"), [([3.0], 3.0), ([1.0, 9.0, 2.0], 2.0), ([4.0, 1.0, 2.0, 3.0], 2.5)]
)
def test_the_median_is_the_middle(values: list[float], middle: float) -> None:
    assert median(values) == middle


def test_a_spread_says_how_many_there_were() -> None:
    assert spread([0.5, 0.25, 1.0]) == "0.500 s (0.250 to 1.000, n=3)"


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0, "0"), (40.0, "40"), (1.2345, "1.23"), (59.96, "60"), (1234.5, "1234"), (0.0625, "0.0625")],
)
def test_a_number_is_shown_with_the_places_that_count(value: float, shown: str) -> None:
    assert show(value) == shown


def test_the_table_has_a_line_for_each_figure() -> None:
    assert table([METRIC, FREE]).splitlines() == [
        "KEY             VALUE  UNIT       GOAL  VERDICT  AGAINST",
        "start_vs_floor   1.25  times    <= 1.5  met      a script",
        "share_files_s     412  files/s                   1000",
    ]


def test_a_goal_that_is_a_least_value_looks_like_one() -> None:
    assert ">= 40" in table([replace(FREE, goal=40)])


def test_the_json_form_holds_every_figure() -> None:
    assert as_json("engine", [METRIC, FREE]) == {
        "bench": "engine",
        "metrics": {
            "start_vs_floor": {
                "value": 1.25,
                "unit": "times",
                "goal": 1.5,
                "better": "lower",
                "against": "a script",
            },
            "share_files_s": {
                "value": 412.0,
                "unit": "files/s",
                "goal": None,
                "better": "higher",
                "against": "1000",
            },
        },
    }


# --- what is read --------------------------------------------------------------------------------


def test_the_steps_of_a_run_are_read() -> None:
    text = "mayfly: machines are emulated\nmayfly: clean-up 0.00 s, clone 0.28 s, job 0.05 s"
    assert parse_timings(text) == {"clean-up": 0.0, "clone": 0.28, "job": 0.05}


def test_the_steps_are_read_as_mayfly_writes_them() -> None:
    words = [f"{name} {show_duration(0.12)}" for name in ("clone", "claim", "start")]
    assert set(parse_timings(f"mayfly: {', '.join(words)}")) == {"clone", "claim", "start"}


def test_private_memory_is_clean_and_dirty(tmp_path: Path) -> None:
    rollup = tmp_path / "smaps_rollup"
    rollup.write_text(
        "Rss:              200000 kB\nShared_Clean:     100000 kB\nPrivate_Clean:      1024 kB\n"
        "Private_Dirty:     51200 kB\nPrivate_Hugetlb:       0 kB\n"
    )
    assert private_mib(rollup) == 51


def test_a_checksum_is_of_the_whole_file() -> None:
    fd = os.memfd_create("whole")
    try:
        os.write(fd, b"abc")
        assert checksum(fd).startswith("ba7816bf8f01cfea")
    finally:
        os.close(fd)


# --- the command line ----------------------------------------------------------------------------


def test_everything_is_measured_unless_told_otherwise() -> None:
    assert bench_engine.BENCH.parse([]).only == list(bench_engine.GROUPS)
    assert bench_engine.BENCH.parse(["--only", "burst,start"]).only == ["burst", "start"]


def test_an_unknown_group_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        bench_engine.BENCH.parse(["--only", "start,speed"])
    assert caught.value.code == 2
    assert "no such group: speed" in capsys.readouterr().err


def test_one_group_that_fails_leaves_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(_: object) -> Findings:
        raise BenchError("no luck")

    monkeypatch.setenv("MAYFLY_HOME", str(tmp_path))
    monkeypatch.setitem(bench_engine.GROUPS, "burst", fails)
    monkeypatch.setitem(bench_engine.GROUPS, "start", lambda _: Findings(metrics=(METRIC,)))
    file = tmp_path / "out.json"
    assert bench_engine.BENCH.main(["--only", "burst,start", "--json", str(file)]) == 1
    shown = capsys.readouterr()
    assert "burst failed: no luck" in shown.err
    assert "start_vs_floor" in shown.out
    assert list(json.loads(file.read_text())["metrics"]) == ["start_vs_floor"]


# --- processes -----------------------------------------------------------------------------------


@pytest.fixture
def children(tmp_path: Path) -> Iterator[Children]:
    with Children(environment(tmp_path)) as started:
        yield started


def test_a_run_is_timed_and_read(children: Children) -> None:
    child = children.start([sys.executable, "-c", "import time; time.sleep(0.1); print('here')"])
    with children.done(child):
        assert child.said() == "here"
    assert 0.1 <= child.seconds < 30


def test_a_run_that_fails_is_told_with_its_words(children: Children) -> None:
    child = children.start([sys.executable, "-c", "raise SystemExit('broken')"])
    with pytest.raises(BenchError, match=r"exit status 1 .*broken"), children.done(child):
        pass


def test_a_run_without_end_is_given_up(children: Children) -> None:
    child = children.start(["sleep", "600"])
    with pytest.raises(BenchError, match=r"'sleep 600' did not end within 0\.1 s"):
        child.wait(0.1)


def test_what_was_started_is_ended(tmp_path: Path) -> None:
    with Children(environment(tmp_path)) as started:
        pids = [started.start(["sleep", "600"]).process.pid for _ in range(3)]
        assert all(map(start_time, pids))
    assert not any(map(start_time, pids))


def test_a_bare_process_takes_its_children_along(children: Children) -> None:
    text = "import subprocess; print(subprocess.Popen(['sleep', '600']).pid)"
    child = children.start([sys.executable, "-c", text], bare=True)
    with children.done(child):
        orphan = int(child.said())
    wait_until(lambda: not is_living(orphan))
    assert not is_living(orphan)


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def is_living(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_measured_command_is_an_ordinary_one(monkeypatch: pytest.MonkeyPatch) -> None:
    repository = str(Path(__file__).parents[2])
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.setenv("PYTHONPATH", repository)
    env = environment(Path("/home/of/bench"))
    assert env["MAYFLY_HOME"] == "/home/of/bench"
    assert not {"PYTHONDONTWRITEBYTECODE", "PYTHONPATH"} & set(env)


# --- what is left --------------------------------------------------------------------------------

HOLD = """
import os, time
fd = os.memfd_create("mayfly-image")
print(os.getpid(), fd, flush=True)
time.sleep(600)
"""


@pytest.fixture
def held(tmp_path: Path) -> Iterator[tuple[Path, int, int]]:
    """A home and a process of it with a memory object: its pid and descriptor."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD], env=environment(tmp_path), stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        pid, fd = map(int, process.stdout.readline().split())
        yield tmp_path, pid, fd
        process.kill()


def test_a_process_and_its_memory_are_found(held: tuple[Path, int, int]) -> None:
    home, pid, _ = held
    found = look(home)
    assert [name.split()[-1] for name in found.processes] == [str(pid)]
    assert (found.memories, found.count) == (1, 2)
    assert str(pid) in str(found)


def test_the_holder_of_a_template_is_not_left_over(held: tuple[Path, int, int]) -> None:
    home, pid, fd = held
    template = home / "cache/templates/abc"
    template.mkdir(parents=True)
    write_holder(template, Holder(pid=pid, started=start_time(pid) or 0, fd=fd, until=0))
    assert look(home).count == 0


def test_every_file_of_a_machine_is_found(tmp_path: Path) -> None:
    machine = Paths.for_user({"MAYFLY_HOME": str(tmp_path)}).machines / ".gone-abcdefgh-1"
    machine.mkdir(parents=True)
    (machine / "disk.qcow2").touch()
    assert look(tmp_path).files == (str(machine), str(machine / "disk.qcow2"))


def test_a_child_is_found_by_its_name() -> None:
    with subprocess.Popen(["sleep", "600"]) as process:
        try:
            # A process bears its program's name a moment after it has begun to run it.
            wait_until(lambda: process.pid in children_named(os.getpid(), "sleep"))
            assert process.pid not in children_named(os.getpid(), "qemu")
        finally:
            process.kill()


# --- the floor -----------------------------------------------------------------------------------


@pytest.fixture
def template(tmp_path: Path) -> tuple[Engine, Template]:
    """A template whose memory is held by this process."""
    engine = engine_in(tmp_path)
    template = made(engine)
    started = start_time(os.getpid()) or 0
    write_holder(template.path, Holder(pid=os.getpid(), started=started, fd=7, until=0))
    return engine, template


def numbers_in(argv: list[str]) -> set[int]:
    return {int(number) for word in argv for number in re.findall(r"\b(?:fd=|fd/)(\d+)", word)}


def test_the_floor_opens_what_a_clone_has(template: tuple[Engine, Template]) -> None:
    plan = clone_plan(*template, IMAGE, Path("/work"))
    path = template[1].path
    assert [(name, flags) for _, name, flags in plan.files] == [
        (f"/proc/{os.getpid()}/fd/7", os.O_RDWR),
        (LAYER, os.O_RDWR),
        (str(path / DISK), os.O_RDONLY),
        (str(IMAGE.disk), os.O_RDONLY),
        (str(path / AGENT), os.O_RDONLY),
    ]
    assert (plan.empty, plan.state) == (str(path / EMPTY), str(path / STATE))


def test_the_floor_gives_qemu_what_its_arguments_name(template: tuple[Engine, Template]) -> None:
    plan = clone_plan(*template, IMAGE, Path("/work"))
    given = [*(number for number, _, _ in plan.files), *plan.sockets.values()]
    assert len(given) == len(set(given))
    assert numbers_in(plan.argv) == set(given)
    assert "-incoming" in plan.argv
    assert "share=off" in " ".join(plan.argv)


def test_a_cold_boot_starts_from_nothing(template: tuple[Engine, Template]) -> None:
    plan = cold_plan(*template, IMAGE, Path("/work"), 9)
    assert plan.files[0][1:] == (f"/proc/{os.getpid()}/fd/9", os.O_RDWR)
    assert "-incoming" not in plan.argv
    assert plan.state == ""
    assert str(template[1].path / DISK) not in [name for _, name, _ in plan.files]


def test_a_plan_survives_the_way_through_its_file(
    template: tuple[Engine, Template], tmp_path: Path
) -> None:
    plan = clone_plan(*template, IMAGE, Path("/work"))
    plan.write(tmp_path / "plan.json")
    stored = json.loads((tmp_path / "plan.json").read_text())
    assert stored["argv"] == plan.argv
    assert stored["start"]["argv"] == ["true"]
    assert stored["claim"]["account"]["uid"] == os.geteuid()


def test_nothing_is_planned_when_nobody_holds_the_memory(tmp_path: Path) -> None:
    engine = engine_in(tmp_path)
    with pytest.raises(BenchError, match="nobody holds the memory"):
        clone_plan(engine, made(engine), IMAGE, Path("/work"))
