"""A policy is read strictly, and every error names the line."""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mayfly.errors import Invalid, Missing
from mayfly.model import NetworkMode
from mayfly.policy.model import Limits, Mode, OldImages, Revoked
from mayfly.policy.reader import parse_policy, read_policy
from tests.unit.policy.samples import FILE, policy

FULL = """\
[other]
key = 1

[policy]
endorsed = "optional"
revoked = "kill"

[policy.end_of_life]
"centos 7*" = 2024-06-30
"el9" = "never"

[[policy.allow]]
who = ["group:physics", "user:bob"]
images = ["el7", "el9*"]
lists = ["Site list"]
endorsers = ["/C=DE/*"]
networks = ["none", "open"]
root = true
shares = false
end_of_life = "deny"
machines = 3
cpus = 4
memory = "8G"
time = "2d"

[[policy.deny]]
who = ["user:mallory"]
why = "left the site"

[[policy.default]]
who = ["queue:short"]
image = "el9"
mode = "force"
canary = "el9-next"
canary_share = 10
"""


def test_everything_that_can_be_said_is_read() -> None:
    found = policy(FULL)
    assert not found.endorsed
    assert (found.endorsed_line.number, found.line.number) == (5, 4)
    assert found.revoked is Revoked.KILL
    ends = [(each.pattern, each.ends_on, each.line.number) for each in found.end_of_life]
    assert ends == [("centos 7*", date(2024, 6, 30), 9), ("el9", None, 10)]
    (allow,) = found.allow
    assert [str(who) for who in allow.rule.who] == ["group:physics", "user:bob"]
    assert allow.rule.line.number == 12
    assert allow.networks == (NetworkMode.NONE, NetworkMode.OPEN)
    assert (allow.root, allow.shares, allow.end_of_life) == (True, False, OldImages.DENY)
    assert allow.limits == Limits(machines=3, cpus=4, memory_mib=8192, time_s=172_800.0)
    (deny,) = found.deny
    assert (deny.rule.images, deny.why, deny.rule.line.number) == (("*",), "left the site", 26)
    (default,) = found.default
    assert (default.mode, default.canary, default.canary_percent) == (Mode.FORCE, "el9-next", 10)


def test_what_is_not_said_is_the_least() -> None:
    (allow,) = policy('[[policy.allow]]\nwho = ["*"]\nimages = ["*"]\n').allow
    assert allow.networks == (NetworkMode.NONE,)
    assert (allow.root, allow.shares, allow.user_images) == (False, True, False)
    assert allow.end_of_life is OldImages.NO_NETWORK
    (allow,) = policy('[[policy.allow]]\nwho = ["*"]\nimages = ["*"]\nuser_images = true\n').allow
    assert not allow.shares
    assert policy("").endorsed
    assert policy("[policy]\n").revoked is Revoked.MARK


