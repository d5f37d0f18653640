"""What a bench found: figures with their goals, as a table for people and as JSON."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

HEADINGS = ("KEY", "VALUE", "UNIT", "GOAL", "VERDICT", "AGAINST")


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One figure."""

    key: str
    value: float
    unit: str
    better: Literal["lower", "higher"]
    goal: float | None = None
    """The worst value that is good enough; None where nothing was promised."""
    against: str
    """What it is compared with, or how it was taken."""

    @property
    def verdict(self) -> str:
        """Whether the goal is met: ``met``, ``missed``, or nothing without a goal."""
        if self.goal is None:
            return ""
        met = self.value <= self.goal if self.better == "lower" else self.value >= self.goal
        return "met" if met else "missed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What a measurement gives: figures, and lines that explain them."""

    metrics: tuple[Metric, ...]
    notes: tuple[str, ...] = ()


def median(values: Iterable[float]) -> float:
    """Give the middle value; of an even number the mean of the two in the middle."""
    return statistics.median(values)


def percentile(values: Sequence[float], percent: float) -> float:
    """Give the least value that so many percent do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def quantiles(values: Sequence[float]) -> str:
    """Show the percentiles of times in seconds that people ask for."""
    words = [f"p{percent} {percentile(values, percent):.3f}" for percent in (50, 95, 99)]
    return f"{', '.join(words)} s (n={len(values)})"


def spread(values: Sequence[float]) -> str:
    """Show the median of times in seconds with the extremes and how many there were."""
    least, most = min(values), max(values)
    return f"{median(values):.3f} s ({least:.3f} to {most:.3f}, n={len(values)})"


def table(metrics: Iterable[Metric]) -> str:
    """Lay figures out for people."""
    rows = [HEADINGS, *map(_row, metrics)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(_aligned(at, word, widths[at]) for at, word in enumerate(row)).rstrip()
        for row in rows
    )


def _aligned(column: int, word: str, width: int) -> str:
    return word.rjust(width) if HEADINGS[column] in {"VALUE", "GOAL"} else word.ljust(width)


def _row(metric: Metric) -> tuple[str, ...]:
    return (
        metric.key,
        show(metric.value),
        metric.unit,
        ""
        if metric.goal is None
        else ("<= " if metric.better == "lower" else ">= ") + show(metric.goal),
        metric.verdict,
        metric.against,
    )


def show(value: float) -> str:
    """Show a number with as many places as mean something."""
    if value == int(value):
        return str(int(value))
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def as_json(bench: str, metrics: Iterable[Metric]) -> dict[str, Any]:
    """Give the form that ``--json`` writes."""
    return {
        "bench": bench,
        "metrics": {
            metric.key: {
                "value": metric.value,
                "unit": metric.unit,
                "goal": metric.goal,
                "better": metric.better,
                "against": metric.against,
            }
            for metric in metrics
        },
    }
