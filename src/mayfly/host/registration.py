"""What a batch job gets, when root registers it and asks: which image, with what, or none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from mayfly.errors import Invalid
from mayfly.host.limits import guest_memory_mib
from mayfly.host.rights import Right
from mayfly.host.state import Service
from mayfly.images.catalogue import check
from mayfly.model import NetworkMode
from mayfly.policy.explain import denied
from mayfly.policy.model import Ask, Decision, Wish
from mayfly.policy.people import Person

NAMES_MOST = 1024
NAME_LENGTH = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """What a job gets."""

    image: str
    """Empty: it runs without a machine."""
    network: NetworkMode = NetworkMode.NONE
    live: bool = True
    """Whether directories of the host may be seen in the machine."""


def settle(service: Service, right: Right, asked: object) -> Settled:
    """Decide what a job gets by the site's policy, and the images that are here.

    Raises ``Invalid``, ``Denied``, ``Missing`` or ``Untrusted``: then it gets nothing at all.
    """
    if not isinstance(asked, dict):
        raise Invalid("the request's 'asked' must be an object")
    person = Person(user=_text(asked, "user"), groups=_texts(asked, "groups"), queue=right.queue)
    found = _decide(service, person, parse_asked(asked, right))
    if found.image:
        # Before the job waits for a machine that it could never have.
        memory_mib = guest_memory_mib(right.memory_mib, service.engine.accelerator)
        assert memory_mib > 0
        image = service.catalogue.find(found.image)
        check(image)
        service.gate.check(image, datetime.now(UTC))
    return found


def _decide(service: Service, person: Person, wish: Wish) -> Settled:
    if not service.gate.has_policy:
        return _without_policy(wish)
    decision = _decision(service, person, replace(wish, shares=True))
    if not decision.allowed and not wish.shares:
        # The site's directories are nothing that he asked for.
        decision = _decision(service, person, wish)
    if not decision.allowed:
        raise denied(decision)
    return Settled(image=decision.image, network=decision.network, live=decision.shares)


def _decision(service: Service, person: Person, wish: Wish) -> Decision:
    return service.gate.decision(person, wish, service.catalogue, datetime.now(UTC))


def _without_policy(wish: Wish) -> Settled:
    if wish.ask is Ask.MACHINE:
        raise Invalid(
            "a machine is asked for, but no image, and the site has no default",
            hint="name an image",
        )
    return Settled(image=wish.image if wish.ask is Ask.IMAGE else "", network=wish.network)


def parts_of(service: Service, key: str) -> set[str]:
    """Give the keys of all parts of a job, ``key`` being ``CLUSTER/JOB/*``."""
    beginning = key[:-1]
    found = {right.key for right in service.rights.all()}
    found |= {hosted.record.job for hosted in service.table}
    return {each for each in found if each.startswith(beginning)}


# --- reading -------------------------------------------------------------------------------------


def parse_asked(asked: Mapping[str, Any], right: Right) -> Wish:
    """Read what a job asks for; raises ``Invalid``."""
    try:
        ask = Ask(asked.get("ask", ""))
        network = NetworkMode(asked.get("network", NetworkMode.NONE.value))
    except ValueError as error:
        raise Invalid(f"what the job asks for cannot be read: {error}") from None
    image = _text(asked, "image")
    if (ask is Ask.IMAGE) != bool(image):
        raise Invalid("the job asks for an image, and names none, or the other way round")
    return Wish(
        ask=ask,
        image=image,
        network=network,
        network_asked=_flag(asked, "network_asked"),
        root=_flag(asked, "root"),
        shares=_flag(asked, "shares"),
        cpus=right.cpus,
        memory_mib=right.memory_mib,
        time_s=right.wall_s,
    )


def _text(asked: Mapping[str, Any], key: str) -> str:
    value = asked.get(key, "")
    if not isinstance(value, str) or len(value) > NAME_LENGTH:
        raise Invalid(f"what the job asks for has no good '{key}'")
    return value


def _texts(asked: Mapping[str, Any], key: str) -> tuple[str, ...]:
    values = asked.get(key, [])
    if not isinstance(values, list) or len(values) > NAMES_MOST:
        raise Invalid(f"what the job asks for has no good '{key}'")
    return tuple(_text({key: value}, key) for value in values)


def _flag(asked: Mapping[str, Any], key: str) -> bool:
    value = asked.get(key, False)
    if not isinstance(value, bool):
        raise Invalid(f"what the job asks for has no good '{key}'")
    return value
