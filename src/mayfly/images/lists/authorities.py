"""The authorities that a site trusts: those of grids, from their directory, and those it added.

A grid's directory, ``/etc/grid-security/certificates``, has for each authority the certificate
(``HASH.0`` or ``NAME.pem``), the names that it may issue (``*.signing_policy``, ``*.namespaces``)
and its revocation list (``HASH.r0``), which ``fetch-crl`` keeps fresh.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from mayfly.errors import Invalid, Unavailable
from mayfly.images.lists.names import same
from mayfly.images.lists.namespaces import (
    Namespaces,
    Permit,
    glob,
    parse_namespaces,
    parse_signing_policy,
)
from mayfly.images.lists.openssl import (
    Certificate,
    blocks,
    certificate,
    crl_issuer,
    crls_of,
)

log = logging.getLogger("mayfly.images.lists")

GRID_DIRECTORY = Path("/etc/grid-security/certificates")
_HASHED = re.compile(r"[0-9a-f]{8}\.[0-9]")
_FILE_MOST = 64 << 20


class Role(StrEnum):
    """What somebody's word is good for; the third role is the site's admin, who says so."""

    LIST = "list-endorser"
    IMAGE = "image-endorser"


class Kind(StrEnum):
    """What a certificate that the site added is."""

    KEY = "key"
    """It signs lists or images itself, and no other does in its name."""
    AUTHORITY = "authority"
    """It issues certificates to those who sign."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchor:
    """A certificate that the site's admin added."""

    name: str
    kind: Kind
    certificate: Certificate
    roles: frozenset[Role] = frozenset(Role)
    crls: tuple[bytes, ...] = ()
    crl_required: bool = True
    """Of an authority; a key is revoked by removing it."""
    subjects: tuple[str, ...] = ("/*",)
    """Names that an authority may issue, with ``*`` and ``?``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Authority:
    """An authority, wherever it was found."""

    certificate: Certificate
    namespaces: tuple[Namespaces, ...]
    crls: tuple[bytes, ...]
    crl_required: bool
    roles: frozenset[Role]
    where: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchors:
    """All that a site trusts."""

    own: tuple[Anchor, ...] = ()
    grids: tuple[Path, ...] = ()

    def key(self, wanted: Certificate) -> Anchor | None:
        """Give the anchor that is this very certificate."""
        for anchor in self.own:
            if anchor.kind is Kind.KEY and _is(anchor.certificate, wanted):
                return anchor
        return None

    def issuers_of(self, child: Certificate) -> list[Authority]:
        """Give the authorities that have the name of its issuer."""
        found = [
            _own(anchor)
            for anchor in self.own
            if anchor.kind is Kind.AUTHORITY
            and same(anchor.certificate.subject.slash, child.issuer.slash)
        ]
        for directory in self.grids:
            found.extend(_of_grid(directory, child))
        return found


def _is(one: Certificate, other: Certificate) -> bool:
    return one.fingerprint == other.fingerprint


def _own(anchor: Anchor) -> Authority:
    issuer = anchor.certificate.subject.slash
    permits = tuple(Permit(issuer=issuer, pattern=glob(each)) for each in anchor.subjects)
    return Authority(
        certificate=anchor.certificate,
        namespaces=(Namespaces(where=f"anchor '{anchor.name}'", permits=permits),),
        crls=anchor.crls,
        crl_required=anchor.crl_required,
        roles=anchor.roles,
        where=f"anchor '{anchor.name}'",
    )


# --- a grid's directory --------------------------------------------------------------------------


def _of_grid(directory: Path, child: Certificate) -> Iterator[Authority]:
    for found in _certificates(directory, child):
        yield Authority(
            certificate=found,
            namespaces=_namespaces(directory, found),
            crls=tuple(_crls(directory, found)),
            crl_required=True,
            roles=frozenset(Role),
            where=str(directory),
        )


def _certificates(directory: Path, child: Certificate) -> list[Certificate]:
    """Give the certificates whose name is that of the issuer, each once."""
    names = _names(directory)
    by_hash = [name for name in names if re.fullmatch(rf"{child.issuer_hash}\.[0-9]", name)]
    if not by_hash and not any(map(_HASHED.fullmatch, names)):
        by_hash = [name for name in names if name.endswith((".pem", ".crt"))]
    found = (_certificate(directory / name) for name in by_hash)
    wanted = [
        each for each in found if each is not None and same(each.subject.slash, child.issuer.slash)
    ]
    return list({each.fingerprint: each for each in wanted}.values())


def _crls(directory: Path, authority: Certificate) -> Iterator[bytes]:
    names = _names(directory)
    wanted = [each for each in names if re.fullmatch(rf"{authority.subject_hash}\.r[0-9]", each)]
    if not wanted and not any(map(_HASHED.fullmatch, names)):
        wanted = [name for name in names if re.search(r"\.(?:r[0-9]|crl)$", name)]
    for name in wanted:
        try:
            found = crls_of(_read(directory / name), directory / name)
        except Invalid as error:
            log.warning("revocation list left out: %s", error.message)
            continue
        for crl in found:
            if same(crl_issuer(crl), authority.subject.slash):
                yield crl


def _namespaces(directory: Path, authority: Certificate) -> tuple[Namespaces, ...]:
    """Give what speaks of an authority; where nothing does, it may issue nothing."""
    issuer = authority.subject.slash
    policies: list[Permit] = []
    spaces: list[Permit] = []
    for name in _names(directory):
        if name.endswith(".signing_policy"):
            policies.extend(parse_signing_policy(_text(directory / name)))
        elif name.endswith(".namespaces"):
            own = issuer if name.startswith(f"{authority.subject_hash}.") else ""
            spaces.extend(parse_namespaces(_text(directory / name), own))
    both = (
        Namespaces(where=f"{directory}/*.signing_policy", permits=tuple(policies)),
        Namespaces(where=f"{directory}/*.namespaces", permits=tuple(spaces)),
    )
    return tuple(each for each in both if each.speaks_of(issuer))


def _names(directory: Path) -> list[str]:
    try:
        return sorted(entry.name for entry in directory.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        # It is on a network file system, perhaps: an outage revokes nobody.
        raise Unavailable(
            f"cannot read {directory}: {error.strerror}", hint="see that it is mounted"
        ) from error


def _certificate(file: Path) -> Certificate | None:
    try:
        pem = next(blocks(_read(file), "CERTIFICATE"), None)
        return None if pem is None else certificate(pem)
    except Invalid as error:
        log.warning("certificate left out: %s: %s", file, error.message)
        return None


def _text(file: Path) -> str:
    try:
        return _read(file).decode("utf-8", "surrogateescape")
    except Invalid as error:
        log.warning("names of an authority left out: %s", error.message)
        return ""


def _read(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            return opened.read(_FILE_MOST)
    except OSError as error:
        raise Invalid(f"cannot read {file}: {error.strerror}") from error
