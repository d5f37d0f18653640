"""Vouch for images: sign for one, make lists of them, take one back, sign the list and publish it.

Everything that is signed here is read back and checked as a site would, before it is given out.
"""

from __future__ import annotations

import base64
import hashlib
import os
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

from mayfly.errors import Conflict, Failed, Invalid, Missing, Untrusted
from mayfly.images.lists.authorities import Anchor, Anchors, Kind, Role
from mayfly.images.lists.check import (
    CheckRules,
    Expected,
    Principal,
    open_endorsement,
    peek_list,
    verify_list,
)
from mayfly.images.lists.copies import Copy, Report, copied
from mayfly.images.lists.files import locked, make_directory, write_whole
from mayfly.images.lists.model import (
    Endorser,
    ImageList,
    ListedImage,
    Revocation,
    show_time,
)
from mayfly.images.lists.names import same
from mayfly.images.lists.openssl import Certificate, Signer, read_certificate, sign
from mayfly.images.lists.reader import parse_list
from mayfly.images.lists.rules import Refused
from mayfly.images.lists.signers import SignerRules, check_signer
from mayfly.images.lists.uris import ANY, STRICT, UriRules
from mayfly.images.lists.versions import compare, following
from mayfly.images.lists.writer import check_complete, render_image, render_list
from mayfly.model import Image

LIFETIME = timedelta(days=28)
"""As vmcaster has it; a list must be signed again before."""
HYPERVISOR = "kvm"
UNSIGNED = Endorser(dn="unsigned", ca="unsigned")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wording:
    """What the format wants to be said of an image, besides what is known of it."""

    title: str
    uri: str
    version: str = ""
    """Empty: that of the image."""
    description: str = ""
    comments: str = ""
    expires_at: datetime | None = None


# --- images --------------------------------------------------------------------------------------


def describe_image(image: Image, wording: Wording, identifier: str = "") -> ListedImage:
    """Give the entry for an image of the catalogue; its disk was hashed when it was admitted."""
    name, _, release = image.os.partition(" ")
    return ListedImage(
        identifier=identifier or str(uuid.uuid4()),
        version=wording.version or image.version,
        title=wording.title,
        description=wording.description or wording.title,
        comments=wording.comments or image.source or wording.title,
        sha512=image.sha512,
        size_bytes=image.size_bytes,
        uri=wording.uri,
        arch=image.arch,
        hypervisor=HYPERVISOR,
        os=name or "unknown",
        os_version=release or "unknown",
        format=image.format,
        expires_at=wording.expires_at,
    )


def check_disk(image: ListedImage, disk: Path) -> None:
    """Refuse to sign for a file that is not the one that is described. Raises ``Untrusted``."""
    with disk.open("rb") as file:
        found = hashlib.file_digest(file, "sha512").hexdigest()
        size = os.fstat(file.fileno()).st_size
    if (found, size) != (image.sha512, image.size_bytes):
        raise Untrusted(
            f"{disk} is not the file that is described: it has {size} bytes and SHA-512 {found}",
            hint="build or import the image again",
        )


def endorse_image(
    image: ListedImage, signer: Signer, who: Endorser | None = None, *, now: datetime
) -> ListedImage:
    """Sign for an image as its endorser; the endorsement travels in the entry."""
    owner = _usable(signer, Role.IMAGE, now)
    endorser = named_endorser(owner, who)
    message = sign(render_image(replace(image, endorsement=""), endorser), signer)
    endorsed = replace(image, endorsement=base64.b64encode(message).decode("ascii"))
    try:
        open_endorsement(endorsed, (_principal(owner),), CheckRules(uris=ANY))
    except Refused as refused:
        raise Failed(f"what was signed cannot be read back: {refused.refusal}") from refused
    return endorsed


def named_endorser(owner: Certificate, who: Endorser | None = None) -> Endorser:
    """Give the endorser that a certificate makes: its names, and what people may call him."""
    known = who or Endorser(dn="", ca="")
    common = owner.subject.slash.rpartition("/CN=")[2].partition("/")[0]
    return replace(
        known,
        dn=owner.subject.slash,
        ca=owner.issuer.slash,
        creator=known.creator or common or owner.subject.slash,
        email=known.email or "none",
    )


def _principal(owner: Certificate) -> Principal:
    return Principal(dn=owner.subject.slash, ca=owner.issuer.slash)


def _usable(signer: Signer, role: Role, now: datetime) -> Certificate:
    """Give the certificate to sign with; raises ``Invalid`` when no site could accept it."""
    owner = read_certificate(signer.certificate)
    itself = Anchor(name="own", kind=Kind.KEY, certificate=owner)
    try:
        check_signer(owner, role, Anchors(own=(itself,)), SignerRules(), now)
    except Refused as refused:
        raise Invalid(
            f"no site would accept {signer.certificate}: {refused.refusal}",
            hint=refused.refusal.rule.mend,
        ) from refused
    return owner


# --- lists ---------------------------------------------------------------------------------------


def new_list(
    title: str,
    uri: str,
    *,
    source: str = "",
    description: str = "",
    who: Endorser = UNSIGNED,
    now: datetime,
) -> ImageList:
    """Begin a list, with no images and nobody's signature.

    ``who`` may have the name and address for people; the rest comes from the certificate.
    """
    return ImageList(
        identifier=str(uuid.uuid4()),
        version="0",
        title=title,
        description=description or title,
        source=source or title,
        uri=uri,
        created_at=now.replace(microsecond=0),
        expires_at=now.replace(microsecond=0) + LIFETIME,
        endorser=replace(who, dn=UNSIGNED.dn, ca=UNSIGNED.ca),
    )


