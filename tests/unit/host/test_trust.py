"""The service obeys lists and the policy, and deals with machines whose image is taken back."""

from __future__ import annotations

import json
import time
from dataclasses import replace

import pytest

from mayfly.errors import Denied, Invalid, Untrusted
from mayfly.host import trust
from mayfly.images.lists.store import TrustStore
from mayfly.model import Image, State
from tests.unit.host.services import ALICE, ROOT, Asked, Desk, desk
from tests.unit.host.test_line import account
from tests.unit.host.trusting import (
    ALL,
    EVERYTHING,
    image_in,
    take_back,
    vouch,
    write_policy,
)

__all__ = ["desk"]


def image(desk: Desk) -> Image:
    return image_in(desk.service.engine.paths.images)


def listed(desk: Desk) -> None:
    vouch(desk.service.gate.site_trust, image(desk))


def policy(desk: Desk, *rules: str, **changes: str) -> None:
    write_policy(desk.service.gate.policy_file, *rules, **changes)


def revoke(desk: Desk) -> None:
    """Have the image taken back, and the service look."""
    take_back(desk.service.gate.site_trust, image(desk))
    trust.sweep(desk.service)
    desk.settle()


# --- a claim -------------------------------------------------------------------------------------


def test_a_claim_is_refused_by_the_rule_that_its_image_breaks(desk: Desk) -> None:
    take_back(desk.service.gate.site_trust, image(desk))
    error = desk.connect().why_not("claim", image="debian-12", cpus=1, memory_mib=512)
    assert isinstance(error, Untrusted)
    assert "a hole (rule 'image-revoked'" in error.message
    assert desk.made == 0


def test_a_claim_is_denied_by_the_line_of_the_policy(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    account(monkeypatch, "alice", "physics")
    policy(desk, '[[policy.allow]]\nwho = ["group:biology"]\nimages = ["*"]\n', endorsed="optional")
    error = desk.connect().why_not("claim", image="debian-12", cpus=1, memory_mib=512)
    assert isinstance(error, Denied)
    assert str(desk.service.gate.policy_file) in error.message
    account(monkeypatch, "alice", "biology")
    assert desk.connect().claim()["path"] == "clone"


def test_who_asks_is_what_the_system_says(desk: Desk) -> None:
    policy(desk, '[[policy.allow]]\nwho = ["user:root"]\nimages = ["*"]\n', endorsed="optional")
    words = {"user": "root", "uid": 0, "groups": ["root"], "account": {"name": "root"}}
    client = desk.connect(ALICE)
    error = client.why_not("claim", image="debian-12", cpus=1, memory_mib=512, **words)
    assert isinstance(error, Denied)
    assert desk.connect(ROOT).claim()["machine"]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"root": True}, "not with root"),
        ({"network": "open"}, "not with network open"),
        ({"shares": [{"path": "/a", "read_only": False}]}, "not with directories"),
        ({"cpus": 2}, "with 2 CPUs: 1 at most"),
        ({"memory_mib": 1024}, "of memory"),
        ({"outlive": True, "life_s": 9000}, "at most"),
    ],
)
def test_more_than_the_policy_allows_is_denied(
    desk: Desk, fields: dict[str, object], words: str
) -> None:
    limits = 'shares = false\ncpus = 1\nmemory = "512M"\ntime = "1h"\n'
    policy(desk, ALL, limits, endorsed="optional")
    wanted = {"image": "debian-12", "cpus": 1, "memory_mib": 512, **fields}
    error = desk.connect().why_not("claim", **wanted)
    assert isinstance(error, Denied)
    assert words in error.message


def test_a_user_has_so_many_machines_as_the_policy_says(desk: Desk) -> None:
    policy(desk, ALL, "machines = 1\n", endorsed="optional")
    first = desk.connect()
    first.claim()
    error = desk.connect().why_not("claim", image="debian-12", cpus=1, memory_mib=512)
    assert "more than 1 machines" in error.message
    assert desk.connect(ROOT).claim()["machine"]


def test_a_machine_ends_at_the_time_that_the_policy_gives(desk: Desk) -> None:
    policy(desk, ALL, 'time = "1h"\n', endorsed="optional")
    desk.connect().claim()
    expires_at = desk.only().record.expires_at
    assert expires_at is not None
    assert 3500 < expires_at - time.time() <= 3600


