"""What holds for any policy and any wish: default deny, no order, honest lines."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from mayfly.model import NetworkMode
from mayfly.policy.decide import decide
from mayfly.policy.model import Ask, Wish
from mayfly.policy.people import Person
from mayfly.policy.reader import read_policy
from tests.unit.policy.samples import (
    ALICE,
    BOB,
    FILE,
    IMAGES,
    NOW,
    answer,
)

NONE = NetworkMode.NONE


# --- any policy ----------------------------------------------------------------------------------

whos = st.sampled_from(
    ["*", "user:alice", "user:bob", "group:physics", "queue:short", "group:physics & queue:short"]
)
globs = st.sampled_from(["*", "el*", "el7", "el9", "plain", "mine", "x"])
networks = st.lists(st.sampled_from([mode.value for mode in NetworkMode]), min_size=1, max_size=3)
allows = st.builds(
    lambda who, glob, nets, root, shares, users, old, cpus: (
        f"[[policy.allow]]\nwho = ['{who}']\nimages = ['{glob}']\nnetworks = {nets}\n"
        f"root = {root}\nshares = {shares}\nuser_images = {users}\nend_of_life = '{old}'\n{cpus}"
    ),
    whos,
    globs,
    networks,
    st.sampled_from(["true", "false"]),
    st.sampled_from(["true", "false"]),
    st.sampled_from(["true", "false"]),
    st.sampled_from(["no-network", "as-usual", "deny"]),
    st.sampled_from(["", "cpus = 1\n", "cpus = 4\n", "machines = 2\n"]),
)
denies = st.builds(
    lambda who, glob: f"[[policy.deny]]\nwho = ['{who}']\nimages = ['{glob}']\n", whos, globs
)
wishes = st.builds(
    Wish,
    ask=st.sampled_from(Ask),
    image=st.sampled_from([*IMAGES, "nothing"]),
    network=st.sampled_from(NetworkMode),
    network_asked=st.booleans(),
    root=st.booleans(),
    shares=st.booleans(),
    cpus=st.integers(1, 5),
    machines=st.integers(0, 3),
)
people = st.sampled_from([ALICE, BOB, Person(user="x")])
HEAD = '[policy]\nendorsed = "{}"\n'
heads = st.sampled_from([HEAD.format("required"), HEAD.format("optional")])


@given(heads, st.lists(st.one_of(allows, denies), max_size=5), wishes, people, st.randoms())
@settings(max_examples=40)
def test_the_order_of_rules_decides_nothing(
    head: str, parts: list[str], wish: Wish, person: Person, random: st.DataObject
) -> None:
    first = answer(head + "".join(parts), wish, person)
    random.shuffle(parts)  # type: ignore[attr-defined]  # it is a random.Random
    second = answer(head + "".join(parts), wish, person)
    assert replace(first, reasons=()) == replace(second, reasons=())


@given(heads, st.lists(st.one_of(allows, denies), max_size=4), denies, wishes, people)
@settings(max_examples=40)
def test_one_more_denial_never_allows_more(
    head: str, parts: list[str], more: str, wish: Wish, person: Person
) -> None:
    before = answer(head + "".join(parts), wish, person)
    after = answer(head + "".join([*parts, more]), wish, person)
    assert before.allowed or not after.allowed


@given(heads, st.lists(st.one_of(allows, denies), max_size=4), allows, wishes, people)
@settings(max_examples=40)
def test_one_more_permission_never_denies_more(
    head: str, parts: list[str], more: str, wish: Wish, person: Person
) -> None:
    before = answer(head + "".join(parts), wish, person)
    after = answer(head + "".join([*parts, more]), wish, person)
    assert after.allowed or not before.allowed


@given(heads, st.lists(denies, max_size=3), wishes, people)
def test_nothing_is_allowed_where_nothing_is_said(
    head: str, parts: list[str], wish: Wish, person: Person
) -> None:
    found = answer(head + "".join(parts), wish, person)
    assert not found.allowed or not found.image


@given(heads, st.lists(st.one_of(allows, denies), max_size=5), wishes, people)
@settings(max_examples=40)
def test_every_reason_names_a_line_that_says_so(
    head: str, parts: list[str], wish: Wish, person: Person
) -> None:
    text = "# a comment\n\n" + head + "".join(parts)
    lines = text.split("\n")
    found = answer(text, wish, person)
    assert found.reasons
    for reason in found.reasons:
        assert reason.line.file == FILE
        named = lines[reason.line.number - 1]
        assert named.startswith(("[policy", "[[policy", "endorsed"))
    deciding = lines[found.reasons[-1].line.number - 1]
    if found.allowed and found.image:
        assert deciding == "[[policy.allow]]"


@given(wishes, people)
def test_what_is_allowed_is_never_more_than_was_wished(wish: Wish, person: Person) -> None:
    found = decide(read_policy(None), person, wish, IMAGES, NOW)
    assert found.network in (NONE, wish.network)
    assert found.root <= wish.root
    assert found.shares <= wish.shares
    if wish.ask is Ask.IMAGE and wish.image in ("el7", "el9", "plain"):
        assert found.allowed
