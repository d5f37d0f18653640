"""Requests about the host itself: how it is, and what root may tell it."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mayfly import __version__
from mayfly.engine.probe import probe_qemu
from mayfly.errors import Invalid, MayflyError, Missing, Quota
from mayfly.host.caller import Caller
from mayfly.host.jobends import end_jobs, one_less
from mayfly.host.limits import shape_for
from mayfly.host.registration import parts_of, settle
from mayfly.host.rights import Right, parse_right
from mayfly.host.settings import Standby
from mayfly.host.state import Hot, Service, host_memory_mib
from mayfly.host.wish import text_of
from mayfly.images.catalogue import check as check_image
from mayfly.model import Finding, Shape, State

Message = dict[str, Any]
DISK_LEAST_MIB = 1024
DRAINED = "drained"


def status(service: Service, caller: Caller, _: Message) -> None:
    """Answer with what the host is doing."""
    states = Counter(one.record.state.value for one in service.table)
    held = service.held()
    promised = sum(each.need.memory_mib for each in held if not each.standby)
    caller.ok(
        {
            "version": __version__,
            "draining": service.draining,
            "trouble": service.fitness.trouble(time.monotonic()),
            "accelerator": service.engine.accelerator,
            "machines": dict(states),
            "waiting": len(service.line),
            "starting": service.starting,
            "standby": [_standby_item(service, key, hot) for key, hot in service.hot.items()],
            "memory_mib": {
                "host": host_memory_mib(),
                "to_promise": service.bounds().memory_mib,
                "promised": promised,
                "templates": service.shared_mib(),
            },
            "callers": len(service.callers),
            "untrusted": sum(bool(one.distrust) for one in service.table),
        }
    )


def _standby_item(service: Service, key: tuple[str, Shape], hot: Hot) -> dict[str, Any]:
    name, shape = key
    return {
        "image": name,
        "cpus": shape.cpus,
        "memory_mib": shape.memory_mib,
        "ready": len(service.table.standbys(name, shape)),
        "wanted": 0 if service.draining else hot.wanted,
        "most": hot.standby.most,
        "queues": list(hot.standby.queues),
        "trouble": hot.trouble,
    }


def check(service: Service, caller: Caller, _: Message) -> None:
    """Answer with what is wrong on this host."""
    findings = [*_findings(service)]
    caller.items([{"name": f.name, "ok": f.ok, "detail": f.detail} for f in findings])


def _findings(service: Service) -> list[Finding]:
    found = [_disk(service.settings.state), _disk(service.engine.paths.cache), _qemu(service)]
    for (name, _), hot in service.hot.items():
        found.append(_standby(service, name, hot))
    found.append(_rules(service))
    trouble = service.fitness.trouble(time.monotonic())
    found.append(Finding(name="machines", ok=not trouble, detail=trouble or "can be made"))
    found.append(
        Finding(
            name="in service",
            ok=not service.draining,
            detail="drained" if service.draining else "takes requests",
        )
    )
    return found


def _rules(service: Service) -> Finding:
    """Say whether policy and image lists can be read."""
    trouble = service.gate.trouble or service.trust_trouble
    return Finding(name="policy and trust", ok=not trouble, detail=trouble or "as written")


def _disk(directory: Path) -> Finding:
    free = shutil.disk_usage(directory).free >> 20
    return Finding(name=f"disk {directory}", ok=free >= DISK_LEAST_MIB, detail=f"{free} MiB free")


def _qemu(service: Service) -> Finding:
    try:
        qemu = probe_qemu(service.engine.settings, service.engine.paths.cache)
    except MayflyError as error:
        return Finding(name="QEMU", ok=False, detail=error.message)
    return Finding(name="QEMU", ok=True, detail=f"{qemu.path} {qemu.version}")


def _standby(service: Service, name: str, hot: Hot) -> Finding:
    title = f"standbys of {name}"
    try:
        check_image(service.catalogue.find(name))
    except MayflyError as error:
        return Finding(name=title, ok=False, detail=error.message)
    return Finding(name=title, ok=not hot.trouble, detail=hot.trouble or "as wanted")


def drain(service: Service, caller: Caller, _: Message) -> None:
    """Take no new requests; what runs goes on."""
    with _written(service):
        (service.settings.state / DRAINED).touch()
    service.draining = True
    service.changed()
    running = sum(one.record.state is State.RUNNING for one in service.table)
    caller.ok({"running": running})


@contextlib.contextmanager
def _written(service: Service) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Quota(
            f"cannot write down in {service.settings.state} whether requests are taken: "
            f"{error.strerror}",
            hint="free some space there: else it would be forgotten at a restart",
        ) from error


def undrain(service: Service, caller: Caller, _: Message) -> None:
    """Take requests again."""
    with _written(service):
        (service.settings.state / DRAINED).unlink(missing_ok=True)
    service.draining = False
    service.changed()
    caller.ok()


def metrics(service: Service, caller: Caller, _: Message) -> None:
    """Answer with the metrics as Prometheus reads them."""
    text = service.metrics.render(service.gauges())
    caller.items([{"text": text[at : at + 40_000]} for at in range(0, len(text), 40_000)])


def warm(service: Service, caller: Caller, message: Message) -> None:
    """Keep standbys of an image until the service ends, or it is cooled."""
    image = service.catalogue.find(text_of(message, "image"))
    check_image(image)
    service.gate.check(image, datetime.now(UTC))
    name = image.name
    shape = shape_for(_number(message, "cpus", 1), _number(message, "memory_mib", 512))
    count = _number(message, "count", 1)
    standby = Standby(
        image=name, cpus=shape.cpus, memory_mib=shape.memory_mib, least=count, most=max(4, count)
    )
    service.hot[name, shape] = Hot(standby=standby)
    service.changed()
    caller.ok()


def cool(service: Service, caller: Caller, message: Message) -> None:
    """Keep no standbys of an image."""
    name = text_of(message, "image")
    with contextlib.suppress(Missing):
        # By an alias, too. What is not here any more can still be cooled by the name it had.
        name = service.catalogue.find(name).name
    keys = [key for key in service.hot if key[0] == name]
    if not keys:
        raise Missing(f"no standbys of '{name}' are kept", hint="'mayfly host status' lists them")
    for key in keys:
        del service.hot[key]
    service.changed()
    caller.ok()


def _number(message: Message, key: str, default: int) -> int:
    value = message.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < 1 << 24:
        raise Invalid(f"the request's '{key}' must be a whole number above 0")
    return value


def register(service: Service, caller: Caller, message: Message) -> None:
    """Give a batch job the right to a machine."""
    values = message.get("right")
    if not isinstance(values, dict):
        raise Invalid("the request's 'right' must be an object")
    right = parse_right(values, created_at=time.time())
    asked = message.get("asked")
    if asked is None:
        service.rights.register(right)
        caller.ok()
        return
    found = settle(service, right, asked)
    if found.image:
        _take_in(service, replace(right, image=found.image))
    caller.ok({**asdict(found), "network": found.network.value})


def _take_in(service: Service, right: Right) -> None:
    """Write a right down; of a job that shares its machine there is one for all its processes."""
    known = service.rights.find(right.key) if right.shared else None
    if known is None:
        service.rights.register(right)
    elif (known.uid, known.image) != (right.uid, right.image):
        raise Invalid(
            f"the job's machine on this host is of '{known.image}', not of '{right.image}'",
            hint="all of a job share it: name the same image, or none",
        )
    if right.shared:
        service.registered[right.key] += 1


def unregister(service: Service, caller: Caller, message: Message) -> None:
    """Take a job's right back, and end its machines; ``CLUSTER/JOB/*``: of all its parts.

    ``one``: of the processes that share it one has ended; only the last one takes it back.
    """
    key = text_of(message, "job")
    keys = parts_of(service, key) if key.endswith("*") else {key}
    last = [message.get("one") is not True or one_less(service, each) for each in keys]
    if all(last):
        end_jobs(service, keys, "its job has ended")
    caller.ok()
