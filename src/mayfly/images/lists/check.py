"""Check a signed list, rule by rule: from the message to who signed it and which list it is."""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass, field
from datetime import datetime

from mayfly.errors import Invalid
from mayfly.images.lists.authorities import Anchors, Role
from mayfly.images.lists.der import NotDer, outline
from mayfly.images.lists.model import Endorser, ImageList, ListedImage, show_time
from mayfly.images.lists.names import same
from mayfly.images.lists.openssl import Certificate, certificate, peek, signature_of, signed
from mayfly.images.lists.reader import BYTES_MOST, parse_image, parse_list
from mayfly.images.lists.rules import Refusal, Refused, Rule
from mayfly.images.lists.signers import SignerRules, check_signer
from mayfly.images.lists.uris import ANY, STRICT, UriRules
from mayfly.images.lists.versions import compare

MESSAGE_MOST = BYTES_MOST + (1 << 20)
_DIGESTS = frozenset({"sha256", "sha384", "sha512"})
_SHA1 = "sha1"
SAME_IN_BOTH = ("identifier", "version", "sha512", "size_bytes", "arch", "hypervisor")
"""What a list may not change of an image that its endorser signed for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Somebody by the names in a certificate."""

    dn: str
    ca: str = ""
    """Empty: whichever trusted authority issued it."""

    def is_meant(self, dn: str, ca: str) -> bool:
        """Tell whether somebody of these names is meant."""
        return same(self.dn, dn) and (not self.ca or same(self.ca, ca))


@dataclass(frozen=True, slots=True, kw_only=True)
class Last:
    """The version of a list that was accepted last."""

    version: str
    created_at: datetime
    text_sha512: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """Which list it must be."""

    endorsers: tuple[Principal, ...]
    """Who may sign it."""
    identifier: str = ""
    """Empty: any; for a subscription that is just being made."""
    last: Last | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckRules:
    """What a site asks of lists."""

    signer: SignerRules = field(default_factory=SignerRules)
    uris: UriRules = STRICT


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """A list that keeps every rule."""

    images: ImageList
    signer: Certificate
    where: str
    """Where the trust in its signer comes from."""
    text_sha512: str
    """Of what was signed."""

    @property
    def until(self) -> datetime:
        """Give the time from which on it holds no more."""
        return min(self.images.expires_at, self.signer.not_after)


@dataclass(frozen=True, slots=True, kw_only=True)
class Endorsed:
    """An image endorser's word about an image: signed, by a signer who is still to be checked."""

    signer: Certificate
    until: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class _Message:
    text: bytes
    signer: Certificate


def check_list(
    message: bytes, anchors: Anchors, expected: Expected, rules: CheckRules, now: datetime
) -> Verified | Refusal:
    """Check a signed list against all rules; give the first one that it breaks."""
    try:
        return _check_list(message, anchors, expected, rules, now)
    except Refused as refused:
        return refused.refusal


def verify_list(
    message: bytes, anchors: Anchors, expected: Expected, rules: CheckRules, now: datetime
) -> Verified:
    """Check a signed list against all rules; raises ``Untrusted``, naming the first broken one."""
    result = check_list(message, anchors, expected, rules, now)
    if isinstance(result, Refusal):
        raise result.error("the image list")
    return result


def peek_list(message: bytes, rules: UriRules = STRICT) -> ImageList:
    """Read a list, signed or not, **without trusting it**: to be shown, and for nothing else.

    Raises ``Invalid`` when it is none.
    """
    try:
        _check_size(message)
        text = message if message.lstrip()[:1] == b"{" else peek(message)
        if text is None:
            raise Refused(Rule.SIGNED, "it is neither an S/MIME message nor JSON")
        return parse_list(text, rules)
    except Refused as refused:
        raise Invalid(
            f"this is no image list: {refused.refusal}", hint=refused.refusal.rule.mend
        ) from refused


def _check_list(
    message: bytes, anchors: Anchors, expected: Expected, rules: CheckRules, now: datetime
) -> Verified:
    opened = _open(message, rules.signer)
    images = parse_list(opened.text, rules.uris)
    # What costs nothing comes first: who it claims to be from, before whether that is true.
    _check_named(images.endorser, opened.signer)
    _check_expected(images, opened.signer, expected)
    where = check_signer(opened.signer, Role.LIST, anchors, rules.signer, now)
    digest = hashlib.sha512(opened.text).hexdigest()
    _check_dates(images, now)
    _check_version(images, digest, expected.last)
    return Verified(images=images, signer=opened.signer, where=where, text_sha512=digest)


# --- the message ---------------------------------------------------------------------------------


def _check_size(message: bytes) -> None:
    if len(message) > MESSAGE_MOST:
        raise Refused(Rule.SIZE, f"it has {len(message)} bytes, {MESSAGE_MOST} are allowed")


