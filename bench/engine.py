"""Measure the engine on this host: starts, bursts, density, streams, files, what is left behind.

``docs/reference/benchmarks.md`` tells what each figure means.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

from bench.burst import burst_vs_serial
from bench.client import BenchError
from bench.density import idle_clones
from bench.files import files
from bench.leftovers import leftovers
from bench.report import Findings, as_json, table
from bench.setting import FULL, QUICK, Setting, home_of_tests, open_setting
from bench.start import start_vs_cold_boot, start_vs_floor
from bench.streams import streams
from mayfly.errors import MayflyError

GROUPS: dict[str, Callable[[Setting], Findings]] = {
    "start": start_vs_floor,
    "cold": start_vs_cold_boot,
    "burst": burst_vs_serial,
    "density": idle_clones,
    "streams": streams,
    "files": files,
    "leftovers": leftovers,
}


def main(words: Sequence[str]) -> int:
    """Measure what was asked for; gives the exit status."""
    options = parse(words)
    signal.signal(signal.SIGTERM, _end)
    found: list[Findings] = []
    failed = False
    try:
        with open_setting(home_of_tests(), QUICK if options.quick else FULL, say) as setting:
            for name in options.only:
                try:
                    found.append(GROUPS[name](setting))
                except (BenchError, MayflyError, OSError) as error:
                    # One group that fails must not cost the figures of the others.
                    failed = True
                    setting.children.end()
                    say(f"{name} failed: {error}")
    except KeyboardInterrupt:
        say("interrupted: what was started has been ended")
        return 130
    _show(found, options.json)
    if options.quick:
        print("\nA quick run shows that all works; its figures and verdicts do not count.")
    return 1 if failed else 0


def parse(words: Sequence[str]) -> argparse.Namespace:
    """Read the command line; ``only`` becomes a list of groups."""
    parser = argparse.ArgumentParser(prog="scripts/bench engine", description=__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE too")
    parser.add_argument(
        "--only",
        type=_groups,
        default=list(GROUPS),
        metavar="NAME,...",
        help=f"measure only these: {', '.join(GROUPS)}",
    )
    parser.add_argument(
        "--quick", action="store_true", help="see that all works: figures from few, small runs"
    )
    return parser.parse_args(words)


def _groups(text: str) -> list[str]:
    names = text.split(",")
    unknown = [name for name in names if name not in GROUPS]
    if unknown:
        raise argparse.ArgumentTypeError(f"no such group: {', '.join(unknown)}")
    return names


def _show(found: Sequence[Findings], file: Path | None) -> None:
    metrics = [metric for one in found for metric in one.metrics]
    notes = [note for one in found for note in one.notes]
    print(table(metrics))
    if notes:
        print()
        print("\n".join(notes))
    if file is not None:
        file.write_text(json.dumps(as_json("engine", metrics), indent=2) + "\n")


def say(text: str) -> None:
    """Tell how far we are."""
    print(f"bench: {text}", file=sys.stderr, flush=True)


def _end(number: int, _: FrameType | None) -> None:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
