"""Nonsense, in signed requests and around them: refused in EC2's words, never a 5xx."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterable
from urllib.parse import urlencode

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mayfly.ec2.actions import ACTIONS
from mayfly.ec2.app import BODY_BYTES, App, Message
from mayfly.ec2.filters import like
from mayfly.ec2.query import Query, merge, parse_pairs
from mayfly.ec2.signature import Request
from tests.unit.ec2 import calls
from tests.unit.ec2.calls import EPOCH, Clock, parse, signed
from tests.unit.ec2.conftest import World

NAMES = st.sampled_from(
    [
        "AdditionalInfo", "AllRegions", "ClientToken", "DryRun", "Filter.1.Name",
        "Filter.1.Value.1",
        "Filter.99999.Name", "Force", "ImageId", "ImageId.1", "InstanceId", "InstanceId.1",
        "InstanceId.2", "InstanceType", "InstanceType.1", "KeyFormat", "KeyName", "KeyName.1",
        "KeyPairId", "KeyType",
        "MaxCount", "MaxResults", "MinCount", "NextToken", "Owner.1",
        "PublicKeyMaterial", "ResourceId.1", "Tag.1.Key", "Tag.1.Value",
        "TagSpecification.1.ResourceType", "TagSpecification.1.Tag.1.Key", "UserData", "Version",
        "InstanceId.01", "InstanceId.-1", "Filter..Name",
    ]
)  # fmt: skip
VALUES = st.one_of(
    st.text(max_size=40),
    st.sampled_from(
        ["true", "1", "5", "debian-12", "m1.small", "ed25519", "instance", "tag:a", "*", "name",
         "instance-id", "2016-11-15", "i-" + "0" * 17, "\\", "' OR 1=1 --", "../../x", "%00", "key"]
    ),
)  # fmt: skip
QUIET = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@QUIET
@given(st.sampled_from(sorted(ACTIONS)), st.dictionaries(NAMES, VALUES, max_size=8))
def test_no_parameters_break_an_action(world: World, action: str, values: dict[str, str]) -> None:
    if values.get("KeyType", "rsa") == "rsa" and action == "CreateKeyPair":
        values["KeyType"] = "ed25519"  # the other kind takes half a second each
    before = world.memory.instances("bob"), world.memory.tags("bob")
    response = world.alice.send({**values, "Action": action})
    assert response.status < 500, response.body
    parse(action, response)
    assert (world.memory.instances("bob"), world.memory.tags("bob")) == before


@QUIET
@given(st.binary(max_size=200))
def test_no_body_breaks_the_service(world: World, body: bytes) -> None:
    response = world.service.answer(signed(world.alice.issued, EPOCH, body))
    assert 400 <= response.status < 500, response.body


HEADERS = st.lists(
    st.tuples(
        st.sampled_from(["authorization", "host", "x-amz-date", "content-type", "x-amz-y"]),
        st.text(alphabet=st.characters(codec="utf-8"), max_size=60),
    ),
    max_size=5,
)


@QUIET
@given(st.sampled_from(["GET", "POST", "PUT"]), st.binary(max_size=60), HEADERS)
def test_no_unsigned_request_gets_in(
    world: World, method: str, query: bytes, headers: list[tuple[str, str]]
) -> None:
    request = Request(method=method, path=b"/", query=query, headers=tuple(headers), body=b"")
    response = world.service.answer(request)
    assert 400 <= response.status < 500, response.body


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"Action=DescribeRegions&Action=DescribeRegions", "MalformedQueryString"),
        (b"Action=%zz", "MalformedQueryString"),
        (b"Action=%ff", "MalformedQueryString"),
        (b"&" * 3000, "MalformedQueryString"),
        (b"a b=1", "MalformedQueryString"),
        (b"x" * 129 + b"=1", "MalformedQueryString"),
        (b"", "MissingAction"),
        (b"Action=", "MissingAction"),
        (b"Action=__class__", "InvalidAction"),
        (b"Action=RunInstances%0d%0aX:1", "InvalidAction"),
        (b"Action=DescribeRegions&Version=now", "InvalidParameterValue"),
        (b"Action=DescribeRegions&SubnetId=a", "UnknownParameter"),
        (
            b"Action=DescribeRegions&Filter.1.Name=colour&Filter.1.Value.1=a",
            "InvalidParameterValue",
        ),
        (b"Action=DescribeRegions&Filter.1.Name=endpoint", "InvalidParameterValue"),
        (b"Action=DescribeInstances&MaxResults=1", "InvalidParameterValue"),
    ],
)
def test_a_broken_request_has_its_code(world: World, body: bytes, expected: str) -> None:
    response = world.service.answer(signed(world.alice.issued, EPOCH, body))
    assert (response.status, calls.code(parse("DescribeRegions", response))) == (400, expected)


def test_a_parameter_both_in_the_address_and_the_body(world: World) -> None:
    body = b"Action=DescribeRegions"
    request = signed(world.alice.issued, EPOCH, body, calls.ADDRESS + "?Action=DescribeTags")
    assert b"comes twice" in world.service.answer(request).body


def test_too_many_members_and_filters(world: World) -> None:
    ids = {f"InstanceId.{n}": "i-00000000" for n in range(1, 1002)}
    response = world.alice.send({"Action": "StopInstances", **ids})
    assert b"more than 1000" in response.body
    filters = {f"Filter.{n}.Name": "image-id" for n in range(1, 52)}
    assert b"more than 50" in world.alice.send({"Action": "DescribeInstances", **filters}).body


# --- filters -------------------------------------------------------------------------------------

FEW = st.text(alphabet="ab*?\\.", max_size=12)


@given(FEW, FEW)
def test_a_pattern_matches_what_it_says(pattern: str, text: str) -> None:
    parts = re.findall(r"\\(?:.|$)|.", pattern)
    meaning = {"*": ".*", "?": "."}
    expression = "".join(
        meaning.get(part) or re.escape(part[1:] or part if part[0] == "\\" else part)
        for part in parts
    )
    assert like(pattern, text) == bool(re.fullmatch(expression, text, re.DOTALL))


def test_no_pattern_takes_long() -> None:
    started = time.process_time()
    assert not like("*a" * 120 + "b", "a" * 255)
    assert time.process_time() - started < 1


def test_lists_come_in_the_order_of_their_numbers() -> None:
    query = Query(merge(parse_pairs(b"A.10=c&A.2=b&A.1=a+%2B", form=True)))
    assert query.texts("A") == ("a +", "b", "c")
    query.finish()


# --- the edge ------------------------------------------------------------------------------------


def ask(app: App, messages: Iterable[Message], **scope: object) -> list[Message]:
    """Drive the application as a server would; when the messages end, nothing more comes."""
    sent: list[Message] = []
    waiting = iter(messages)

    async def receive() -> Message:
        message = next(waiting, None)
        return message if message is not None else await asyncio.get_running_loop().create_future()

    async def send(message: Message) -> None:
        sent.append(message)

    whole = {"type": "http", "method": "POST", "path": "/", "query_string": b"", "headers": []}
    asyncio.run(app({**whole, **scope}, receive, send))
    return sent


def app_of(world: World, body_s: float = 30.0) -> App:
    return App(world.service, body_s)


def test_a_huge_body_is_refused_before_it_is_read(world: World) -> None:
    length = [(b"content-length", str(BODY_BYTES + 1).encode())]
    assert ask(app_of(world), [], headers=length)[0]["status"] == 413
    for nonsense in (b"-1", b"x", b"9" * 400):
        sent = ask(app_of(world), [], headers=[(b"content-length", nonsense)])
        assert sent[0]["status"] == 413
    piece = {"type": "http.request", "body": b"a" * 65536, "more_body": True}
    assert ask(app_of(world), [dict(piece) for _ in range(5)])[0]["status"] == 413


def test_a_slow_body_is_given_up(world: World) -> None:
    piece: Message = {"type": "http.request", "body": b"a", "more_body": True}
    assert ask(app_of(world, 0.01), [piece])[0]["status"] == 408


def test_a_client_that_hangs_up_gets_nothing(world: World) -> None:
    assert ask(app_of(world), [{"type": "http.disconnect"}]) == []


def test_websockets_are_closed(world: World) -> None:
    assert ask(app_of(world), [], type="websocket") == [{"type": "websocket.close", "code": 1000}]


@pytest.mark.parametrize(
    ("scope", "status"),
    [
        ({"path": "/admin"}, 404),
        ({"raw_path": b"/ec2/../"}, 404),
        ({"method": "PUT"}, 405),
        ({"method": "HEAD"}, 405),
        ({"headers": [(b"content-type", b"text/xml")]}, 415),
        ({"headers": [(b"content-type", b"application/x-www-form-urlencoded")]}, 403),
    ],
)
def test_the_edge_refuses(world: World, scope: dict[str, object], status: int) -> None:
    body: Message = {"type": "http.request", "body": b"a=b"}
    first, second = ask(app_of(world), [body], **scope)
    assert first["status"] == status
    headers = dict(first["headers"])
    assert headers[b"x-amzn-requestid"]
    assert (second["body"] == b"") == (scope.get("method") == "HEAD")


def test_a_signed_request_passes_the_edge(world: World) -> None:
    body = urlencode({"Action": "DescribeRegions"}).encode()
    request = signed(world.alice.issued, EPOCH, body)
    headers = [(name.encode(), value.encode()) for name, value in request.headers]
    parts: list[Message] = [
        {"type": "http.request", "body": body[:5], "more_body": True},
        {"type": "http.request", "body": body[5:], "more_body": False},
    ]
    first, second = ask(app_of(world), parts, headers=headers, raw_path=b"/ec2/")
    assert (first["status"], b"regionInfo" in second["body"]) == (200, True)


def test_orders_at_the_limit_never_exceed_it() -> None:
    clock = Clock()
    made = calls.memory(clock, most=10)
    serving = calls.service(made, clock)
    client = calls.client(made, serving, clock)

    async def all_at_once() -> list[int]:
        asks = [
            asyncio.to_thread(
                client.send,
                {"Action": "RunInstances", "ImageId": "el9", "MinCount": "1", "MaxCount": "1",
                 "ClientToken": str(number)},
            )
            for number in range(60)
        ]  # fmt: skip
        return [each.status for each in await asyncio.gather(*asks)]

    statuses = asyncio.run(all_at_once())
    assert (statuses.count(200), statuses.count(400)) == (10, 50)
    assert len(made.instances("alice")) == 10
