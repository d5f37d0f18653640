"""Signatures: AWS's published examples, and everything that must not pass for one."""

from __future__ import annotations

import base64
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlencode, urlsplit

import pytest
from botocore.auth import SigV4QueryAuth  # type: ignore[import-untyped]
from botocore.awsrequest import AWSRequest  # type: ignore[import-untyped]
from botocore.credentials import Credentials as Keys  # type: ignore[import-untyped]

from mayfly.ec2.credentials import Vault, read_key_file, write_key_file
from mayfly.ec2.fault import Fault
from mayfly.ec2.signature import Claim, Request, canonical_request, read_claim, sign
from mayfly.errors import Denied, Failed, Missing
from tests.unit.ec2.calls import ADDRESS, EPOCH, VAULT, parse, signed
from tests.unit.ec2.conftest import World

# AWS's own test suite for Signature Version 4: its key, its time, its signatures.
SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
SUITE: list[tuple[str, bytes, list[tuple[str, str]], bytes, str]] = [
    ("GET", b"/", [], b"", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),
    (
        "GET",
        b"/-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz",
        [],
        b"",
        "07ef7494c76fa4850883e2b006601f940f8a34d404d0cfa977f52a65bbf5f24f",
    ),
    (
        "GET",
        b"//example//",
        [],
        b"",
        "9a624bd73a37c9a373b5312afbebe7a714a789de108f0bdfe846570885f57e84",
    ),
    (
        "GET",
        b"/?Param2=value2&Param1=value1",
        [],
        b"",
        "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
    ),
    (
        "GET",
        b"/?Param1=value2&Param1=value1",
        [],
        b"",
        "5772eed61e12b33fae39ee5e7012498b51d56abc0abb7c60486157bd471c4694",
    ),
    (
        "GET",
        "/?\u1234=bar".encode(),
        [],
        b"",
        "2cdec8eed098649ff3a119c94853b13c643bcf08f8b0a1d91e12c9027818dd04",
    ),
    (
        "GET",
        b"/",
        [("my-header1", value) for value in ("value4", "value1", "value3", "value2")],
        b"",
        "08c7e5a9acfcfeb3ab6b2185e75ce8b1deb5e634ec47601a50643f830c755c01",
    ),
    (
        "GET",
        b"/",
        [("my-header1", " value1"), ("my-header2", '"a   b   c"')],
        b"",
        "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736",
    ),
    (
        "POST",
        b"/",
        [("content-type", "application/x-www-form-urlencoded")],
        b"Param1=value1",
        "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a",
    ),
]


@pytest.mark.parametrize(("method", "target", "headers", "body", "expected"), SUITE)
def test_published_signatures(
    method: str, target: bytes, headers: list[tuple[str, str]], body: bytes, expected: str
) -> None:
    path, _, query = target.partition(b"?")
    every = [("host", "example.amazonaws.com"), ("x-amz-date", "20150830T123600Z"), *headers]
    request = Request(method=method, path=path, query=query, headers=tuple(every), body=body)
    claim = Claim(
        access_key="AKIDEXAMPLE",
        day="20150830",
        region="us-east-1",
        service="service",
        at=datetime(2015, 8, 30, 12, 36, tzinfo=UTC),
        signed=tuple(sorted({name for name, _ in every})),
        signature="",
        lasts_s=None,
    )
    assert sign(request, claim, SECRET) == expected


BODY = urlencode({"Action": "DescribeRegions", "Version": "2016-11-15"}).encode()


def good(world: World, at: datetime = EPOCH) -> Request:
    return signed(world.alice.issued, at, BODY)


def answer(world: World, request: Request) -> tuple[int, str]:
    response = world.service.answer(request)
    parsed = parse("DescribeRegions", response)
    return response.status, str(parsed.get("Error", {}).get("Code", ""))


def header(request: Request, name: str, value: str) -> Request:
    rest = tuple(pair for pair in request.headers if pair[0] != name)
    return replace(request, headers=(*rest, (name, value)))


def test_a_signed_request_passes(world: World) -> None:
    assert answer(world, good(world)) == (200, "")


@pytest.mark.parametrize("seconds", [-301, 301, 86400, -86400])
def test_a_request_of_another_time_is_refused(world: World, seconds: int) -> None:
    request = good(world, EPOCH + timedelta(seconds=seconds))
    assert answer(world, request) == (400, "RequestExpired")


@pytest.mark.parametrize("seconds", [-299, 299])
def test_clocks_may_differ_a_little(world: World, seconds: int) -> None:
    assert answer(world, good(world, EPOCH + timedelta(seconds=seconds))) == (200, "")


