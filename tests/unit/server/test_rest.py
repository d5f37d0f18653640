"""The REST interface: what it does, and who may."""

from __future__ import annotations

import pytest

from tests.unit.server.sites import Answer, Little

NEW = {"image": "debian-12", "for_s": 3600}


def create(little: Little, who: str = "alice", /, **more: object) -> Answer:
    return little.ask(who, "POST", "/v1/leases", {**NEW, **more})


def test_from_wish_to_end(little: Little) -> None:
    made = create(little, name="build1")
    assert made.status == 201
    lease = made.words
    assert made.headers["location"] == f"/v1/leases/{lease['id']}"
    assert (lease["state"], lease["owner"], lease["group"]) == ("wanted", "alice", "physics")
    little.settle()
    shown = little.ask("alice", "GET", "/v1/leases/build1")
    assert shown.words["state"] == "running"
    assert [one.key for one in little.place.machines()] == [lease["id"]]
    little.ask("alice", "PATCH", "/v1/leases/build1", {"wanted": "suspended"})
    little.settle()
    assert little.ask("alice", "GET", "/v1/leases/build1").words["state"] == "suspended"
    little.ask("alice", "PATCH", "/v1/leases/build1", {"wanted": "running"})
    little.settle()
    assert little.ask("alice", "DELETE", "/v1/leases/build1").status == 200
    little.settle()
    assert little.place.machines() == []
    gone = little.ask("alice", "GET", f"/v1/leases/{lease['id']}").words
    assert (gone["state"], gone["reason"]) == ("gone", "deleted by alice")
    kinds = [each["kind"] for each in little.ask("alice", "GET", "/v1/events").words["items"]]
    assert kinds[0] == "lease.created"
    assert kinds[-1] == "lease.gone"


def test_the_end_of_its_time(little: Little) -> None:
    create(little, name="b", for_s=7200)
    little.settle()
    little.clock.now += 3600
    little.settle(2)
    assert [one.name for one in little.reminded] == ["b"]
    little.clock.now += 3600
    little.settle()
    assert little.ask("alice", "GET", "/v1/leases/b").words["state"] == "suspended"
    refused = little.ask("alice", "PATCH", "/v1/leases/b", {"wanted": "running"})
    assert refused.status == 409
    later = "2030-01-01T00:00:00Z"
    assert little.ask("alice", "PATCH", "/v1/leases/b", {"expires_at": later}).status == 429
    more = "2023-11-20T00:00:00+01:00"
    assert little.ask("alice", "PATCH", "/v1/leases/b", {"expires_at": more}).status == 200
    little.settle()
    assert little.ask("alice", "GET", "/v1/leases/b").words["state"] == "running"


def test_sent_twice_it_is_made_once(little: Little) -> None:
    first = little.ask("alice", "POST", "/v1/leases", NEW, Idempotency_Key="k1")
    again = little.ask("alice", "POST", "/v1/leases", NEW, Idempotency_Key="k1")
    assert first.words["id"] == again.words["id"]
    other = little.ask("alice", "POST", "/v1/leases", {**NEW, "cpus": 2}, Idempotency_Key="k1")
    assert other.status == 409
    assert little.ask("bob", "POST", "/v1/leases", NEW, Idempotency_Key="k1").status == 201


def test_a_dry_run_keeps_nothing(little: Little) -> None:
    assert create(little, dry_run=True).status == 200
    assert create(little, dry_run=True, image="none").status == 400
    assert little.ask("alice", "GET", "/v1/leases").words == {"items": [], "next": None}


def test_who_was_faster(little: Little) -> None:
    create(little, name="b")
    tag = little.ask("alice", "GET", "/v1/leases/b").headers["etag"]
    little.settle()
    stale = little.ask("alice", "DELETE", "/v1/leases/b", If_Match=tag)
    assert stale.status == 412
    fresh = little.ask("alice", "GET", "/v1/leases/b").headers["etag"]
    assert little.ask("alice", "DELETE", "/v1/leases/b", If_Match=fresh).status == 200
    assert little.ask("alice", "DELETE", "/v1/leases/b", If_Match="x").status in (400, 404)


def test_more_than_the_quota(little: Little) -> None:
    statuses = [create(little).status for _ in range(6)]
    assert statuses == [201] * 5 + [429]
    assert "5 of 5 machines" in create(little).words["detail"]
    assert create(little, "bob").status == 201


WHO = ("alice", "bob", "martin", "olga", "ada", "")
"""Owner; another user; manager of her group; operator; auditor; nobody."""
MATRIX = [
    ("GET", "/v1/leases/{id}", None, (200, 404, 200, 200, 200, 401)),
    ("PATCH", "/v1/leases/{id}", {"wanted": "suspended"}, (200, 404, 200, 200, 403, 401)),
    ("DELETE", "/v1/leases/{id}", None, (200, 404, 200, 200, 403, 401)),
    ("GET", "/v1/leases", None, (200, 200, 200, 200, 200, 401)),
    ("POST", "/v1/leases", NEW, (201, 201, 201, 201, 201, 401)),
    ("GET", "/v1/images", None, (200, 200, 200, 200, 200, 401)),
    ("GET", "/v1/me", None, (200, 200, 200, 200, 200, 401)),
    ("GET", "/v1/events", None, (200, 200, 200, 200, 200, 401)),
    ("POST", "/v1/web/links", None, (201, 201, 201, 201, 201, 401)),
]
SEES = {"alice": True, "bob": False, "martin": True, "olga": True, "ada": True}


