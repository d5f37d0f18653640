"""Whether a certificate may sign lists or images here: its name, key, authority and revocation."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from mayfly.images.lists.authorities import Anchors, Authority, Role
from mayfly.images.lists.der import NotDer, has_broken_digest
from mayfly.images.lists.names import same
from mayfly.images.lists.openssl import Certificate, Check, Fault, der_of, fault_of
from mayfly.images.lists.rules import Refused, Rule

RSA_BITS = 2048
OTHER_BITS = 224
DEPTH_MOST = 8

_RULES = {
    2: Rule.AUTHORITY,  # unable to get issuer certificate
    3: Rule.CRL_MISSING,
    4: Rule.CRL_SIGNATURE,
    5: Rule.CRL_SIGNATURE,
    7: Rule.AUTHORITY,  # certificate signature failure: another CA of that name
    8: Rule.CRL_SIGNATURE,
    9: Rule.NOT_YET_VALID,
    10: Rule.CERTIFICATE_EXPIRED,
    11: Rule.CRL_FUTURE,
    12: Rule.CRL_EXPIRED,
    18: Rule.AUTHORITY,  # self-signed certificate
    19: Rule.AUTHORITY,  # self-signed certificate in chain
    20: Rule.AUTHORITY,  # unable to get local issuer certificate
    21: Rule.AUTHORITY,  # unable to verify the first certificate
    23: Rule.CERTIFICATE_REVOKED,
    24: Rule.KEY_USAGE,  # invalid CA certificate
    26: Rule.KEY_USAGE,  # unsupported certificate purpose
    29: Rule.AUTHORITY,  # subject issuer mismatch
    30: Rule.AUTHORITY,  # authority and subject key identifier mismatch
    31: Rule.AUTHORITY,  # authority and issuer serial number mismatch
    32: Rule.KEY_USAGE,  # key usage does not include certificate signing
    33: Rule.CRL_MISSING,  # unable to get CRL issuer certificate
    35: Rule.KEY_USAGE,  # key usage does not include CRL signing
    66: Rule.WEAK_KEY,
    67: Rule.WEAK_KEY,
    68: Rule.SHA1,
    79: Rule.KEY_USAGE,  # not a CA certificate
}
"""The numbers of ``x509_vfy.h``; any other is ``chain``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SignerRules:
    """What a site asks of those who sign."""

    sha1: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class _Above:
    """The authorities above a certificate, and those that may not issue what is below them."""

    allowed: tuple[Authority, ...]
    denied: tuple[str, ...]


def check_signer(
    signer: Certificate, role: Role, anchors: Anchors, rules: SignerRules, now: datetime
) -> str:
    """Refuse a signer that this site does not trust; give where its trust comes from."""
    if signer.subject.unclear or signer.issuer.unclear:
        why = signer.subject.unclear or f"the issuer's: {signer.issuer.unclear}"
        raise Refused(Rule.NAME, f"the name {signer.subject.slash} is not clear: {why}")
    _check_key(signer)
    _check_digest(signer)
    if anchor := anchors.key(signer):
        _check_role(role, anchor.roles, f"anchor '{anchor.name}'")
        check = Check(crls=False, pinned=True, sha1=rules.sha1)
        _judge(fault_of(signer.pem, [signer.pem], check=check, at=now), signer)
        return f"anchor '{anchor.name}'"
    return _check_chain(signer, role, anchors, rules, now)


def _check_key(owner: Certificate) -> None:
    least = RSA_BITS if owner.key_kind == "RSA" else OTHER_BITS
    if owner.key_bits < least:
        raise Refused(
            Rule.WEAK_KEY, f"{owner.subject.slash} has a {owner.key_kind} key of {owner.key_bits}"
        )


def _check_digest(owner: Certificate) -> None:
    """Refuse what openssl lets pass when SHA-1 is allowed."""
    try:
        broken = has_broken_digest(der_of(owner.pem) or b"")
    except NotDer as error:
        raise Refused(Rule.CHAIN, f"{owner.subject.slash} cannot be read: {error}") from error
    if broken and not _is_self_signed(owner):
        raise Refused(Rule.DIGEST, f"{owner.subject.slash} was signed with MD5, or worse")


