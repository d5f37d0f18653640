"""What is said to a user who submits: which images there are, and what cannot be had."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import UTC, datetime

from mayfly.batch.registration import names_of
from mayfly.batch.settings import BatchSettings
from mayfly.batch.wish import Wish, parse_wish
from mayfly.command import run
from mayfly.config import Paths
from mayfly.errors import Denied, Invalid, MayflyError
from mayfly.host.permission import Gate, gate_of
from mayfly.images.catalogue import Catalogue
from mayfly.model import NetworkMode
from mayfly.policy.explain import denied
from mayfly.policy.model import Ask, Policy
from mayfly.policy.model import Wish as PolicyWish
from mayfly.policy.people import Kind, Person

ASK_LIMIT_S = 10.0


def catalogue() -> Catalogue:
    """Give the images of the site, as this host has them."""
    here = Paths.for_user().site_images
    return Catalogue(own=here, dirs=(here,))


def images() -> list[str]:
    """Give the names of the images that the calling user may run."""
    found, gate = catalogue(), gate_of(Paths.for_user())
    return [
        f"{image.name:24} {image.os}"
        for image in found.list()
        if _refusal(Wish(ask=Ask.IMAGE, image=image.name), found, gate) is None
    ]


def check(options: Mapping[str, str], program: str, settings: BatchSettings) -> None:
    """Refuse what no host would run; raises ``MayflyError``.

    A host of which jobs are only submitted may have no images: then the host of the job looks.
    """
    wish = parse_wish(options)
    if wish.ask in (Ask.NOTHING, Ask.NATIVE):
        return
    if not settings.enabled:
        raise Denied(
            "machines for jobs are switched off at this site", hint="submit without --vm-image"
        )
    if program == "salloc" and not _has_interactive_step():
        raise Invalid(
            "salloc gives a shell on this host, which is no machine",
            hint="'srun --pty --vm-image=NAME bash' gives one in a machine",
        )
    if wish.ask is Ask.IMAGE and os.path.isdir(Paths.for_user().site_images):
        refusal = _refusal(wish, catalogue(), gate_of(Paths.for_user()))
        if refusal is not None:
            raise refusal


def _refusal(wish: Wish, here: Catalogue, gate: Gate) -> MayflyError | None:
    now = datetime.now(UTC)
    try:
        gate.check(here.find(wish.image), now)
        policy = gate.policy()
    except MayflyError as error:
        return error
    if not gate.has_policy or speaks_of_queues(policy):
        # Which queue it will be is not known before the job is there.
        return None
    user, groups = names_of(os.getuid())
    decision = gate.decision(Person(user=user, groups=groups), _policy_wish(wish), here, now)
    return None if decision.allowed else denied(decision)


def _policy_wish(wish: Wish) -> PolicyWish:
    return PolicyWish(
        ask=wish.ask,
        image=wish.image,
        network=wish.network or NetworkMode.NONE,
        network_asked=wish.network is not None,
        root=wish.root,
        shares=bool(wish.shares),
    )


def speaks_of_queues(policy: Policy) -> bool:
    """Tell whether the answer depends on the queue."""
    people = [who for each in policy.allow for who in each.rule.who]
    people += [who for default in policy.default for who in default.who]
    return any(kind is Kind.QUEUE for who in people for kind, _ in who.terms)


def _has_interactive_step() -> bool:
    text = run(["scontrol", "show", "config"], timeout_s=ASK_LIMIT_S).text()
    return any(
        line.startswith("LaunchParameters") and "use_interactive_step" in line
        for line in text.splitlines()
    )
