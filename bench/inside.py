"""Disk, network and CPU in a machine of the service, against a QEMU line written by hand.

Both have the same back-ends: a qcow2 layer without flushes on the same image, and the network that
``--network open`` gives. Both were used before, and rest while the other one works.
"""

from __future__ import annotations

import contextlib
import math
import subprocess
from collections.abc import Iterator, Mapping, Sequence

from bench.cards import Card, card_argv, outside, up_script
from bench.cards import open_network as the_same_network
from bench.guest import booted, guest_argv
from bench.loads import Area, Shell, cpu_load, disk_load, network_load, same_results
from bench.report import Findings, Metric, median
from bench.service import HostService, serving
from bench.setting import BENCH_IMAGE, Setting

MEMORY_MIB = 512
FILE = "/var/tmp/bench.data"  # noqa: S108 - in the machine, which is the bench's alone
FILE_MIB = 128
MAKE_FILE = f"yes 'one job, one machine' | head -c {2 * FILE_MIB}M > {FILE}; sync"
GOAL = 0.95

Figures = dict[str, dict[str, list[float]]]
"""By load of a kind (``disk read``): more is better. First ours, then the other's."""


def inside(setting: Setting) -> Findings:
    """Measure both by turns."""
    setting.warm(BENCH_IMAGE)
    figures: dict[str, Figures] = {"ours": {}, "theirs": {}}
    with (
        serving(setting, []) as service,
        outside() as server,
        _ours(service) as ours,
        _theirs(setting) as theirs,
    ):
        sides = {"ours": ours, "theirs": theirs}
        for shell in sides.values():
            shell(MAKE_FILE)
        setting.say("inside: first runs, which do not count")
        first = {side: _measure(shell, server, setting) for side, shell in sides.items()}
        same_results(*(cpu for _, cpu in first.values()))
        for number in range(setting.counts.inside):
            setting.say(f"inside: pair {number + 1} of {setting.counts.inside}")
            order = list(sides) if number % 2 else list(sides)[::-1]
            for side in order:
                found, _ = _measure(sides[side], server, setting)
                for kind, loads in found.items():
                    for load, value in loads.items():
                        figures[side].setdefault(kind, {}).setdefault(load, []).append(value)
    return _findings(figures["ours"], figures["theirs"])


def _measure(
    shell: Shell, server: str, setting: Setting
) -> tuple[dict[str, dict[str, float]], dict[str, tuple[float, str]]]:
    seconds = setting.counts.backend_s
    area = Area(
        path=FILE, read_mib=FILE_MIB, write_at_mib=FILE_MIB, write_mib=FILE_MIB, seconds=seconds
    )
    computed = cpu_load(shell)
    found = {
        "disk": disk_load(shell, area),
        "net": network_load(shell, server, seconds),
        "cpu": {load: 1 / took for load, (took, _) in computed.items()},
    }
    return found, computed


@contextlib.contextmanager
def _ours(service: HostService) -> Iterator[Shell]:
    """Give a machine of the service, entered as anybody enters one."""
    setting = service.setting
    size = f"{MEMORY_MIB}M"
    words = ("run", BENCH_IMAGE, "--detach", "--network", "open", "--memory", size)
    with setting.children.done(setting.start(*words, "--no-workdir")) as child:
        name = child.said()

    def shell(script: str) -> str:
        words = ("machine", "ssh", name, "--root", "--", "/bin/sh", "-ec", script)
        with setting.children.done(setting.start(*words)) as child:
            return child.said()

    try:
        yield shell
    finally:
        service.ask("delete", machine=name)


@contextlib.contextmanager
def _theirs(setting: Setting) -> Iterator[Shell]:
    """Give a guest behind a line written by hand."""
    engine, image = setting.engine(), setting.image(BENCH_IMAGE)
    card = Card(key="open", text="", start=the_same_network)
    with setting.directory() as place, card.start(setting.children, place) as network:
        disk = place / "disk.qcow2"
        words = ["qemu-img", "create", "-q", "-f", "qcow2", "-b", str(image.disk)]
        subprocess.run([*words, "-F", image.format, str(disk)], check=True)
        more = card_argv([(card, network)])
        argv = guest_argv(engine, place, disk, memory_mib=MEMORY_MIB, more=more)
        with booted(setting, place, argv, network.fds) as guest:
            guest.run(up_script(0, network))
            yield guest.run


def _findings(ours: Figures, theirs: Figures) -> Findings:
    metrics = []
    notes = []
    for kind, loads in ours.items():
        ratios = {
            load: median(values) / median(theirs[kind][load]) for load, values in loads.items()
        }
        words = ", ".join(f"{load} {ratio:.3f}" for load, ratio in ratios.items())
        metrics.append(
            Metric(
                key=f"inside_{kind}_ratio",
                value=mean_ratio(list(ratios.values())),
                unit="times",
                goal=GOAL,
                better="higher",
                against=f"the same in a QEMU started by hand: {words}",
            )
        )
        notes += [_note(kind, load, ours[kind][load], theirs) for load in loads]
    return Findings(metrics=tuple(metrics), notes=tuple(notes))


def mean_ratio(ratios: Sequence[float]) -> float:
    """Give the geometric mean: twice as fast here and half as fast there is as fast."""
    return math.exp(sum(map(math.log, ratios)) / len(ratios))


def _note(
    kind: str, load: str, ours: Sequence[float], theirs: Mapping[str, Mapping[str, list[float]]]
) -> str:
    unit = {"disk": "MiB/s", "net": "Mbit/s", "cpu": "runs/s"}[kind]
    words = [
        f"{median(values):.4g} ({min(values):.4g} to {max(values):.4g})"
        for values in (ours, theirs[kind][load])
    ]
    return f"inside, {kind} {load}, {unit}: ours {words[0]}, by hand {words[1]}, n={len(ours)}"
