"""A registry of the OCI distribution specification: manifests and blobs, both ways."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mayfly.errors import Denied, Invalid, Untrusted
from mayfly.images.lists.uris import UriRules
from mayfly.images.registry.login import authorise, find_login, login_files
from mayfly.images.registry.reference import Reference
from mayfly.images.registry.requests import Ask, Reply, send
from mayfly.images.transfer.digest import Digest, hasher, parse_digest
from mayfly.images.transfer.part import Downloads
from mayfly.images.transfer.source import Offer, WebSource
from mayfly.images.transfer.whole import Fetched, Terms, Wanted, fetched

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
_INDICES = (INDEX, DOCKER_INDEX)
_ACCEPTED = f"{MANIFEST}, {INDEX}, {DOCKER_MANIFEST}, {DOCKER_INDEX}"
_DESCRIPTORS_MOST = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Descriptor:
    """What a manifest says of one blob, or an index of one manifest."""

    media_type: str
    digest: Digest
    size_bytes: int
    annotations: Mapping[str, str] = field(default_factory=dict)
    platform: Mapping[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Give it as it stands in a manifest."""
        table: dict[str, Any] = {
            "mediaType": self.media_type,
            "digest": str(self.digest),
            "size": self.size_bytes,
        }
        return {**table, "annotations": dict(self.annotations)} if self.annotations else table


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """A manifest or an index, as the registry has it; its digest was checked."""

    media_type: str
    digest: Digest
    body: bytes
    table: Mapping[str, Any]

    @property
    def is_index(self) -> bool:
        """Tell whether it only lists manifests, one for each platform."""
        return self.media_type in _INDICES

    @property
    def config(self) -> Descriptor:
        """Give the descriptor of the configuration."""
        return parse_descriptor(self.table.get("config"))

    @property
    def layers(self) -> tuple[Descriptor, ...]:
        """Give the descriptors of the layers, the lowest first."""
        return _descriptors(self.table.get("layers"))

    @property
    def manifests(self) -> tuple[Descriptor, ...]:
        """Give what an index lists."""
        return _descriptors(self.table.get("manifests"))


def parse_descriptor(value: object) -> Descriptor:
    """Read a descriptor; raises ``Untrusted``."""
    if not isinstance(value, dict):
        raise Untrusted("the manifest has something else in the place of a descriptor")
    kind, size, digest = value.get("mediaType"), value.get("size"), value.get("digest")
    if type(kind) is not str or type(size) is not int or type(digest) is not str or size < 0:
        raise Untrusted("the manifest has a descriptor without type, size or digest")
    try:
        return Descriptor(
            media_type=kind,
            digest=parse_digest(digest),
            size_bytes=size,
            annotations=_texts(value.get("annotations")),
            platform=_table(value.get("platform")),
        )
    except Invalid as error:
        raise Untrusted(f"the manifest has a bad digest: {error.message}") from error


def _descriptors(value: object) -> tuple[Descriptor, ...]:
    if not isinstance(value, list) or len(value) > _DESCRIPTORS_MOST:
        raise Untrusted(f"the manifest has no list of at most {_DESCRIPTORS_MOST} descriptors")
    return tuple(parse_descriptor(each) for each in value)


def _texts(value: object) -> dict[str, str]:
    return {key: word for key, word in _table(value).items() if isinstance(word, str)}


