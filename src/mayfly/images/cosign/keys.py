"""Whose signature counts for which images of a registry, and what a signature has shown: pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from mayfly.errors import Invalid
from mayfly.images.lists.model import show_time
from mayfly.images.lists.rules import Refusal, Rule

_PREFIX = re.compile(
    r"(?P<host>[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?(?::[0-9]{1,5})?)"
    r"(?:/[a-z0-9]+(?:[._-]+[a-z0-9]+)*)*"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryKey:
    """A public key that signs the images of a part of a registry."""

    name: str
    prefix: str
    """``HOST[:PORT][/PATH]``."""
    pem: str
    kind: str
    fingerprint: str
    """SHA-256 of the key in DER form."""
    until: datetime | None = None
    """When the site believes it no more; None: until it is removed."""

    def has_ended(self, now: datetime) -> bool:
        """Tell whether the site believes it no more."""
        return self.until is not None and now > self.until


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """What was seen when an image came in: this key had signed that manifest."""

    repository: str
    """``HOST/NAME``."""
    digest: str
    fingerprint: str
    """Of the key."""
    at: datetime

    def __str__(self) -> str:
        return f"{self.repository}@{self.digest}"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyVoucher:
    """A key of the site that has signed what an image was made of."""

    key: RegistryKey
    signed: Signed

    @property
    def until(self) -> datetime | None:
        """Give until when it holds; None: until the key is removed."""
        return self.key.until

    def __str__(self) -> str:
        until = f", until {show_time(self.until)}" if self.until else ""
        return f"registry key '{self.key.name}' for {self.key.prefix}, signed {self.signed}{until}"


def parse_prefix(text: str) -> str:
    """Read ``HOST[:PORT][/PATH]``, with or without ``docker://``; raises ``Invalid``."""
    prefix = text.removeprefix("docker://").rstrip("/")
    found = _PREFIX.fullmatch(prefix)
    host = found["host"] if found else ""
    if not ("." in host or ":" in host or host == "localhost") or len(prefix) > 255:
        raise Invalid(
            f"'{text[:300]}' is no part of a registry",
            hint="write HOST[:PORT], or HOST[:PORT]/PATH, without tag: registry.example.org/lab",
        )
    return prefix


def in_charge(keys: Iterable[RegistryKey], repository: str) -> tuple[RegistryKey, ...]:
    """Give the keys for ``HOST/NAME``: those of the longest prefix that it is in, and no others."""
    fitting = [key for key in keys if _covers(key.prefix, repository)]
    longest = max((len(key.prefix) for key in fitting), default=0)
    return tuple(key for key in fitting if len(key.prefix) == longest)


def _covers(prefix: str, repository: str) -> bool:
    # Hosts are the same in any case, and names have no capitals.
    return f"{repository}/".lower().startswith(f"{prefix}/".lower())


def living(keys: Iterable[RegistryKey], now: datetime) -> tuple[RegistryKey, ...] | Refusal:
    """Give the keys that are believed still, of those in charge; else why none is."""
    keys = tuple(keys)
    found = tuple(key for key in keys if not key.has_ended(now))
    if found or not keys:
        return found
    latest = max(keys, key=lambda key: key.until or now)
    assert latest.until is not None
    detail = f"key '{latest.name}' for {latest.prefix} is believed until {show_time(latest.until)}"
    return Refusal(rule=Rule.KEY_EXPIRED, detail=detail)


def answer(
    signed: Signed, keys: Iterable[RegistryKey], now: datetime
) -> KeyVoucher | Refusal | None:
    """Say what a signature that was seen is worth now; None when no key is for its repository."""
    found = living(in_charge(keys, signed.repository), now)
    if isinstance(found, Refusal):
        return found
    if not found:
        return None
    for key in found:
        if key.fingerprint == signed.fingerprint:
            return KeyVoucher(key=key, signed=signed)
    detail = f"the key that had signed {signed} when it came in is believed no more"
    return Refusal(rule=Rule.REGISTRY_KEY, detail=detail)
