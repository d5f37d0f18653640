"""Follows what is trusted: lists are updated, and what was taken back is dropped or ended.

Lists are asked for in a child, since a server may keep it waiting. Whatever changed what is trusted
(this service, ``mayfly trust`` of root's, another host on a shared directory) is seen by the times
of the files.
"""

from __future__ import annotations

import logging
import time
from datetime import UTC, datetime

from mayfly.errors import MayflyError, Untrusted
from mayfly.host.loop import Task, Wait
from mayfly.host.state import Hosted, Service
from mayfly.host.watching import end
from mayfly.host.work import Channel, work
from mayfly.model import State
from mayfly.policy.model import Revoked

LOOK_S = 2.0
SWEEP_S = 30.0
"""How often it is looked, at least, whether an image has expired."""
UPDATE_LIMIT_S = 3600.0
RUNS = (State.RUNNING, State.PAUSED)

log = logging.getLogger("mayfly.host")


def begin(service: Service) -> None:
    """Follow what is trusted from here on."""
    _look(service)
    service.loop.spawn(_updates(service))


def _look(service: Service) -> None:
    try:
        service.gate.look()
        state = service.gate.state()
        if state != service.trust_seen or time.monotonic() - service.swept_at > SWEEP_S:
            sweep(service)
        if state != service.trust_seen:
            # What was not trusted may be now: standbys can be made.
            service.trust_seen = state
            service.changed()
        service.trust_trouble = ""
    except MayflyError as error:
        if error.message != service.trust_trouble:
            log.warning("%s", error.message)
        service.trust_trouble = error.message
    service.loop.later(LOOK_S, lambda: _look(service))


def sweep(service: Service) -> None:
    """Go through all machines: those whose image is trusted no more are dealt with."""
    service.swept_at = time.monotonic()
    now = datetime.now(UTC)
    revoked = service.gate.revoked()
    seen: dict[str, str] = {}
    for hosted in service.table:
        key = hosted.record.image_sha512 + hosted.record.endorsed_sha512 or hosted.record.image
        if key not in seen:
            seen[key] = why_distrusted(service, hosted, now)
        before, hosted.distrust = hosted.distrust, seen[key]
        if hosted.distrust:
            _deal(service, hosted, revoked, told=before == hosted.distrust)


def why_distrusted(service: Service, hosted: Hosted, now: datetime) -> str:
    """Say why the image of a machine may be used no more; empty when it may."""
    gate, contents = service.gate, contents_of(hosted)
    if not contents:
        # A machine of an earlier version: only the name is known.
        try:
            error = gate.distrust(service.catalogue.find(hosted.record.image), now)
        except MayflyError:
            return ""
    else:
        error = gate.distrust_of(hosted.record.image, contents, now)
    return error.message if error else ""


def contents_of(hosted: Hosted) -> list[str]:
    """Give what a list may have of the image that a machine was made of."""
    record = hosted.record
    return [each for each in (record.image_sha512, record.endorsed_sha512) if each]


def _deal(service: Service, hosted: Hosted, revoked: Revoked, *, told: bool) -> None:
    if hosted.is_standby:
        end(service, hosted, hosted.distrust)
        return
    if not told:
        log.warning("machine %s: %s", hosted.id, hosted.distrust)
        service.logs.event(hosted.id, f"not trusted any more: {hosted.distrust}", now=time.time())
    if revoked is Revoked.KILL and hosted.record.state in RUNS:
        end(service, hosted, hosted.distrust)


def check_new_job(service: Service, hosted: Hosted) -> None:
    """Refuse to let anything new begin in a machine that the policy has drained."""
    if hosted.distrust and service.gate.revoked() is not Revoked.MARK:
        raise Untrusted(
            f"nothing new begins in machine '{hosted.id}': {hosted.distrust}",
            hint="copy what you need out of it while it runs, and begin anew with another image",
        )


# --- updates -------------------------------------------------------------------------------------


def _updates(service: Service) -> Task:
    """Ask for all lists now, and again each time that the interval is over."""
    while True:
        yield from _update(service)
        yield Wait(seconds=service.settings.trust_update_s)


def _update(service: Service) -> Task:
    paths, settings = service.engine.paths, service.engine.settings
    if not any((paths.site_trust / "subscriptions").glob("[!.]*.json")):
        return

    def body(channel: Channel) -> None:
        # Only the child needs it: what asks for lists is large.
        from mayfly.images.lists.following import follower_for  # noqa: PLC0415

        done = follower_for(settings, paths.site_trust, service.catalogue).update(datetime.now(UTC))
        channel.done({"words": [each.words for each in done if each.words]})

    try:
        done = yield from work(body, name="the update of image lists", limit_s=UPDATE_LIMIT_S)
    except MayflyError as error:
        log.warning("image lists were not updated: %s", error.message)
        return
    for words in done.words["words"]:
        log.info("image list %s", words)
