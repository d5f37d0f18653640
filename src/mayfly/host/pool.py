"""Keeps standbys ready: for the images that the site names, as many as are asked for."""

from __future__ import annotations

import logging
import time
from datetime import UTC, datetime

from mayfly.errors import Invalid, MayflyError
from mayfly.host.demand import wanted_counts
from mayfly.host.limits import STANDBY_MIB, spare_mib
from mayfly.host.loop import Task
from mayfly.host.making import Making, make
from mayfly.host.state import Hot, Service
from mayfly.host.watching import end
from mayfly.images.catalogue import check
from mayfly.model import Shape, State

BACK_OFF_S = 5.0
BACK_OFF_MOST_S = 300.0
RETHINK_S = 15.0

log = logging.getLogger("mayfly.host")
Key = tuple[str, Shape]


def refill(service: Service) -> None:
    """Begin to make what is lacking, and give up what is too much."""
    if service.stopping:
        return
    wanted = {} if service.draining else _wanted(service)
    for key, hot in service.hot.items():
        hot.wanted = wanted.get(key, 0)
    for key, hot in service.hot.items():
        _drop_stale(service, key, hot)
        ready = service.table.standbys(*key)
        for hosted in ready[wanted.get(key, 0) :]:
            end(service, hosted, "one standby too many")
        lacking = wanted.get(key, 0) - len(ready) - hot.making
        for _ in range(lacking):
            if not _may_make(service, hot):
                break
            hot.making += 1
            service.loop.spawn(_make_one(service, key, hot))
    for hosted in service.table:
        if (
            hosted.record.state is State.STANDBY
            and (hosted.record.image, hosted.shape) not in wanted
        ):
            end(service, hosted, "standbys of this image are not wanted any more")


def _wanted(service: Service) -> dict[Key, int]:
    spare = spare_mib(service.held(), service.bounds(), service.shared_mib())
    there = sum(one.is_standby for one in service.table)
    # Below 0 there is less than was promised: standbys are what can be given up.
    room = max(0, there + spare // STANDBY_MIB)
    return wanted_counts(service.hot, time.monotonic(), room)


def _drop_stale(service: Service, key: Key, hot: Hot) -> None:
    """Give up standbys of an image that is another by now, or may not be used any more."""
    name, shape = key
    there = service.table.standbys(name, shape)
    if not there:
        return
    try:
        image = service.catalogue.find(name)
        check(image)
        service.gate.check(image, datetime.now(UTC))
        fresh = image.sha512
    except MayflyError as error:
        hot.trouble, fresh = error.message, "none"
    for hosted in there:
        if hosted.sha512 != fresh:
            end(service, hosted, f"image '{name}' has changed, or may not be used any more")


def _may_make(service: Service, hot: Hot) -> bool:
    # Requests come first: what they need to start is not taken by machines that wait for nobody.
    # Who waits for room that others hold is not served sooner by fewer standbys.
    return service.starting < 2 and not service.crowded and time.monotonic() >= hot.not_before


def _make_one(service: Service, key: Key, hot: Hot) -> Task:
    name, shape = key
    began = time.monotonic()
    try:
        image = service.catalogue.find(name)
        if image.name != name:
            # Standbys are told apart by the name that their image has itself.
            raise Invalid(f"'{name}' is another name of image '{image.name}': name that one")
        service.gate.check(image, datetime.now(UTC))
        yield from make(service, Making(image=image, shape=shape, label="(standby)"), _unheard)
    except MayflyError as error:
        hot.failures += 1
        wait_s = min(BACK_OFF_S * 2 ** (hot.failures - 1), BACK_OFF_MOST_S)
        hot.not_before = time.monotonic() + wait_s
        hot.trouble = error.message
        service.metrics.failed(error)
        log.warning("no standby of %s, again in %.0f s: %s", name, wait_s, error.message)
        service.loop.later(wait_s + 0.1, service.changed)
    else:
        hot.demand.refilled(time.monotonic() - began)
        hot.failures, hot.not_before, hot.trouble = 0, 0.0, ""
    finally:
        hot.making -= 1
        service.changed()


def _unheard(_: str) -> None:
    """Nobody waits for a standby."""


def rethink(service: Service) -> None:
    """Look at the demand now and then, also when nothing happens."""
    refill(service)
    service.loop.later(RETHINK_S, lambda: rethink(service))