BAD = [
    ("policy = 1", 1, "must be a table"),
    ("[policy]\n\nunknown = 1", 3, "no such key 'unknown'"),
    ('[policy]\nendorsed = "maybe"', 2, "required"),
    ("[policy]\nendorsed = true", 2, "required"),
    ('[policy]\nrevoked = "burn"', 2, "mark, drain, kill"),
    ("[policy]\nallow = 1", 2, r"\[\[policy.allow\]\]"),
    ("[policy]\nallow = [1]", 2, "must be a table"),
    ("[[policy.allow]]\nimages = ['*']", 1, "'who' must be given"),
    ("[[policy.allow]]\nwho = ['*']", 1, "'images' must be given"),
    ("[[policy.allow]]\nwho = '*'\nimages = ['*']", 2, "must be a list"),
    ("[[policy.allow]]\nwho = []\nimages = ['*']", 2, "must be a list"),
    ("[[policy.allow]]\nwho = ['alice']\nimages = ['*']", 2, "names nobody"),
    ("[[policy.allow]]\nwho = ['*']\nimages = [1]", 3, "text in one line"),
    ("[[policy.allow]]\nwho = ['*']\nimages = ['a\\n']\n", None, ""),
    ("[[policy.allow]]\nwho = ['*']\nimages = ['*']\nnetworks = ['all']", 4, "one of none"),
    ("[[policy.allow]]\nwho = ['*']\nimages = ['*']\nroot = 'yes'", 4, "true or false"),
    ("[[policy.allow]]\nwho = ['*']\nimages = ['*']\ncpus = 0", 4, "from 1 on"),
    ("[[policy.allow]]\nwho = ['*']\nimages = ['*']\ncpus = true", 4, "from 1 on"),
    ("[[policy.allow]]\nwho = ['*']\nimages = ['*']\nmemory = 8", 4, "a size"),
    ("[[policy.allow]]\nwho = ['*']\nimages = ['*']\nmemory = '8'", 4, "1M or more"),
    ("[[policy.allow]]\nwho = ['*']\nimages = ['*']\ntime = 'long'", 4, "not a duration"),
    ("[[policy.allow]]\nwho = ['*']\nimages = ['*']\ntime = '0s'", 4, "longer than nothing"),
    ("[[policy.allow]]\nwho = ['*']\nimages = ['*']\nendorsers = ['Jo']", 4, "certificate"),
    ("[[policy.deny]]\nwho = ['*']\nroot = true", 3, "no such key 'root'"),
    ("[[policy.default]]\nwho = ['*']", 1, "'image' must be given"),
    ("[[policy.default]]\nwho = ['*']\nmode = 'off'\nimage = 'x'", 4, "no such key 'image'"),
    ("[[policy.default]]\nwho = ['*']\nimage = 'x'\ncanary = 'y'", 1, "go together"),
    ("[[policy.default]]\nwho = ['*']\nimage = 'x'\ncanary_share = 5", 1, "go together"),
    (
        "[[policy.default]]\nwho = ['*']\nimage = 'x'\ncanary = 'y'\ncanary_share = 101",
        5,
        "1 to 100",
    ),
    ("[policy.end_of_life]\nx = 'soon'", 2, "must be a day"),
    ("[policy.end_of_life]\nx = 2024-01-01T00:00:00Z", 2, "must be a day"),
    ("x = ", None, "is not TOML"),
    ("x = " + "[" * 100_000, None, "is not TOML"),
    ("#" * (2 << 20), None, "longer than any policy"),
]


@pytest.mark.parametrize(("text", "line", "words"), BAD, ids=range(len(BAD)))
def test_a_mistake_is_named_with_its_line(text: str, line: int | None, words: str) -> None:
    if not words:
        assert policy(text).allow  # a literal string: the backslash is itself
        return
    with pytest.raises(Invalid, match=words) as caught:
        policy(text)
    if line is not None:
        assert caught.value.message.startswith(f"{FILE}:{line}: ")


def test_two_defaults_for_the_very_same_people_are_refused() -> None:
    one = "[[policy.default]]\nwho = ['group:a & queue:b']\nimage = 'x'\n"
    other = "[[policy.default]]\nwho = ['queue:b & group:a']\nimage = 'y'\n"
    with pytest.raises(Invalid, match=rf"^{FILE}:4: .* at {FILE}:1 already"):
        policy(one + other)
    assert len(policy(one + other + "mode = 'force'\n").default) == 2


def test_without_a_file_the_sites_images_are_for_all() -> None:
    built_in = read_policy(None)
    assert not built_in.endorsed
    assert [str(who) for who in built_in.allow[0].rule.who] == ["*"]
    assert built_in.line.file == "built-in policy"


def test_a_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "policy.toml").write_text(FULL)
    assert read_policy(tmp_path / "policy.toml").allow[0].rule.line.file.endswith("policy.toml")
    with pytest.raises(Missing):
        read_policy(tmp_path / "nothing.toml")
    (tmp_path / "bad.toml").write_bytes(b"\xff")
    with pytest.raises(Invalid):
        read_policy(tmp_path / "bad.toml")
    with pytest.raises(Invalid):
        read_policy(tmp_path)


@given(st.integers(0), st.text(max_size=3), st.integers(0, 5))
def test_a_damaged_policy_is_read_or_refused(place: int, put_in: str, cut: int) -> None:
    at = place % len(FULL)
    text = FULL[:at] + put_in + FULL[at + cut :]
    try:
        found = parse_policy(text, FILE)
    except Invalid as error:
        line = re.match(rf"{FILE}:(\d+): ", error.message)
        if line is None and "is not TOML" not in error.message:
            raise
        return
    last = text.count("\n") + 1
    assert all(1 <= allow.rule.line.number <= last for allow in found.allow)
