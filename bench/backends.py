"""Measure what disk, network and CPU cost in a machine, for each back-end that it could have.

One guest has all of them; they are measured by turns, so that a change of the host's load meets
all. ``docs/explanation/backends.md`` has the table and what follows from it.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.cards import CARDS, Network, card_argv, outside, up_script
from bench.client import BenchError
from bench.disks import (
    BELOW,
    DISKS,
    FIND,
    READ_MIB,
    Disk,
    devices_in,
    disk_argv,
    file_system,
    make_disk,
    make_sources,
)
from bench.groups import Bench
from bench.guest import Guest, booted, guest_argv
from bench.loads import (
    Area,
    Shell,
    cpu_load,
    disk_load,
    network_load,
    same_results,
)
from bench.report import Findings, Metric, median
from bench.setting import BENCH_IMAGE, Setting
from mayfly.engine.template import Engine

GUEST_MIB = 1024
WRITE_MIB = 128
"""Written in each round, where nothing was written before."""
HOST = "host"

Figures = dict[str, dict[str, list[float]]]
"""What was measured: by subject and load, one figure of each round."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A row of the table."""

    key: str
    text: str


def disk(setting: Setting) -> Findings:
    """Measure disks with fio, straight on the device: no file system of the guest is between."""
    rounds = setting.counts.backend_rounds
    with contextlib.ExitStack() as stack:
        place = stack.enter_context(setting.directory())
        size = READ_MIB + rounds * WRITE_MIB
        subjects, disks = _make_disks(setting, stack, place, size)
        engine, guest = _guest(setting, stack, place, disk_argv(disks))
        devices = devices_in(guest.run(FIND))
        figures: Figures = {}
        for number in range(rounds):
            for at, subject in enumerate(subjects):
                setting.say(f"disk: round {number + 1} of {rounds}, {subject.text}")
                shell, path = _disk_side(guest, place, devices, at)
                area = Area(
                    path=path,
                    read_mib=READ_MIB,
                    write_at_mib=READ_MIB + number * WRITE_MIB,
                    write_mib=WRITE_MIB,
                    seconds=setting.counts.backend_s,
                    direct=shell is not host_shell or subject.key == "host_direct",
                )
                _note(figures, subject.key, disk_load(shell, area))
                # What one of them left in the host's page cache shall not slow the next one down.
                os.sync()
    return _findings("disk", engine, subjects, figures, "MiB/s")


HOST_DISKS = (
    Subject(key="host", text="the host itself, through its page cache"),
    Subject(key="host_direct", text="the host itself, past its page cache"),
)


def _make_disks(
    setting: Setting, stack: contextlib.ExitStack, place: Path, size_mib: int
) -> tuple[list[Subject], list[tuple[Disk, Path]]]:
    places = {"here": place}
    made: list[tuple[Disk, Path]] = []
    for one in DISKS:
        if one.where not in places:
            places[one.where] = stack.enter_context(file_system(one.where, place))
        where = places[one.where]
        if not (where / BELOW).exists():
            setting.say(f"disk: making what the disks on {one.where} are made from")
            make_sources(where, size_mib)
        made.append((one, make_disk(one, where, where)))
    for host in HOST_DISKS:
        plain = Disk(key=host.key, form="raw")
        make_disk(plain, place, place)
    guests = [Subject(key=one.key, text=one.text) for one, _ in made]
    return [*guests, *HOST_DISKS], made


def _disk_side(
    guest: Guest, place: Path, devices: Mapping[int, str], number: int
) -> tuple[Shell, str]:
    if number < len(DISKS):
        return guest.run, devices[number]
    return host_shell, str(place / f"{HOST_DISKS[number - len(DISKS)].key}.raw")


def network(setting: Setting) -> Findings:
    """Measure networks with iperf3, to a server that is no address of this host."""
    rounds = setting.counts.backend_rounds
    seconds = setting.counts.backend_s
    with contextlib.ExitStack() as stack:
        place = stack.enter_context(setting.directory())
        server = stack.enter_context(outside())
        cards = [(card, stack.enter_context(card.start(setting.children, place))) for card in CARDS]
        fds = [fd for _, behind in cards for fd in behind.fds]
        engine, guest = _guest(setting, stack, place, card_argv(cards), fds)
        figures: Figures = {}
        for number in range(rounds):
            for at, (card, behind) in enumerate(cards):
                setting.say(f"network: round {number + 1} of {rounds}, {card.text}")
                _note(figures, card.key, _one_card(guest, at, behind, seconds))
            _note(figures, HOST, network_load(host_shell, server, seconds))
    subjects = [Subject(key=card.key, text=card.text) for card, _ in cards]
    subjects.append(Subject(key=HOST, text="the host itself"))
    return _findings("net", engine, subjects, figures, "Mbit/s")


