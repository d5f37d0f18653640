"""The text that is signed: simple signing, as cosign has it."""

from __future__ import annotations

import json
from typing import Any

from mayfly.images.lists.rules import Refusal, Rule

TYPE = "cosign container image signature"
PAYLOAD_MOST = 64 << 10


def check_payload(payload: bytes, digest: str) -> Refusal | None:
    """Refuse a text that does not speak of this manifest; its signature was found good before.

    What it says of the name of the image is not looked at, as cosign does not: images are copied
    from one registry to another with their signatures.
    """
    try:
        table = json.loads(payload)
    except (ValueError, RecursionError):
        return _unreadable("it is not JSON")
    critical = _part(table, "critical")
    if critical.get("type") != TYPE:
        return _unreadable(f"its type is {str(critical.get('type'))[:60]!r}")
    named = _part(critical, "image").get("docker-manifest-digest")
    if type(named) is not str:
        return _unreadable("it names no manifest")
    if named != digest:
        detail = f"what was signed is {named[:80]}, and this is {digest}"
        return Refusal(rule=Rule.MANIFEST, detail=detail)
    return None


def _part(table: object, key: str) -> dict[str, Any]:
    value = table.get(key) if isinstance(table, dict) else None
    return value if isinstance(value, dict) else {}


def _unreadable(why: str) -> Refusal:
    return Refusal(rule=Rule.PAYLOAD, detail=f"the text that was signed cannot be used: {why}")
