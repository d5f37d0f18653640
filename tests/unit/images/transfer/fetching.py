"""What the tests of transfers share."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

from mayfly.images.lists.uris import UriRules
from mayfly.images.transfer.digest import Digest
from mayfly.images.transfer.pace import Pace
from mayfly.images.transfer.part import Downloads
from mayfly.images.transfer.source import Source, WebSource
from mayfly.images.transfer.whole import Fetched, Patience, Terms, Wanted, fetched

INNER = UriRules(inner=True)
BODY = bytes(range(256)) * 4000


def digest_of(body: bytes, algorithm: str = "sha512") -> Digest:
    """Give the digest of some bytes."""
    return Digest(algorithm=algorithm, hex=hashlib.new(algorithm, body).hexdigest())


@dataclass(kw_only=True)
class Fetching:
    """Fetches into one directory, without waiting, and remembers what it was told meanwhile."""

    directory: Path
    pauses: list[float] = field(default_factory=list)
    seen: list[Pace] = field(default_factory=list)

    @property
    def downloads(self) -> Downloads:
        """Give where the files go."""
        return Downloads(directory=self.directory)

    @property
    def terms(self) -> Terms:
        """Give how they are fetched."""
        return Terms(watch=self.seen.append, patience=Patience(sleep=self.pauses.append))

    def __call__(self, source: Source | str, wanted: Wanted) -> bytes:
        """Fetch a file and give its content."""
        if isinstance(source, str):
            source = WebSource(uri=source, rules=INNER, silence_s=0.5)
        with fetched(wanted, source, self.downloads, self.terms) as got:
            return self.read(got)

    def read(self, got: Fetched) -> bytes:
        """Give the content of a file that came, which says the same about itself."""
        data = got.file.read_bytes()
        assert got.size_bytes == len(data)
        assert got.digest == digest_of(data, got.digest.algorithm)
        return data

    @property
    def left(self) -> list[str]:
        """Give what lies there."""
        return sorted(
            str(path.relative_to(self.directory))
            for path in self.directory.rglob("*")
            if path.is_file() and path.name not in ("lock", "users")
        )


def wanted(body: bytes = BODY, **more: object) -> Wanted:
    """Want a file of this content."""
    given: dict[str, object] = {"name": "a", "digest": digest_of(body), **more}
    return Wanted(**given)  # type: ignore[arg-type]
