"""The signed index: whoever vouches for an image says himself of which chunks it consists."""

from __future__ import annotations

from datetime import datetime

from mayfly.errors import Invalid, Untrusted
from mayfly.images.chunks.index import Index, parse_index, render
from mayfly.images.lists.admission import Voucher
from mayfly.images.lists.authorities import Anchors, Role
from mayfly.images.lists.check import Principal, open_signed
from mayfly.images.lists.openssl import Signer, sign
from mayfly.images.lists.rules import Refused
from mayfly.images.lists.signers import SignerRules, check_signer


def sign_index(index: Index, signer: Signer) -> bytes:
    """Sign an index as lists are signed."""
    return sign(render(index).encode(), signer)


def open_index(
    message: bytes, voucher: Voucher, anchors: Anchors, rules: SignerRules, now: datetime
) -> Index:
    """Give the index in a signed message, for the image that a list vouches for.

    Its signer must be the one who signed that list, or who endorsed the image. Raises
    ``Untrusted``, naming the rule.
    """
    try:
        text, signer = open_signed(message, rules)
        dn, ca = signer.subject.slash, signer.issuer.slash
        role = _role(voucher, dn, ca)
        if role is None:
            raise Untrusted(
                f"the index of the image is signed by {dn}, who vouches neither for the image nor"
                " for its list"
            )
        check_signer(signer, role, anchors, rules, now)
    except Refused as refused:
        raise refused.refusal.error("the index of the image") from refused
    except Invalid as error:
        raise Untrusted(f"the index of the image cannot be read: {error.message}") from error
    index = parse_index(text)
    if index.sha512 != voucher.image.sha512:
        raise Untrusted(
            f"the index is that of another image: {index.sha512[:16]}…, not"
            f" {voucher.image.sha512[:16]}…"
        )
    return index


def _role(voucher: Voucher, dn: str, ca: str) -> Role | None:
    for who, role in ((voucher.endorser, Role.LIST), (voucher.image_endorser, Role.IMAGE)):
        if who is not None and Principal(dn=who.dn, ca=who.ca).is_meant(dn, ca):
            return role
    return None