def test_what_was_only_set_is_left_out_and_told(desk: Desk) -> None:
    policy(desk, ALL, endorsed="optional")
    client = desk.connect()
    client.send(
        "claim", image="debian-12", cpus=1, memory_mib=512, network="open", network_asked=False
    )
    desk.until(lambda: client.of("ok", "error") != [], "the answer")
    assert any("network open is not allowed" in one["text"] for one in client.of("note"))
    client.answer()
    assert desk.only().record.network == "none"


@pytest.mark.parametrize("may", [True, False])
def test_the_agent_is_told_whether_jobs_may_be_root(desk: Desk, may: bool) -> None:
    desk.script(heard=desk.top / "heard")
    policy(desk, EVERYTHING if may else ALL, endorsed="optional")
    desk.connect().claim()
    (told,) = [json.loads(line) for line in (desk.top / "heard").read_text().splitlines()]
    assert (told["type"], told["root"]) == ("claim", may)


@pytest.mark.parametrize("key", ["root", "network_asked"])
@pytest.mark.parametrize("value", [1, "true", None, []])
def test_a_flag_that_is_none_is_refused(desk: Desk, key: str, value: object) -> None:
    wanted = {"image": "debian-12", "cpus": 1, "memory_mib": 512, key: value}
    assert isinstance(desk.connect().why_not("claim", **wanted), Invalid)


def test_an_image_that_is_taken_back_while_one_waits_is_refused(desk: Desk) -> None:
    desk.limit(machines=1)
    first = desk.connect()
    first.claim()
    second = desk.connect()
    second.send("claim", image="debian-12", cpus=1, memory_mib=512)
    desk.until(lambda: second.of("line") != [], "the line")
    take_back(desk.service.gate.site_trust, image(desk))
    first.close()
    with pytest.raises(Untrusted, match="image-revoked"):
        second.answer()


# --- standbys ------------------------------------------------------------------------------------


def test_standbys_of_an_image_that_is_taken_back_are_dropped(desk: Desk) -> None:
    desk.keep_ready(2)
    revoke(desk)
    desk.until(lambda: desk.ready() == [], "the end of the standbys")
    ((_, hot),) = desk.service.hot.items()
    desk.until(lambda: hot.trouble != "", "the reason")
    assert "image-revoked" in hot.trouble
    desk.service.hot.clear()


def test_no_standby_is_made_of_an_image_that_is_not_trusted(desk: Desk) -> None:
    policy(desk, ALL)
    error = desk.connect(ROOT).why_not("warm", image="debian-12")
    assert "rule 'unendorsed'" in error.message
    listed(desk)
    desk.connect(ROOT).ask("warm", image="debian-12", count=1)
    desk.until(lambda: len(desk.ready()) == 1, "the standby")
    desk.service.hot.clear()


# --- machines that run ---------------------------------------------------------------------------


def detached(client: Asked) -> str:
    found: str = client.claim(outlive=True)["machine"]
    return found


def test_a_machine_is_marked_and_goes_on(desk: Desk) -> None:
    client = desk.connect()
    client.claim()
    revoke(desk)
    (item,) = _items(desk)
    assert "a hole" in str(item["untrusted"])
    assert item["state"] == "running"
    assert desk.connect().ask("status")["untrusted"] == 1


def _items(desk: Desk) -> list[dict[str, object]]:
    client = desk.connect(ROOT)
    client.send("list")
    desk.until(lambda: client.of("ok") != [], "the list")
    return [item for one in client.of("items") for item in one["items"]]


def test_a_mark_goes_when_the_image_is_trusted_again(desk: Desk) -> None:
    desk.connect().claim()
    store = TrustStore(directory=desk.service.gate.site_trust)
    store.block(image(desk).sha512, "no")
    trust.sweep(desk.service)
    assert "rule 'blocked'" in desk.only().distrust
    store.unblock(image(desk).sha512)
    trust.sweep(desk.service)
    assert desk.only().distrust == ""


