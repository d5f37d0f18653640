"""Certificates, keys and revocation lists for tests, made by the real ``openssl ca``."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from mayfly.images.lists.openssl import Signer

NOW = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1)
"""The time in tests: later than now, so that authorities made meanwhile are valid."""
DAY = timedelta(days=1)
SPACE = "/C=DE/O=Mayfly Test"

_CONFIG = """
[ca]
default_ca = this
[this]
dir = {directory}
database = $dir/index.txt
new_certs_dir = $dir
serial = $dir/serial
crlnumber = $dir/crlnumber
certificate = $dir/ca.pem
private_key = $dir/ca.key
default_md = sha256
default_days = 100
default_crl_days = 30
unique_subject = no
policy = any
copy_extensions = none
string_mask = utf8only
[any]
countryName = optional
organizationName = optional
organizationalUnitName = optional
commonName = optional
emailAddress = optional
domainComponent = optional
[req]
distinguished_name = none
string_mask = utf8only
[none]
[authority]
basicConstraints = critical,CA:TRUE
keyUsage = critical,keyCertSign,cRLSign
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
[person]
basicConstraints = CA:FALSE
keyUsage = critical,digitalSignature
extendedKeyUsage = emailProtection,clientAuth
[host]
basicConstraints = CA:FALSE
keyUsage = critical,digitalSignature
extendedKeyUsage = serverAuth,clientAuth
[cipher]
basicConstraints = CA:FALSE
keyUsage = critical,keyEncipherment
"""


def openssl(*words: object, stdin: bytes = b"") -> bytes:
    """Run openssl and give what it prints."""
    argv = ["openssl", *map(str, words)]
    done = subprocess.run(argv, input=stdin, capture_output=True, check=False, timeout=60)
    assert done.returncode == 0, f"{argv}: {done.stderr.decode()}"
    return done.stdout


def stamp(moment: datetime) -> str:
    """Give a time as ``openssl ca`` wants it."""
    return moment.strftime("%Y%m%d%H%M%SZ")


def make_key(place: Path, kind: str = "P-256") -> Path:
    """Make a private key: ``P-256``, or ``rsa:BITS``."""
    if kind.startswith("rsa:"):
        options = ("-algorithm", "RSA", "-pkeyopt", f"rsa_keygen_bits:{kind[4:]}")
    else:
        options = ("-algorithm", "EC", "-pkeyopt", f"ec_paramgen_curve:{kind}")
    openssl("genpkey", *options, "-out", place)
    return place


def make_self_signed(directory: Path, name: str, subject: str, kind: str = "P-256") -> Signer:
    """Make a key that no authority speaks for."""
    directory.mkdir(parents=True, exist_ok=True)
    key = make_key(directory / f"{name}.key", kind)
    place = directory / f"{name}.pem"
    openssl(
        *("req", "-x509", "-new", "-key", key, "-utf8", "-subj", subject, "-days", 50),
        *("-out", place, "-addext", "basicConstraints=critical,CA:FALSE"),
        *("-addext", "keyUsage=critical,digitalSignature"),
    )
    return Signer(key=key, certificate=place)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ca:
    """An authority of its own."""

    directory: Path
    subject: str

    @property
    def certificate(self) -> Path:
        """Give the file of its certificate."""
        return self.directory / "ca.pem"

    def issue(
        self,
        name: str,
        subject: str = "",
        *,
        section: str = "person",
        kind: str = "P-256",
        start: datetime = NOW - DAY,
        end: datetime = NOW + 90 * DAY,
    ) -> Signer:
        """Issue a certificate, signed with SHA-256."""
        key = make_key(self.directory / f"{name}.key", kind)
        self.sign(name, subject or f"{SPACE}/CN={name}", section, start=start, end=end)
        return Signer(key=key, certificate=self.directory / f"{name}.pem")

    def sign(
        self,
        name: str,
        subject: str,
        section: str,
        *,
        start: datetime = NOW - DAY,
        end: datetime = NOW + 90 * DAY,
        digest: str = "sha256",
    ) -> Path:
        """Sign the request of a key that is there."""
        place = self.directory / f"{name}.pem"
        config = ("-config", self.directory / "ca.cnf")
        request = openssl(
            *("req", "-new", "-utf8", *config, "-key", self.directory / f"{name}.key"),
            *("-subj", subject),
        )
        openssl(
            *("ca", "-batch", "-notext", "-preserveDN", *config, "-extensions", section),
            *("-startdate", stamp(start), "-enddate", stamp(end), "-md", digest),
            *("-in", "/dev/stdin", "-out", place),
            stdin=request,
        )
        return place

    def below(self, name: str, subject: str) -> Ca:
        """Make an authority whose certificate this one issues."""
        made = _prepare(self.directory.parent / name, subject)
        shutil.copy(make_key(made.directory / "ca.key"), self.directory / f"{name}.key")
        shutil.copy(self.sign(name, subject, "authority"), made.certificate)
        return made

    def revoke(self, signer: Signer) -> None:
        """Revoke a certificate; the next revocation list has it."""
        openssl("ca", "-config", self.directory / "ca.cnf", "-revoke", signer.certificate)

    def crl(
        self, *, last: datetime = NOW - timedelta(hours=1), following: datetime = NOW + 20 * DAY
    ) -> bytes:
        """Make a revocation list."""
        return openssl(
            *("ca", "-config", self.directory / "ca.cnf", "-gencrl"),
            *("-crl_lastupdate", stamp(last), "-crl_nextupdate", stamp(following)),
        )

    def hash(self) -> str:
        """Give the name that its files have in a grid's directory."""
        return openssl("x509", "-noout", "-subject_hash", "-in", self.certificate).decode().strip()

    def install(
        self,
        grid: Path,
        *,
        crl: bytes | None = None,
        space: str = f"{SPACE}/*",
        policy: bool = True,
    ) -> None:
        """Put its files into a grid's directory; ``crl``: that one, and none when it is empty."""
        grid.mkdir(exist_ok=True)
        name = self.hash()
        shutil.copy(self.certificate, grid / f"{name}.0")
        text = self.crl() if crl is None else crl
        if text:
            (grid / f"{name}.r0").write_bytes(text)
        if policy:
            (grid / f"{name}.signing_policy").write_text(
                f"# What {self.subject} may sign.\n"
                f"access_id_CA   X509   '{self.subject}'\n"
                "pos_rights     globus CA:sign\n"
                f"cond_subjects  globus '\"{space}\"'\n"
            )


def make_ca(directory: Path, subject: str, kind: str = "P-256") -> Ca:
    """Make an authority that signs itself."""
    made = _prepare(directory, subject)
    make_key(directory / "ca.key", kind)
    openssl(
        *("req", "-x509", "-new", "-utf8", "-config", directory / "ca.cnf"),
        *("-extensions", "authority", "-key", directory / "ca.key", "-subj", subject),
        *("-days", 1000, "-out", made.certificate),
    )
    return made


def _prepare(directory: Path, subject: str) -> Ca:
    directory.mkdir(parents=True)
    (directory / "ca.cnf").write_text(_CONFIG.format(directory=directory))
    (directory / "index.txt").touch()
    (directory / "serial").write_text("1000\n")
    (directory / "crlnumber").write_text("01\n")
    return Ca(directory=directory, subject=subject)