def _check_role(role: Role, roles: frozenset[Role], where: str) -> None:
    if role not in roles:
        known = ", ".join(sorted(each.value for each in roles)) or "nothing"
        raise Refused(Rule.ROLE, f"{where} is trusted as {known}, not as {role.value}")


def _check_chain(
    signer: Certificate, role: Role, anchors: Anchors, rules: SignerRules, now: datetime
) -> str:
    above = _above(signer, anchors)
    issuers = [each for each in above.allowed if _is_issuer(each, signer)]
    if not issuers:
        raise _unknown(signer, above)
    _check_role(role, frozenset(each for one in issuers for each in one.roles), issuers[0].where)
    trusted = [each for each in above.allowed if role in each.roles]
    for authority in trusted:
        _check_key(authority.certificate)
        _check_digest(authority.certificate)
    fault = _fault(signer, trusted, rules, now)
    if fault is not None and above.denied and _rule(fault) is Rule.AUTHORITY:
        raise Refused(Rule.NAMESPACE, above.denied[0])
    _judge(fault, signer)
    return next(each.where for each in issuers if role in each.roles)


def _fault(
    signer: Certificate, trusted: list[Authority], rules: SignerRules, now: datetime
) -> Fault | None:
    crls = [crl for authority in trusted for crl in authority.crls]
    must = bool(crls) or any(authority.crl_required for authority in trusted)
    pems = [authority.certificate.pem for authority in trusted]
    check = Check(crls=must, sha1=rules.sha1)
    return fault_of(signer.pem, pems, crls=crls, check=check, at=now)


def _is_issuer(authority: Authority, child: Certificate) -> bool:
    return same(authority.certificate.subject.slash, child.issuer.slash)


def _unknown(signer: Certificate, above: _Above) -> Refused:
    if above.denied:
        return Refused(Rule.NAMESPACE, above.denied[0])
    name, issuer = signer.subject.slash, signer.issuer.slash
    if _is_self_signed(signer):
        return Refused(Rule.AUTHORITY, f"{name} signed itself, and is not one that was added")
    return Refused(Rule.AUTHORITY, f"{name} was issued by {issuer}, which is not known here")


def _above(signer: Certificate, anchors: Anchors) -> _Above:
    """Find the authorities from a certificate upwards, as far as they are known."""
    allowed: dict[str, Authority] = {}
    denied: list[str] = []
    children = [signer]
    for _ in range(DEPTH_MOST):
        found = [
            (child, authority)
            for child in children
            for authority in anchors.issuers_of(child)
            if authority.certificate.fingerprint not in allowed
        ]
        children = []
        for child, authority in found:
            if reason := _denial(authority, child):
                denied.append(reason)
            else:
                allowed[authority.certificate.fingerprint] = authority
                children.append(authority.certificate)
        children = [child for child in children if not _is_self_signed(child)]
    return _Above(allowed=tuple(allowed.values()), denied=tuple(denied))


def _is_self_signed(own: Certificate) -> bool:
    return same(own.subject.slash, own.issuer.slash)


def _denial(authority: Authority, child: Certificate) -> str:
    """Say why an authority may not have issued this name; empty when it may."""
    issuer, subject = authority.certificate.subject.slash, child.subject.slash
    if not authority.namespaces:
        return f"{authority.where} says nothing of which names {issuer} may issue"
    for spaces in authority.namespaces:
        if not spaces.allows(issuer, subject):
            return f"{spaces.where}: {issuer} may not issue {subject}"
    return ""


def _rule(fault: Fault) -> Rule:
    return _RULES.get(fault.code, Rule.CHAIN)


def _judge(fault: Fault | None, signer: Certificate) -> None:
    if fault is None:
        return
    whose = (
        signer.subject.slash if fault.depth == 0 else f"an authority above {signer.subject.slash}"
    )
    raise Refused(_rule(fault), f"{whose}: {fault.words}")
