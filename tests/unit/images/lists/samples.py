"""Lists to be signed in tests, and the ways to make them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

from mayfly.images.lists.model import Endorser, ImageList, ListedImage
from mayfly.images.lists.openssl import Signer, read_certificate, sign
from mayfly.images.lists.writer import render_list
from tests.unit.images.lists.pki import NOW

LIST = "11111111-2222-3333-4444-555555555555"
IMAGE = "aaaaaaaa-bbbb-cccc-dddd-000000000001"


def sha512(name: str) -> str:
    """Give a SHA-512 that belongs to a name."""
    return hashlib.sha512(name.encode()).hexdigest()


def listed(number: int = 1, **changes: Any) -> ListedImage:
    """Make an image."""
    image = ListedImage(
        identifier=f"aaaaaaaa-bbbb-cccc-dddd-{number:012d}",
        version="1.0",
        title=f"el{number}",
        description=f"Enterprise Linux {number}",
        sha512=sha512(f"image {number}"),
        size_bytes=1_000_000 + number,
        uri=f"https://images.example.org/el{number}.qcow2",
        arch="x86_64",
        hypervisor="kvm",
        os="centos",
        os_version="7",
        comments="for tests",
    )
    return replace(image, **changes)


def image_list(*images: ListedImage, **changes: Any) -> ImageList:
    """Make a list; without images it has one."""
    made = ImageList(
        identifier=LIST,
        version="20260101000000",
        title="Images of a test",
        description="Images of a test",
        source="example.org",
        uri="https://lists.example.org/test.list",
        created_at=NOW - timedelta(minutes=1),
        expires_at=NOW + timedelta(days=20),
        endorser=Endorser(dn="/CN=nobody", ca="/CN=none", email="jo@example.org", creator="Jo"),
        images=images or (listed(),),
    )
    return replace(made, **changes)


def endorser_of(signer: Signer) -> Endorser:
    """Name the endorser that a certificate makes."""
    owner = read_certificate(signer.certificate)
    return Endorser(
        dn=owner.subject.slash, ca=owner.issuer.slash, email="jo@example.org", creator="Jo"
    )


def signed_list(signer: Signer, images: ImageList | None = None, digest: str = "sha512") -> bytes:
    """Sign a list in the name of its signer."""
    return sign_text(
        render_list(replace(images or image_list(), endorser=endorser_of(signer))), signer, digest
    )


def sign_text(text: bytes, signer: Signer, digest: str = "sha512") -> bytes:
    """Sign anything."""
    return sign(text, signer, digest)


def table_of(images: ImageList | None = None) -> dict[str, Any]:
    """Give a list as JSON, to be spoilt."""
    table: dict[str, Any] = json.loads(render_list(images or image_list()))
    return table
