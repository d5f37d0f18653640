"""What a site trusts survives on disk, and nobody but root can have written it."""

from __future__ import annotations

import json
import os
import signal
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mayfly.errors import Conflict, Invalid, Missing, Unavailable, Untrusted
from mayfly.images.lists.authorities import Anchor, Kind, Role
from mayfly.images.lists.check import Principal
from mayfly.images.lists.files import locked
from mayfly.images.lists.openssl import Signer, read_certificate
from mayfly.images.lists.rules import Refusal, Rule
from mayfly.images.lists.store import TrustStore
from mayfly.images.lists.subscriptions import Former, Subscription, Trouble, Vouched
from tests.unit.images.lists.pki import DAY, NOW, Ca
from tests.unit.images.lists.samples import LIST, listed, sha512
from tests.unit.images.lists.test_admission import accepted, subscription


@pytest.fixture
def store(tmp_path: Path) -> TrustStore:
    return TrustStore(directory=tmp_path / "trust")


def save(store: TrustStore, one: Subscription, message: bytes | None = b"message") -> None:
    with store.changing():
        store.save(one, message)


def full() -> Subscription:
    """A subscription in which everything is said."""
    refusal = Refusal(rule=Rule.ENDORSEMENT, detail="nobody signed")
    one = Vouched(
        image=listed(1, expires_at=NOW, extra={"ad:vo": "x", "n": 1, "b": True, "z": None}),
        until=NOW + DAY,
        by=Principal(dn="/CN=Ann", ca="/CN=CA"),
        endorsement_sha512="e",
        signed_until=NOW,
        fingerprint="f",
    )
    return subscription(
        accepted(one, Vouched(image=listed(2), until=NOW, refusal=refusal), certificates=("pem",)),
        image_endorsers=(Principal(dn="/CN=Ann"),),
        updated_at=NOW,
        withdrawn=Refusal(rule=Rule.ROLE, detail="why"),
        former=(Former(sha512="s", identifier="i", version="1", title="t", gone_at=NOW),),
        trouble=Trouble(words="w", refusal=refusal, since=NOW),
    )


def test_what_was_saved_is_read_back(store: TrustStore) -> None:
    save(store, full())
    assert store.subscription(LIST) == full()
    assert store.subscriptions() == (full(),)
    assert store.message(full()) == b"message"


def test_a_store_that_is_not_there_is_empty(store: TrustStore) -> None:
    assert store.subscriptions() == ()
    assert store.anchors().own == ()
    assert store.blocked() == {}
    assert not store.admission(listed(1).sha512, NOW).trusted


def test_only_the_message_that_was_accepted_is_kept(store: TrustStore) -> None:
    first = subscription(accepted(listed(1), message_sha512="a" * 128))
    second = subscription(accepted(listed(1), message_sha512="b" * 128))
    save(store, first, b"one")
    save(store, second, b"two")
    assert store.message(second) == b"two"
    assert store.message(first) is None
    assert len(list((store.directory / "messages").iterdir())) == 1


def test_one_image_is_looked_for_without_reading_the_others(store: TrustStore) -> None:
    save(store, subscription(accepted(listed(1), listed(2))))
    (found,) = store.subscriptions(only=listed(2).sha512)
    assert found.accepted is not None
    assert [each.image.title for each in found.accepted.images] == ["el2"]
    assert store.admission(listed(2).sha512.upper(), NOW).trusted
    assert not store.admission(listed(3).sha512, NOW).trusted


def test_a_list_that_is_removed_vouches_no_more(store: TrustStore) -> None:
    save(store, subscription(accepted(listed(1))))
    assert store.admission(listed(1).sha512, NOW).trusted
    store.remove_subscription(LIST)
    assert not store.admission(listed(1).sha512, NOW).trusted
    with pytest.raises(Missing):
        store.remove_subscription(LIST)
    with pytest.raises(Missing):
        store.subscription(LIST)


@pytest.mark.parametrize("name", ["../x", "x", "", LIST + "/..", "*"])
def test_what_is_no_identifier_names_no_file(store: TrustStore, name: str) -> None:
    with pytest.raises(Invalid):
        store.subscription(name)


def test_an_image_can_be_blocked_and_unblocked(store: TrustStore) -> None:
    save(store, subscription(accepted(listed(1))))
    store.block(listed(1).sha512.upper(), "stolen")
    assert [each.rule for each in store.admission(listed(1).sha512, NOW).refusals] == [Rule.BLOCKED]
    store.unblock(listed(1).sha512)
    assert store.admission(listed(1).sha512, NOW).trusted
    with pytest.raises(Missing):
        store.unblock(listed(1).sha512)
    with pytest.raises(Invalid):
        store.block("abc", "")


def test_an_anchor_is_read_back(store: TrustStore, root_ca: Ca, jo: Signer) -> None:
    ours = Anchor(
        name="ours",
        kind=Kind.AUTHORITY,
        certificate=read_certificate(root_ca.certificate),
        crls=(root_ca.crl(),),
        crl_required=False,
        subjects=("/C=DE/*",),
    )
    key = Anchor(
        name="jo",
        kind=Kind.KEY,
        certificate=read_certificate(jo.certificate),
        roles=frozenset({Role.IMAGE}),
    )
    store.add_anchor(ours)
    store.add_anchor(key)
    assert store.anchors().own == (key, ours)
    with pytest.raises(Conflict):
        store.add_anchor(key)
    store.add_anchor(replace(key, roles=frozenset({Role.LIST})), force=True)
    store.remove_anchor("ours")
    assert [each.roles for each in store.anchors().own] == [frozenset({Role.LIST})]
    with pytest.raises(Missing):
        store.remove_anchor("ours")


