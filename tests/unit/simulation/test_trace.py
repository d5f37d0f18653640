"""Reading traces: what is in them, and what strangers put there."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from mayfly.errors import Invalid, Missing
from mayfly.simulation import trace as module
from mayfly.simulation.trace import TraceJob, parse_trace, read_trace


def line(submit: object = 0, run: object = 60, used: object = 1, asked: object = -1) -> bytes:
    words = [1, submit, -1, run, used, -1, -1, asked, *[-1] * 10]
    return " ".join(map(str, words)).encode() + b"\n"


def test_jobs_are_read_in_the_order_of_their_submission() -> None:
    lines = [b"; Version: 2.2\n", b"\n", line(130, 5, 2), line(100, 3600)]
    trace = parse_trace(lines, "t")
    assert trace.jobs == (TraceJob(0, 3600, 1), TraceJob(30, 5, 2))
    assert trace.core_hours == pytest.approx(1 + 10 / 3600)


def test_processors_that_were_asked_for_stand_in_for_unknown_ones() -> None:
    assert parse_trace([line(used=-1, asked=4)], "t").jobs[0].cpus == 4


def test_jobs_that_never_ran_are_left_out_and_counted() -> None:
    trace = parse_trace([line(), line(run=-1), line(used=0)], "t")
    assert (len(trace.jobs), trace.dropped) == (1, 2)


def test_a_job_of_no_length_is_a_job() -> None:
    assert parse_trace([line(run=0)], "t").jobs[0].run_s == 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "no job that ran"),
        (b"; only words\n", "no job that ran"),
        (line(run=-1), "no job that ran"),
        (b"1 2 3\n", "line 1: 3 fields"),
        (line()[:-3] + b" 1 1 1\n", "fields"),
        (line("x"), "is no number"),
        (line("nan"), "is no number"),
        (line("inf"), "is no number"),
        (line("1_0"), "is no number"),
        (line("9" * 400), "is no number"),
        (line("1e300"), "is no number"),
        (line(-5), "submitted at -5"),
        (line(run=1e9), "a run of more than a year"),
        (line(submit=1e12), "more than 100 years"),
        (line(used=1.5), "1.5 processors"),
        (line(used=10**9), "processors"),
        (b"\x00\xff\n", "1 fields"),
        ("\u0661 ".encode() * 18, "is no number"),
    ],
)
def test_nonsense_is_refused_with_its_line(tmp_path: Path, text: bytes, said: str) -> None:
    file = tmp_path / "t.swf"
    file.write_bytes(text)
    with pytest.raises(Invalid, match=said):
        read_trace(file)


def test_a_line_without_an_end_does_not_fill_the_memory(tmp_path: Path) -> None:
    file = tmp_path / "t.swf"
    file.write_bytes(gzip.compress(b"1" * 50_000_000))
    with pytest.raises(Invalid, match="longer than 4096 bytes"):
        read_trace(file)


def test_too_many_jobs_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "JOBS_MOST", 2)
    with pytest.raises(Invalid, match="more than 2 jobs"):
        parse_trace([line()] * 3, "t")


def test_a_compressed_trace_is_read_by_its_content(tmp_path: Path) -> None:
    file = tmp_path / "named-as-it-likes"
    file.write_bytes(gzip.compress(line() * 3))
    assert len(read_trace(file).jobs) == 3


@pytest.mark.parametrize("damage", [lambda data: data[:-9], lambda data: data[:40] + b"\0" * 90])
def test_a_compressed_trace_that_is_cut_off_or_damaged(tmp_path: Path, damage: object) -> None:
    assert callable(damage)
    file = tmp_path / "t.gz"
    many = b"".join(line(number * 7919 % 10_007) for number in range(500))
    file.write_bytes(damage(gzip.compress(many)))
    with pytest.raises(Invalid, match="cut off or damaged"):
        read_trace(file)


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(Missing):
        read_trace(tmp_path / "nothing")
    with pytest.raises(Invalid, match="cannot read"):
        read_trace(tmp_path)