def _table(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """How registries are asked."""

    plain: tuple[str, ...] = ()
    """Hosts, with their ports, that are asked without encryption; those on this host always are."""
    logins: tuple[Path, ...] = field(default_factory=login_files)


class Registry:
    """One repository of a registry; remembers the token it got."""

    def __init__(self, reference: Reference, access: Access | None = None, *, push: bool = False):
        access = access or Access()
        self.reference = reference
        inner = reference.is_inner
        plain = inner or reference.host in access.plain
        self._rules = UriRules(schemes=("https", "http") if plain else ("https",), inner=inner)
        scheme = "http" if plain else "https"
        self._top = f"{scheme}://{reference.api_host}/v2/{reference.name}"
        self._scope = f"repository:{reference.name}:{'pull,push' if push else 'pull'}"
        self._login = find_login(reference.host, access.logins)
        self._headers: Mapping[str, str] = {}
        self._pin: Digest | None = None

    def pin(self, digest: Digest) -> None:
        """Have the reference mean this manifest from now on, whatever its tag means by then."""
        self._pin = digest

    # --- asking ----------------------------------------------------------------------------------

    def ask(self, ask: Ask) -> Reply:
        """Ask for something beneath this repository, with a token if one is needed.

        The URL may be relative to it. A body that is not bytes can be sent only once.
        """
        url = ask.url if "://" in ask.url else self._top + ask.url
        # What the registry sends us elsewhere for gets no token of its.
        ours = url.startswith(self._top.rpartition("/v2/")[0] + "/")
        headers = {**ask.headers, **(self._headers if ours else {})}
        reply = send(replace(ask, url=url, headers=headers), self._rules)
        if reply.status != 401 or not ours or not isinstance(ask.body, bytes | None):
            return reply
        self._authorise(reply)
        return send(replace(ask, url=url, headers={**ask.headers, **self._headers}), self._rules)

    def _authorise(self, refusal: Reply) -> None:
        self._headers = authorise(refusal, self._login, scope=self._scope, rules=self._rules)

    # --- manifests -------------------------------------------------------------------------------

    def manifest(self, digest: Digest | None = None) -> Manifest:
        """Give the manifest that the reference names, or this one, once its digest is checked."""
        wanted = digest or self.reference.digest or self._pin
        reply = self._ask_manifest(str(wanted) if wanted else self.reference.tag)
        if reply.status != 200:
            raise reply.error()
        return self._read(reply, wanted)

    def tagged(self, tag: str) -> Manifest | None:
        """Give what has another tag of the same repository; None when there is no such tag."""
        reply = self._ask_manifest(tag)
        if reply.status not in (200, 404):
            raise reply.error()
        return self._read(reply, None) if reply.status == 200 else None

    def _ask_manifest(self, point: str) -> Reply:
        return self.ask(Ask(method="GET", url=f"/manifests/{point}", headers={"Accept": _ACCEPTED}))

    def _read(self, reply: Reply, wanted: Digest | None) -> Manifest:
        algorithm = wanted.algorithm if wanted else "sha256"
        found = Digest(algorithm=algorithm, hex=hashlib.new(algorithm, reply.body).hexdigest())
        if wanted not in (None, found):
            raise Untrusted(f"{reply.url} is another manifest: {found}, and {wanted} was expected")
        table = reply.json()
        kind = table.get("mediaType") or reply.headers.get("Content-Type", "").split(";")[0]
        return Manifest(media_type=str(kind), digest=found, body=reply.body, table=table)

    def resolve(self, architecture: str = "amd64") -> Manifest:
        """Give the manifest for a platform, also where the reference names an index of several."""
        found = self.manifest()
        if not found.is_index:
            return found
        for each in found.manifests:
            if (each.platform.get("os"), each.platform.get("architecture")) == (
                "linux",
                architecture,
            ):
                return self.manifest(each.digest)
        raise Untrusted(f"{self.reference} has nothing for linux/{architecture}")

    def push_manifest(self, body: bytes, media_type: str = MANIFEST) -> Digest:
        """Put a manifest under the reference's tag, and give its digest."""
        digest = Digest(algorithm="sha256", hex=hashlib.sha256(body).hexdigest())
        reply = self.ask(
            Ask(
                method="PUT",
                url=f"/manifests/{self.reference.point}",
                headers={"Content-Type": media_type},
                body=body,
            )
        )
        if reply.status not in (200, 201):
            raise reply.error()
        return digest

    # --- blobs -----------------------------------------------------------------------------------

    def blob(self, descriptor: Descriptor, most: int = 1 << 20) -> bytes:
        """Give a small blob, such as a configuration, once it is checked."""
        if descriptor.size_bytes > most:
            raise Untrusted(
                f"a blob of {descriptor.size_bytes} bytes stands where {most} are enough"
            )
        data = bytearray()
        with self.source(descriptor).open(0, "") as offer:
            while len(data) <= most and (more := offer.read(most)):
                data += more
        digest = hasher(descriptor.digest.algorithm)
        digest.update(data)
        if len(data) != descriptor.size_bytes or digest.hexdigest() != descriptor.digest.hex:
            raise Untrusted(f"{self.reference} has another blob than {descriptor.digest}")
        return bytes(data)

    def fetch_blob(
        self, descriptor: Descriptor, downloads: Downloads, terms: Terms | None = None
    ) -> AbstractContextManager[Fetched]:
        """Give a blob as a file, once it is here and checked; see ``transfer.whole.fetched``."""
        wanted = Wanted(
            name=str(self.reference), digest=descriptor.digest, size_bytes=descriptor.size_bytes
        )
        return fetched(wanted, self.source(descriptor), downloads, terms)

    def has_blob(self, digest: Digest) -> bool:
        """Tell whether a blob is there already."""
        reply = self.ask(Ask(method="HEAD", url=f"/blobs/{digest}"))
        if reply.status not in (200, 404):
            raise reply.error()
        return reply.status == 200

    def source(self, descriptor: Descriptor) -> BlobSource:
        """Give a blob as a place that a whole file comes from."""
        return BlobSource(registry=self, url=f"{self._top}/blobs/{descriptor.digest}")

    @contextmanager
    def opened(self, url: str, start: int, validator: str) -> Iterator[Offer]:
        """Open a blob, with a new token when the one we have is too old."""
        with ExitStack() as stack:
            try:
                offer = stack.enter_context(self._web(url).open(start, validator))
            except Denied:
                reply = send(Ask(method="HEAD", url=url), self._rules)
                if reply.status != 401:
                    raise
                self._authorise(reply)
                offer = stack.enter_context(self._web(url).open(start, validator))
            yield offer

    def _web(self, url: str) -> WebSource:
        return WebSource(uri=url, rules=self._rules, headers=self._headers)


@dataclass(frozen=True, slots=True, kw_only=True)
class BlobSource:
    """A blob, as a place that a whole file comes from."""

    registry: Registry
    url: str

    @property
    def name(self) -> str:
        """Say where, for people."""
        return self.url

    def open(self, start: int, validator: str) -> AbstractContextManager[Offer]:
        """Have it come, from ``start`` on."""
        return self.registry.opened(self.url, start, validator)
