"""Bearer tokens: what is believed, and what never."""

from __future__ import annotations

import base64
import hmac
import json
import time
from pathlib import Path
from typing import Any

import jwt
import pytest

from mayfly.errors import Invalid
from mayfly.server.tokens import BadToken, Issuer, Tokens, read_keys
from tests.unit.server.tokens import AUDIENCE, ISSUER, claims, new_key, write_keys

KEY, STRANGER = new_key(), new_key()


@pytest.fixture
def tokens(tmp_path: Path) -> Tokens:
    file = tmp_path / "keys.json"
    write_keys(file, k1=KEY)
    return Tokens(
        issuers=[Issuer(url=ISSUER, audience=AUDIENCE, keys=file, users={"uuid-1": "alice"})]
    )


def signed(words: dict[str, Any], key: Any = KEY, kid: str = "k1", **header: Any) -> str:
    return jwt.encode(words, key, algorithm="ES256", headers={"kid": kid, **header})


def by_hand(header: dict[str, Any], words: dict[str, Any], signature: str = "") -> str:
    parts = [json.dumps(each).encode() for each in (header, words)]
    return ".".join([*(base64.urlsafe_b64encode(p).decode().rstrip("=") for p in parts), signature])


def confused(secret: bytes) -> str:
    unsigned = by_hand({"alg": "HS256", "kid": "k1"}, claims()).rstrip(".")
    mac = hmac.digest(secret, unsigned.encode(), "sha256")
    return f"{unsigned}.{base64.urlsafe_b64encode(mac).decode().rstrip('=')}"


def test_who_somebody_is(tokens: Tokens) -> None:
    groups = ["/cms", "/cms/prod"]
    words = claims(**{"wlcg.groups": groups})
    assert tokens.check(signed(words)) == ("alice", ("cms", "cms.prod"))
    assert tokens.check(signed(claims(sub="uuid-1")))[0] == "alice"
    assert tokens.check(signed(claims(aud=["other", AUDIENCE])))[0] == "alice"


NOW = int(time.time())


@pytest.mark.parametrize(
    "changes",
    [
        {"exp": NOW - 3600},
        {"exp": None},
        {"exp": "soon"},
        {"nbf": NOW + 3600},
        {"aud": "https://elsewhere.example.org"},
        {"aud": None},
        {"iss": "https://evil.example.org/"},
        {"iss": None},
        {"iss": [ISSUER]},
        {"sub": None},
        {"sub": ""},
        {"sub": "a b"},
        {"sub": "../root"},
        {"sub": ["alice"]},
        {"sub": "x" * 65},
        {"wlcg.groups": "cms"},
        {"wlcg.groups": [1]},
    ],
)
def test_claims_that_are_not_believed(tokens: Tokens, changes: dict[str, Any]) -> None:
    # The library itself would not write some of these.
    payload = json.dumps(claims(**changes)).encode()
    token = jwt.api_jws.encode(payload, KEY, "ES256", headers={"kid": "k1"})
    with pytest.raises(BadToken):
        tokens.check(token)


def test_signatures_that_are_not_believed(tokens: Tokens, tmp_path: Path) -> None:
    good = signed(claims())
    public = (tmp_path / "keys.json").read_bytes()
    own = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(STRANGER.public_key()))
    bad = [
        signed(claims(), STRANGER),
        signed(claims(), STRANGER, jwk=own),
        signed(claims(), STRANGER, jku="https://evil.example.org/keys"),
        signed(claims(), kid="k2"),
        by_hand({"alg": "none", "typ": "JWT", "kid": "k1"}, claims()),
        by_hand({"alg": "None", "kid": "k1"}, claims()),
        # The public key taken for a secret.
        confused(public),
        good[:-4] + "AAAA",
        good.rsplit(".", 1)[0] + ".",
        by_hand({"alg": "ES256", "kid": "k1"}, claims(sub="root"), good.rsplit(".", 1)[1]),
        by_hand({"alg": "ES256", "kid": {"a": 1}}, claims(), "AAAA"),
        by_hand({"alg": "ES256", "kid": "k1", "crit": ["x"]}, claims(), "AAAA"),
    ]
    for token in bad:
        with pytest.raises(BadToken):
            tokens.check(token)


@pytest.mark.parametrize(
    "token", ["", ".", "..", "a.b.c", "\0", "é", "e30.e30.", "x" * 20_000, "[" * 10_000]
)
def test_what_is_no_token(tokens: Tokens, token: str) -> None:
    with pytest.raises(BadToken):
        tokens.check(token)


def test_without_issuers_nobody_has_one() -> None:
    with pytest.raises(BadToken):
        Tokens().check(signed(claims()))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"keys": 1}', '{"keys": [{}]}'])
def test_keys_that_are_none(tmp_path: Path, text: str) -> None:
    file = tmp_path / "keys.json"
    file.write_text(text)
    with pytest.raises(Invalid):
        read_keys(file)
