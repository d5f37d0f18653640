"""What the service counts, and how Prometheus reads it: text format 0.0.4.

Counters live as long as the process, as Prometheus expects; gauges are looked at when asked for.
``docs/reference/metrics.md`` lists every one.
"""

from __future__ import annotations

import contextlib
import os
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from mayfly.errors import EXIT_AND_HTTP, MayflyError
from mayfly.model import State

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
BUCKETS_S = (0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
PATHS = ("standby", "clone")
WHOLE = "whole"
"""The step that is the whole start, from the request's turn to its answer."""
_NO_STATES: Mapping[str, int] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Gauges:
    """How things stand now."""

    version: str
    machines: Mapping[str, int] = field(default_factory=lambda: _NO_STATES)
    """By state."""
    waiting: int = 0
    templates: int = 0
    shared_bytes: int = 0
    """Memory of templates, counted once."""
    private_bytes: int = 0
    """Memory of machines that nothing else shares."""
    promised_bytes: int = 0
    promisable_bytes: int = 0
    draining: bool = False


@dataclass(slots=True)
class _Histogram:
    counts: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS_S) + 1))
    sum_s: float = 0.0

    def add(self, seconds: float) -> None:
        self.counts[bisect_left(BUCKETS_S, seconds)] += 1
        self.sum_s += seconds


class Metrics:
    """The counters."""

    def __init__(self) -> None:
        self._starts: Counter[tuple[str, str]] = Counter()
        self._failures: Counter[str] = Counter()
        self._hits: Counter[str] = Counter()
        self._misses: Counter[str] = Counter()
        self._steps: dict[str, _Histogram] = defaultdict(_Histogram)

    def started(self, image: str, path: str, seconds: float) -> None:
        """Count a machine that was given away, from a standby or as a clone."""
        self._starts[image, path] += 1
        self.step(WHOLE, seconds)

    def step(self, name: str, seconds: float) -> None:
        """Count how long one step of a start took."""
        self._steps[name].add(max(0.0, seconds))

    def failed(self, error: MayflyError) -> None:
        """Count a request that failed."""
        self._failures[type(error).__name__] += 1

    def hit(self, image: str) -> None:
        """Count a request that found a standby."""
        self._hits[image] += 1

    def miss(self, image: str) -> None:
        """Count a request that would have liked one."""
        self._misses[image] += 1

    def render(self, gauges: Gauges) -> str:
        """Give everything as text."""
        lines = [*self._counters(), *self._seconds(), *_gauges(gauges)]
        return "\n".join(lines) + "\n"

    def _counters(self) -> Iterator[str]:
        yield from _head("mayfly_starts_total", "counter", "Machines given away.")
        for (image, path), count in sorted(self._starts.items()):
            yield _sample("mayfly_starts_total", count, image=image, path=path)
        yield from _head("mayfly_failures_total", "counter", "Requests that failed, by class.")
        # All that there can be, so that a first failure is seen as an increase.
        for name in sorted({error.__name__ for error in EXIT_AND_HTTP} | set(self._failures)):
            yield _sample("mayfly_failures_total", self._failures[name], **{"class": name})
        for name, counts, text in (
            ("mayfly_standby_hits_total", self._hits, "Requests that found a standby."),
            ("mayfly_standby_misses_total", self._misses, "Requests that found none."),
        ):
            yield from _head(name, "counter", text)
            for image, count in sorted(counts.items()):
                yield _sample(name, count, image=image)

    def _seconds(self) -> Iterator[str]:
        name = "mayfly_start_seconds"
        yield from _head(name, "histogram", "Time that a start took, by step.")
        for step, histogram in sorted(self._steps.items()):
            total = 0
            for bound, count in zip((*BUCKETS_S, "+Inf"), histogram.counts, strict=True):
                total += count
                yield _sample(f"{name}_bucket", total, step=step, le=str(bound))
            yield _sample(f"{name}_sum", histogram.sum_s, step=step)
            yield _sample(f"{name}_count", total, step=step)


def _gauges(gauges: Gauges) -> Iterator[str]:
    yield from _gauge("mayfly_host_info", "The version of the service.", 1, version=gauges.version)
    yield from _gauge("mayfly_host_up", "1 while the service runs.", 1)
    draining = int(gauges.draining)
    yield from _gauge("mayfly_host_draining", "1 while it takes no new machines.", draining)
    yield from _head("mayfly_machines", "gauge", "Machines, by state.")
    for state in sorted({each.value for each in State} | set(gauges.machines)):
        yield _sample("mayfly_machines", gauges.machines.get(state, 0), state=state)
    yield from _gauge("mayfly_waiting", "Requests that wait in line.", gauges.waiting)
    yield from _gauge("mayfly_templates", "Templates held in memory.", gauges.templates)
    name, text = "mayfly_memory_bytes", "Memory of templates (shared) and of machines (private)."
    yield from _head(name, "gauge", text)
    yield _sample(name, gauges.private_bytes, kind="private")
    yield _sample(name, gauges.shared_bytes, kind="shared")
    name = "mayfly_memory_promised_bytes"
    yield from _gauge(name, "Memory that is promised.", gauges.promised_bytes)
    name = "mayfly_memory_promisable_bytes"
    yield from _gauge(name, "Memory that may be promised.", gauges.promisable_bytes)


def _opener(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def write_metrics(file: Path, text: str) -> str:
    """Put the text where node_exporter's textfile collector finds it, whole or not at all.

    Gives what went wrong, for people; empty when nothing did.
    """
    # The collector reads *.prom only.
    fresh = file.with_name(f".{file.name}.new")
    try:
        fresh.unlink(missing_ok=True)
        # The directory may be the collector's own: no link of his is followed.
        with open(fresh, "x", encoding="utf-8", opener=_opener) as out:
            os.fchmod(out.fileno(), 0o644)
            out.write(text)
        fresh.replace(file)
    except OSError as error:
        with contextlib.suppress(OSError):
            fresh.unlink()
        return f"cannot write metrics to {file}: {error.strerror}"
    return ""


# --- the format ----------------------------------------------------------------------------------


def _gauge(name: str, text: str, value: float, **labels: str) -> Iterator[str]:
    yield from _head(name, "gauge", text)
    yield _sample(name, value, **labels)


def _head(name: str, kind: str, text: str) -> Iterator[str]:
    yield f"# HELP {name} {text}"
    yield f"# TYPE {name} {kind}"


def _sample(name: str, value: float, **labels: str) -> str:
    shown = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels.items())
    return f"{name}{{{shown}}} {value}" if shown else f"{name} {value}"


def _escaped(text: str) -> str:
    # A lone surrogate, from a file name that is no UTF-8, cannot be sent.
    sound = text.encode("utf-8", "replace").decode()
    return sound.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
