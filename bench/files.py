"""The work directory: copied into the machine and back, or mounted live."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.client import BenchError
from bench.report import Findings, Metric, median
from bench.setting import IMAGE, Setting

MIB = 1 << 20
LARGE_MIB = 100
SMALL_COUNT = 1000
SMALL_BYTES = 2048
MAKE = f"yes 'one job, one machine' | head -c {LARGE_MIB}M"
CLOCK = "date +%s%N"
"""A machine's clock was set to the host's when it was made."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One way of bringing files to a job or back."""

    options: tuple[str, ...]
    job: str = ":"
    """What is timed inside."""
    first: str = ":"
    """What the machine does before that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """Seconds from the start of a run to its job, in the job, and from there to the run's end."""

    before: float
    job: float
    after: float


def files(setting: Setting) -> Findings:
    """Measure each way by turns; a run without files tells what is not due to them."""
    setting.warm()
    with setting.directory() as work:
        large, small, empty = (work / name for name in ("large", "small", "empty"))
        _fill(large, small, empty)
        new = empty / "new"
        ways = {
            "none": Way(options=("--no-workdir",)),
            "copy_in": Way(options=("--workdir", str(large))),
            "copy_in_files": Way(options=("--workdir", str(small))),
            "copy_out": Way(options=("--workdir", str(empty)), first=f"{MAKE} > new"),
            "share_read": Way(options=("--share", str(large)), job=f"cat {large}/data > /dev/null"),
            "share_files": Way(options=("--share", str(small)), job=f"cat {small}/* > /dev/null"),
            "share_write": Way(
                options=("--share", str(empty)),
                first=f"{MAKE} > /tmp/new",
                job=f"cat /tmp/new > {new}",
            ),
        }
        times: dict[str, list[Times]] = {name: [] for name in ways}
        for number in range(setting.counts.files):
            setting.say(f"files: round {number + 1} of {setting.counts.files}")
            for name, way in ways.items():
                times[name].append(_run(setting, way))
                _take(new, wanted=name in {"copy_out", "share_write"})
    return _findings(times)


def _fill(large: Path, small: Path, empty: Path) -> None:
    for directory in (large, small, empty):
        directory.mkdir()
    with open(large / "data", "wb") as file:
        file.writelines(os.urandom(MIB) for _ in range(LARGE_MIB))
    for number in range(SMALL_COUNT):
        (small / f"{number:04}").write_bytes(os.urandom(SMALL_BYTES))


def _run(setting: Setting, way: Way) -> Times:
    text = f"set -e; {way.first}; {CLOCK}; {way.job}; {CLOCK}"
    child = setting.start("run", IMAGE, *way.options, "--", "sh", "-c", text)
    ahead = time.time() - time.monotonic()
    with setting.children.done(child):
        begin, end = (int(word) / 1e9 - ahead for word in child.said().split())
        return Times(before=begin - child.began, job=end - begin, after=child.ended - end)


def _take(new: Path, *, wanted: bool) -> None:
    """Remove the file that a job made, which must be whole."""
    size = new.stat().st_size if new.exists() else 0
    if size != (LARGE_MIB * MIB if wanted else 0):
        raise BenchError(f"{new} has {size} bytes after the run")
    new.unlink(missing_ok=True)


def _findings(times: Mapping[str, Sequence[Times]]) -> Findings:
    def middle(name: str, part: str) -> float:
        return median(getattr(one, part) for one in times[name])

    before, after = middle("none", "before"), middle("none", "after")
    seconds = {
        "share_read_mib_s": middle("share_read", "job"),
        "share_write_mib_s": middle("share_write", "job"),
        "share_files_s": middle("share_files", "job"),
        "copy_in_mib_s": middle("copy_in", "before") - before,
        "copy_in_files_s": middle("copy_in_files", "before") - before,
        "copy_out_mib_s": middle("copy_out", "after") - after,
    }
    rounds = len(times["none"])
    metrics = tuple(
        Metric(
            key=key,
            value=(SMALL_COUNT if "files" in key else LARGE_MIB) / max(spent, 1e-3),
            unit="files/s" if "files" in key else "MiB/s",
            better="higher",
            against=f"{_what(key)}, {spent:.2f} s (median of {rounds})",
        )
        for key, spent in seconds.items()
    )
    return Findings(metrics=metrics)


def _what(key: str) -> str:
    if "files" in key:
        return f"{SMALL_COUNT} files of {SMALL_BYTES} bytes"
    return f"one file of {LARGE_MIB} MiB"
