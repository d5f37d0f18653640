"""What came of a test counts for the disk that was tested, and for no other."""

from __future__ import annotations

from pathlib import Path

import pytest

from mayfly.errors import Untrusted
from mayfly.images.catalogue.tested import NEVER, Result, Verdict, read_tests, write_tests

GOOD = Result(name="boots", passed=True, code=0, seconds=0.5)
BAD = Result(name="python", passed=False, code=1, seconds=0.5, why="exit status 1")


def verdict_of(*results: Result) -> Verdict:
    return Verdict(sha512="ab" * 64, tested_at="2026-11-30T12:00:00Z", results=results)


@pytest.mark.parametrize(
    ("results", "summary"),
    [
        ((GOOD, BAD), "failed 2026-11-30T12:00:00Z (1 of 2)"),
        ((GOOD,), "passed 2026-11-30T12:00:00Z (1 of 1)"),
        ((), ""),
    ],
)
def test_a_result_is_read_as_it_was_written(
    tmp_path: Path, results: tuple[Result, ...], summary: str
) -> None:
    write_tests(tmp_path, verdict_of(*results))
    assert read_tests(tmp_path) == verdict_of(*results)
    assert read_tests(tmp_path).summary == summary
    assert [path.name for path in tmp_path.iterdir()] == ["tests.json"]


def test_a_result_of_another_disk_is_none(tmp_path: Path) -> None:
    assert read_tests(tmp_path) == NEVER
    write_tests(tmp_path, verdict_of(GOOD))
    assert read_tests(tmp_path, "ab" * 64).passed
    assert read_tests(tmp_path, "cd" * 64) == NEVER


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{}", b'{"format": 1}', b"\xff", b'{"format":1,"results":[1]}']
)
def test_a_damaged_result_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "tests.json").write_bytes(content)
    with pytest.raises(Untrusted, match=r"tests\.json"):
        read_tests(tmp_path)


def test_a_result_of_a_later_version_is_none(tmp_path: Path) -> None:
    (tmp_path / "tests.json").write_text('{"format": 2, "what": "ever"}')
    assert read_tests(tmp_path) == NEVER
