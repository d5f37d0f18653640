"""Bearer tokens: JSON Web Tokens of issuers that the site names (RFC 7519, 8725; WLCG profile)."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jwt

from mayfly.errors import Denied, Invalid

ALGORITHMS = ("RS256", "RS384", "RS512", "ES256", "ES384", "PS256", "EdDSA")
"""Of public keys only: no secret of ours could be taken for one, and "none" is none."""
TOKEN_BYTES = 16_384
LEEWAY_S = 30
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,63}")


class BadToken(Denied):
    """A token that is not believed: the server answers 401."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Issuer:
    """Somebody whose tokens are believed."""

    url: str
    audience: str
    keys: Path
    user_claim: str = "sub"
    groups_claim: str = "wlcg.groups"
    users: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """Checks tokens."""

    issuers: Sequence[Issuer] = ()

    def check(self, token: str) -> tuple[str, tuple[str, ...]]:
        """Give name and groups of a token's bearer; raises ``BadToken``."""
        if not self.issuers:
            raise BadToken("this server takes no tokens", hint="'[[issuer]]' in server.toml")
        if len(token) > TOKEN_BYTES:
            raise BadToken("the token is too long")
        try:
            header = jwt.get_unverified_header(token)
            claimed = jwt.decode(token, options={"verify_signature": False})
            issuer = self._issuer(claimed.get("iss"))
            claims = jwt.decode(
                token,
                key=_key(issuer, header),
                algorithms=list(ALGORITHMS),
                audience=issuer.audience,
                issuer=issuer.url,
                leeway=LEEWAY_S,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
        except (jwt.PyJWTError, ValueError, RecursionError) as error:
            raise BadToken(f"the token is not believed: {error}") from error
        return _person(issuer, claims)

    def _issuer(self, url: object) -> Issuer:
        for issuer in self.issuers:
            if issuer.url == url:
                return issuer
        raise BadToken(f"no issuer {str(url)[:200]!r} is known here")


def _key(issuer: Issuer, header: Mapping[str, Any]) -> jwt.PyJWK:
    # A key in the header ("jwk", "jku", "x5u") is the sender's own word: never looked at.
    for key in read_keys(issuer.keys):
        if key.key_id == header.get("kid") and key.algorithm_name == header.get("alg"):
            return key
    raise BadToken(f"issuer {issuer.url} has no key {str(header.get('kid'))[:100]!r} of that kind")


def read_keys(file: Path) -> Sequence[jwt.PyJWK]:
    """Read a JWK set; raises ``Invalid``."""
    try:
        stored = json.loads(file.read_text("utf-8"))
        return jwt.PyJWKSet.from_dict(stored).keys
    except (OSError, ValueError, AttributeError, jwt.PyJWTError) as error:
        raise Invalid(f"{file} is no JWK set: {error}") from error


def _person(issuer: Issuer, claims: Mapping[str, Any]) -> tuple[str, tuple[str, ...]]:
    subject = claims.get(issuer.user_claim)
    name = issuer.users.get(subject, subject) if isinstance(subject, str) else None
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise BadToken(f"the token's '{issuer.user_claim}' names nobody that could have a machine")
    groups = claims.get(issuer.groups_claim, [])
    if not isinstance(groups, list) or not all(isinstance(each, str) for each in groups):
        raise BadToken(f"the token's '{issuer.groups_claim}' is no list of groups")
    return name, tuple(each.strip("/").replace("/", ".")[:64] for each in groups if each.strip("/"))
