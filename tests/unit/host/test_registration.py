"""What a batch job gets when root registers it and asks."""

from __future__ import annotations

from typing import Any

import pytest

from mayfly.errors import Denied, Invalid, MayflyError, Missing
from tests.unit.host.services import ALICE, ROOT, Desk, desk
from tests.unit.host.trusting import ALL, write_policy

__all__ = ["desk"]

KEY = "site/17/batch.0"
DEFAULT = '[[policy.default]]\nwho = ["queue:virt"]\nimage = "debian-12"\n'


def policy(desk: Desk, *rules: str) -> None:
    write_policy(desk.top / "policy.toml", *rules, endorsed="optional")


def register(desk: Desk, *, queue: str = "", memory_mib: int = 700, **asked: Any) -> dict[str, Any]:
    right = {"key": KEY, "uid": ALICE, "cpus": 1, "memory_mib": memory_mib, "queue": queue}
    plain = {"ask": "nothing", "user": "alice", "groups": ["physics"]}
    return desk.connect(ROOT).ask("register", right=right, asked={**plain, **asked})


def test_an_image_is_what_was_asked_for(desk: Desk) -> None:
    answer = register(desk, ask="image", image="debian-12")
    assert (answer["image"], answer["network"], answer["live"]) == ("debian-12", "none", True)
    right = desk.service.rights.find(KEY)
    assert right is not None
    assert right.image == "debian-12"


@pytest.mark.parametrize("ask", ["nothing", "native"])
def test_without_an_image_nothing_is_registered(desk: Desk, ask: str) -> None:
    assert register(desk, ask=ask)["image"] == ""
    assert desk.service.rights.all() == []


def test_the_default_of_a_queue_is_for_its_jobs_alone(desk: Desk) -> None:
    policy(desk, ALL, DEFAULT)
    assert register(desk, queue="bare")["image"] == ""
    assert register(desk, queue="virt")["image"] == "debian-12"
    assert register(desk, queue="virt", ask="native")["image"] == ""


def test_a_rule_for_a_queue_holds_when_the_machine_is_asked_for(desk: Desk) -> None:
    rule = '[[policy.allow]]\nwho = ["queue:virt"]\nimages = ["*"]\n'
    policy(desk, rule)
    register(desk, queue="virt", ask="image", image="debian-12")
    machine = desk.connect(ALICE).claim(job=KEY, cpus=None, memory_mib=None)
    assert machine["image"].startswith("debian-12@")
    with pytest.raises(Denied, match="no rule allows"):
        desk.connect(ALICE).claim()


@pytest.mark.parametrize(
    ("changes", "kind", "words"),
    [
        ({"ask": "image", "image": "el7"}, Missing, "el7"),
        ({"ask": "machine"}, Invalid, "no default"),
        ({"ask": "image", "image": "debian-12", "memory_mib": 100}, Invalid, "too little"),
        ({"ask": "all"}, Invalid, "cannot be read"),
        ({"ask": "image"}, Invalid, "names none"),
        ({"image": "debian-12"}, Invalid, "names none"),
        ({"network": "wide"}, Invalid, "cannot be read"),
        ({"root": "yes"}, Invalid, "'root'"),
        ({"user": 7}, Invalid, "'user'"),
        ({"groups": "all"}, Invalid, "'groups'"),
        ({"groups": ["a"] * 2000}, Invalid, "'groups'"),
    ],
)
def test_what_cannot_be_had_is_refused_and_nothing_registered(
    desk: Desk, changes: dict[str, Any], kind: type[MayflyError], words: str
) -> None:
    with pytest.raises(kind, match=words):
        register(desk, **changes)
    assert desk.service.rights.all() == []


def test_what_the_policy_denies_is_refused_with_the_line(desk: Desk) -> None:
    policy(desk, '[[policy.allow]]\nwho = ["user:bob"]\nimages = ["*"]\n')
    with pytest.raises(Denied, match=r"policy\.toml:1"):
        register(desk, ask="image", image="debian-12")


def test_directories_of_the_site_are_left_out_where_a_rule_says_so(desk: Desk) -> None:
    rule = '[[policy.allow]]\nwho = ["*"]\nimages = ["*"]\nshares = false\n'
    policy(desk, rule)
    assert register(desk, ask="image", image="debian-12")["live"] is False
    with pytest.raises(Denied, match="directories of the host"):
        register(desk, ask="image", image="debian-12", shares=True)


def test_all_parts_of_a_job_end_together(desk: Desk) -> None:
    register(desk, ask="image", image="debian-12")
    desk.connect(ALICE).claim(job=KEY, cpus=None, memory_mib=None)
    desk.connect(ROOT).ask("unregister", job="site/1/*")
    assert desk.service.rights.find(KEY) is not None
    desk.connect(ROOT).ask("unregister", job="site/17/*")
    desk.emptied()
    assert desk.service.rights.all() == []
