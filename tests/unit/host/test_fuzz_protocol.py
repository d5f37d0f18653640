"""Whatever comes through the socket, the service answers, goes on, and keeps nothing of it."""

from __future__ import annotations

import json
import os
import socket
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from mayfly.errors import Failed, Invalid, Missing
from mayfly.host import protocol
from mayfly.host.verbs import VERBS
from tests.unit.host.services import ALICE, BOB, ROOT, Asked, Desk, claim_fields, desk, refused

__all__ = ["desk"]

on_one_desk = settings(
    max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=50)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=12,
)
NAMES = (
    *("image", "cpus", "memory_mib", "network", "allow", "shares", "wait", "outlive", "life_s"),
    *("label", "job", "machine", "log", "point", "outcome", "keep", "right", "count", "disk_mib"),
)
AN_END = ("ok", "error")
DEEPER_THAN_WRITTEN = [protocol.NESTING, 100, 900, *range(975, 1000), 5000, 30_000]


def assert_goes_on(desk: Desk) -> None:
    """Somebody else is answered."""
    other = desk.connect(BOB)
    assert other.ask("status")["version"]
    other.close()
    desk.settle()


def ends(client: Asked) -> list[dict[str, Any]]:
    """Let the service work, and give the answers that a client got, none of which is a fault."""
    client.desk.settle()
    found = client.of(*AN_END)
    client.told.clear()
    assert not [one for one in found if "fault" in one.get("message", "")], found
    return found


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def nested(depth: int, opening: str, closing: str) -> str:
    return opening * depth + "1" + closing * depth


def is_object(packet: bytes) -> bool:
    try:
        return isinstance(json.loads(packet), dict)
    except (ValueError, RecursionError):
        return False


# --- packets -------------------------------------------------------------------------------------


@on_one_desk
@given(packets=st.lists(st.binary(min_size=1, max_size=300), min_size=1, max_size=3))
@example(packets=[b"\xff\xfe{"])
@example(packets=[b'{"v": 1', b"}"])
@example(packets=[b"1" * 5000])
@example(packets=[b'["v", 1]'])
def test_what_is_no_request_is_refused_and_the_connection_ended(
    desk: Desk, packets: list[bytes]
) -> None:
    # Chance finds {} now and then: a request, and one that is answered.
    assume(not any(is_object(packet) for packet in packets))
    client = desk.connect(ALICE)
    for packet in packets:
        client.raw(packet)
    answers = ends(client)
    assert [one["kind"] for one in answers] == ["Invalid"]
    assert client.is_closed()
    client.close()
    assert_goes_on(desk)


def test_a_packet_that_is_too_long_is_refused(desk: Desk) -> None:
    client = desk.connect(ALICE)
    client.raw(b'{"v":1,"op":"status","x":"' + b"x" * protocol.PACKET_BYTES + b'"}')
    (answer,) = ends(client)
    assert answer["kind"] == "Invalid"
    assert client.is_closed()


def test_an_empty_packet_is_an_end(desk: Desk) -> None:
    client = desk.connect(ALICE)
    client.raw(b"")
    desk.settle()
    assert client.is_closed()
    assert_goes_on(desk)


@pytest.mark.parametrize("depth", DEEPER_THAN_WRITTEN)
@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
def test_no_depth_is_too_deep_to_be_refused(
    desk: Desk, depth: int, opening: str, closing: str
) -> None:
    if depth * (len(opening) + len(closing)) > protocol.PACKET_BYTES - 200:
        depth //= 4
    for field in ("v", "op", "label", "outcome", "log"):
        client = desk.connect(ALICE)
        text = json.dumps({"v": 1, "op": "release", field: "HERE"})
        client.raw(text.replace('"HERE"', nested(depth, opening, closing)).encode())
        (answer,) = ends(client)
        assert answer["kind"] == "Invalid"
        client.close()
    assert_goes_on(desk)


