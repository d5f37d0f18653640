"""Measure a live directory of a batch job's machine against the same on the bare host."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from bench.client import BenchError
from bench.report import Findings, Metric, median
from bench.setting import FULL, Setting
from tests.integration.slurm import Slurm

MIB = 1 << 20
CLOCK = "date +%s%N"


@dataclass(frozen=True, slots=True, kw_only=True)
class Amount:
    """What one job does in the directory."""

    large_mib: int
    files: int
    rounds: int


def shares(setting: Setting, cluster: Slurm, bare_words: list[str], vm: str) -> Findings:
    """Stream one file and look at many, in a job without a machine and in one with, by turns."""
    full = setting.counts == FULL
    amount = Amount(large_mib=64, files=300, rounds=5 if full else 1)
    setting.say(f"live directory: {amount.rounds} rounds")
    source = cluster.work / "source"
    source.write_bytes(os.urandom(MIB) * amount.large_mib)
    script = _script(amount, source)
    bare: list[tuple[float, float]] = []
    machines: list[tuple[float, float]] = []
    for _ in range(amount.rounds):
        bare.append(_times(cluster, bare_words, script))
        cluster.host.refilled(4)
        machines.append(_times(cluster, [*bare_words, vm], script))
    source.unlink()
    (seq_bare, meta_bare), (seq, meta) = (
        (median(one[0] for one in taken), median(one[1] for one in taken))
        for taken in (bare, machines)
    )
    return Findings(
        metrics=(
            _metric("share_seq_ratio", seq_bare / seq, f"read and write {amount.large_mib} MiB"),
            _metric("share_meta_ratio", meta_bare / meta, f"make, look at, remove {amount.files}"),
        ),
        notes=(
            f"live directory, bare:    {seq_bare:.3f} s streaming, {meta_bare:.3f} s metadata",
            f"live directory, machine: {seq:.3f} s streaming, {meta:.3f} s metadata",
        ),
    )


def _metric(key: str, value: float, what: str) -> Metric:
    against = f"the same job without a machine: {what}"
    return Metric(key=key, value=value, unit="times", better="higher", against=against)


def _script(amount: Amount, source: Path) -> str:
    """Both stand in the working directory, which is live; the clock is read there three times."""
    return (
        "set -e; mkdir many; "
        f"a=$({CLOCK}); cat {source.name} > copy; cat copy > /dev/null; b=$({CLOCK}); cd many; "
        f"for i in $(seq {amount.files}); do : > f$i; done; ls -l > /dev/null; "
        "for i in *; do read x < $i || :; done; rm f*; cd ..; "
        f"c=$({CLOCK}); rmdir many; rm copy; echo $a $b $c"
    )


def _times(cluster: Slurm, words: list[str], script: str) -> tuple[float, float]:
    done = cluster.user("srun", "--quiet", *words, "sh", "-c", script)
    found = done.stdout.split()
    if done.returncode != 0 or len(found) != 3:
        raise BenchError(f"a job failed: {done.stderr[-1000:]}")
    began, between, ended = (int(word) / 1e9 for word in found)
    return between - began, ended - between
