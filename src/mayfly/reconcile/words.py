"""What is written down about a change: the kind of event that a new state makes."""

from __future__ import annotations

from mayfly.site.lease import Lease


def kind_of(before: Lease, after: Lease) -> str:
    """Name the event for a change; empty: nothing that is worth one."""
    if before.state is not after.state:
        return f"lease.{after.state.value}"
    if before.wanted is not after.wanted:
        return "lease.expired" if after.expired and not before.expired else "lease.changed"
    return "lease.trouble" if after.attempts > before.attempts else ""
