"""Runs it: load, kills, checks, a record that can be gone on with, a verdict."""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType

from soak.holds import append, settled, spent
from soak.jobs import Running, start
from soak.kill import Killer
from soak.plot import draw
from soak.service import Supervised, supervised
from soak.stay import Staying, size_of

SLOTS = 3
"""Jobs side by side."""
TICK_S = 0.05
SAMPLE_S = 10.0
CACHE = Path(os.environ.get("MAYFLY_TEST_CACHE", "/var/tmp/mayfly-test-cache"))  # noqa: S108


@dataclass(slots=True)
class Tally:
    """How far it has come, over all sessions."""

    seed: int
    kills: int = 0
    minutes: float = 0.0
    jobs: int = 0
    jobs_well: int = 0
    """Jobs that ended as they should though things were killed around them."""
    steps: int = 0
    starts: int = 0
    by_target: dict[str, int] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)


@dataclass(slots=True, kw_only=True)
class Soak:
    """One session."""

    service: Supervised
    tally: Tally
    out: Path
    interval_s: float
    rng: random.Random
    killer: Killer = field(default_factory=Killer)
    jobs: list[Running] = field(default_factory=list)
    started_s: list[float] = field(default_factory=list)
    _staying: Staying | None = None
    _next_kill: float = 0.0
    _next_sample: float = 0.0

    def run(self, kills: int, until: float) -> None:
        """Go on until so many kills in all, and that time, have passed; then let it settle."""
        before, began = self.tally.minutes, time.monotonic()
        self._staying = Staying(service=self.service)
        self._next_kill = began + 5
        while self.tally.kills < kills or time.monotonic() < until:
            self.tally.minutes = before + (time.monotonic() - began) / 60
            self._tick(kills)
            time.sleep(TICK_S)
        self._finish()

    def _tick(self, kills: int) -> None:
        now = time.monotonic()
        self.service.keep_up()
        self._collect()
        while len(self.jobs) < SLOTS:
            self.tally.jobs += 1
            self.jobs.append(start(self.service, self.rng, self.tally.jobs))
        assert self._staying is not None
        self._staying.go_on(self.rng)
        due = now >= self._next_kill and self.tally.kills < kills
        if due and self.killer.strike(self.rng, self.service, self.jobs):
            self.tally.kills += 1
            self._next_kill = now + self.rng.uniform(0.2, 1.8) * self.interval_s
        if now >= self._next_sample:
            self._next_sample = now + SAMPLE_S
            self._sample()

    def _collect(self) -> None:
        for job in list(self.jobs):
            if job.process.poll() is None:
                continue
            self.jobs.remove(job)
            wrong = job.verdict(self.killer.times)
            if wrong:
                self.tally.wrong.append(wrong)
                print(f"soak: WRONG: {wrong}", file=sys.stderr, flush=True)
            elif job.process.returncode == job.kind.code:
                self.tally.jobs_well += 1
                if job.kind.name == "short":
                    self.started_s.append(time.monotonic() - job.began)
            if not wrong:
                shutil.rmtree(job.directory)

    def _sample(self) -> None:
        start_s = statistics.median(self.started_s) if self.started_s else None
        self.started_s.clear()
        values: dict[str, object] = {
            "minute": round(self.tally.minutes, 3),
            "kills": self.tally.kills,
            "start_s": start_s,
            "disk_mib": size_of(self.service.top / "state") / (1 << 20),
            **spent(self.service),
        }
        append(self.out / "record.jsonl", values)
        self._save()
        if self.rng.random() < 0.2:
            print(f"soak: {values}", file=sys.stderr, flush=True)

    def _save(self) -> None:
        self.tally.by_target = dict(self.killer.counts)
        fresh = self.out / ".tally.json"
        fresh.write_text(json.dumps(asdict(self.tally), indent=2) + "\n")
        fresh.replace(self.out / "tally.json")

    def _finish(self) -> None:
        print("soak: letting it settle", file=sys.stderr, flush=True)
        self.service.keep_up()
        deadline = time.monotonic() + 120
        while self.jobs and time.monotonic() < deadline:
            self.service.keep_up()
            self._collect()
            time.sleep(TICK_S)
        self.tally.wrong += [f"a job in {job.directory} never ended" for job in self.jobs]
        assert self._staying is not None
        self._staying.finish()
        self.tally.steps += self._staying.done
        self.tally.starts += self.service.starts
        self.tally.wrong += settled(self.service)
        self._save()


def main(words: Sequence[str]) -> int:
    """Run it; gives the exit status: 1 when anything did not hold."""
    with _stopped_by_signals():
        return _soak(parse(words))


def _soak(options: argparse.Namespace) -> int:
    out: Path = options.out
    out.mkdir(parents=True, exist_ok=True)
    tally = _tally(out, options.seed)
    print(f"soak: seed {tally.seed}, {tally.kills} kills so far", file=sys.stderr, flush=True)
    top = Path(tempfile.mkdtemp(prefix="mayfly-soak-"))
    top.chmod(0o755)
    rng = random.Random(f"{tally.seed}-{tally.kills}")
    left_s = max(0.0, options.minutes - tally.minutes) * 60
    left = max(1, options.kills - tally.kills)
    try:
        with supervised(options.home, top) as service:
            soak = Soak(service=service, tally=tally, out=out, interval_s=left_s / left, rng=rng)
            soak.killer.counts.update(tally.by_target)
            soak.run(options.kills, time.monotonic() + left_s)
    finally:
        if not tally.wrong:
            shutil.rmtree(top, ignore_errors=True)
    return _tell(tally, out)


@contextmanager
def _stopped_by_signals() -> Iterator[None]:
    """End what was started, and keep the record; also where a shell ignores Ctrl-C."""
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = [signal.signal(number, _stop) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def _stop(number: int, _: FrameType | None) -> None:
    raise SystemExit(128 + number)


def parse(words: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="scripts/soak", description=__doc__)
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, help="default: drawn, and printed")
    parser.add_argument("--out", type=Path, default=Path("soak-out"), metavar="DIR")
    parser.add_argument("--home", type=Path, default=CACHE / "home", help="images and templates")
    return parser.parse_args(words)


def _tally(out: Path, seed: int | None) -> Tally:
    file = out / "tally.json"
    if file.exists():
        return Tally(**json.loads(file.read_text()))
    return Tally(seed=random.SystemRandom().getrandbits(32) if seed is None else seed)


def _tell(tally: Tally, out: Path) -> int:
    print(
        f"seed {tally.seed}: {tally.kills} kills {tally.by_target} in {tally.minutes:.1f} minutes; "
        f"{tally.jobs} jobs, {tally.jobs_well} of them to their own end; {tally.steps} steps of "
        f"machines that stay; the service was started {tally.starts} times"
    )
    for wrong in tally.wrong:
        print(f"WRONG: {wrong}")
    print("nothing was lost, left behind or wrongly called a success" if not tally.wrong else "")
    record = out / "record.jsonl"
    if record.exists():
        title = f"{tally.kills} kills in {tally.minutes:.0f} minutes, seed {tally.seed}"
        draw(record, out / "soak.svg", title)
    return 1 if tally.wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