@pytest.mark.parametrize("count", [1, protocol.PACKET_FDS, protocol.PACKET_FDS + 1, 200])
def test_descriptors_that_come_along_are_closed(desk: Desk, count: int) -> None:
    client = desk.connect(ALICE)
    before = descriptors()
    null = os.open("/dev/null", os.O_RDONLY)
    client.raw(b'{"v":1,"op":"status"}', (null,) * count)
    os.close(null)
    desk.settle()
    # The service's end of the connection may be closed, too.
    assert descriptors() in (before, before - 1)
    assert_goes_on(desk)


# --- requests ------------------------------------------------------------------------------------


@on_one_desk
@given(
    uid=st.sampled_from([ALICE, ROOT]),
    op=st.sampled_from(sorted(VERBS)),
    fields=st.dictionaries(st.sampled_from(NAMES), values, max_size=6),
)
@example(uid=ALICE, op="claim", fields={**claim_fields(), "label": ["a"]})
@example(uid=ALICE, op="claim", fields={**claim_fields(), "life_s": float("nan")})
@example(uid=ALICE, op="claim", fields={**claim_fields(image="../debian-12")})
@example(uid=ALICE, op="claim", fields={**claim_fields(job="../../etc/passwd")})
@example(uid=ALICE, op="claim", fields={**claim_fields(memory_mib=1 << 62)})
@example(uid=ALICE, op="logs", fields={"machine": "..", "log": "owner.json"})
@example(uid=ALICE, op="logs", fields={"machine": "abcdefgh", "log": "../../x"})
@example(uid=ROOT, op="logs", fields={"machine": "../rights"})
@example(uid=ROOT, op="register", fields={"right": {"key": "../../a"}})
@example(uid=ROOT, op="unregister", fields={"job": "../../../etc/passwd"})
def test_a_request_of_any_shape_has_one_answer(
    desk: Desk, uid: int, op: str, fields: dict[str, Any]
) -> None:
    desk.limit(machines=-1)  # None fits: a claim that is well formed is refused, not fulfilled.
    client = desk.connect(uid)
    client.send(op, **{**fields, "wait": False})
    desk.until(lambda: client.of(*AN_END) != [], f"an answer to {op}")
    assert len(ends(client)) == 1
    client.close()
    desk.service.draining = False
    assert_goes_on(desk)


@pytest.mark.parametrize("label", [None, 5, ["a"], {"a": "b"}])
def test_a_label_is_a_text(desk: Desk, label: object) -> None:
    assert isinstance(refused(lambda: desk.connect(ALICE).claim(label=label)), Invalid)


@pytest.mark.parametrize("op", [None, 1, ["status"], {}, "STATUS", "status\0", "x" * 60_000])
def test_an_unknown_request_is_told_the_version(desk: Desk, op: object) -> None:
    client = desk.connect(ALICE)
    client.raw(json.dumps({"v": 1, "op": op}).encode())
    (answer,) = ends(client)
    assert (answer["kind"], "knows no request" in answer["message"]) == ("Invalid", True)
    assert client.ask("status")


@pytest.mark.parametrize("op", sorted(name for name, verb in VERBS.items() if verb.root_only))
def test_a_user_is_refused_what_is_for_root(desk: Desk, op: str) -> None:
    error = refused(lambda: desk.connect(ALICE).ask(op, image="debian-12", job="a/b/c"))
    assert "for root only" in error.message


def test_what_a_user_says_of_itself_counts_for_nothing(desk: Desk) -> None:
    client = desk.connect(ALICE)
    name = client.claim(uid=ROOT, gid=ROOT, user="root", owner=BOB, pid=1, client=1)["machine"]
    assert desk.only().record.owner == ALICE
    other = desk.connect(BOB)
    assert isinstance(refused(lambda: other.ask("show", machine=name, uid=ALICE)), Missing)


