"""Measure how images are checked and moved: lists, second versions, many hosts at once.

``docs/reference/benchmarks.md`` says how each figure is taken.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path

from bench.client import BenchError
from bench.deltas import Versions, make_versions
from bench.groups import Bench
from bench.listing import make_list
from bench.minimal import minimal
from bench.report import Findings, Metric, median, spread
from bench.setting import QUICK, Setting
from bench.swarm import by_http, fleet, in_chunks
from mayfly.config import Paths
from mayfly.errors import Missing
from mayfly.host.permission import Gate
from mayfly.images.build.builder import build
from mayfly.images.build.farm.blueprint import Blueprint
from mayfly.images.build.recipe import find_recipe
from mayfly.images.catalogue import check
from mayfly.images.chunks.content import content_of
from mayfly.images.chunks.cut import CUTTER, Cutter, cut
from mayfly.images.chunks.index import render
from mayfly.model import Image
from mayfly.units import GIB, show_size
from mayfly.wiring import catalogue_of

IMAGE = "bench-1g"
RECIPE = replace(
    find_recipe("debian-12"),
    packages=("build-essential", "gfortran", "git", "python3-scipy", "emacs-nox"),
    disk_bytes=4 * GIB,
)
CUTTERS = tuple(
    Cutter(blocks=blocks, fixed=fixed) for fixed in (True, False) for blocks in (1, 4, 8, 16, 32)
)
LIST_IMAGES = 1000
HOSTS = 20
SWARM_MIB = 200
HTTP_MIB = 40
"""Plain HTTP takes as long as there are hosts: a fifth is measured."""


def lists(setting: Setting) -> Findings:
    """Measure the check of a list, and the look at each use of an image."""
    rounds = 3 if setting.counts is QUICK else 15
    image = setting.image("debian-12")
    with setting.directory() as work:
        setting.say(f"a list of {LIST_IMAGES} images")
        listed = make_list(work, {image.sha512: image.size_bytes}, LIST_IMAGES - 1)
        verify_s, use_s = [], []
        for _ in range(rounds):
            verify_s.append(_seconds(lambda: _assert_all(listed.verify())))
            # Whoever starts machines one by one has a new gate each time.
            gate = Gate(policy_file=work / "none.toml", site_trust=listed.store.directory)
            use_s.append(_seconds(partial(_use, gate, image, listed.now)))
    metrics = (
        Metric(
            key="verify_list_1000_s",
            value=median(verify_s),
            unit="s",
            better="lower",
            against=f"a list of {LIST_IMAGES} images, {len(listed.message) >> 10} KiB",
        ),
        Metric(
            key="check_at_use_ms",
            value=median(use_s) * 1000,
            unit="ms",
            better="lower",
            goal=20,
            against="record, disk, list and block list, before each machine",
        ),
    )
    return Findings(metrics=metrics, notes=(f"verify: {spread(verify_s)}",))


def _assert_all(count: int) -> None:
    if count != LIST_IMAGES:
        raise BenchError(f"the list has {count} images")


def _use(gate: Gate, image: Image, now: datetime) -> None:
    check(image)
    gate.check(image, now)


def _seconds(work: Callable[[], None]) -> float:
    began = time.monotonic()
    work()
    return time.monotonic() - began


def delta(setting: Setting) -> Findings:
    """Find how much of a second version must be fetched."""
    image = _image(setting)
    with setting.directory() as work:
        setting.say("making second versions")
        versions = make_versions(image.disk, work)
        cutters = (CUTTER,) if setting.counts is QUICK else CUTTERS
        found: dict[str, tuple[float, float]] = {}
        for cutter in cutters:
            setting.say(f"cutting by {cutter.name}")
            found[cutter.name] = _fetched(versions, cutter)
    upgrade, rebuild = found[CUTTER.name]
    share = versions.replaced_bytes / versions.content_bytes
    replaced = f"{share:.1%}, of {len(versions.packages)} packages"
    notes = [
        f"image of {show_size(versions.content_bytes)}; replaced: {replaced}",
        "to fetch, the index included (upgraded in place, rebuilt):",
        *(f"  {name:<14} {one:.1%}  {two:.1%}" for name, (one, two) in found.items()),
    ]
    metrics = (
        Metric(
            key="delta_upgrade_fraction",
            value=upgrade,
            unit="of all",
            better="lower",
            goal=0.08,
            against=f"{share:.1%} of the bytes replaced in place",
        ),
        Metric(
            key="delta_rebuild_fraction",
            value=rebuild,
            unit="of all",
            better="lower",
            goal=0.20,
            against="the same, in a file system made anew",
        ),
    )
    return Findings(metrics=metrics, notes=tuple(notes))


def _image(setting: Setting) -> Image:
    if setting.counts is QUICK:
        return setting.image("debian-12")
    catalogue = catalogue_of(Paths.for_user({"MAYFLY_HOME": str(setting.home)}))
    try:
        return catalogue.find(IMAGE)
    except Missing:
        setting.say(f"making image {IMAGE}")
        return build(Blueprint(recipe=RECIPE, name=IMAGE), catalogue)


def _fetched(versions: Versions, cutter: Cutter) -> tuple[float, float]:
    with content_of(versions.first) as content:
        known = {chunk.digest for chunk in cut(content, "0" * 128, cutter).chunks}
    one, two = (_new_share(disk, known, cutter) for disk in (versions.upgraded, versions.rebuilt))
    return one, two


def _new_share(disk: Path, known: set[bytes], cutter: Cutter) -> float:
    with content_of(disk) as content:
        index = cut(content, "0" * 128, cutter)
    # A chunk that comes twice is fetched once.
    new = {chunk.digest: chunk.size for chunk in index.chunks if chunk.digest not in known}
    return (sum(new.values()) + len(render(index))) / index.content_bytes


def swarm(setting: Setting) -> Findings:
    """Measure twenty hosts that fetch the same at once."""
    quick = setting.counts is QUICK
    mib, hosts = (20, 4) if quick else (SWARM_MIB, HOSTS)
    http_mib = mib // 2 if quick else HTTP_MIB
    with setting.directory() as place, fleet(place, mib, hosts) as made:
        setting.say("swarm: one host alone")
        one = in_chunks(made, 1)
        setting.say(f"swarm: {hosts} hosts at once")
        many = in_chunks(made, hosts)
        setting.say(f"swarm: {hosts} hosts by plain HTTP")
        http_s = by_http(made, hosts, http_mib) * mib / http_mib
    copies = many.source_bytes / made.index.content_bytes
    metrics = (
        Metric(
            key="swarm20_vs_one",
            value=many.seconds / one.seconds,
            unit="times",
            better="lower",
            goal=2,
            against=f"one host alone: {one.seconds:.1f} s for {mib} MiB",
        ),
        Metric(
            key="swarm20_source_copies",
            value=copies,
            unit="copies",
            better="lower",
            goal=3,
            against=f"{hosts} hosts had all after {many.seconds:.1f} s",
        ),
        Metric(
            key="swarm20_vs_http",
            value=many.seconds / http_s,
            unit="times",
            better="lower",
            against=f"plain HTTP: {http_s:.0f} s, from {http_mib} MiB for each",
        ),
    )
    return Findings(metrics=metrics)


GROUPS: Mapping[str, Callable[[Setting], Findings]] = {
    "lists": lists,
    "delta": delta,
    "swarm": swarm,
    "minimal": minimal,
}
BENCH = Bench(name="images", text=str(__doc__), groups=GROUPS)

if __name__ == "__main__":
    sys.exit(BENCH.main(sys.argv[1:]))
