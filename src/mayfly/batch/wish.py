"""What a user asks for with a job: the same options on every batch system's door."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from mayfly.errors import Invalid
from mayfly.model import NetworkMode
from mayfly.policy.model import Ask

_IMAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}(?:@[A-Za-z0-9][A-Za-z0-9._:+-]{0,139})?")
_YES = {"": True, "1": True, "yes": True, "true": True, "0": False, "no": False, "false": False}
LONGEST = 4096
SHARES_MOST = 32
ALLOW_MOST = 64
LIST = "list"
"""As an image's name: show what there is, and submit nothing."""
_WORDS = {"": Ask.NOTHING, "none": Ask.NATIVE, "default": Ask.MACHINE}

OPTIONS: Mapping[str, tuple[str, str]] = {
    "image": (
        "NAME|none|default|list",
        "run the job in a machine of this image (none: in no machine; list: show them)",
    ),
    "network": ("none|restricted|open", "what the machine can reach"),
    "allow": ("HOST:PORT,...", "for network restricted: what it can reach"),
    "root": ("yes|no", "be root in the machine"),
    "share": ("DIR[:ro],...", "directories that are live in the machine"),
    "keep": ("yes|no", "keep the machine for a look when the job fails"),
}
"""Name, what may stand there, and what it is for; each system puts its own prefix before it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What a job asks for."""

    ask: Ask = Ask.NOTHING
    image: str = ""
    network: NetworkMode | None = None
    """None: nothing was said."""
    allow: tuple[str, ...] = ()
    root: bool = False
    shares: tuple[str, ...] = ()
    """``DIR`` or ``DIR:ro``."""
    keep: bool = False


def parse_wish(values: Mapping[str, str]) -> Wish:
    """Read the options that were given, by their names in ``OPTIONS``; raises ``Invalid``."""
    for name, text in values.items():
        if name not in OPTIONS:
            raise Invalid(f"there is no option '{name[:40]}'", hint=f"known: {', '.join(OPTIONS)}")
        if len(text) > LONGEST or not text.isprintable():
            raise Invalid(f"the job's {name} is too long, or no text: {text[:40]!r}")
    ask, image = _image(values.get("image", ""))
    network = _network(values["network"]) if values.get("network") else None
    allow = _list("allow", values.get("allow", ""), ALLOW_MOST)
    if allow and network is not NetworkMode.RESTRICTED:
        raise Invalid("a list of what may be reached is for network 'restricted' only")
    return Wish(
        ask=ask,
        image=image,
        network=network,
        allow=allow,
        root=_yes("root", values),
        shares=tuple(map(_share, _list("share", values.get("share", ""), SHARES_MOST))),
        keep=_yes("keep", values),
    )


def _image(text: str) -> tuple[Ask, str]:
    if text in _WORDS:
        return _WORDS[text], ""
    if not _IMAGE.fullmatch(text):
        raise Invalid(f"{text[:100]!r} is no name of an image", hint="'list' shows those there are")
    return Ask.IMAGE, text


def _network(text: str) -> NetworkMode:
    try:
        return NetworkMode(text)
    except ValueError:
        modes = ", ".join(mode.value for mode in NetworkMode)
        raise Invalid(f"there is no network {text[:40]!r}", hint=f"one of {modes}") from None


def _yes(name: str, values: Mapping[str, str]) -> bool:
    if name not in values:
        return False
    answer = _YES.get(values[name].lower())
    if answer is None:
        raise Invalid(f"the job's {name} must be yes or no, not {values[name][:40]!r}")
    return answer


def _list(name: str, text: str, most: int) -> tuple[str, ...]:
    items = tuple(item for item in text.split(",") if item)
    if len(items) > most:
        raise Invalid(f"the job's {name} names {len(items)} things, at most {most} may be")
    return items


def _share(text: str) -> str:
    if not text.startswith("/") or ".." in text.split("/"):
        raise Invalid(f"{text[:200]!r} cannot be shared: write the path from / on")
    return text
