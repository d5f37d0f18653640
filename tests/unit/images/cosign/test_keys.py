"""Which key is for which image, and what a signature that was seen is worth later."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mayfly.errors import Invalid
from mayfly.images.cosign.keys import (
    KeyVoucher,
    RegistryKey,
    Signed,
    answer,
    in_charge,
    parse_prefix,
)
from mayfly.images.cosign.payload import TYPE, check_payload
from mayfly.images.lists.admission import Signatures, admission
from mayfly.images.lists.rules import Refusal, Rule

NOW = datetime(2026, 12, 1, tzinfo=UTC)
DISK = "ab" * 64
DIGEST = "sha256:" + "1" * 64


def key(
    prefix: str = "r.example.org/lab", name: str = "lab", until: datetime | None = None
) -> RegistryKey:
    return RegistryKey(
        name=name, prefix=prefix, pem="", kind="EC", fingerprint=f"of {name}", until=until
    )


def seen(repository: str = "r.example.org/lab/tools", by: str = "lab") -> Signed:
    return Signed(repository=repository, digest=DIGEST, fingerprint=f"of {by}", at=NOW)


@pytest.mark.parametrize(
    ("prefix", "repository", "covered"),
    [
        ("r.example.org", "r.example.org/a/b", True),
        ("r.example.org/lab", "r.example.org/lab", True),
        ("r.example.org/lab", "r.example.org/lab/tools", True),
        ("R.example.org/lab", "r.EXAMPLE.org/lab/tools", True),
        ("r.example.org/lab", "r.example.org/labs", False),
        ("r.example.org", "r.example.org.evil.net/lab", False),
        ("r.example.org", "r.example.org:5000/lab", False),
        ("r.example.org/lab", "other.example.org/lab", False),
    ],
)
def test_a_prefix_ends_at_a_slash(prefix: str, repository: str, covered: bool) -> None:
    assert bool(in_charge([key(prefix)], repository)) is covered


def test_the_longest_prefix_counts_alone() -> None:
    wide, narrow, second = key("r.example.org", "wide"), key(name="one"), key(name="two")
    assert in_charge([wide, narrow, second], "r.example.org/lab/x") == (narrow, second)
    assert in_charge([wide, narrow, second], "r.example.org/x") == (wide,)
    # A wide key does not help where the narrow one has ended.
    ended = key(until=NOW - timedelta(days=1))
    found = answer(seen(by="wide"), [wide, ended], NOW)
    assert isinstance(found, Refusal)
    assert found.rule is Rule.KEY_EXPIRED


def test_what_was_seen_holds_as_long_as_its_key() -> None:
    until = NOW + timedelta(days=1)
    found = answer(seen(), [key(until=until)], NOW)
    assert isinstance(found, KeyVoucher)
    assert str(found) == (
        "registry key 'lab' for r.example.org/lab, signed "
        f"r.example.org/lab/tools@{DIGEST}, until 2026-12-02T00:00:00Z"
    )
    late = answer(seen(), [key(until=until)], until + timedelta(seconds=1))
    assert isinstance(late, Refusal)
    assert late.rule is Rule.KEY_EXPIRED
    other = answer(seen(), [key(name="new")], NOW)
    assert isinstance(other, Refusal)
    assert other.rule is Rule.REGISTRY_KEY
    assert answer(seen(), [], NOW) is None


def test_an_image_is_admitted_by_a_key_without_any_list() -> None:
    signed = Signatures(seen=(seen(),), keys=(key(),))
    found = admission(DISK, (), blocked={}, now=NOW, signed=signed)
    assert (found.trusted, found.until) == (True, None)
    assert str(found).startswith("trusted: registry key 'lab'")
    blocked = admission(DISK, (), blocked={DISK: "a hole"}, now=NOW, signed=signed)
    assert [each.rule for each in blocked.refusals] == [Rule.BLOCKED]
    gone = admission(DISK, (), blocked={}, now=NOW, signed=Signatures(seen=(seen(),)))
    assert [each.rule for each in gone.refusals] == [Rule.UNENDORSED]
    until = NOW + timedelta(days=3)
    both = Signatures(
        seen=(seen(), seen(by="b")), keys=(key(until=NOW), key(name="b", until=until))
    )
    assert admission(DISK, (), blocked={}, now=NOW, signed=both).until == until


@pytest.mark.parametrize(
    "text",
    ["", "lab", "docker://", "r.example.org/Lab", "r.example.org/lab:3", "r.example.org//lab",
     "r.example.org/../x", "r.example.org/lab@sha256:0", "a.b/" + "x" * 300, "-a.b", "https://a.b/c"],
)  # fmt: skip
def test_what_is_no_prefix_is_refused(text: str) -> None:
    with pytest.raises(Invalid, match="no part of a registry"):
        parse_prefix(text)


def test_a_prefix_is_written_as_people_do() -> None:
    assert parse_prefix("docker://r.example.org/lab/") == "r.example.org/lab"
    assert parse_prefix("localhost:5000") == "localhost:5000"


@given(st.binary(max_size=200))
def test_no_payload_but_the_right_one_is_good(payload: bytes) -> None:
    assert check_payload(payload, DIGEST) is not None


def test_the_right_payload_is_good() -> None:
    text = (
        f'{{"critical": {{"type": "{TYPE}", "image": {{"docker-manifest-digest": "{DIGEST}"}}}}}}'
    )
    assert check_payload(text.encode(), DIGEST) is None
    found = check_payload(text.encode(), DIGEST.replace("1", "2"))
    assert found is not None
    assert found.rule is Rule.MANIFEST