@pytest.mark.parametrize(("method", "path", "body", "expected"), MATRIX)
def test_every_endpoint_for_every_role(
    little: Little, method: str, path: str, body: object, expected: tuple[int, ...]
) -> None:
    answers = []
    for who in WHO:
        lease = create(little).words
        little.settle(3)
        answers.append(little.ask(who, method, path.format(id=lease["id"]), body).status)
        little.ask("alice", "DELETE", f"/v1/leases/{lease['id']}")
        little.settle(3)
    assert tuple(answers) == expected


@pytest.mark.parametrize("who", SEES)
def test_whose_leases_and_events_one_sees(little: Little, who: str) -> None:
    lease = create(little).words["id"]
    page = little.ask(who, "GET", "/v1/leases").words["items"]
    events = little.ask(who, "GET", "/v1/events").words["items"]
    assert [one["id"] for one in page] == ([lease] if SEES[who] else [])
    assert [one["lease"] for one in events] == ([lease] if SEES[who] else [])


def test_the_matrix_has_every_endpoint(little: Little) -> None:
    paths = little.ask("alice", "GET", "/v1/openapi.json").words["paths"]
    there = {(method.upper(), path) for path, ops in paths.items() for method in ops}
    assert there == {(row[0], row[1].replace("{id}", "{word}")) for row in MATRIX}


KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGdX alice@home"
WRONG = [
    {"image": "../etc/passwd"},
    {"image": ""},
    {"image": "x" * 300},
    {"cpus": 0},
    {"cpus": True},
    {"memory_mib": 1 << 40},
    {"network": "bridge"},
    {"name": "Ümlaut"},
    {"name": "a;b"},
    {"name": "-a"},
    {"for_s": -1},
    {"for_s": 1e300},
    {"expires_at": "yesterday"},
    {"expires_at": "2023-01-01T00:00:00"},
    {"expires_at": "2001-01-01T00:00:00Z", "for_s": None},
    {"ssh_keys": ['command="id" ' + KEY]},
    {"ssh_keys": [KEY + "\nssh-rsa AAAA x"]},
    {"ssh_keys": [KEY] * 17},
    {"unknown": 1},
    {"group": "' OR 1=1 --"},
]


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_wishes(little: Little, wrong: dict[str, object]) -> None:
    answer = create(little, **wrong)
    assert answer.status == 400
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.words["request_id"] == answer.headers["x-request-id"]


def test_right_keys(little: Little) -> None:
    made = create(little, ssh_keys=[KEY, "ecdsa-sha2-nistp256 AAAA=="])
    assert made.status == 201
    little.settle()


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"null", b'{"image": "\xff"}', b"[" * 100_000, b"x" * 1_000_000]
)
def test_bodies_that_are_none(little: Little, body: bytes) -> None:
    answer = little.ask("alice", "POST", "/v1/leases", body)
    assert answer.status == 400


@pytest.mark.parametrize(
    "path",
    [
        "/v1/leases?cursor=' OR 1=1 --".replace(" ", "%20"),
        "/v1/leases?limit=100000",
        "/v1/events?lease=x",
        "/v1/events?cursor=%00",
    ],
)
def test_queries_that_are_wrong(little: Little, path: str) -> None:
    assert little.ask("alice", "GET", path).status == 400


@pytest.mark.parametrize("word", ["%00", "..%2f..", "'%20OR%201=1", "%ff", "x" * 60])
def test_words_that_name_nothing(little: Little, word: str) -> None:
    create(little)
    for method in ("GET", "DELETE"):
        assert little.ask("alice", method, f"/v1/leases/{word}").status in (400, 404)
    assert len(little.ask("alice", "GET", "/v1/leases").words["items"]) == 1


def test_health_and_numbers(little: Little) -> None:
    assert little.ask("", "GET", "/health").status == 200
    assert little.ask("", "GET", "/ready").words == {"ready": True, "trouble": ""}
    create(little)
    text = little.ask("", "GET", "/metrics").data.decode()
    assert 'mayfly_leases{state="wanted"} 1' in text
    assert 'mayfly_server_requests_total{method="POST",status="201"} 1' in text


def test_a_machine_without_a_lease_is_ended(little: Little) -> None:
    lease = create(little).words["id"]
    little.settle()
    (kept,) = little.place.machines()
    strange = little.place.directory / "01890000-0000-7000-8000-00000000dead.machine"
    strange.write_text('{"id": "deadbeef", "state": "running"}')
    little.settle()
    assert [one.key for one in little.place.machines()] == [lease]
    assert little.place.machines()[0] == kept