def test_a_request_is_answered_though_others_come_before_it_is(desk: Desk) -> None:
    holder = desk.connect(ALICE)
    holder.claim()
    desk.limit(machines=1)
    client = desk.connect(ALICE)
    client.send("claim", **claim_fields())
    for _ in range(3):
        client.send("claim", **claim_fields())
        client.send("nonsense")
    desk.until(lambda: len(client.of("error")) == 6, "six refusals")
    assert len(desk.service.line) == 1
    assert [one["kind"] for one in client.of("error")] == ["Conflict", "Invalid"] * 3
    assert all(one.is_idle is False for one in desk.service.callers)
    client.told.clear()
    holder.close()
    assert client.answer()["machine"]


# --- answers fit into packets --------------------------------------------------------------------


@given(message=st.text(alphabet='\U0001f600\0\x1b"a', max_size=6000), hint=st.text(max_size=3000))
@example(message="\U0001f600" * 6000, hint="\U0001f600" * 6000)
def test_every_error_fits_into_a_packet(message: str, hint: str) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        protocol.send(ours, protocol.error_message(Failed(message, hint=hint)))
        got = protocol.receive(theirs)
    assert got is not None
    assert protocol.error_of(got[0]).message == message[:2000]


def test_long_labels_and_lists_keep_nobody_from_seeing_the_machines(desk: Desk) -> None:
    entries = [f"host{number}.example.org:443" for number in range(200)]
    mine = []
    for number in range(12):
        label = "\U0001f600\0" * 100 if number % 2 else "\ud800" * 200
        client = desk.connect(ALICE)
        made = client.claim(label=label, network="none", outlive=True, allow=[])
        mine.append(made["machine"])
    for hosted in desk.service.table:
        hosted.record = with_hosts(hosted.record, entries)
    root = desk.connect(ROOT)
    root.ask("list")
    # It is in several packets by now.
    root.told.clear()
    root.send("list")
    desk.settle()
    packets = root.of("items")
    assert len(packets) > 1
    assert sorted(one["id"] for packet in packets for one in packet["items"]) == sorted(mine)
    assert desk.connect(ALICE).ask("show", machine=mine[0])["machine"]["allow"] == entries


def with_hosts(record: Any, entries: list[str]) -> Any:
    """Give the record with a long list of hosts."""
    return replace(record, allow=tuple(entries))


@pytest.mark.parametrize("sign", ["\x1b", "\U0001f600", "\ufffd", '"', "a"])
def test_a_log_of_whatever_signs_can_be_read(desk: Desk, sign: str) -> None:
    logs = desk.service.logs
    assert logs.begin("abcdefgh", ALICE, image="i", now=1.0) == ""
    # More than a log may be.
    text = (sign * 99 + "\n") * 8000
    assert logs.console("abcdefgh", text.encode()) == ""
    client = desk.connect(ALICE)
    client.send("logs", machine="abcdefgh")
    desk.until(lambda: client.of(*AN_END) != [], "the log")
    assert client.of("ok")
    heard = "".join(one["text"] for part in client.of("items") for one in part["items"])
    assert heard == logs.read("abcdefgh", ALICE)
    assert len(heard.encode()) > 700_000


def test_whose_log_it_is_is_told_to_nobody_else(desk: Desk) -> None:
    assert desk.service.logs.begin("abcdefgh", ALICE, image="i", now=1.0) == ""
    theirs = refused(lambda: desk.connect(BOB).ask("logs", machine="abcdefgh"))
    nobodys = refused(lambda: desk.connect(BOB).ask("logs", machine="hgfedcba"))
    assert (type(theirs), type(nobodys)) == (Missing, Missing)


@pytest.mark.parametrize("field", ["allow", "label", "shares", "image", "job"])
def test_what_is_too_long_is_refused_or_cut(desk: Desk, field: str) -> None:
    long: dict[str, Any] = {
        "allow": ["x" * 4096] * 5,
        "label": "x" * 50_000,
        "shares": [{"path": "/" + "x" * 5000}],
        "image": "x" * 5000,
        "job": "x" * 5000,
    }
    client = desk.connect(ALICE)
    if field == "label":
        client.claim(label=long["label"])
        assert desk.only().record.command == "x" * 200
    else:
        assert isinstance(refused(lambda: client.claim(**{field: long[field]})), Invalid)