def _one_card(guest: Guest, number: int, behind: Network, seconds: float) -> dict[str, float]:
    guest.run(up_script(number, behind))
    return network_load(guest.run, behind.server, seconds)


def cpu(setting: Setting) -> Findings:
    """Time fixed computations, with results that must be the same, in the guest and on the host."""
    rounds = setting.counts.backend_rounds
    figures: Figures = {}
    with contextlib.ExitStack() as stack:
        place = stack.enter_context(setting.directory())
        engine, guest = _guest(setting, stack, place, [])
        # What is translated once, or read from disk once, is not what a computation costs.
        same_results(cpu_load(guest.run), cpu_load(host_shell))
        for number in range(rounds):
            setting.say(f"cpu: round {number + 1} of {rounds}")
            for key, shell in (("guest", guest.run), (HOST, host_shell)):
                seconds = {name: 1 / took for name, (took, _) in cpu_load(shell).items()}
                _note(figures, key, seconds)
    subjects = [
        Subject(key="guest", text="a machine"),
        Subject(key=HOST, text="the host itself"),
    ]
    return _findings("cpu", engine, subjects, figures, "runs/s")


def host_shell(script: str) -> str:
    """Run a shell script here, as the guest does there."""
    argv = ["/bin/sh", "-ec", script]
    done = subprocess.run(argv, check=False, capture_output=True, text=True, env=HOST_ENV)
    if done.returncode != 0:
        raise BenchError(f"exit status {done.returncode}: {done.stderr.strip() or done.stdout}")
    return done.stdout


HOST_ENV = {"LC_ALL": "C", "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}


def _guest(
    setting: Setting,
    stack: contextlib.ExitStack,
    place: Path,
    more: Sequence[str],
    fds: Sequence[int] = (),
) -> tuple[Engine, Guest]:
    engine, image = setting.engine(), setting.image(BENCH_IMAGE)
    disk_file = place / "disk.qcow2"
    words = ["qemu-img", "create", "-q", "-f", "qcow2", "-b", str(image.disk), "-F", image.format]
    subprocess.run([*words, str(disk_file)], check=True)
    argv = guest_argv(engine, place, disk_file, memory_mib=GUEST_MIB, more=more)
    setting.say("booting the guest of the bench")
    return engine, stack.enter_context(booted(setting, place, argv, fds))


def _note(figures: Figures, key: str, found: Mapping[str, float]) -> None:
    for load, value in found.items():
        figures.setdefault(key, {}).setdefault(load, []).append(value)


def _findings(
    prefix: str, engine: Engine, subjects: Sequence[Subject], figures: Figures, unit: str
) -> Findings:
    middle = {
        key: {load: median(values) for load, values in loads.items()}
        for key, loads in figures.items()
    }
    metrics = tuple(
        Metric(
            key=f"{prefix}_{subject.key}_{load}",
            value=value,
            unit=unit,
            better="higher",
            against=f"{subject.text}; accelerator {engine.accelerator}",
        )
        for subject in subjects
        for load, value in middle[subject.key].items()
    )
    notes = markdown(subjects, middle, unit)
    label = "software emulation (no KVM)" if engine.accelerator == "tcg" else engine.accelerator
    return Findings(metrics=metrics, notes=(f"{prefix}, by {label}:", "", *notes, ""))


def markdown(
    subjects: Sequence[Subject], middle: Mapping[str, Mapping[str, float]], unit: str
) -> list[str]:
    """Write a table for the docs: figures, and what is left of the host's own."""
    loads = list(middle[subjects[0].key])
    lines = [
        f"| {unit} | {' | '.join(load.replace('_', ' ') for load in loads)} |",
        "|---|" + "---|" * len(loads),
    ]
    for subject in subjects:
        cells = [_cell(middle[subject.key][load], middle[HOST][load]) for load in loads]
        lines.append(f"| {subject.text} | {' | '.join(cells)} |")
    return lines


def _cell(value: float, host: float) -> str:
    return (
        f"{value:.3g} ({value / host:.1%})" if value < 1000 else f"{value:.0f} ({value / host:.1%})"
    )


GROUPS: dict[str, Callable[[Setting], Findings]] = {"disk": disk, "network": network, "cpu": cpu}
BENCH = Bench(name="backends", text=str(__doc__), groups=GROUPS)

if __name__ == "__main__":
    sys.exit(BENCH.main(sys.argv[1:]))