def with_image(images: ImageList, image: ListedImage) -> ImageList:
    """Add an image, or a higher version of one that is there. Raises ``Conflict``."""
    old = next((each for each in images.images if each.identifier == image.identifier), None)
    if old is not None and old != image and compare(image.version, old.version) <= 0:
        raise Conflict(
            f"the list has {old.title!r} in version {old.version}, and {image.version} is not "
            "higher",
            hint="give a higher --version",
        )
    if any(revoked.sha512 == image.sha512 for revoked in images.revoked):
        raise Conflict(
            f"the list took back an image with this very content ({image.sha512[:16]}…)",
            hint="what was revoked does not come back; build it anew",
        )
    rest = (each for each in images.images if each.identifier != image.identifier)
    return replace(images, images=(*rest, image))


def without_image(images: ImageList, wanted: str) -> ImageList:
    """Remove an image that has nothing wrong with it, but is of no more use."""
    gone = _found(images, wanted)
    return replace(images, images=tuple(each for each in images.images if each != gone))


def revoke_image(images: ImageList, wanted: str, reason: str, *, now: datetime) -> ImageList:
    """Take an image back: it leaves the list, and the reason is told to every site."""
    if not reason.strip() or not reason.isprintable():
        raise Invalid("an image is taken back for a reason", hint="give --reason in one line")
    gone = _found(images, wanted)
    revoked = Revocation(
        identifier=gone.identifier,
        version=gone.version,
        sha512=gone.sha512,
        reason=reason.strip(),
        revoked_at=now.replace(microsecond=0),
    )
    return replace(without_image(images, wanted), revoked=(*images.revoked, revoked))


def _found(images: ImageList, wanted: str) -> ListedImage:
    """Find an image by identifier, SHA-512 or title."""
    named = [each for each in images.images if each.title == wanted]
    found = images.find(wanted) or (named[0] if len(named) == 1 else None)
    if found is None:
        known = ", ".join(repr(each.title) for each in images.images[:10]) or "none"
        raise Missing(f"the list has no image {wanted!r}", hint=f"it has: {known}")
    return found


def sign_list(
    images: ImageList, signer: Signer, *, lifetime: timedelta = LIFETIME, now: datetime
) -> tuple[ImageList, bytes]:
    """Sign a list, in its next version; it never outlives the certificate.

    Gives the list as it was signed, to go on from, and the signed message.
    """
    owner = _usable(signer, Role.LIST, now)
    moment = now.replace(microsecond=0)
    ready = replace(
        images,
        version=following(images.version, moment),
        created_at=moment,
        expires_at=min(moment + lifetime, owner.not_after),
        endorser=named_endorser(owner, _kept(images.endorser, owner)),
        wrapped=True,
    )
    check_complete(ready)
    text = render_list(ready)
    _check_readable(text, ready)
    message = sign(text, signer)
    itself = Anchor(name="own", kind=Kind.KEY, certificate=owner)
    expected = Expected(endorsers=(_principal(owner),), identifier=ready.identifier)
    rules = CheckRules(uris=ANY)
    verify_list(message, Anchors(own=(itself,)), expected, rules, moment)
    return ready, message


def _kept(endorser: Endorser, owner: Certificate) -> Endorser | None:
    """Keep what people call the endorser, unless it is another one now."""
    here = endorser.dn == UNSIGNED.dn or same(endorser.dn, owner.subject.slash)
    return endorser if here else None


def _check_readable(text: bytes, meant: ImageList) -> None:
    """Refuse a list that sites would not read as it is meant. Raises ``Invalid``."""
    try:
        found = parse_list(text, ANY)
    except Refused as refused:
        raise Invalid(
            f"no site could read this list: {refused.refusal}", hint=refused.refusal.rule.mend
        ) from refused
    if found.faults:
        fault = found.faults[0]
        raise Invalid(
            f"no site could use image {fault.title or fault.place!r}: {fault.refusal}",
            hint=fault.refusal.rule.mend,
        )
    if replace(found, faults=()) != meant:
        raise Failed("the list reads back differently from what was written")


def warnings_for(images: ImageList, rules: UriRules = STRICT) -> list[str]:
    """Say which images most sites would refuse for where they are fetched from."""
    return [
        f"{fault.title or fault.identifier}: {fault.refusal}"
        for fault in parse_list(render_list(images), rules).faults
    ]


# --- publishing ----------------------------------------------------------------------------------


def publish(
    message: bytes, place: Path, copies: Sequence[Copy] = (), report: Report = lambda *_: None
) -> None:
    """Put a signed list where a web server has it; never in place of a newer one or another list.

    It changes in one step, so that no site ever fetches half of it. Its images come just before.
    """
    new = peek_list(message, ANY)
    make_directory(place.parent)
    with locked(place.with_name(f".{place.name}.lock")):
        _check_follows(new, place)
        with copied(copies, place.name, report) as put:
            put()
            write_whole(place, message)


def _check_follows(new: ImageList, place: Path) -> None:
    try:
        old = peek_list(place.read_bytes(), ANY)
    except FileNotFoundError:
        return
    if old.identifier != new.identifier:
        raise Conflict(
            f"{place} is another list: {old.title!r} ({old.identifier})", hint="give another place"
        )
    if compare(new.version, old.version) < 0:
        raise Conflict(
            f"{place} has version {old.version} of {show_time(old.created_at)}, and this is "
            f"{new.version}",
            hint="sign the list again: its version is then higher",
        )
