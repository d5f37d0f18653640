"""EC2 keys of users: issued, shown once, stored encrypted under a key outside the database.

A signature can be checked only with the secret itself, so a hash does not do; what lies in the
database is useless without the key file.
"""

from __future__ import annotations

import base64
import os
import secrets
import stat
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from mayfly.ec2.fault import Fault
from mayfly.ec2.signature import Claim, Request, check_signature, check_time, read_claim
from mayfly.errors import Denied, Failed, Missing

KEY_BYTES = 32
_NONCE_BYTES = 12
_FORMAT = b"\x01"


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """An EC2 key as it is stored."""

    access_key: str
    owner: str
    sealed: bytes
    """The secret: format byte, nonce, AES-256-GCM over it, bound to both fields above."""
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """An EC2 key as it is shown, once."""

    credential: Credential
    secret: str

    def __repr__(self) -> str:
        return f"Issued({self.credential.access_key}, secret=***)"


class Credentials(Protocol):
    """The EC2 keys of a site."""

    def find_credential(self, access_key: str) -> Credential | None:
        """Give one that is in force."""


class Vault:
    """Seals secrets and opens them."""

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)
        self.decoy = self.issue("", datetime.fromtimestamp(0, UTC)).credential
        """Nobody's: opened in place of a key that is not known, so that both take the same time."""

    def issue(self, owner: str, now: datetime) -> Issued:
        """Make a new key for a user; the caller stores its credential."""
        access_key = "MFKA" + base64.b32encode(secrets.token_bytes(10)).decode()
        secret = base64.b64encode(secrets.token_bytes(30)).decode()
        nonce = secrets.token_bytes(_NONCE_BYTES)
        sealed = self._cipher.encrypt(nonce, secret.encode(), _bound(access_key, owner))
        credential = Credential(
            access_key=access_key,
            owner=owner,
            sealed=_FORMAT + nonce + sealed,
            created_at=now,
        )
        return Issued(credential=credential, secret=secret)

    def open(self, credential: Credential) -> str:
        """Give the secret.

        :raises Failed: it was sealed with another key, or somebody changed the record
        """
        sealed = credential.sealed
        nonce, text = sealed[1 : 1 + _NONCE_BYTES], sealed[1 + _NONCE_BYTES :]
        try:
            if sealed[:1] == _FORMAT and len(nonce) == _NONCE_BYTES:
                bound = _bound(credential.access_key, credential.owner)
                return self._cipher.decrypt(nonce, text, bound).decode()
        except InvalidTag:
            pass
        raise Failed(
            f"the secret of the EC2 key {credential.access_key} fits no key in this key file",
            hint="put back the key file that was in use when it was issued, or issue a new key",
        )


def _bound(access_key: str, owner: str) -> bytes:
    return f"mayfly-ec2:{access_key}:{owner}".encode()


def write_key_file(path: Path) -> None:
    """Make the file that holds the key of secrets, if there is none; mode 0600."""
    part = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(base64.b64encode(secrets.token_bytes(KEY_BYTES)) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        # A link never replaces a key that another process has made meanwhile.
        os.link(part, path)
    except FileExistsError:
        pass
    finally:
        part.unlink()


def read_key_file(path: Path) -> bytes:
    """Read it.

    :raises Missing: there is none
    :raises Denied: others may read it
    :raises Failed: what it holds is no key
    """
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read(1024)
    except FileNotFoundError:
        hint = "'mayfly ec2 issue' makes the first one; one that was lost comes from a backup only"
        raise Missing(f"there is no key file {path}", hint=hint) from None
    except PermissionError as error:
        raise Denied(f"cannot read the key file {path}: {error.strerror}") from error
    if stat.S_IMODE(mode) & 0o077:
        raise Denied(f"others may read the key file {path}", hint=f"chmod 600 {path}")
    try:
        key = base64.b64decode(text.strip(), validate=True)
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise Failed(f"{path} does not hold {KEY_BYTES} bytes in base64")
    return key


def authenticate(
    request: Request, find: Callable[[str], Credential | None], vault: Vault, now: datetime
) -> tuple[str, Claim]:
    """Give the user who signed a request, and the claim that was proved.

    :raises Fault: not signed, not by somebody we know, not this request, not now
    """
    claim = read_claim(request)
    credential = find(claim.access_key)
    # Somebody unknown costs as much time as somebody known, and gets the same words.
    secret = vault.open(credential or vault.decoy)
    good = check_signature(request, claim, secret)
    if credential is None or not good:
        message = "Mayfly was not able to validate the provided access credentials"
        raise Fault("AuthFailure", message, status=401)
    check_time(claim, now)
    return credential.owner, claim
