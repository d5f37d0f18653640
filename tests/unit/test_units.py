"""Sizes and durations as people write them."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mayfly.errors import Invalid
from mayfly.units import (
    GIB,
    MIB,
    parse_duration,
    parse_size,
    round_memory,
    show_duration,
    show_size,
)

UNITS = {"": 1, "B": 1, "K": 1 << 10, "M": MIB, "G": GIB, "T": 1 << 40}


def number_or_complaint(parse: Callable[[str], float], text: str) -> float:
    """Give the number, or the place of the text in the error that refuses it."""
    try:
        return parse(text)
    except Invalid as error:
        return error.message.find(text)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("1", 1),
        ("1B", 1),
        ("512M", 512 * MIB),
        ("2G", 2 * GIB),
        ("1GiB", GIB),
        ("1GB", GIB),
        ("1gib", GIB),
        (" 3 k ", 3 << 10),
        ("1T", 1 << 40),
    ],
)
def test_parse_size(text: str, size: int) -> None:
    assert parse_size(text) == size


@given(st.integers(0, 10**9), st.sampled_from(sorted(UNITS)), st.sampled_from(["", "iB", "B"]))
def test_sizes_are_powers_of_1024(number: int, unit: str, suffix: str) -> None:
    written = f"{number}{unit}{suffix if unit not in ('', 'B') else ''}"
    assert parse_size(written) == number * UNITS[unit]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "M",
        "-1",
        "-1M",
        "1.5G",
        "1e9",
        "2X",
        "2MM",
        "1BB",
        "1iB",
        "5BiB",
        "1 G B",
        "1G 1M",
        "nan",
    ],
)
def test_no_size(text: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse_size(text)
    assert f"'{text}'" in caught.value.message
    assert "512M" in caught.value.hint


@given(st.text(max_size=12))
def test_any_text_is_a_size_or_invalid(text: str) -> None:
    assert number_or_complaint(parse_size, text) >= 0


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("7", 7),
        (" 7 ", 7),
        ("90s", 90),
        ("10m", 600),
        ("1h30m", 5400),
        ("8h", 28800),
        ("2d", 172800),
        ("1w", 604800),
        ("1H30M", 5400),
    ],
)
def test_parse_duration(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@given(st.lists(st.tuples(st.integers(0, 9999), st.sampled_from("smhdw")), min_size=1, max_size=4))
def test_parts_of_a_duration_add_up(parts: list[tuple[int, str]]) -> None:
    together = parse_duration("".join(f"{number}{unit}" for number, unit in parts))
    assert together == sum(parse_duration(f"{number}{unit}") for number, unit in parts)


@pytest.mark.parametrize("text", ["", "s", "-5s", "1.5h", "10x", "10 m m", "m10", "1h30", "inf"])
def test_no_duration(text: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse_duration(text)
    assert f"'{text}'" in caught.value.message
    assert "90s" in caught.value.hint


@given(st.text(max_size=12))
@example("0\x1f")
def test_any_text_is_a_duration_or_invalid(text: str) -> None:
    assert number_or_complaint(parse_duration, text) >= 0


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (0, "0 B"),
        (1, "1 B"),
        (999, "999 B"),
        (1536, "1.5 KiB"),
        (512 * MIB, "512 MiB"),
        (20 * GIB, "20 GiB"),
        (GIB, "1.0 GiB"),
        (1023 * MIB, "1.0 GiB"),
    ],
)
def test_show_size(count: int, shown: str) -> None:
    assert show_size(count) == shown


@given(st.integers(0, 999 << 40))
@example(1023 * 1000)
@example(10 * MIB - 1)
def test_a_shown_size_has_three_digits_at_most_and_is_near(count: int) -> None:
    shown = show_size(count)
    match = re.fullmatch(r"(\d+(?:\.\d)?) ((?:[KMGT]i)?B)", shown)
    assert match is not None, shown
    assert len(match[1].replace(".", "")) <= 3, shown
    unit = UNITS[match[2][0]]
    assert abs(float(match[1]) * unit - count) <= 0.5 * unit
    assert abs(float(match[1]) * unit - count) <= 0.06 * count


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.42, "0.42 s"),
        (0, "0.00 s"),
        (12, "12 s"),
        (59.4, "59 s"),
        (60, "1m"),
        (90, "1m 30s"),
        (3600, "1h"),
        (5400, "1h 30m"),
        (86400 + 7200, "1d 2h"),
        (100 * 86400, "100d"),
    ],
)
def test_show_duration(seconds: float, shown: str) -> None:
    assert show_duration(seconds) == shown


@given(st.integers(60, 10**8))
def test_what_is_shown_of_a_duration_can_be_read_again(seconds: int) -> None:
    shown = show_duration(seconds)
    assert parse_duration(shown.replace(" ", "")) <= seconds
    assert parse_duration(shown.replace(" ", "")) >= seconds * 0.95


@pytest.mark.parametrize(
    ("size", "mib"),
    [
        (0, 256),
        (1, 256),
        (256 * MIB, 256),
        (256 * MIB + 1, 384),
        (384 * MIB, 384),
        (GIB, 1024),
        (GIB - 1, 1024),
        (GIB + 1, 1152),
    ],
)
def test_memory_is_rounded_up(size: int, mib: int) -> None:
    assert round_memory(size) == mib


@given(st.integers(0, 1 << 44))
def test_rounded_memory_is_enough_and_not_much_more(size: int) -> None:
    mib = round_memory(size)
    assert mib % 128 == 0
    assert size <= mib * MIB
    assert mib == 256 or mib * MIB < size + 128 * MIB


@pytest.mark.parametrize("size", [(1 << 44) + 1, 1 << 60])
def test_no_computer_has_so_much_memory(size: int) -> None:
    with pytest.raises(Invalid, match="memory"):
        round_memory(size)
