"""Tokens for tests, and keys to sign them with."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    EllipticCurvePrivateKey,
    generate_private_key,
)

ISSUER = "https://issuer.example.org/"
AUDIENCE = "https://site.example.org"


def new_key() -> EllipticCurvePrivateKey:
    """Make a key."""
    return generate_private_key(SECP256R1())


def write_keys(file: Path, **keys: EllipticCurvePrivateKey) -> None:
    """Write the public halves as a JWK set."""
    found = []
    for name, key in keys.items():
        words = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(key.public_key()))
        found.append({**words, "kid": name, "alg": "ES256", "use": "sig"})
    file.write_text(json.dumps({"keys": found}))


def claims(**changes: Any) -> dict[str, Any]:
    """Give claims that are believed; a change to None leaves one out."""
    now = int(time.time())
    usual = {"iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "iat": now, "exp": now + 600}
    return {name: value for name, value in {**usual, **changes}.items() if value is not None}
