"""A bench as a command: choose among its groups, run them, show and write down what they found."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from bench.client import BenchError
from bench.report import Findings, as_json, table
from bench.setting import FULL, QUICK, Setting, home_of_tests, open_setting
from mayfly.errors import MayflyError

Group = Callable[[Setting], Findings]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """The name of a bench, what it is for, and its parts in the order in which they run."""

    name: str
    text: str
    groups: Mapping[str, Group]

    def parse(self, words: Sequence[str]) -> argparse.Namespace:
        """Read the command line; ``only`` becomes a list of groups."""
        parser = argparse.ArgumentParser(prog=f"scripts/bench {self.name}", description=self.text)
        parser.add_argument(
            "--json", type=Path, metavar="FILE", help="write the figures to FILE too"
        )
        parser.add_argument(
            "--only",
            type=self._chosen,
            default=list(self.groups),
            metavar="NAME,...",
            help=f"measure only these: {', '.join(self.groups)}",
        )
        parser.add_argument(
            "--quick", action="store_true", help="see that all works: figures from few, small runs"
        )
        return parser.parse_args(words)

    def _chosen(self, text: str) -> list[str]:
        names = text.split(",")
        unknown = [name for name in names if name not in self.groups]
        if unknown:
            raise argparse.ArgumentTypeError(f"no such group: {', '.join(unknown)}")
        return names

    def main(self, words: Sequence[str]) -> int:
        """Measure what was asked for; gives the exit status."""
        options = self.parse(words)
        signal.signal(signal.SIGTERM, _end)
        found: list[Findings] = []
        failed = False
        try:
            with open_setting(home_of_tests(), QUICK if options.quick else FULL, say) as setting:
                for name in options.only:
                    try:
                        found.append(self.groups[name](setting))
                    except (BenchError, MayflyError, OSError) as error:
                        # One group that fails must not cost the figures of the others.
                        failed = True
                        setting.children.end()
                        say(f"{name} failed: {error}")
        except KeyboardInterrupt:
            say("interrupted: what was started has been ended")
            return 130
        self._show(found, options.json)
        if options.quick:
            print("\nA quick run shows that all works; its figures and verdicts do not count.")
        return 1 if failed else 0

    def _show(self, found: Sequence[Findings], file: Path | None) -> None:
        metrics = [metric for one in found for metric in one.metrics]
        notes = [note for one in found for note in one.notes]
        print(table(metrics))
        if notes:
            print()
            print("\n".join(notes))
        if file is not None:
            file.write_text(json.dumps(as_json(self.name, metrics), indent=2) + "\n")


def say(text: str) -> None:
    """Tell how far we are."""
    print(f"bench: {text}", file=sys.stderr, flush=True)


def _end(number: int, _: FrameType | None) -> None:
    raise SystemExit(128 + number)
