"""Draw a simulated pool as SVG: what was there and what was used, what waited, what it cost."""

from __future__ import annotations

from collections.abc import Sequence
from xml.sax.saxutils import escape

from mayfly.simulation.run import Result, Sample

WIDTH, HEIGHT, LEFT, TOP, GAP = 760, 170, 70, 46, 64
DAY_S = 86_400.0
COLOURS = ("#2a7fb8", "#e08e2b", "#5aa469", "#9467bd", "#8c564b", "#17a2a2")
Band = tuple[str, str, list[float]]
"""A name, a colour, a value for each sample; bands stand on each other."""


def draw(result: Result, title: str) -> str:
    """Give the SVG: CPUs of each offer on each other, those in use as a line; what waits."""
    samples = result.samples
    bands = [
        (offer.name, COLOURS[number % len(COLOURS)], [float(each.cpus[number]) for each in samples])
        for number, offer in enumerate(result.offers)
        if any(each.cpus[number] for each in samples)
    ]
    busy = [float(each.busy) for each in samples]
    waiting = [("waiting", "#b8452a", [float(each.waiting) for each in samples])]
    parts = _panel("CPUs: there (bands), and in use (line)", samples, bands, TOP, line=busy)
    parts += _panel("CPUs that waiting jobs ask for", samples, waiting, TOP + HEIGHT + GAP)
    bottom = TOP + 2 * (HEIGHT + GAP)
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {bottom}" '
        'font-family="sans-serif" font-size="12" fill="#555">'
    )
    name = f'<text x="{LEFT}" y="18" font-size="14">{escape(title)}</text>'
    return "\n".join([head, name, *_legend(bands, bottom - GAP + 40), *parts, "</svg>"]) + "\n"


def _legend(bands: Sequence[Band], y: int) -> list[str]:
    parts, x = [], LEFT
    for name, colour, _ in bands:
        parts.append(f'<rect x="{x}" y="{y - 9}" width="10" height="10" fill="{colour}"/>')
        parts.append(f'<text x="{x + 14}" y="{y}">{escape(name)}</text>')
        x += 30 + 7 * len(name)
    return parts


def _panel(
    name: str,
    samples: Sequence[Sample],
    bands: Sequence[Band],
    top: int,
    *,
    line: Sequence[float] = (),
) -> list[str]:
    width = WIDTH - LEFT - 20
    last = max((sample.at_s for sample in samples), default=0.0) or 1.0
    xs = [LEFT + width * sample.at_s / last for sample in samples]
    sums = [sum(column) for column in zip(*(values for _, _, values in bands), strict=True)]
    most = max([*sums, *line, 1.0]) * 1.05
    parts = [f'<text x="{LEFT}" y="{top - 8}">{escape(name)}</text>']
    floor = [0.0] * len(xs)
    for _, colour, values in bands:
        roof = [low + value for low, value in zip(floor, values, strict=True)]
        dots = [*_dots(xs, roof, top, most), *reversed(_dots(xs, floor, top, most))]
        parts.append(f'<polygon points="{" ".join(dots)}" fill="{colour}" fill-opacity="0.6"/>')
        floor = roof
    if line:
        dots = _dots(xs, line, top, most)
        parts.append(f'<polyline points="{" ".join(dots)}" fill="none" stroke="#222"/>')
    frame = f'<rect x="{LEFT}" y="{top}" width="{width}" height="{HEIGHT}"'
    parts.append(f'{frame} fill="none" stroke="#999"/>')
    for share in (0.0, 0.5, 1.0):
        y = top + HEIGHT * (1 - share)
        parts.append(
            f'<text x="{LEFT - 8}" y="{y + 4:.0f}" text-anchor="end">{most * share:.0f}</text>'
        )
    days = f"{last / DAY_S:.1f} days"
    parts.append(
        f'<text x="{LEFT + width}" y="{top + HEIGHT + 16}" text-anchor="end">{days}</text>'
    )
    return parts


def _dots(xs: Sequence[float], ys: Sequence[float], top: int, most: float) -> list[str]:
    return [f"{x:.1f},{top + HEIGHT * (1 - y / most):.1f}" for x, y in zip(xs, ys, strict=True)]
