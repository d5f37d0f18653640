"""Signature Version 4, checked: who signed this request, and that it is the one signed.

Method: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html.
Both forms are read: the ``Authorization`` header, and an address with ``X-Amz-Signature`` in it.
Pure: whoever calls gives the time and the secret.
"""

from __future__ import annotations

import hashlib
import hmac
import posixpath
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

from mayfly.ec2.fault import Fault
from mayfly.ec2.query import parse_pairs

ALGORITHM = "AWS4-HMAC-SHA256"
SERVICE = "ec2"
SKEW_S = 300
"""How far the clocks of a client and of the site may be apart, and how long a signature holds."""
LONGEST_S = 7 * 86400
"""How long a signed address may be made to hold."""

_CREDENTIAL = re.compile(
    r"([A-Za-z0-9]{16,128})/([0-9]{8})/([a-z0-9-]{1,64})/([a-z0-9]+)/aws4_request"
)
_TIME = re.compile(r"([0-9]{8})T[0-9]{6}Z")
_HEADERS = re.compile(r"[a-z0-9-]{1,64}(;[a-z0-9-]{1,64}){0,63}")
_SIGNATURE = re.compile(r"[0-9a-f]{64}")
_ONCE = ("authorization", "host", "x-amz-date", "x-amz-content-sha256", "content-type")


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A request as it came."""

    method: str
    path: bytes
    """Still escaped."""
    query: bytes
    """Still escaped."""
    headers: tuple[tuple[str, str], ...]
    """Names in small letters, in the order in which they came."""
    body: bytes

    def header(self, name: str) -> str:
        """Give a header, empty where it is not there."""
        return next((value for key, value in self.headers if key == name), "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What a request says about its own signature; nothing of it is proved yet."""

    access_key: str
    day: str
    region: str
    service: str
    at: datetime
    signed: tuple[str, ...]
    """Names of the headers that are signed."""
    signature: str
    lasts_s: int | None
    """Of a signed address: how long it holds. None: the header form."""

    @property
    def scope(self) -> str:
        """Give what the signing key is made for."""
        return f"{self.day}/{self.region}/{self.service}/aws4_request"


def read_claim(request: Request) -> Claim:
    """Read who is said to have signed, and how.

    :raises Fault: no signature, two, a broken one, one of an older version
    """
    for name in _ONCE:
        if sum(key == name for key, _ in request.headers) > 1:
            raise _incomplete(f"the header {name} comes twice")
    if any(character in value for _, value in request.headers for character in "\r\n\0"):
        raise _incomplete("a header has a line end in it")
    pairs = parse_pairs(request.query, form=False)
    in_query = any(name.startswith("X-Amz-") for name, _ in pairs)
    header = request.header("authorization")
    if header and in_query:
        raise _incomplete("it is signed twice: in a header and in its address")
    if not header and not in_query:
        raise _unsigned(request, pairs)
    claim = _from_query(pairs) if in_query else _from_header(header, request)
    _check_signed(request, claim)
    return claim


def check_time(claim: Claim, now: datetime) -> None:
    """Refuse a request from another time.

    :raises Fault: it was signed too long ago, or in the future
    """
    lasts = timedelta(seconds=SKEW_S if claim.lasts_s is None else claim.lasts_s)
    if claim.at - now > timedelta(seconds=SKEW_S) or now - claim.at > lasts:
        said, here = claim.at.strftime("%H:%M:%S"), now.strftime("%Y-%m-%d %H:%M:%S")
        raise Fault(
            "RequestExpired", f"Request has expired: signed at {said}, now it is {here} UTC"
        )


def check_signature(request: Request, claim: Claim, secret: str) -> bool:
    """Tell whether this request was signed with this secret, in the same time either way."""
    expected = sign(request, claim, secret)
    return hmac.compare_digest(expected, claim.signature)


