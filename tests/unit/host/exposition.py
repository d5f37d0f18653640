"""A strict reader of the Prometheus text format 0.0.4, for tests."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
_LABEL = r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\\\|\\n|\\")*)"'
_SAMPLE = re.compile(rf"({_NAME})(?:\{{((?:{_LABEL},?)*)\}})? (\S+)")
_ESCAPES = {r"\\": "\\", r"\n": "\n", r"\"": '"'}
Labels = frozenset[tuple[str, str]]


@dataclass
class Family:
    """A metric: its kind, and its samples by name and labels."""

    kind: str
    text: str
    samples: dict[tuple[str, Labels], float] = field(default_factory=dict)


def parse(text: str) -> dict[str, Family]:
    """Read a whole exposition; any fault is an ``AssertionError``."""
    assert text.endswith("\n")
    families: dict[str, Family] = {}
    current = helped = help_text = ""
    for line in text.split("\n")[:-1]:
        if found := re.fullmatch(rf"# HELP ({_NAME}) (.+)", line):
            helped, help_text = found[1], found[2]
            assert helped not in families, f"{helped} comes twice"
        elif found := re.fullmatch(rf"# TYPE ({_NAME}) (counter|gauge|histogram)", line):
            current = found[1]
            assert current == helped, f"{current} has no help"
            families[current] = Family(found[2], help_text)
        else:
            _sample(line, current, families[current])
    for name, family in families.items():
        _check(name, family)
    return families


def _sample(line: str, name: str, family: Family) -> None:
    found = _SAMPLE.fullmatch(line)
    assert found is not None, f"no sample: {line!r}"
    suffixes = ("_bucket", "_sum", "_count") if family.kind == "histogram" else ("",)
    assert found[1] in {name + suffix for suffix in suffixes}, f"{line!r} is none of {name}"
    pairs = [(label, _plain(value)) for label, value in re.findall(_LABEL, found[2] or "")]
    assert len({label for label, _ in pairs}) == len(pairs), f"a label twice: {line!r}"
    key = (found[1], frozenset(pairs))
    assert key not in family.samples, f"twice: {line!r}"
    family.samples[key] = float(found[5])


def _plain(value: str) -> str:
    return re.sub(r"\\.", lambda escape: _ESCAPES[escape[0]], value)


def _check(name: str, family: Family) -> None:
    if family.kind == "counter":
        assert name.endswith("_total"), name
        assert all(value >= 0 for value in family.samples.values()), name
    if family.kind == "histogram":
        _check_histogram(name, family)


def _check_histogram(name: str, family: Family) -> None:
    series: dict[Labels, list[tuple[float, float]]] = {}
    for (sample, labels), value in family.samples.items():
        if sample == f"{name}_bucket":
            bound = float(dict(labels)["le"])
            rest = frozenset(pair for pair in labels if pair[0] != "le")
            series.setdefault(rest, []).append((bound, value))
    for labels, buckets in series.items():
        counts = [value for _, value in sorted(buckets)]
        assert counts == sorted(counts), f"{name}: buckets do not add up"
        assert max(buckets)[0] == float("inf"), f"{name}: no last bucket"
        assert family.samples[f"{name}_count", labels] == counts[-1]
        assert (f"{name}_sum", labels) in family.samples