def test_machines_are_killed_where_the_policy_says_so(desk: Desk) -> None:
    policy(desk, ALL, endorsed="optional", revoked="kill")
    client = desk.connect()
    client.claim()
    revoke(desk)
    desk.until(lambda: client.of("ended") != [], "its end")
    assert "a hole" in client.of("ended")[0]["reason"]
    desk.emptied()


def test_nothing_new_begins_in_a_machine_that_is_drained(desk: Desk) -> None:
    policy(desk, ALL, endorsed="optional", revoked="drain")
    client = desk.connect()
    name = detached(client)
    client.close()
    desk.until(lambda: desk.only().caller is None, "the client to be gone")
    revoke(desk)
    assert desk.only().record.state is State.RUNNING
    error = desk.connect().why_not("enter", machine=name)
    assert isinstance(error, Untrusted)
    assert "nothing new begins" in error.message
    policy(desk, ALL, endorsed="optional", revoked="mark")
    assert desk.connect().ask("enter", machine=name)["machine"]["id"] == name


def test_a_saved_machine_is_not_brought_back(desk: Desk) -> None:
    name = detached(desk.connect())
    hosted = desk.only()
    take_back(desk.service.gate.site_trust, image(desk))
    hosted.write(replace(hosted.record, state=State.SUSPENDED))
    error = desk.connect().why_not("resume", machine=name)
    assert isinstance(error, Untrusted)
    assert "image-revoked" in error.message
    hosted.write(replace(hosted.record, state=State.RUNNING))


def test_a_saved_machine_of_a_user_who_may_no_more_is_not_brought_back(desk: Desk) -> None:
    name = detached(desk.connect())
    hosted = desk.only()
    hosted.write(replace(hosted.record, state=State.SUSPENDED))
    policy(desk, '[[policy.allow]]\nwho = ["user:root"]\nimages = ["*"]\n', endorsed="optional")
    assert isinstance(desk.connect().why_not("resume", machine=name), Denied)
    hosted.write(replace(hosted.record, state=State.RUNNING))


def test_a_machine_that_an_earlier_version_made_is_known_by_its_name(desk: Desk) -> None:
    desk.connect().claim()
    hosted = desk.only()
    assert hosted.record.image_sha512 == image(desk).sha512
    hosted.write(replace(hosted.record, image_sha512=""))
    revoke(desk)
    assert "a hole" in hosted.distrust


def test_a_machine_is_known_by_what_it_was_made_of_not_by_its_name(desk: Desk) -> None:
    desk.connect().claim()
    hosted = desk.only()
    hosted.write(replace(hosted.record, image_sha512="b" * 128))
    TrustStore(directory=desk.service.gate.site_trust).block("b" * 128, "the one before")
    trust.sweep(desk.service)
    assert "the one before" in hosted.distrust


# --- looking -------------------------------------------------------------------------------------


def test_a_change_is_seen_without_being_told(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trust, "LOOK_S", 0.01)
    desk.connect().claim()
    trust.begin(desk.service)
    take_back(desk.service.gate.site_trust, image(desk))
    desk.until(lambda: desk.only().distrust != "", "the mark")
    assert "a hole" in desk.only().distrust


def test_an_update_in_a_child_takes_its_time(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trust, "LOOK_S", 0.01)
    listed(desk)
    desk.settings(trust_update_s=0.05)
    trust.begin(desk.service)
    store = TrustStore(directory=desk.service.gate.site_trust)
    paths = replace(desk.service.engine.paths, site_trust=store.directory)
    desk.service.engine = replace(desk.service.engine, paths=paths)
    desk.until(lambda: store.subscriptions()[0].trouble is not None, "an update")
    trouble = store.subscriptions()[0].trouble
    assert trouble is not None
    assert "/nosuch" in trouble.words


def test_lists_that_cannot_be_read_are_told_by_the_check(desk: Desk) -> None:
    listed(desk)
    (desk.service.gate.site_trust / "blocked.json").write_text("{")
    trust.begin(desk.service)
    client = desk.connect(ROOT)
    client.send("check")
    desk.until(lambda: client.of("ok") != [], "the answer")
    found = {item["name"]: item for one in client.of("items") for item in one["items"]}
    assert found["policy and trust"]["ok"] is False
    assert "blocked.json" in found["policy and trust"]["detail"]
