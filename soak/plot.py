"""Draws what was recorded: memory and open files of the service, and the time of starts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

WIDTH, HEIGHT, LEFT, TOP, GAP = 760, 150, 70, 30, 60
PANELS = (
    ("memory_mib", "memory of the service [MiB]"),
    ("files", "open files of the service"),
    ("start_s", "start of a short job, whole command [s]"),
)
Point = tuple[float, float]


def draw(record: Path, target: Path, title: str) -> None:
    """Make an SVG of a record; each panel has time, in minutes, from left to right."""
    rows = [json.loads(line) for line in record.read_text().splitlines()]
    parts = []
    for index, (key, name) in enumerate(PANELS):
        points = [(row["minute"], float(row[key])) for row in rows if row.get(key) is not None]
        parts += _panel(points, name, TOP + 20 + index * (HEIGHT + GAP))
    height = TOP + 20 + len(PANELS) * (HEIGHT + GAP)
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        'font-family="sans-serif" font-size="12" fill="#555">'
    )
    heading = f'<text x="{LEFT}" y="20" font-size="14">{title}</text>'
    target.write_text("\n".join([head, heading, *parts, "</svg>"]) + "\n")


def _panel(points: Sequence[Point], name: str, top: int) -> list[str]:
    width = WIDTH - LEFT - 20
    words = [f'<text x="{LEFT}" y="{top - 8}">{name}</text>']
    frame = f'<rect x="{LEFT}" y="{top}" width="{width}" height="{HEIGHT}"'
    words.append(f'{frame} fill="none" stroke="#999"/>')
    if not points:
        return words
    most = max(value for _, value in points) * 1.1 or 1.0
    last = max(minute for minute, _ in points) or 1.0
    for share in (0, 0.5, 1):
        y = top + HEIGHT * (1 - share)
        label = f"{most * share:.2f}" if most < 10 else f"{most * share:.0f}"
        words.append(f'<text x="{LEFT - 8}" y="{y + 4:.0f}" text-anchor="end">{label}</text>')
    words.append(
        f'<text x="{LEFT + width}" y="{top + HEIGHT + 16}" text-anchor="end">{last:.0f} min</text>'
    )
    dots = [
        f"{LEFT + width * minute / last:.1f},{top + HEIGHT * (1 - value / most):.1f}"
        for minute, value in points
    ]
    line = f'<polyline points="{" ".join(dots)}" fill="none" stroke="#2a7fb8"/>'
    return [*words, line]
