"""All that is asked of the ``openssl`` program: sign, check a signature, read certificates.

It is one process for each question, with a time limit; what strangers made is read without root's
rights. Its answers are taken from its exit status and from fields that it escapes.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

from mayfly.command import Finished, run
from mayfly.errors import Failed, Invalid
from mayfly.images.hostile import NOBODY, guard
from mayfly.images.lists.names import NAME_OPTIONS, Name, parse_name
from mayfly.units import MIB

TIMEOUT_S = 60.0
DIGEST = "sha512"
_FILE_MOST = 64 * MIB
_CLEAN = {"PATH": os.environ.get("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"), "LC_ALL": "C.UTF-8"}
_DATE = "%b %d %H:%M:%S %Y GMT"
_PEM = re.compile(
    rb"-----BEGIN (?P<what>[A-Z0-9 ]+)-----\s.*?-----END (?P=what)-----\s*?\n?", re.DOTALL
)
_NO_STORE = ("-no-CAfile", "-no-CApath", "-no-CAstore")
"""The authorities that the system knows for the web are none of ours, and take time to load."""
_UNLOCK = "MAYFLY_KEY_UNLOCK"
_KEYS = "it is ECDSA with P-256, as cosign makes it, Ed25519, or RSA of 2048 to 8192 bits"


@dataclass(frozen=True, slots=True, kw_only=True)
class Signer:
    """A key and its certificate, as files."""

    key: Path
    certificate: Path
    password: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """What a certificate says; nothing of it is checked."""

    pem: bytes
    subject: Name
    issuer: Name
    serial: str
    not_before: datetime
    not_after: datetime
    fingerprint: str
    """SHA-256, hexadecimal, lower case."""
    subject_hash: str
    issuer_hash: str
    key_kind: str
    """``RSA``, ``EC``, …"""
    key_bits: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """A message whose signature fits; whether the signers can be trusted is another question."""

    text: bytes
    signers: tuple[bytes, ...]
    """Their certificates, PEM."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What openssl has against a certificate: X509_V_ERR of its ``x509_vfy.h``."""

    code: int
    depth: int
    """0: the certificate itself; 1: that of its issuer; …"""
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """How a certificate is checked."""

    crls: bool
    """Whether each authority must have a fresh revocation list."""
    pinned: bool = False
    """Whether it is trusted itself, whoever issued it."""
    sha1: bool = False
    """Whether nothing is asked of keys and digests: then the caller must."""


# --- signing -------------------------------------------------------------------------------------


def sign(text: bytes, signer: Signer, digest: str = DIGEST) -> bytes:
    """Sign a text as vmcaster does: S/MIME, the signature detached. Raises ``Invalid``."""
    argv = ["openssl", "smime", "-sign", "-md", digest, "-passin", f"env:{_UNLOCK}"]
    argv += ["-signer", str(signer.certificate), "-inkey", str(signer.key)]
    done = _run(argv, text, password=signer.password)
    if done.code != 0:
        raise Invalid(
            f"openssl cannot sign with {signer.key} and {signer.certificate}: {_complaint(done)}",
            hint="give the key that belongs to the certificate, and its password",
        )
    return done.stdout


# --- reading a message ---------------------------------------------------------------------------


def signature_of(message: bytes) -> bytes | None:
    """Give the signature of a message as DER; None when it is no S/MIME message."""
    done = _run(["openssl", "smime", "-pk7out"], message, hostile=True)
    found = _PEM.search(done.stdout) if done.code == 0 else None
    return der_of(found[0]) if found else None


def der_of(pem: bytes) -> bytes | None:
    """Give what a PEM block holds; None when it is damaged."""
    try:
        return base64.b64decode(b"".join(pem.strip().splitlines()[1:-1]), validate=True)
    except binascii.Error:
        return None


def signed(message: bytes) -> Signed | None:
    """Check that the signatures fit the text; None when they do not.

    Certificates are not looked at (``-noverify``): ``fault_of`` is for that.
    """
    argv = ["openssl", "smime", "-verify", "-noverify", *_NO_STORE]
    with _room() as room:
        place = _writable(room / "signers")
        done = _run([*argv, "-signer", str(place)], message, hostile=True)
        if done.code != 0:
            return None
        return Signed(text=done.stdout, signers=tuple(blocks(place.read_bytes(), "CERTIFICATE")))


def peek(message: bytes) -> bytes | None:
    """Give the text of a message without checking anything; None when it is no S/MIME message."""
    argv = ["openssl", "smime", "-verify", "-noverify", "-nosigs", *_NO_STORE]
    done = _run(argv, message, hostile=True)
    return done.stdout if done.code == 0 else None


# --- certificates --------------------------------------------------------------------------------


def blocks(data: bytes, what: str) -> Iterator[bytes]:
    """Give the PEM blocks of one kind."""
    for found in _PEM.finditer(data):
        if found["what"].decode() == what:
            yield found[0].strip() + b"\n"


