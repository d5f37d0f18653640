"""The tree of errors, and the one table that turns them into exit statuses."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

import pytest

from mayfly import errors
from mayfly.errors import (
    EXIT_AND_HTTP,
    Denied,
    Failed,
    Invalid,
    Missing,
    Quota,
    exit_status,
    refusal,
)

REPOSITORY = Path(__file__).parents[2]
SHELL_STATUSES = {errors.TIME_LIMIT, errors.RUN_FAILED, 126, 127, *range(128, 256)}
"""What the end of a job means to a shell; no error of another command may look like one."""


def test_every_error_has_its_line_in_the_table() -> None:
    assert set(EXIT_AND_HTTP) == set(errors.MayflyError.__subclasses__())


def test_every_error_has_an_exit_status_of_its_own() -> None:
    statuses = [status for status, _ in EXIT_AND_HTTP.values()]
    assert len(set(statuses)) == len(statuses)
    assert not {0, *SHELL_STATUSES} & set(statuses)


def test_http_statuses_are_of_errors() -> None:
    for kind, (_, http) in EXIT_AND_HTTP.items():
        assert (500 if kind in (Failed, errors.Unavailable) else 400) <= http < 600
    assert all(http // 100 in (4, 5) for _, http in EXIT_AND_HTTP.values())


@pytest.mark.parametrize(("kind", "status"), [(Invalid, 2), (Missing, 4), (Failed, 1)])
def test_exit_status_of_an_error(kind: type[errors.MayflyError], status: int) -> None:
    assert exit_status(kind("no such thing")) == status


def test_the_root_itself_counts_as_a_broken_host() -> None:
    assert exit_status(errors.MayflyError("?")) == 1


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOSPC, Quota),
        (errno.EDQUOT, Quota),
        (errno.EROFS, Denied),
        (errno.EACCES, Denied),
        (errno.EIO, Failed),
    ],
)
def test_what_the_host_refuses_has_a_kind(number: int, kind: type[errors.MayflyError]) -> None:
    error = refusal(OSError(number, os.strerror(number), "/some/file"))
    assert type(error) is kind
    assert os.strerror(number) in error.message
    assert "/some/file" in error.message
    assert bool(error.hint) == (kind is Failed)


def test_an_error_carries_message_and_hint() -> None:
    error = Missing("no image 'x'", hint="build it")
    assert (str(error), error.message, error.hint) == ("no image 'x'", "no image 'x'", "build it")
    assert Missing("no image 'x'").hint == ""


def test_the_page_of_exit_statuses_says_the_same() -> None:
    page = (REPOSITORY / "docs/reference/exit-status.md").read_text()
    rows = dict(re.findall(r"^\| (\d+) \| (\w+) \|", page, re.MULTILINE))
    assert rows == {str(status): kind.__name__ for kind, (status, _) in EXIT_AND_HTTP.items()}
    assert f"\n| {errors.RUN_FAILED} |" in page
    assert f"\n| {errors.TIME_LIMIT} |" in page
