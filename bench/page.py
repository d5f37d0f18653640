"""The web page: how much travels for the first view, and how long it takes in a real browser."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from sqlalchemy import insert, select

from bench.groups import Bench
from bench.report import Findings, Metric, median, spread
from bench.setting import Setting
from mayfly.site.quota import Quotas
from mayfly.store import tables
from mayfly.store.database import new_id
from tests.integration.seats import Seat, seat_at
from tests.unit.server.sites import Little

MACHINES = 10_000
VIEWS = 9
KIB = 1024
TAKEN = """
const page = performance.getEntriesByType("navigation")[0];
const parts = performance.getEntriesByType("resource");
const bytes = parts.reduce((sum, each) => sum + each.transferSize, page.transferSize);
return [bytes, page.loadEventEnd / 1000, document.querySelectorAll("[data-state]").length];
"""
"""Bytes, seconds, and rows that are there: the proof that it is the page that was meant."""


def first(setting: Setting) -> Findings:
    """Open the list of machines with an empty cache, again and again."""
    with (
        tempfile.TemporaryDirectory() as directory,
        seat_at(Path(directory), quotas=Quotas()) as seat,
    ):
        setting.say(f"page: a site with {MACHINES} machines")
        _fill(seat.little)
        seat.sign_in("olga")
        taken = [_view(seat) for _ in range(VIEWS)]
    kib = [size / KIB for size, _ in taken]
    seconds = [spent_s for _, spent_s in taken]
    how = f"{MACHINES} machines, Chromium, empty cache"
    return Findings(
        metrics=(
            Metric(
                key="first_view_kib",
                value=max(kib),
                unit="KiB",
                better="lower",
                goal=150,
                against=how,
            ),
            Metric(
                key="first_view_s",
                value=median(seconds),
                unit="s",
                better="lower",
                goal=1,
                against=how,
            ),
        ),
        notes=(f"first view: {spread(seconds)}",),
    )


def _fill(little: Little) -> None:
    little.ask("olga", "POST", "/v1/leases", {"image": "debian-12", "name": "first"})
    with little.database.writing() as connection:
        row = dict(connection.execute(select(tables.leases)).mappings().one())
        more = [{**row, "id": new_id(), "name": f"m-{number}"} for number in range(1, MACHINES)]
        connection.execute(insert(tables.leases), more)


def _view(seat: Seat) -> tuple[float, float]:
    seat.window.devtools("Network.clearBrowserCache")
    seat.window.load(f"{seat.url}/machines?of=all")
    seat.window.until(lambda: bool(seat.window.script(TAKEN)[1]))
    size, spent_s, rows = seat.window.script(TAKEN)
    assert rows > 1, "this is not the list"
    return float(size), float(spent_s)


BENCH = Bench(name="page", text=str(__doc__), groups={"first": first})

if __name__ == "__main__":
    sys.exit(BENCH.main(sys.argv[1:]))