@lru_cache(maxsize=512)
def certificate(pem: bytes) -> Certificate:
    """Read a certificate; raises ``Invalid`` when it is none."""
    wanted = ["-subject", "-issuer", "-serial", "-startdate", "-enddate"]
    wanted += ["-fingerprint", "-sha256", "-subject_hash", "-issuer_hash", "-pubkey"]
    argv = ["openssl", "x509", "-noout", *wanted, "-nameopt", NAME_OPTIONS]
    done = _run(argv, pem, hostile=True)
    if done.code != 0:
        raise Invalid(
            f"this is no certificate: {_complaint(done)}", hint="give a certificate in PEM form"
        )
    kind, bits = _key(b"".join(blocks(done.stdout, "PUBLIC KEY")))
    lines = done.stdout.decode("utf-8", "surrogateescape").splitlines()
    return Certificate(
        pem=pem,
        subject=parse_name(_below(lines, "subject=")),
        issuer=parse_name(_below(lines, "issuer=")),
        serial=_value(lines, "serial="),
        not_before=_date(_value(lines, "notBefore=")),
        not_after=_date(_value(lines, "notAfter=")),
        fingerprint=_value(lines, "sha256 Fingerprint=").replace(":", "").lower(),
        subject_hash=_hashes(lines)[0],
        issuer_hash=_hashes(lines)[1],
        key_kind=kind,
        key_bits=bits,
    )


def read_certificate(file: Path) -> Certificate:
    """Read the first certificate of a file, PEM or DER; raises ``Invalid``."""
    try:
        data = file.read_bytes()
    except OSError as error:
        raise Invalid(f"cannot read {file}: {error.strerror}") from error
    first = next(blocks(data, "CERTIFICATE"), None)
    return certificate(first or _to_pem(data, "x509", file))


def is_authority(pem: bytes) -> bool:
    """Tell whether a certificate says that it may issue others."""
    argv = ["openssl", "x509", "-noout", "-ext", "basicConstraints"]
    return b"CA:TRUE" in _run(argv, pem, hostile=True).stdout


def crls_of(data: bytes, file: Path) -> tuple[bytes, ...]:
    """Give the revocation lists of a file, PEM or DER, as PEM; raises ``Invalid``."""
    return tuple(blocks(data, "X509 CRL")) or (_to_pem(data, "crl", file),)


def crl_issuer(pem: bytes) -> str:
    """Give who issued a revocation list; empty when that cannot be read."""
    argv = ["openssl", "crl", "-noout", "-issuer", "-nameopt", NAME_OPTIONS]
    done = _run(argv, pem, hostile=True)
    lines = done.text().splitlines()
    return parse_name(_below(lines, "issuer=")).slash if done.code == 0 else ""


def _to_pem(data: bytes, what: str, file: Path) -> bytes:
    done = _run(["openssl", what, "-inform", "DER", "-outform", "PEM"], data, hostile=True)
    if done.code != 0:
        kind = {"x509": "certificate", "crl": "revocation list"}[what]
        raise Invalid(f"{file} is no {kind}", hint="give one in PEM or DER form")
    return done.stdout


def _key(pem: bytes) -> tuple[str, int]:
    done = _run(["openssl", "pkey", "-pubin", "-noout", "-text"], pem, hostile=True)
    text = done.text()
    bits = re.search(r"^(?:[A-Z0-9-]+ )?Public-Key: \((\d{1,6}) bit", text, re.MULTILINE)
    if bits:
        return ("RSA" if "Modulus:" in text else "EC" if "pub:" in text else "other"), int(bits[1])
    edwards = re.match(r"(ED25519|ED448) Public-Key:", text)
    return (edwards[1], 256) if edwards else ("unknown", 0)


def _below(lines: Sequence[str], key: str) -> list[str]:
    """Give the lines of a name: those that are indented, after the key."""
    try:
        start = lines.index(key) + 1
    except ValueError:
        return []
    end = next((at for at in range(start, len(lines)) if lines[at][:4] != "    "), len(lines))
    return list(lines[start:end])


def _value(lines: Sequence[str], key: str) -> str:
    return next((line.removeprefix(key) for line in lines if line.startswith(key)), "")


def _hashes(lines: Sequence[str]) -> tuple[str, str]:
    found = [line for line in lines if re.fullmatch(r"[0-9a-f]{8}", line)]
    return (found[0], found[1]) if len(found) == 2 else ("", "")


def _date(text: str) -> datetime:
    try:
        return datetime.strptime(text, _DATE).replace(tzinfo=UTC)
    except ValueError as error:
        raise Invalid(f"a certificate has a date that cannot be read: {text[:60]!r}") from error


# --- bare keys -----------------------------------------------------------------------------------


