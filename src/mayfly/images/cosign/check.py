"""Check an image of a registry when it comes in, by the keys that are believed for it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime

from mayfly.images.cosign.found import Candidate, signatures
from mayfly.images.cosign.keys import RegistryKey, Signed, in_charge, living
from mayfly.images.cosign.payload import check_payload
from mayfly.images.lists.openssl import fits
from mayfly.images.lists.rules import Refusal, Rule
from mayfly.images.registry.client import Registry
from mayfly.images.transfer.digest import Digest

_TELLING = (Rule.MANIFEST, Rule.PAYLOAD, Rule.REGISTRY_KEY, Rule.UNSIGNED)
"""Of several reasons to refuse, the first of these is told."""


def check_signed(registry: Registry, keys: Iterable[RegistryKey], now: datetime) -> Signed | None:
    """Give what a key of the site has signed of an image; None when no key is for its repository.

    From then on the registry is asked for just what was signed. Raises ``Untrusted``.
    """
    reference = registry.reference
    repository = f"{reference.host}/{reference.name}"
    what = f"image '{reference}'"
    believed = living(in_charge(keys, repository), now)
    if isinstance(believed, Refusal):
        raise believed.error(what)
    if not believed:
        return None
    refusals: list[Refusal] = []
    for digest in _digests(registry):
        found = _signed(registry, digest, believed)
        if isinstance(found, RegistryKey):
            return Signed(
                repository=repository,
                digest=str(digest),
                fingerprint=found.fingerprint,
                at=now.replace(microsecond=0),
            )
        refusals.append(found)
    raise min(refusals, key=lambda each: _TELLING.index(each.rule)).error(what)


def _digests(registry: Registry) -> Iterator[Digest]:
    """Give the manifests of which one must be signed: what was named, and what it is here."""
    named = registry.manifest()
    registry.pin(named.digest)
    yield named.digest
    if named.is_index:
        yield registry.resolve().digest


def _signed(
    registry: Registry, digest: Digest, keys: Sequence[RegistryKey]
) -> RegistryKey | Refusal:
    """Give the key that has signed a manifest; anybody may put signatures beside it."""
    detail = f"there is no signature of {digest} in the registry"
    refusal = Refusal(rule=Rule.UNSIGNED, detail=detail)
    for candidate in signatures(registry, digest):
        found = _judge(candidate, digest, keys)
        if isinstance(found, RegistryKey):
            return found
        refusal = min(refusal, found, key=lambda each: _TELLING.index(each.rule))
    return refusal


def _judge(
    candidate: Candidate, digest: Digest, keys: Sequence[RegistryKey]
) -> RegistryKey | Refusal:
    for key in keys:
        if fits(candidate.payload, candidate.signature, key.pem.encode(), key.kind):
            return check_payload(candidate.payload, str(digest)) or key
    names = ", ".join(f"'{key.name}'" for key in keys)
    detail = f"no signature of {digest} fits a key that is believed: {names}"
    return Refusal(rule=Rule.REGISTRY_KEY, detail=detail)
