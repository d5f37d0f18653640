"""A list of many images, signed by a key made for it, and a site that follows it."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from mayfly.images.lists.authorities import Anchor, Kind
from mayfly.images.lists.check import Expected, Principal, verify_list
from mayfly.images.lists.endorse import new_list, sign_list
from mayfly.images.lists.model import ListedImage
from mayfly.images.lists.openssl import Signer, read_certificate
from mayfly.images.lists.store import TrustStore
from mayfly.images.lists.update import Request, TrustSettings, subscribe

URL = "https://lists.example.org/bench.list"


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """The message of a list, and what it takes to believe it."""

    message: bytes
    signer: Principal
    store: TrustStore
    settings: TrustSettings
    now: datetime

    def verify(self) -> int:
        """Check the list as at each update; gives the number of its images."""
        anchors = self.store.anchors()
        expected = Expected(endorsers=(self.signer,))
        rules = self.settings.rules()
        return len(verify_list(self.message, anchors, expected, rules, self.now).images.images)


def make_list(work: Path, images: Mapping[str, int], others: int) -> Listed:
    """Sign a list of these images (SHA-512 to size) and so many others, and subscribe it."""
    now = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=2)
    signer = _signer(work)
    sums = {hashlib.sha512(str(number).encode()).hexdigest(): 1 << 30 for number in range(others)}
    entries = tuple(
        _entry(number, sha512, size)
        for number, (sha512, size) in enumerate({**images, **sums}.items())
    )
    begun = replace(new_list("Images of a bench", URL, now=now), images=entries)
    _, message = sign_list(begun, signer, now=now)
    owner = read_certificate(signer.certificate)
    store = TrustStore(directory=work / "trust")
    store.add_anchor(Anchor(name="bench", kind=Kind.KEY, certificate=owner))
    settings = TrustSettings(grids=())
    principal = Principal(dn=owner.subject.slash)
    request = Request(url=URL, endorsers=(principal,))
    subscribe(store, request, settings, now=now, ask=lambda url: message)
    return Listed(message=message, signer=principal, store=store, settings=settings, now=now)


def _signer(work: Path) -> Signer:
    signer = Signer(key=work / "key.pem", certificate=work / "certificate.pem")
    words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "10"]
    words += ["-subj", "/CN=Bench", "-addext", "basicConstraints=critical,CA:FALSE"]
    words += ["-addext", "keyUsage=critical,digitalSignature"]
    words += ["-keyout", str(signer.key), "-out", str(signer.certificate)]
    subprocess.run(words, check=True, capture_output=True, timeout=60)
    return signer


def _entry(number: int, sha512: str, size: int) -> ListedImage:
    return ListedImage(
        identifier=f"aaaaaaaa-bbbb-cccc-dddd-{number:012d}",
        version="1.0",
        title=f"image {number}",
        description=f"Image {number} of the bench",
        comments="for the bench",
        sha512=sha512,
        size_bytes=size,
        uri=f"https://images.example.org/{number}.qcow2",
        arch="x86_64",
        hypervisor="kvm",
        os="debian",
        os_version="12",
    )
