"""A key of one's own with a certificate that signs itself: for a site that is in no grid."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mayfly.command import run
from mayfly.errors import Conflict, Failed, Invalid
from mayfly.images.lists.files import locked, make_directory, write_whole
from mayfly.images.lists.names import check_dn
from mayfly.images.lists.openssl import TIMEOUT_S, Certificate, Signer, blocks, certificate

KEY, CERTIFICATE = "key.pem", "cert.pem"
DAYS_MOST = 3650
_CONFIG = """\
[req]
distinguished_name = none
x509_extensions = signer
string_mask = utf8only
[none]
[signer]
basicConstraints = critical,CA:FALSE
keyUsage = critical,digitalSignature,nonRepudiation
extendedKeyUsage = emailProtection
subjectKeyIdentifier = hash
"""
"""Of our own: what /etc/ssl/openssl.cnf says differs from host to host."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyPair:
    """A key that was made."""

    signer: Signer
    owner: Certificate


def pair_in(directory: Path) -> Signer:
    """Give where a key and its certificate lie in a directory."""
    return Signer(key=directory / KEY, certificate=directory / CERTIFICATE)


def make_pair(directory: Path, subject: str, days: int) -> KeyPair:
    """Make a key for signing images and lists, and its certificate.

    RSA, since old readers of lists know nothing else. Raises ``Conflict`` when there is one, and
    ``Invalid`` for a name that no certificate can have.
    """
    check_dn(subject)
    if not 0 < days <= DAYS_MOST:
        raise Invalid(f"a certificate is valid for 1 to {DAYS_MOST} days, not {days}")
    made = pair_in(directory)
    _check_free(made)
    key, pem = _generate(subject, days)
    owner = certificate(pem)
    if owner.subject.unclear:
        raise Invalid(
            f"'{subject}' could be read as another name: {owner.subject.unclear}",
            hint="write /O=Site/CN=Jo Doe, with no slash or plus sign in a part",
        )
    make_directory(directory)
    with locked(directory / ".key.lock"):
        _check_free(made)
        write_whole(made.key, key, mode=0o600)
        write_whole(made.certificate, pem)
    return KeyPair(signer=made, owner=owner)


def _check_free(made: Signer) -> None:
    for file in (made.key, made.certificate):
        if file.exists():
            raise Conflict(
                f"there is a key already: {file}",
                hint="what it signed depends on it; give another --directory for another key",
            )


def _generate(subject: str, days: int) -> tuple[bytes, bytes]:
    argv = ["openssl", "req", "-x509", "-new", "-newkey", "rsa:3072", "-nodes", "-sha256"]
    argv += ["-config", "/dev/stdin", "-utf8", "-subj", subject, "-days", str(days)]
    argv += ["-keyout", "/dev/stdout", "-out", "/dev/stdout"]
    done = run(argv, timeout_s=TIMEOUT_S, stdin=_CONFIG.encode(), check=False)
    key = next(blocks(done.stdout, "PRIVATE KEY"), None)
    pem = next(blocks(done.stdout, "CERTIFICATE"), None)
    if done.code == 0 and key and pem:
        return key, pem
    said = done.stderr.decode("utf-8", "replace")
    if "subject" in said.lower() or "name" in said.lower():
        raise Invalid(
            f"openssl makes no certificate for the name '{subject}'",
            hint="write it as /C=DE/O=Site/CN=Jo Doe; C has two letters",
        )
    raise Failed(f"openssl made no key: {done.complaint()}")
