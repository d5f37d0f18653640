"""What is asked of images of registries when they come in, and where it is remembered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from mayfly.images.cosign.check import check_signed
from mayfly.images.cosign.keys import Signed
from mayfly.images.lists.store import TrustStore
from mayfly.images.registry.client import Registry
from mayfly.model import Image


@dataclass(frozen=True, slots=True, kw_only=True)
class SignatureBook:
    """The keys that count for whoever brings in an image, and his own store."""

    stores: Sequence[TrustStore] = ()
    """His own comes first: what was seen is written there."""

    def check(self, registry: Registry) -> Signed | None:
        """Refuse an image that is not signed as it must be; raises ``Untrusted``."""
        keys = [key for store in self.stores for key in store.registry_keys()]
        return check_signed(registry, keys, datetime.now(UTC)) if keys else None

    def note(self, image: Image, signed: Signed | None) -> None:
        """Remember what was signed of an image that came in."""
        if signed is not None:
            self.stores[0].note_signed(image.sha512, signed)
