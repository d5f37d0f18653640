"""Key pairs for ssh: made here or brought along; only public keys are kept."""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
from collections.abc import Sequence

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_ssh_public_key,
)

from mayfly.ec2.answer import Answer
from mayfly.ec2.call import Call, tag_set, tags_of
from mayfly.ec2.fault import Fault, invalid
from mayfly.ec2.filters import holds, read_filters, tag_facts
from mayfly.ec2.values import KeyPair
from mayfly.errors import Conflict

RSA_BITS = 2048
MATERIAL_LENGTH = 16384

_NAME = re.compile(r"[\x20-\x7e]{1,255}")
_ID = re.compile(r"key-[0-9a-f]{17}")
_FILTERS = frozenset({"fingerprint", "key-name", "key-pair-id", "tag-key", "tag-value"})

Private = rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
Public = rsa.RSAPublicKey | ed25519.Ed25519PublicKey


def create_key_pair(call: Call) -> Answer:
    """Make a key pair, keep its public half and show the private one, once."""
    name = _new_name(call)
    kind = call.query.text("KeyType", "rsa")
    if kind not in ("rsa", "ed25519"):
        raise invalid("KeyType", "must be rsa or ed25519")
    if call.query.text("KeyFormat", "pem") != "pem":
        raise invalid("KeyFormat", "must be pem")
    call.ready()
    private = _generate(kind)
    pair = _pair(call, name, private.public_key(), _fingerprint_of_private(private))
    _add(call, pair)
    return {**_shown(pair), "keyMaterial": _pem(private)}


def import_key_pair(call: Call) -> Answer:
    """Keep a public key that somebody brought."""
    name = _new_name(call)
    public = _read_public(call.query.require("PublicKeyMaterial", longest=MATERIAL_LENGTH))
    call.ready()
    pair = _pair(call, name, public, _fingerprint_of_public(public))
    _add(call, pair)
    return _shown(pair)


def describe_key_pairs(call: Call) -> Answer:
    """List key pairs."""
    names = call.query.texts("KeyName")
    ids = call.query.texts("KeyPairId")
    public = call.query.flag("IncludePublicKey")
    filters = read_filters(call.query, _FILTERS)
    call.ready()
    pairs = call.backend.key_pairs.key_pairs(call.owner)
    _check_known(names, [each.name for each in pairs])
    _check_known(ids, [each.id for each in pairs])
    tags = tags_of(call)
    return {
        "keySet": [
            {
                **_shown(each),
                "keyType": each.kind,
                "createTime": each.created_at,
                "publicKey": each.public if public else None,
                "tagSet": tag_set(tags.get(each.id, ())),
            }
            for each in sorted(pairs, key=lambda each: each.name)
            if (each.name in names or each.id in ids or not (names or ids))
            and holds(filters, _facts(each, tags.get(each.id, ())))
        ]
    }


def delete_key_pair(call: Call) -> Answer:
    """Forget a key pair; instances that have it keep it."""
    name = call.query.text("KeyName")
    key_id = call.query.text("KeyPairId")
    if bool(name) == bool(key_id):
        raise Fault("MissingParameter", "The request must contain KeyName or KeyPairId")
    found = [
        each
        for each in call.backend.key_pairs.key_pairs(call.owner)
        if each.name == name or each.id == key_id
    ]
    call.ready()
    for each in found:
        call.backend.key_pairs.remove_key_pair(call.owner, each.name)
    return {"return": True, "keyPairId": found[0].id if found else None}


def find_key_pair(call: Call, key_id: str) -> KeyPair:
    """Give a key pair of this user by its id.

    :raises Fault: an id that is none, or that this user does not have
    """
    if not _ID.fullmatch(key_id):
        raise Fault("InvalidKeyPair.Format", f"Invalid id: '{key_id}'")
    pairs = {each.id: each for each in call.backend.key_pairs.key_pairs(call.owner)}
    _check_known((key_id,), list(pairs))
    return pairs[key_id]


def _check_known(wanted: Sequence[str], known: Sequence[str]) -> None:
    missing = [each for each in wanted if each not in known]
    if missing:
        raise Fault("InvalidKeyPair.NotFound", f"The key pair '{missing[0]}' does not exist")


def _new_name(call: Call) -> str:
    name = call.query.require("KeyName")
    if not _NAME.fullmatch(name) or name != name.strip():
        raise invalid("KeyName", "must be printable ASCII, at most 255 characters")
    if name in {each.name for each in call.backend.key_pairs.key_pairs(call.owner)}:
        raise _duplicate(name)
    return name


def _duplicate(name: str) -> Fault:
    return Fault("InvalidKeyPair.Duplicate", f"The keypair '{name}' already exists.")


def _add(call: Call, pair: KeyPair) -> None:
    try:
        call.backend.key_pairs.add_key_pair(call.owner, pair)
    except Conflict:
        raise _duplicate(pair.name) from None


def _pair(call: Call, name: str, public: Public, fingerprint: str) -> KeyPair:
    line = public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    return KeyPair(
        id="key-" + secrets.token_hex(9)[:17],
        name=name,
        kind="rsa" if isinstance(public, rsa.RSAPublicKey) else "ed25519",
        public=line,
        fingerprint=fingerprint,
        created_at=call.now,
    )


def _shown(pair: KeyPair) -> Answer:
    return {"keyName": pair.name, "keyFingerprint": pair.fingerprint, "keyPairId": pair.id}


def _facts(pair: KeyPair, tags: Sequence[tuple[str, str]]) -> dict[str, tuple[str, ...]]:
    return {
        "fingerprint": (pair.fingerprint,),
        "key-name": (pair.name,),
        "key-pair-id": (pair.id,),
        **tag_facts(tags),
    }


def _generate(kind: str) -> Private:
    if kind == "ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    return rsa.generate_private_key(public_exponent=65537, key_size=RSA_BITS)


def _pem(private: Private) -> str:
    # ssh reads Ed25519 keys in its own format only.
    rsa_key = isinstance(private, rsa.RSAPrivateKey)
    form = PrivateFormat.TraditionalOpenSSL if rsa_key else PrivateFormat.OpenSSH
    return private.private_bytes(Encoding.PEM, form, NoEncryption()).decode()


def _read_public(material: str) -> Public:
    refused = Fault("InvalidKey.Format", "Key is not in valid OpenSSH public key format")
    try:
        line = base64.b64decode("".join(material.split()), validate=True)
        # Whatever the comment says stays outside: only the key itself is written again.
        public = load_ssh_public_key(b" ".join(line.split()[:2]))
    except (ValueError, UnsupportedAlgorithm):
        raise refused from None
    if isinstance(public, ed25519.Ed25519PublicKey):
        return public
    if not isinstance(public, rsa.RSAPublicKey):
        raise refused
    if not RSA_BITS <= public.key_size <= 8192:
        raise Fault("InvalidKey.Format", f"An RSA key must have from {RSA_BITS} to 8192 bits")
    return public


def _colons(digest: bytes) -> str:
    return digest.hex(":")


def _fingerprint_of_private(private: Private) -> str:
    if isinstance(private, ed25519.Ed25519PrivateKey):
        return _fingerprint_of_public(private.public_key())
    der = private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    return _colons(hashlib.sha1(der, usedforsecurity=False).digest())


def _fingerprint_of_public(public: Public) -> str:
    if isinstance(public, ed25519.Ed25519PublicKey):
        blob = base64.b64decode(
            public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).split()[1]
        )
        return base64.b64encode(hashlib.sha256(blob).digest()).decode()
    der = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return _colons(hashlib.md5(der, usedforsecurity=False).digest())
