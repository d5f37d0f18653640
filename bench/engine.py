"""Measure the engine on this host: starts, bursts, density, streams, files, what is left behind.

``docs/reference/benchmarks.md`` tells what each figure means.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from bench.density import idle_clones
from bench.files import files
from bench.groups import Bench
from bench.leftovers import leftovers
from bench.report import Findings
from bench.rounds import burst_vs_serial
from bench.setting import Setting
from bench.start import start_vs_cold_boot, start_vs_floor
from bench.streams import streams

GROUPS: dict[str, Callable[[Setting], Findings]] = {
    "start": start_vs_floor,
    "cold": start_vs_cold_boot,
    "burst": burst_vs_serial,
    "density": idle_clones,
    "streams": streams,
    "files": files,
    "leftovers": leftovers,
}
BENCH = Bench(name="engine", text=str(__doc__), groups=GROUPS)

if __name__ == "__main__":
    sys.exit(BENCH.main(sys.argv[1:]))
