"""What Prometheus reads of the server."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, field

from sqlalchemy import func, select

from mayfly import __version__
from mayfly.server.site import Site
from mayfly.store import tables

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_METHODS = frozenset(("GET", "POST", "PATCH", "DELETE"))


@dataclass(slots=True)
class Counts:
    """Requests that were answered."""

    requests: Counter[tuple[str, int]] = field(default_factory=Counter)
    seconds: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def answered(self, method: str, status: int, spent_s: float) -> None:
        """Count one."""
        with self._lock:
            # A client may make methods up: they must not become numbers without end.
            self.requests[method if method in _METHODS else "other", status] += 1
            self.seconds += spent_s


def text(site: Site, counts: Counts) -> str:
    """Give all numbers in the text format."""
    columns = tables.leases.c
    by_state = select(columns.state, func.count()).where(columns.live).group_by(columns.state)
    with site.database.reading() as connection:
        states = {str(state): int(count) for state, count in connection.execute(by_state)}
    lines = [
        "# HELP mayfly_server_info Version of the site server.",
        "# TYPE mayfly_server_info gauge",
        f'mayfly_server_info{{version="{__version__}"}} 1',
        "# HELP mayfly_leases Living leases by state.",
        "# TYPE mayfly_leases gauge",
        *(f'mayfly_leases{{state="{state}"}} {count}' for state, count in sorted(states.items())),
        "# HELP mayfly_server_requests_total Requests that were answered.",
        "# TYPE mayfly_server_requests_total counter",
        *(
            f'mayfly_server_requests_total{{method="{method}",status="{status}"}} {count}'
            for (method, status), count in sorted(counts.requests.items())
        ),
        "# HELP mayfly_server_request_seconds_total Time that answers took.",
        "# TYPE mayfly_server_request_seconds_total counter",
        f"mayfly_server_request_seconds_total {counts.seconds:.6f}",
        "# HELP mayfly_reconcile_rounds_total Rounds of the loop that keeps the leases.",
        "# TYPE mayfly_reconcile_rounds_total counter",
        f"mayfly_reconcile_rounds_total {site.reconciler.rounds}",
        "# HELP mayfly_reconcile_blind Whether the last round could not see the machines.",
        "# TYPE mayfly_reconcile_blind gauge",
        f"mayfly_reconcile_blind {int(bool(site.reconciler.trouble))}",
    ]
    return "\n".join(lines) + "\n"
