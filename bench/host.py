"""Measure the host service: hot starts, load, bursts, what a machine costs inside, saved machines.

``docs/reference/benchmarks.md`` tells what each figure means.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from bench.crowd import crowd
from bench.groups import Bench
from bench.hot import hot, hot_vs_cold
from bench.inside import inside
from bench.report import Findings
from bench.saved import revert, suspend
from bench.setting import Setting
from bench.sustained import sustained

GROUPS: dict[str, Callable[[Setting], Findings]] = {
    "hot": hot,
    "cold": hot_vs_cold,
    "sustained": sustained,
    "burst": crowd,
    "inside": inside,
    "suspend": suspend,
    "revert": revert,
}
BENCH = Bench(name="host", text=str(__doc__), groups=GROUPS)

if __name__ == "__main__":
    sys.exit(BENCH.main(sys.argv[1:]))