def test_a_replay_is_refused_once_its_time_is_over(world: World) -> None:
    request = good(world)
    world.clock.move(299)
    assert answer(world, request) == (200, "")
    world.clock.move(2)
    assert answer(world, request) == (400, "RequestExpired")


def test_whatever_is_changed_breaks_the_signature(world: World) -> None:
    request = good(world)
    changed = [
        replace(request, body=BODY.replace(b"Regions", b"Instances")),
        replace(request, query=b"InstanceId.1=i-1"),
        replace(request, path=b"/"),
        header(request, "host", "other.example"),
        header(request, "content-type", "application/x-www-form-urlencoded"),
        header(request, "x-amz-date", "20261130T120001Z"),
        header(
            request, "authorization", request.header("authorization").replace("us-east-1", "moon")
        ),
    ]
    for each in changed:
        assert answer(world, each) == (401, "AuthFailure"), each


def test_a_strangers_key_and_a_wrong_secret_look_the_same(world: World) -> None:
    stranger = VAULT.issue("mallory", EPOCH)
    wrong = replace(world.alice.issued, secret=stranger.secret)
    answers = [world.service.answer(signed(each, EPOCH, BODY)) for each in (stranger, wrong)]
    first, second = (each.body.replace(each.request.encode(), b"") for each in answers)
    assert first == second
    assert answers[0].status == 401


def authorization(world: World, **parts: str) -> str:
    key = world.alice.issued.credential.access_key
    fields = {
        "algorithm": "AWS4-HMAC-SHA256",
        "credential": f"{key}/20261130/us-east-1/ec2/aws4_request",
        "headers": "content-type;host;x-amz-date",
        "signature": "0" * 64,
        **parts,
    }
    return (
        f"{fields['algorithm']} Credential={fields['credential']}, "
        f"SignedHeaders={fields['headers']}, Signature={fields['signature']}"
    )


BROKEN = [
    {"algorithm": "AWS4-HMAC-SHA1"},
    {"algorithm": "Bearer"},
    {"credential": "a/b/c"},
    {"credential": "MFKAAAAAAAAAAAAAAAAA/20261129/us-east-1/ec2/aws4_request"},
    {"credential": "MFKAAAAAAAAAAAAAAAAA/20261130/us-east-1/s3/aws4_request"},
    {"credential": "../../../../etc/passwd/20261130/us-east-1/ec2/aws4_request"},
    {"headers": "content-type;x-amz-date"},
    {"headers": "host;content-type;x-amz-date"},
    {"headers": "host;host;x-amz-date"},
    {"headers": "Host;x-amz-date"},
    {"headers": "host"},
    {"headers": "host;nowhere;x-amz-date"},
    {"headers": ""},
    {"signature": "0" * 63},
    {"signature": "Z" * 64},
    {"signature": "0" * 64 + ", Signature=" + "0" * 64},
    {"signature": "\u0660" * 64},
]


@pytest.mark.parametrize("parts", BROKEN, ids=str)
def test_a_broken_signature_is_refused(world: World, parts: dict[str, str]) -> None:
    request = header(good(world), "authorization", authorization(world, **parts))
    assert answer(world, request) == (400, "IncompleteSignature")


def test_loose_and_doubled_headers_are_refused(world: World) -> None:
    request = good(world)
    more = [
        ("x-amz-target", "unsigned"),
        ("host", "site.example:8080"),
        ("x-amz-date", request.header("x-amz-date")),
        ("authorization", request.header("authorization")),
        ("x-other", "a\nhost:evil"),
        ("x-amz-content-sha256", "UNSIGNED-PAYLOAD"),
    ]
    for each in more:
        bad = replace(request, headers=(*request.headers, each))
        assert answer(world, bad) == (400, "IncompleteSignature"), each


def test_no_signature_and_an_old_one(world: World) -> None:
    bare = replace(good(world), headers=(("host", "h"),), body=b"")
    assert answer(world, bare) == (403, "MissingAuthenticationToken")
    old = replace(bare, method="GET", query=b"AWSAccessKeyId=MFKA&SignatureVersion=2&Signature=x")
    assert answer(world, old) == (400, "IncompleteSignature")
    form = (("host", "h"), ("content-type", "application/x-www-form-urlencoded"))
    old_body = replace(bare, headers=form, body=b"Action=X&SignatureVersion=2&AWSAccessKeyId=A")
    assert answer(world, old_body) == (400, "IncompleteSignature")
    token = replace(good(world), headers=(*good(world).headers, ("x-amz-security-token", "token")))
    assert answer(world, token) == (400, "IncompleteSignature")


