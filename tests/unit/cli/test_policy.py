"""``mayfly policy`` as it is typed."""

from __future__ import annotations

import getpass
import grp
import json
import os
from pathlib import Path
from typing import Any

import click
import pytest

from mayfly.errors import Invalid, Missing
from tests.unit.cli.endorsing import admit, command, refused, subscribed

POLICY = """\
[policy]
endorsed = "optional"
revoked = "kill"

[[policy.allow]]
who = ["group:physics"]
images = ["el9"]
networks = ["open"]
memory = "4G"
time = "2d"

[[policy.deny]]
who = ["user:mallory"]
why = "ticket 4711"

[[policy.default]]
who = ["queue:short"]
image = "el9"
canary = "el10"
canary_share = 10

[policy.end_of_life]
"el9" = 2099-01-01
"""


@pytest.fixture
def site(home: Path) -> Path:
    (home / "policy.toml").write_text(POLICY)
    admit(home, "el9")
    return home


def explained(*words: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(command("policy", "explain", *words, "--json").stdout)
    return found


def test_the_policy_is_shown_with_its_lines(site: Path) -> None:
    text = command("policy", "show").stdout
    file = site / "policy.toml"
    assert f"{file}:2  images need no list" in text
    assert f"{file}:5  allow  group:physics: el9 (network open; no root; 4.0 GiB; 2d)" in text
    assert f"{file}:12  deny   user:mallory: * (ticket 4711)" in text
    assert f"{file}:16  default queue:short: default el9, 10 % el10" in text
    assert "end of life of el9: 2099-01-01" in text
    assert json.loads(command("policy", "show", "--json").stdout)["revoked"] == "kill"


def test_without_a_file_what_is_built_in_is_shown(home: Path) -> None:
    text = command("policy", "show").stdout
    assert f"there is no {home}/policy.toml" in text
    assert "allow  *: *" in text


def test_what_decided_is_named_with_its_line(site: Path) -> None:
    done = command("policy", "explain", "--user", "eve", "--group", "physics", "--image", "el9")
    assert "user eve, group physics" in done.stdout
    assert "allowed: image el9, network none" in done.stdout
    assert f"{site}/policy.toml:5  image el9 is allowed" in done.stdout
    assert "rule 'unendorsed'" in done.stdout
    found = explained("--user", "eve", "--group", "physics", "--image", "el9", "--root")
    assert found["allowed"] is False
    assert found["reasons"][-1]["line"] == 5
    assert "not with root" in found["reasons"][-1]["text"]


@pytest.mark.parametrize(
    "words",
    [
        ("--image", "el9"),
        ("--image", "el9", "--group", "physics", "--memory", "8G"),
        ("--image", "el9", "--group", "physics", "--for", "3d"),
        ("--image", "el9", "--group", "physics", "--network", "restricted"),
        ("--image", "nosuch", "--group", "physics"),
        ("--user", "mallory", "--group", "physics", "--image", "el9"),
    ],
)
@pytest.mark.usefixtures("site")
def test_what_is_denied_ends_with_the_status_of_that(words: tuple[str, ...]) -> None:
    assert command("policy", "explain", *words).return_value == 3


@pytest.mark.usefixtures("site")
def test_the_default_of_a_queue_is_explained() -> None:
    words = ("--user", "eve", "--group", "physics", "--queue", "short")
    assert explained(*words)["image"] == "el9"
    done = command("policy", "explain", "--user", "eve", "--group", "physics")
    assert "runs without a machine" in done.stdout
    assert command("policy", "explain", "--group", "physics", "--machine").return_value == 3


@pytest.mark.usefixtures("site")
def test_groups_are_those_that_the_system_knows() -> None:
    name = getpass.getuser()
    own = {grp.getgrgid(number).gr_name for number in os.getgrouplist(name, os.getgid())}
    first = command("policy", "explain", "--user", name).stdout.splitlines()[0]
    assert {part.removeprefix("group ") for part in first.split(", ")[1:]} == own


def test_who_vouches_is_explained(endorser: Path) -> None:
    subscribed(endorser)
    (endorser / "policy.toml").write_text(POLICY.replace("optional", "required"))
    done = command("policy", "explain", "--group", "physics", "--image", "el9")
    assert "trusted: list 'Ours'" in done.stdout
    assert done.return_value is None


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        (("--user", "no-such-user"), Missing),
        (("--cpus", "0"), Invalid),
        (("--memory", "much"), Invalid),
        (("--for", "ever"), Invalid),
    ],
)
@pytest.mark.usefixtures("site")
def test_wrong_words_are_refused(words: tuple[str, ...], kind: type[Exception]) -> None:
    assert isinstance(refused("policy", "explain", *words), kind)
    with pytest.raises(click.UsageError):
        command("policy", "explain", "--image", "el9", "--machine")


# --- check ---------------------------------------------------------------------------------------


def test_what_cannot_be_meant_is_found(site: Path) -> None:
    done = command("policy", "check")
    assert done.return_value == 1
    assert f"{site}/policy.toml:16: no [[policy.allow]] is for image el10" in done.stdout


@pytest.mark.usefixtures("site")
def test_a_policy_is_checked_before_it_is_put_in_place(tmp_path: Path) -> None:
    new = tmp_path / "new.toml"
    new.write_text('[policy]\n[[policy.allow]]\nwho = ["*"]\nimages = ["*"]\n')
    assert command("policy", "check", new).stdout == f"{new}: nothing is wrong with it\n"


@pytest.mark.parametrize(
    "text", ["[policy", "[policy]\nnosuch = 1\n", "[policy]\nrevoked = 'gently'\n", "\xff"]
)
def test_a_policy_that_is_none_is_refused_with_its_line(home: Path, text: str) -> None:
    (home / "policy.toml").write_bytes(text.encode("latin-1"))
    for words in (("check",), ("show",), ("explain",)):
        error = refused("policy", *words)
        assert isinstance(error, Invalid)
        assert "policy.toml" in error.message


@pytest.mark.usefixtures("home")
def test_where_there_is_no_policy_none_is_checked() -> None:
    assert isinstance(refused("policy", "check"), Missing)