@pytest.mark.parametrize("name", ["../x", "", ".x", "A", "x" * 65, "a/b"])
def test_an_anchor_has_a_plain_name(store: TrustStore, jo: Signer, name: str) -> None:
    owner = read_certificate(jo.certificate)
    with pytest.raises(Invalid):
        store.add_anchor(Anchor(name=name, kind=Kind.KEY, certificate=owner))


# --- who could have written it -------------------------------------------------------------------


def places(store: TrustStore) -> list[Path]:
    return [
        store.directory,
        store.directory / "subscriptions",
        store.directory / "subscriptions" / f"{LIST}.json",
    ]


@pytest.mark.parametrize("number", [0, 1, 2])
def test_what_others_could_have_written_is_not_read(store: TrustStore, number: int) -> None:
    save(store, subscription(accepted(listed(1))))
    place = places(store)[number]
    place.chmod(place.stat().st_mode | 0o002)
    with pytest.raises(Untrusted, match="could have been written by others"):
        store.admission(listed(1).sha512, NOW)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")
@pytest.mark.parametrize("number", [0, 1, 2])
def test_what_belongs_to_others_is_not_read(store: TrustStore, number: int) -> None:
    save(store, subscription(accepted(listed(1))))
    os.chown(places(store)[number], 65534, 65534)
    with pytest.raises(Untrusted):
        store.admission(listed(1).sha512, NOW)


def test_a_link_is_not_followed(store: TrustStore, tmp_path: Path) -> None:
    save(store, subscription(accepted(listed(1))))
    file = places(store)[2]
    file.rename(tmp_path / "elsewhere")
    file.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Untrusted, match="symbolic link"):
        store.subscriptions()


def spoilt(text: str) -> list[str]:
    table = json.loads(text)
    changed: list[dict[str, Any]] = [
        {**table, "format": 2},
        {**table, "url": 5},
        {**table, "added_at": "now"},
        {**table, "endorsers": {}},
        {**table, "withdrawn": {"rule": "no-such-rule", "detail": ""}},
        {key: value for key, value in table.items() if key != "url"},
    ]
    return ["", "[]", "[" * 100_000, text[:-30], *map(json.dumps, changed)]


@pytest.mark.parametrize("number", range(10))
def test_a_damaged_record_is_refused_and_named(store: TrustStore, number: int) -> None:
    save(store, full())
    file = places(store)[2]
    file.write_text(spoilt(file.read_text())[number])
    with pytest.raises(Untrusted, match=f"{LIST}.json cannot be used"):
        store.subscriptions()


def test_what_a_newer_version_added_is_passed_over(store: TrustStore) -> None:
    save(store, full())
    file = places(store)[2]
    file.write_text(json.dumps({**json.loads(file.read_text()), "new": [1]}))
    assert store.subscription(LIST) == full()


# --- many at once, and killed --------------------------------------------------------------------


def test_only_one_changes_things_at_a_time(store: TrustStore) -> None:
    with (
        store.changing(),
        pytest.raises(Unavailable),
        locked(store.directory / "lock", wait_s=0.05),
    ):
        pass


def test_the_second_one_waits_for_the_first(store: TrustStore) -> None:
    order: list[str] = []
    inside = threading.Event()

    def second() -> None:
        inside.wait()
        with store.changing():
            order.append("second")

    other = threading.Thread(target=second)
    other.start()
    with store.changing():
        inside.set()
        other.join(0.1)
        order.append("first")
    other.join()
    assert order == ["first", "second"]


def writing_for_ever(store: TrustStore, started: int) -> None:
    number = 0
    while True:
        number += 1
        images = [listed(each) for each in range(1, 40 + number % 7)]
        one = subscription(
            accepted(*images, version=str(number), message_sha512=sha512(f"message {number}"))
        )
        save(store, one, f"message {number}".encode() * 1000)
        store.block(f"{number % 5:0128x}", f"reason {number}")
        if number == 1:
            os.write(started, b"x")


@pytest.mark.parametrize("delay_ms", range(0, 60, 4))
def test_a_kill_at_any_moment_leaves_what_was_or_what_is(store: TrustStore, delay_ms: int) -> None:
    ready, started = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            writing_for_ever(store, started)
        finally:
            os._exit(1)
    os.close(started)
    assert os.read(ready, 1) == b"x"
    os.close(ready)
    threading.Event().wait(delay_ms / 1000)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    # It can be read at once, without the lock, and its parts belong together.
    found = store.subscription(LIST)
    assert found.accepted is not None
    assert len(found.accepted.images) == 39 + int(found.accepted.version) % 7
    message = store.message(found)
    assert message == f"message {found.accepted.version}".encode() * 1000
    assert store.blocked()
    # And what was left behind is cleared by the next one.
    save(store, found, message)
    assert not list(store.directory.rglob(".new-*"))
    assert len(list((store.directory / "messages").iterdir())) == 1