def presigned(world: World, expires: int = 60, method: str = "GET") -> Request:
    """Make a signed address the way botocore does; it signs for the present moment."""
    issued = world.alice.issued
    address = f"{ADDRESS}?Action=DescribeRegions&Version=2016-11-15&Filter.1.Name=region-name"
    request = AWSRequest(method=method, url=f"{address}&Filter.1.Value.1=s%2B%20*", headers={})
    keys = Keys(issued.credential.access_key, issued.secret)
    SigV4QueryAuth(keys, "ec2", "us-east-1", expires=expires).add_auth(request)
    parts = urlsplit(request.url)
    headers = (("host", parts.netloc),)
    path, query = parts.path.encode(), parts.query.encode()
    return Request(method=method, path=path, query=query, headers=headers, body=b"")


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_signed_address(world: World, method: str) -> None:
    request = presigned(world, method=method)
    world.clock.now = read_claim(request).at
    assert answer(world, request) == (200, "")
    world.clock.move(59)
    assert answer(world, request) == (200, "")
    world.clock.move(2)
    assert answer(world, request) == (400, "RequestExpired")
    world.clock.move(-400)
    assert answer(world, request) == (400, "RequestExpired")


def test_a_signed_address_that_was_changed(world: World) -> None:
    request = presigned(world)
    world.clock.now = read_claim(request).at
    query = request.query
    for changed in (
        query.replace(b"X-Amz-Expires=60", b"X-Amz-Expires=600"),
        query + b"&MaxResults=5",
        query.replace(b"s%2B", b"s%20"),
        query.replace(b"Filter.1.Name=region-name&", b""),
    ):
        assert answer(world, replace(request, query=changed)) == (401, "AuthFailure"), changed
    for broken in (
        query + b"&X-Amz-Expires=60",
        query + b"&X-Amz-Signature=" + b"0" * 64,
        query.replace(b"X-Amz-Expires=60", b"X-Amz-Expires=604801"),
        query.replace(b"X-Amz-Expires=60", b"X-Amz-Expires=0"),
        query.replace(b"X-Amz-Expires=60&", b""),
        query + b"&X-Amz-Security-Token=a",
    ):
        refused = answer(world, replace(request, query=broken))
        assert refused == (400, "IncompleteSignature"), broken
    twice = header(request, "authorization", good(world).header("authorization"))
    assert answer(world, twice) == (400, "IncompleteSignature")


def test_a_plus_in_an_address_is_no_space(world: World) -> None:
    request = replace(good(world), query=b"a=b+c")
    assert b"a=b%2Bc" in canonical_request(request, ["host"])


# --- the secrets ---------------------------------------------------------------------------------


def test_a_secret_opens_with_its_own_key_and_record_only() -> None:
    issued = VAULT.issue("alice", EPOCH)
    record = issued.credential
    assert VAULT.open(record) == issued.secret
    assert issued.secret.encode() not in record.sealed
    assert issued.secret not in repr(issued)
    other = VAULT.issue("bob", EPOCH).credential
    for wrong in (
        replace(record, owner="bob"),
        replace(record, access_key=other.access_key),
        replace(record, sealed=other.sealed),
        replace(record, sealed=record.sealed[:-1]),
        replace(record, sealed=b"\x02" + record.sealed[1:]),
        replace(record, sealed=b""),
    ):
        with pytest.raises(Failed, match="fits no key"):
            VAULT.open(wrong)
    with pytest.raises(Failed):
        Vault(bytes(32)).open(record)


def test_the_key_file(tmp_path: Path) -> None:
    path = tmp_path / "ec2.key"
    with pytest.raises(Missing, match="no key file"):
        read_key_file(path)
    write_key_file(path)
    key = read_key_file(path)
    assert (len(key), path.stat().st_mode & 0o777) == (32, 0o600)
    write_key_file(path)
    assert read_key_file(path) == key, "one that is there stays"
    assert list(tmp_path.iterdir()) == [path]
    path.chmod(0o640)
    with pytest.raises(Denied, match="others may read"):
        read_key_file(path)
    path.chmod(0o600)
    for text in (b"", b"%", base64.b64encode(b"short")):
        path.write_bytes(text)
        with pytest.raises(Failed, match="32 bytes"):
            read_key_file(path)


def test_a_lost_key_file_is_the_sites_fault(world: World) -> None:
    serving = replace(world.service, vault=Vault(bytes(32)))
    response = serving.answer(good(world))
    assert response.status == 500
    assert b"MFKA" not in response.body


def test_a_claim_needs_a_real_date(world: World) -> None:
    request = header(good(world), "x-amz-date", "20261399T000000Z")
    with pytest.raises(Fault, match="X-Amz-Date"):
        read_claim(request)
