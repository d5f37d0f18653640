"""Takes a host on which Mayfly is sick out of Slurm's hands, and gives it back when it is well."""

from __future__ import annotations

import contextlib

from mayfly.batch.settings import BatchSettings
from mayfly.command import run
from mayfly.errors import MayflyError
from mayfly.host import client

MARK = "mayfly: "
"""What the reason of a node begins with that was drained by us: no other is given back."""
REASON_LONGEST = 200
CONTROL_LIMIT_S = 20.0


def tend(node: str, settings: BatchSettings) -> str:
    """Look at the host, and drain or resume its node; gives what was done. Raises ``Failed``."""
    trouble = trouble_of(settings) if settings.enabled else ""
    drained, reason = parse_node(_scontrol("show", "node", "-o", node))
    ours = reason.startswith(MARK)
    if trouble and not drained:
        _scontrol("update", f"nodename={node}", "state=drain", f"reason={MARK}{trouble}")
        return f"drained: {trouble}"
    if not trouble and drained and ours:
        _scontrol("update", f"nodename={node}", "state=resume")
        return "resumed"
    return trouble or "well"


def trouble_of(settings: BatchSettings) -> str:
    """Say what is wrong with the host service of this host; "" when nothing is."""
    try:
        connection = client.connect(settings.socket, patience_s=client.RESTART_S)
        connection = connection or client.require(settings.socket)
        with contextlib.closing(connection):
            _, found = client.call(connection, "check")
    except MayflyError as error:
        return error.message[:REASON_LONGEST]
    wrong = [f"{item.get('name')}: {item.get('detail')}" for item in found if not item.get("ok")]
    return "; ".join(wrong)[:REASON_LONGEST]


def parse_node(text: str) -> tuple[bool, str]:
    """Read what scontrol shows of a node: whether it is drained, and the reason."""
    words = dict(word.partition("=")[::2] for word in text.split() if "=" in word)
    reason = text.partition("Reason=")[2].partition("\n")[0].strip()
    return "DRAIN" in words.get("State", ""), reason


def _scontrol(*words: str) -> str:
    return run(["scontrol", *words], timeout_s=CONTROL_LIMIT_S).text()