def public_key(data: bytes) -> tuple[bytes, str]:
    """Read a public key, PEM; gives it as openssl writes it, and its kind. Raises ``Invalid``."""
    pem = next(blocks(data, "PUBLIC KEY"), b"")
    done = _run(["openssl", "pkey", "-pubin", "-pubcheck", "-text"], pem, hostile=True)
    written = next(blocks(done.stdout, "PUBLIC KEY"), None) if done.code == 0 else None
    if written is None:
        raise Invalid("this is no public key", hint="give one in PEM form, such as cosign.pub")
    text = done.text()
    kind, bits = _key(written)
    if kind == "RSA" and 2048 <= bits <= 8192:
        return written, "RSA"
    if kind == "EC" and "prime256v1" in text:
        return written, "EC"
    if kind == "ED25519":
        return written, kind
    raise Invalid(f"a key of {kind} with {bits} bits signs no image", hint=_KEYS)


def fingerprint_of(pem: bytes) -> str:
    """Give the SHA-256 of what a PEM block holds, hexadecimal."""
    return hashlib.sha256(der_of(pem) or b"").hexdigest()


def fits(text: bytes, signature: bytes, key: bytes, kind: str) -> bool:
    """Tell whether a key of ``public_key`` has signed a text, as cosign does: with SHA-256."""
    with _room() as room:
        for name, data in {"text": text, "signature": signature, "key": key}.items():
            (room / name).write_bytes(data)
            (room / name).chmod(0o644)
        argv = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", str(room / "key"), "-rawin"]
        argv += [] if kind == "ED25519" else ["-digest", "sha256"]
        argv += ["-sigfile", str(room / "signature"), "-in", str(room / "text")]
        return _run(argv, b"", hostile=True).code == 0


# --- chains --------------------------------------------------------------------------------------


def fault_of(
    leaf: bytes,
    trusted: Sequence[bytes],
    *,
    crls: Sequence[bytes] = (),
    check: Check,
    at: datetime,
) -> Fault | None:
    """Check a certificate for signing messages against those that are trusted, and no others.

    None when all is well.
    """
    with _room() as room:
        files = {"leaf": leaf, "trusted": b"".join(trusted), "crls": b"".join(crls)}
        for name, data in files.items():
            (room / name).write_bytes(data)
            (room / name).chmod(0o644)
        argv = ["openssl", "verify", "-purpose", "smimesign", "-attime", str(int(at.timestamp()))]
        argv += ["-no-CApath", "-no-CAstore", "-CAfile", str(room / "trusted")]
        # 2: RSA of 2048 bits, no SHA-1. OpenSSL 3 has SHA-1 below 1, with all that is worse.
        argv += ["-auth_level", "0" if check.sha1 else "2"]
        argv += ["-partial_chain"] if check.pinned else []
        argv += ["-crl_check_all"] if check.crls else []
        argv += ["-CRLfile", str(room / "crls")] if crls else []
        done = _run([*argv, str(room / "leaf")], b"", hostile=True)
    return None if done.code == 0 else _fault(done)


def _fault(done: Finished) -> Fault:
    said = done.stderr.decode("utf-8", "replace")
    found = re.search(r"^error (\d{1,4}) at (\d{1,3}) depth lookup: (.*)$", said, re.MULTILINE)
    if found is None:
        return Fault(code=1, depth=0, words=_complaint(done))
    return Fault(code=int(found[1]), depth=int(found[2]), words=found[3])


# --- the program ---------------------------------------------------------------------------------


def _run(
    argv: Sequence[str], stdin: bytes, *, hostile: bool = False, password: str = ""
) -> Finished:
    # No OPENSSL_CONF, SSL_CERT_FILE and the like of whoever calls.
    prefix = guard(_FILE_MOST) if hostile else ()
    secret = {_UNLOCK: password} if not hostile else {}
    env = {**_CLEAN, **secret}
    return run([*prefix, *argv], timeout_s=TIMEOUT_S, stdin=stdin, env=env, check=False)


def _complaint(done: Finished) -> str:
    lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
    told = [line for line in lines if line and not re.match(r"[0-9A-F]{8,16}:error:", line)]
    return (told or lines or [f"exit status {done.code}"])[0][:200]


def _writable(file: Path) -> Path:
    """Make a file that openssl can write to, as whom it runs."""
    file.touch(mode=0o600)
    if os.geteuid() == 0:
        os.chown(file, NOBODY, NOBODY)
    return file


@contextmanager
def _room() -> Iterator[Path]:
    """Give a directory for openssl to read from; nothing in it is secret."""
    where = _reachable()
    try:
        with tempfile.TemporaryDirectory(prefix="mayfly-openssl-", dir=where) as name:
            room = Path(name)
            room.chmod(0o755)
            yield room
    except OSError as error:
        raise Failed(
            f"cannot write to {where}: {error.strerror}",
            hint="make room there, or set TMPDIR to another directory",
        ) from error


def _reachable() -> Path:
    """Give a temporary directory that openssl can reach as whom it runs.

    Root's own may be closed to all others, as pam_tmpdir makes it.
    """
    own = Path(tempfile.gettempdir()).resolve()
    if os.geteuid() != 0 or all(each.stat().st_mode & 0o001 for each in (own, *own.parents)):
        return own
    return Path("/var/tmp")  # noqa: S108  # made within it: a directory of a name of its own