def _open(message: bytes, rules: SignerRules) -> _Message:
    _check_size(message)
    signature = signature_of(message)
    if signature is None:
        raise Refused(Rule.SIGNED, "it is no S/MIME message")
    _check_outline(signature, rules)
    found = signed(message)
    if found is None:
        raise Refused(Rule.SIGNATURE, "the text or the signature was changed")
    if len(found.signers) != 1:
        raise Refused(Rule.ONE_SIGNER, f"it has {len(found.signers)} signers")
    try:
        signer = certificate(found.signers[0])
    except Invalid as error:
        raise Refused(Rule.CHAIN, error.message) from error
    return _Message(text=found.text, signer=signer)


def _check_outline(signature: bytes, rules: SignerRules) -> None:
    try:
        found = outline(signature)
    except NotDer as error:
        raise Refused(Rule.SIGNED, f"its signature cannot be read: {error}") from error
    if not found.detached:
        raise Refused(Rule.SIGNED, "its signature is not detached")
    if len(found.signers) != 1:
        raise Refused(Rule.ONE_SIGNER, f"it has {len(found.signers)} signers")
    for digest in found.signers[0]:
        if digest == _SHA1 and not rules.sha1:
            raise Refused(Rule.SHA1, "it is signed with SHA-1")
        if digest not in _DIGESTS and digest != _SHA1:
            raise Refused(Rule.DIGEST, f"it is signed with {digest}")


# --- which list ----------------------------------------------------------------------------------


def _check_named(endorser: Endorser, signer: Certificate) -> None:
    if not same(endorser.dn, signer.subject.slash):
        raise Refused(
            Rule.DN, f"it names {endorser.dn!r}, and is signed by {signer.subject.slash!r}"
        )
    if not same(endorser.ca, signer.issuer.slash):
        raise Refused(
            Rule.CA, f"it names {endorser.ca!r}, and its signer's is {signer.issuer.slash!r}"
        )


def _check_expected(images: ImageList, signer: Certificate, expected: Expected) -> None:
    dn, ca = signer.subject.slash, signer.issuer.slash
    if not any(each.is_meant(dn, ca) for each in expected.endorsers):
        raise Refused(Rule.ENDORSER, f"{dn} (issued by {ca}) may not sign this list")
    if expected.identifier and images.identifier != expected.identifier.lower():
        raise Refused(
            Rule.IDENTIFIER, f"it is {images.identifier}, and {expected.identifier} is subscribed"
        )


def _check_dates(images: ImageList, now: datetime) -> None:
    if now < images.created_at:
        raise Refused(Rule.FUTURE, f"it was made at {show_time(images.created_at)}")
    if now > images.expires_at:
        raise Refused(Rule.EXPIRED, f"it expired at {show_time(images.expires_at)}")


def _check_version(images: ImageList, text_sha512: str, last: Last | None) -> None:
    if last is None or text_sha512 == last.text_sha512:
        return
    order = compare(images.version, last.version)
    if order < 0:
        raise Refused(
            Rule.VERSION, f"its version {images.version} is below {last.version}, which was here"
        )
    # The same version twice is allowed, but the older of the two must not come back.
    if order == 0 and images.created_at <= last.created_at:
        raise Refused(
            Rule.VERSION,
            f"it has another text for version {images.version}, made at "
            f"{show_time(images.created_at)}, and not after {show_time(last.created_at)}",
        )


# --- an image endorser's word --------------------------------------------------------------------


def open_endorsement(
    image: ListedImage, endorsers: tuple[Principal, ...], rules: CheckRules
) -> Endorsed:
    """Check that one of these image endorsers signed for this very image; raises ``Refused``.

    Whether the signer's certificate holds is for ``check_signer``.
    """
    try:
        message = base64.b64decode(image.endorsement, validate=True)
    except binascii.Error as error:
        raise Refused(Rule.SIGNED, "its endorsement is not base64") from error
    if not message:
        raise Refused(Rule.SIGNED, "it has no endorsement of its own")
    opened = _open(message, rules.signer)
    meant, endorser = parse_image(opened.text, ANY)
    _check_named(endorser, opened.signer)
    dn, ca = opened.signer.subject.slash, opened.signer.issuer.slash
    if not any(each.is_meant(dn, ca) for each in endorsers):
        raise Refused(Rule.ENDORSER, f"{dn} (issued by {ca}) is not asked to endorse images")
    _check_same(image, meant)
    until = min(opened.signer.not_after, meant.expires_at or opened.signer.not_after)
    return Endorsed(signer=opened.signer, until=until)


def _check_same(image: ListedImage, meant: ListedImage) -> None:
    """Compare all but where it is fetched and how it is described."""
    for field_name in SAME_IN_BOTH:
        one, other = getattr(image, field_name), getattr(meant, field_name)
        if one != other:
            raise Refused(
                Rule.ENDORSEMENT, f"the endorsement is for {field_name} {other}, the list has {one}"
            )


def open_signed(message: bytes, rules: SignerRules) -> tuple[bytes, Certificate]:
    """Give the text of any signed message, and its one signer; raises ``Refused``.

    Whether the signer's certificate holds is for ``check_signer``.
    """
    opened = _open(message, rules)
    return opened.text, opened.signer
