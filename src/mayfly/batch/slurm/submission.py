"""What is said to a user who submits: which images there are, and what cannot be had."""

from __future__ import annotations

import os
from collections.abc import Mapping

from mayfly.batch.admission import Counter
from mayfly.batch.registration import names_of
from mayfly.batch.settings import BatchSettings
from mayfly.batch.wish import parse_wish
from mayfly.command import run
from mayfly.config import Paths
from mayfly.errors import Denied, Invalid
from mayfly.images.catalogue import Catalogue
from mayfly.policy.model import Ask
from mayfly.policy.people import Person

ASK_LIMIT_S = 10.0


def images() -> list[str]:
    """Give the names of the images that the calling user may run."""
    paths = Paths.for_user()
    here = Catalogue(own=paths.site_images, dirs=(paths.site_images,))
    names = Counter(paths).names_for(_caller())
    return [f"{name:24} {here.find(name).os}" for name in names]


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
    if wish.ask is Ask.IMAGE:
        Counter(Paths.for_user()).image_for(_caller(), wish)


def _caller() -> Person:
    user, groups = names_of(os.getuid())
    return Person(user=user, groups=groups)


def _has_interactive_step() -> bool:
    text = run(["scontrol", "show", "config"], timeout_s=ASK_LIMIT_S).text()
    return any(
        line.startswith("LaunchParameters") and "use_interactive_step" in line
        for line in text.splitlines()
    )
