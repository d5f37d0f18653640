"""The order of versions is vmcatcher's; the table was made by hand from its rules."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mayfly.images.lists.versions import compare, following

ORDERED = [
    ("1", "2"),
    ("2", "10"),
    ("1.2", "1.10"),
    ("1.2", "1.2.1"),
    ("0.0.9", "0.0.10"),
    ("1.2-3", "1.2-10"),
    ("2014.03.14-1", "2014.03.15-1"),
    ("20150618211400", "20150618211401"),
    ("3.3.0-1", "3.3.0-2"),
    ("alpha", "beta"),
    ("beta", "1"),  # a number is above a word
    ("1.rc1", "1.rc2"),
    ("1.rc9", "1.rc10"),
    ("1.rc", "1.rc1"),
    ("v1", "v2"),
    ("1a", "2"),
    ("9", "9/1"),
]


@pytest.mark.parametrize(("older", "newer"), ORDERED)
def test_one_version_is_above_the_other(older: str, newer: str) -> None:
    assert compare(older, newer) == -1
    assert compare(newer, older) == 1


@pytest.mark.parametrize(("one", "other"), [("1", "1"), ("1.0", "1.0"), ("01", "1"), ("", "")])
def test_two_versions_are_the_same(one: str, other: str) -> None:
    assert compare(one, other) == 0


versions = st.text(alphabet="0123456789abz.-,/ _", max_size=20)


@given(versions, versions)
def test_the_order_has_no_favourites(one: str, other: str) -> None:
    assert compare(one, other) == -compare(other, one)


@given(versions)
def test_a_version_is_not_above_itself(one: str) -> None:
    assert compare(one, one) == 0


moments = st.datetimes(
    min_value=datetime.fromisoformat("1980-01-01"), max_value=datetime.fromisoformat("2200-01-01")
)


@given(versions, moments)
def test_the_version_that_follows_is_always_higher(version: str, moment: datetime) -> None:
    assert compare(following(version, moment.replace(tzinfo=UTC)), version) == 1


def test_the_version_that_follows_is_the_time_where_that_is_higher() -> None:
    now = datetime(2026, 11, 20, 20, 15, 0, tzinfo=UTC)
    assert following("1.4", now) == "20261120201500"
    assert following("", now) == "20261120201500"
    assert following("20261120201500", now) == "20261120201501"
    assert following("30000101000000-9", now) == "30000101000000-10"
