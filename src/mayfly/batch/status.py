"""How the host service of this host is, for batch systems that choose hosts by what these say."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from mayfly.batch.settings import BatchSettings
from mayfly.errors import MayflyError
from mayfly.host import client

ASK_LIMIT_S = 10.0


def ask_status(settings: BatchSettings) -> Mapping[str, Any] | None:
    """Give how the host service is, None when it does not say or nothing is to have machines."""
    if not settings.enabled:
        return None
    try:
        with contextlib.closing(client.require(settings.socket)) as connection:
            connection.ask("status")
            return connection.answer(limit_s=ASK_LIMIT_S)[0]
    except MayflyError:
        return None


def ready_images(status: Mapping[str, Any]) -> list[str]:
    """Give the names of the images of which there are standbys."""
    standby = status.get("standby", [])
    return sorted({str(each["image"]) for each in standby if each.get("ready")})
