"""The signatures that lie beside an image in its registry; nothing of them is checked here."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from mayfly.errors import Untrusted
from mayfly.images.cosign.payload import PAYLOAD_MOST
from mayfly.images.registry.client import INDEX, Descriptor, Manifest, Registry, parse_descriptor
from mayfly.images.registry.requests import Ask
from mayfly.images.transfer.digest import Digest

PAYLOAD = "application/vnd.dev.cosign.simplesigning.v1+json"
ARTIFACTS = ("application/vnd.dev.cosign.artifact.sig.v1+json", PAYLOAD)
SIGNATURE = "dev.cosignproject.cosign/signature"
MOST = 50
"""Signatures of one image, and manifests that refer to it, which are looked at."""
_SIGNATURE_MOST = 4096
_NO_REFERRERS = (400, 404, 405)


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A text, and what is said to be its signature."""

    payload: bytes
    signature: bytes


def signatures(registry: Registry, digest: Digest) -> Iterator[Candidate]:
    """Give what signs this manifest: under its tag ``….sig``, and what refers to the manifest."""
    return islice(_signatures(registry, digest), MOST)


def _signatures(registry: Registry, digest: Digest) -> Iterator[Candidate]:
    beside = registry.tagged(f"{digest.algorithm}-{digest.hex}.sig")
    if beside is not None:
        yield from _in(registry, beside)
    for each in islice(_referring(registry, digest), MOST):
        yield from _in(registry, registry.manifest(each.digest))


def _in(registry: Registry, manifest: Manifest) -> Iterator[Candidate]:
    if manifest.is_index:
        return
    for layer in manifest.layers:
        signature = _signature(layer)
        if signature:
            payload = registry.blob(layer, most=PAYLOAD_MOST)
            yield Candidate(payload=payload, signature=signature)


def _signature(layer: Descriptor) -> bytes:
    text = layer.annotations.get(SIGNATURE, "")
    if layer.media_type != PAYLOAD or not 0 < len(text) <= _SIGNATURE_MOST:
        return b""
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        return b""


def _referring(registry: Registry, digest: Digest) -> Iterator[Descriptor]:
    """Give the manifests of signatures that refer to one, where the registry can tell or not."""
    reply = registry.ask(Ask(method="GET", url=f"/referrers/{digest}", headers={"Accept": INDEX}))
    if reply.status == 200:
        return _signing(reply.json().get("manifests"))
    if reply.status not in _NO_REFERRERS:
        raise reply.error()
    # What a client puts there, for registries that keep no account of it.
    index = registry.tagged(f"{digest.algorithm}-{digest.hex}")
    return _signing(index.table.get("manifests") if index else [])


def _signing(entries: Any) -> Iterator[Descriptor]:
    if not isinstance(entries, Sequence) or isinstance(entries, str):
        raise Untrusted("the registry's answer to what refers to an image is no list")
    for entry in entries:
        if isinstance(entry, dict) and entry.get("artifactType") in ARTIFACTS:
            yield parse_descriptor(entry)
