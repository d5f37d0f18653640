"""The rules that a list and an image must keep; whatever is refused names the one that it broke."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from mayfly.errors import Untrusted


class Rule(StrEnum):
    """One reason to refuse; ``docs/reference/image-lists.md`` has a line for each."""

    # The message.
    SIZE = "size"
    SIGNED = "signed"
    ONE_SIGNER = "one-signer"
    DIGEST = "digest"
    SHA1 = "sha1"
    SIGNATURE = "signature"
    FORMAT = "format"
    # Who signed it.
    NAME = "name"
    DN = "dn"
    CA = "ca"
    ENDORSER = "endorser"
    ROLE = "role"
    WEAK_KEY = "weak-key"
    KEY_USAGE = "key-usage"
    NOT_YET_VALID = "not-yet-valid"
    CERTIFICATE_EXPIRED = "certificate-expired"
    CERTIFICATE_REVOKED = "certificate-revoked"
    AUTHORITY = "authority"
    NAMESPACE = "namespace"
    CRL_MISSING = "crl-missing"
    CRL_EXPIRED = "crl-expired"
    CRL_FUTURE = "crl-future"
    CRL_SIGNATURE = "crl-signature"
    CHAIN = "chain"
    # Which list it is.
    IDENTIFIER = "identifier"
    FUTURE = "future"
    EXPIRED = "expired"
    VERSION = "version"
    # An image.
    IMAGE_FORMAT = "image-format"
    URI = "uri"
    ENDORSEMENT = "endorsement"
    IMAGE_EXPIRED = "image-expired"
    IMAGE_REMOVED = "image-removed"
    IMAGE_REVOKED = "image-revoked"
    UNENDORSED = "unendorsed"
    BLOCKED = "blocked"
    # An image of a registry.
    UNSIGNED = "unsigned"
    REGISTRY_KEY = "registry-key"
    PAYLOAD = "payload"
    MANIFEST = "manifest"
    KEY_EXPIRED = "key-expired"

    @property
    def words(self) -> str:
        """Say what the rule asks for."""
        return _WORDS[self][0]

    @property
    def mend(self) -> str:
        """Say what to do when it is broken."""
        return _WORDS[self][1]


_ASK = "ask the list's endorser"
_CLOCK = "see that this host's clock is right; else " + _ASK
_CRL = "fetch it, for example with 'fetch-crl'; it must come at least as often as it expires"
_SIGN = "ask whoever made the image to sign it: cosign sign --key"
_NEVER = "do not use it; " + _ASK + " what happened"

_WORDS: dict[Rule, tuple[str, str]] = {
    Rule.SIZE: ("a list is not larger than any list needs to be", _ASK + " for a smaller one"),
    Rule.SIGNED: (
        "a list is an S/MIME message with a detached signature",
        "see that the URL is that of the signed list, not of a web page or of the bare JSON",
    ),
    Rule.ONE_SIGNER: ("a list has exactly one signer", _ASK + " to sign it alone"),
    Rule.DIGEST: ("a list is signed with SHA-256, SHA-384 or SHA-512", _ASK + " to sign it anew"),
    Rule.SHA1: (
        "SHA-1 signs nothing, unless the site allows it",
        _ASK
        + " to sign it anew with SHA-512; the setting 'trust_sha1' is for lists that nobody can",
    ),
    Rule.SIGNATURE: ("the signature is that of this text", _NEVER),
    Rule.FORMAT: ("a list is JSON as the HEPiX format has it", _ASK + " to mend it"),
    Rule.NAME: ("the signer's name can be read in one way only", "use a certificate without it"),
    Rule.DN: ("the signer is the endorser that the list names", _NEVER),
    Rule.CA: ("the signer's CA is the one that the list names", _NEVER),
    Rule.ENDORSER: (
        "the endorser is authorised for this list",
        "if it is meant to be: 'mayfly trust subscribe' with this endorser",
    ),
    Rule.ROLE: (
        "the certificate is trusted for this role",
        "if it is meant to be: 'mayfly trust add' with this role",
    ),
    Rule.WEAK_KEY: ("keys are RSA of 2048 bits or as strong", _ASK + " to use a stronger key"),
    Rule.KEY_USAGE: (
        "the certificate is one for signing messages",
        "use one with digitalSignature, and emailProtection where it has an extended key usage",
    ),
    Rule.NOT_YET_VALID: ("the signer's certificate is valid already", _CLOCK),
    Rule.CERTIFICATE_EXPIRED: (
        "the signer's certificate is valid still",
        _ASK + " to sign it with a new certificate",
    ),
    Rule.CERTIFICATE_REVOKED: ("the signer's certificate is not revoked", _NEVER),
    Rule.AUTHORITY: (
        "the certificate was issued by an authority that this site trusts",
        "if it is meant to be: 'mayfly trust add CERT', or install the CA's files",
    ),
    Rule.NAMESPACE: (
        "the authority may issue certificates of this name",
        "see the *.signing_policy and *.namespaces files beside the CA's certificate",
    ),
    Rule.CRL_MISSING: ("the authority's revocation list is there", _CRL),
    Rule.CRL_EXPIRED: ("the authority's revocation list is fresh", _CRL),
    Rule.CRL_FUTURE: ("the authority's revocation list is not of the future", _CLOCK),
    Rule.CRL_SIGNATURE: ("the authority's revocation list is its own", _CRL),
    Rule.CHAIN: ("the certificate holds up to its authority", "see what openssl says of it"),
    Rule.IDENTIFIER: ("the list is the one that was subscribed", "subscribe the other one"),
    Rule.FUTURE: ("the list was not made in the future", _CLOCK),
    Rule.EXPIRED: ("the list has not expired", _ASK + " to renew it"),
    Rule.VERSION: (
        "a list's version never goes back",
        "an old list was offered; if its endorser did it: sign again with a higher version",
    ),
    Rule.IMAGE_FORMAT: ("an image's entry is complete and well formed", _ASK + " to mend it"),
    Rule.URI: (
        "an image is fetched by HTTP(S), and not from this host itself",
        _ASK + "; the setting 'trust_local_urls' is for a site of one host",
    ),
    Rule.ENDORSEMENT: (
        "an image bears the word of an image endorser, where the subscription asks for it",
        _ASK + " to add it with the image endorser's endorsement",
    ),
    Rule.IMAGE_EXPIRED: ("the image has not expired", "use a newer version of it"),
    Rule.IMAGE_REMOVED: ("the image is still in its list", "use what took its place"),
    Rule.IMAGE_REVOKED: ("the image is not revoked", "use what took its place"),
    Rule.UNENDORSED: (
        "a list that this site trusts has the image",
        "subscribe a list that has it, or endorse it with the site's own key",
    ),
    Rule.BLOCKED: ("this site's admin has not blocked the image", "ask the site's admin"),
    Rule.UNSIGNED: ("an image of a registry that the site has a key for is signed", _SIGN),
    Rule.REGISTRY_KEY: (
        "a key that the site believes for this registry has signed the image",
        _SIGN + "; a new key is believed by 'mayfly trust registry', then the image comes in again",
    ),
    Rule.PAYLOAD: ("what was signed is a statement of cosign's on an image", _SIGN),
    Rule.MANIFEST: ("the signature is of this very image", _NEVER),
    Rule.KEY_EXPIRED: (
        "the site believes the registry's key still",
        "if it is meant to: 'mayfly trust registry' with a later --until, and --force",
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A rule that was broken, and how."""

    rule: Rule
    detail: str

    def __str__(self) -> str:
        return f"{self.detail} (rule '{self.rule.value}': {self.rule.words})"

    def error(self, what: str) -> Untrusted:
        """Give the error that refuses ``what``."""
        return Untrusted(f"{what} is refused: {self}", hint=self.rule.mend)


class Refused(Exception):
    """Ends a check at the first rule that is broken; it never leaves this package."""

    def __init__(self, rule: Rule, detail: str) -> None:
        super().__init__(detail)
        self.refusal = Refusal(rule=rule, detail=detail)