def sign(request: Request, claim: Claim, secret: str) -> str:
    """Give the signature that the request must have."""
    canonical = canonical_request(request, claim.signed)
    time = claim.at.strftime("%Y%m%dT%H%M%SZ")
    text = "\n".join([ALGORITHM, time, claim.scope, hashlib.sha256(canonical).hexdigest()])
    key = ("AWS4" + secret).encode()
    for part in (claim.day, claim.region, claim.service, "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return hmac.new(key, text.encode(), "sha256").hexdigest()


def canonical_request(request: Request, signed: Sequence[str]) -> bytes:
    """Give what is hashed and signed: the same text for every way of writing the same request."""
    lines = [request.method, _canonical_path(request.path), _canonical_query(request.query)]
    for name in signed:
        values = [" ".join(value.split()) for key, value in request.headers if key == name]
        lines.append(f"{name}:{','.join(values)}")
    lines += ["", ";".join(signed), hashlib.sha256(request.body).hexdigest()]
    return "\n".join(lines).encode("utf-8", "surrogateescape")


def _canonical_path(path: bytes) -> str:
    # The path is escaped a second time: so does every service but S3.
    plain = posixpath.normpath(path.decode("latin-1")) if path else "/"
    slash = "/" if path.endswith(b"/") and plain.strip("/") else ""
    return quote(("/" + plain.strip("/") + slash).encode("latin-1"), safe="/~")


def _canonical_query(query: bytes) -> str:
    pairs = [
        (quote(name, safe="~"), quote(value, safe="~"))
        for name, value in parse_pairs(query, form=False)
        if name != "X-Amz-Signature"
    ]
    return "&".join(f"{name}={value}" for name, value in sorted(pairs))


def _from_header(header: str, request: Request) -> Claim:
    algorithm, _, rest = header.partition(" ")
    if algorithm != ALGORITHM:
        raise _incomplete(f"only {ALGORITHM} is accepted")
    parts = [part.strip().partition("=") for part in rest.split(",")]
    fields = {name: value for name, _, value in parts}
    if len(parts) != 3 or fields.keys() != {"Credential", "SignedHeaders", "Signature"}:
        raise _incomplete("Authorization must have Credential, SignedHeaders and Signature")
    time = request.header("x-amz-date")
    return _claim(fields, time, None)


def _from_query(pairs: list[tuple[str, str]]) -> Claim:
    wanted = [(name, value) for name, value in pairs if name.startswith("X-Amz-")]
    fields = {name.removeprefix("X-Amz-"): value for name, value in wanted}
    names = {"Algorithm", "Credential", "Date", "Expires", "SignedHeaders", "Signature"}
    if len(fields) != len(wanted) or fields.keys() != names:
        listed = ", ".join(f"X-Amz-{name}" for name in sorted(names))
        raise _incomplete(f"a signed address has each of {listed} once, and no other")
    if fields["Algorithm"] != ALGORITHM:
        raise _incomplete(f"only {ALGORITHM} is accepted")
    lasts = fields["Expires"]
    if not re.fullmatch("[0-9]{1,6}", lasts) or not 1 <= int(lasts) <= LONGEST_S:
        raise _incomplete(f"X-Amz-Expires must be from 1 to {LONGEST_S}")
    return _claim(fields, fields["Date"], int(lasts))


def _claim(fields: dict[str, str], time: str, lasts_s: int | None) -> Claim:
    credential = _CREDENTIAL.fullmatch(fields["Credential"])
    if credential is None:
        raise _incomplete("Credential must be KEY/DAY/REGION/ec2/aws4_request")
    if not _SIGNATURE.fullmatch(fields["Signature"]):
        raise _incomplete("Signature must be 64 hexadecimal digits")
    signed = fields["SignedHeaders"].split(";")
    if not _HEADERS.fullmatch(fields["SignedHeaders"]) or sorted(set(signed)) != signed:
        raise _incomplete("SignedHeaders must be names in small letters, sorted, each once")
    access_key, day, region, service = credential.groups()
    at = _read_time(time)
    if service != SERVICE or at.strftime("%Y%m%d") != day:
        raise _incomplete(f"the scope must be of the day of X-Amz-Date and of {SERVICE}")
    return Claim(
        access_key=access_key,
        day=day,
        region=region,
        service=service,
        at=at,
        signed=tuple(signed),
        signature=fields["Signature"],
        lasts_s=lasts_s,
    )


def _read_time(text: str) -> datetime:
    try:
        if _TIME.fullmatch(text):
            return datetime.strptime(text, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        pass
    raise _incomplete("X-Amz-Date must be there, as 20260131T235900Z")


def _check_signed(request: Request, claim: Claim) -> None:
    present = {name for name, _ in request.headers}
    if "host" not in claim.signed or not set(claim.signed) <= present:
        raise _incomplete("host must be signed, and every signed header be there")
    loose = {name for name in present if name.startswith("x-amz-")} - set(claim.signed)
    if loose:
        raise _incomplete(f"the header {min(loose)} is not signed")
    if "x-amz-security-token" in present:
        raise Fault("AuthFailure", "session tokens are not issued here", status=401)
    told = request.header("x-amz-content-sha256")
    if told and not hmac.compare_digest(
        told.encode("latin-1"), hashlib.sha256(request.body).hexdigest().encode()
    ):
        raise _incomplete("x-amz-content-sha256 is not the hash of the body")


def _unsigned(request: Request, pairs: list[tuple[str, str]]) -> Fault:
    if {name for name, _ in pairs} & {"AWSAccessKeyId", "SignatureVersion"} or re.search(
        rb"(^|&)(AWSAccessKeyId|SignatureVersion)=", request.body
    ):
        return _incomplete("only Signature Version 4 is accepted")
    message = "Request is missing Authentication Token: it is not signed"
    return Fault("MissingAuthenticationToken", message, status=403)


def _incomplete(why: str) -> Fault:
    return Fault("IncompleteSignature", f"The signature cannot be checked: {why}")
