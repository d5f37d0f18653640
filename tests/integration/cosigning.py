"""Sign images of a registry as ``cosign sign --key`` does, with openssl and our own client."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mayfly.images.cosign.found import PAYLOAD, SIGNATURE
from mayfly.images.registry import Access, Descriptor, Reference, Registry
from mayfly.images.registry.client import INDEX, MANIFEST
from mayfly.images.registry.upload import push_blob
from mayfly.images.transfer.digest import Digest
from mayfly.images.transfer.pace import Meter

KINDS = {
    "ec": ("EC", "-pkeyopt", "ec_paramgen_curve:P-256"),
    "rsa": ("RSA", "-pkeyopt", "rsa_keygen_bits:2048"),
    "ed25519": ("ED25519",),
}
CONFIG = "application/vnd.oci.image.config.v1+json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A key pair as files."""

    private: Path
    public: Path
    raw: bool = False
    """Whether it hashes by itself: Ed25519."""

    def sign(self, text: bytes) -> bytes:
        """Sign with what anybody has."""
        place = self.private.with_suffix(".text")
        place.write_bytes(text)
        argv = ["openssl", "dgst", "-sha256", "-sign", str(self.private), str(place)]
        if self.raw:
            argv = ["openssl", "pkeyutl", "-sign", "-inkey", str(self.private), "-rawin"]
            argv += ["-in", str(place)]
        return subprocess.run(argv, check=True, capture_output=True).stdout


def make_key(place: Path, kind: str = "ec") -> Key:
    """Make a key pair."""
    place.mkdir(parents=True, exist_ok=True)
    key = Key(private=place / f"{kind}.key", public=place / f"{kind}.pub", raw=kind == "ed25519")
    words = ["openssl", "genpkey", "-algorithm", *KINDS[kind], "-out", str(key.private)]
    subprocess.run(words, check=True, capture_output=True)
    words = ["openssl", "pkey", "-in", str(key.private), "-pubout", "-out", str(key.public)]
    subprocess.run(words, check=True, capture_output=True)
    return key


def payload_of(reference: Reference, digest: str) -> bytes:
    """Give the text that is signed for a manifest."""
    table = {
        "critical": {
            "identity": {"docker-reference": f"{reference.host}/{reference.name}"},
            "image": {"docker-manifest-digest": digest},
            "type": "cosign container image signature",
        },
        "optional": None,
    }
    return json.dumps(table, separators=(",", ":")).encode()


def put(
    reference: Reference, digest: str, *signed: tuple[bytes, bytes], refer: bool = False
) -> None:
    """Put texts with their signatures beside a manifest: under its tag, or as referring to it."""
    algorithm, _, digits = digest.partition(":")
    tag = f"{algorithm}-{digits}" + ("" if refer else ".sig")
    client = Registry(replace(reference, tag=tag, digest=None), Access(logins=()), push=True)
    layers = []
    for text, signature in signed:
        notes = {SIGNATURE: base64.b64encode(signature).decode()}
        layers.append({**_send(client, text, PAYLOAD).as_json(), "annotations": notes})
    table: dict[str, Any] = {"schemaVersion": 2, "mediaType": MANIFEST}
    table |= {"config": _send(client, b"{}", CONFIG).as_json(), "layers": layers}
    if not refer:
        client.push_manifest(json.dumps(table).encode())
        return
    body = json.dumps(table).encode()
    other = Registry(replace(reference, tag="signature", digest=None), Access(logins=()), push=True)
    entry = Descriptor(
        media_type=MANIFEST, digest=other.push_manifest(body), size_bytes=len(body)
    ).as_json()
    entry["artifactType"] = "application/vnd.dev.cosign.artifact.sig.v1+json"
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]}
    client.push_manifest(json.dumps(index).encode(), INDEX)


def cosign(reference: Reference, digest: str, key: Key, *, refer: bool = False) -> None:
    """Sign a manifest."""
    text = payload_of(reference, digest)
    put(reference, digest, (text, key.sign(text)), refer=refer)


def _send(client: Registry, body: bytes, kind: str) -> Descriptor:
    digest = Digest(algorithm="sha256", hex=hashlib.sha256(body).hexdigest())
    entry = Descriptor(media_type=kind, digest=digest, size_bytes=len(body))
    push_blob(client, entry, io.BytesIO(body), Meter("x", len(body)))
    return entry
