"""Files that an installation changes, and how they come back."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mayfly.batch.changes import (
    Change,
    apply,
    difference,
    read_journal,
    take_back,
    with_block,
    without_block,
)
from mayfly.errors import Failed, Missing


def snapshot(top: Path) -> dict[str, tuple[int, bytes | None]]:
    """Give every file and directory with its mode and content."""
    return {
        str(path): (path.stat().st_mode, path.read_bytes() if path.is_file() else None)
        for path in sorted(top.rglob("*"))
    }


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A site's directory, with a file without a last newline that nobody else may read."""
    top = tmp_path / "etc"
    top.mkdir()
    (top / "slurm.conf").write_bytes(b"ClusterName=x\r\n# \xff bytes")
    (top / "slurm.conf").chmod(0o640)
    return top


def changes(site: Path) -> list[Change]:
    text = (site / "slurm.conf").read_bytes().decode("utf-8", "surrogateescape")
    block = with_block(text, ["Epilog=/x"]).encode("utf-8", "surrogateescape")
    return [
        Change(path=site / "lib/deep/program", content=b"#!/bin/sh\n", mode=0o755),
        Change(path=site / "slurm.conf", content=block),
    ]


def test_everything_is_as_before_afterwards(site: Path) -> None:
    before = snapshot(site)
    journal = site / "lib/installed.json"
    os.umask(0o077)
    apply(changes(site), journal)
    os.umask(0o022)
    assert (site / "lib/deep/program").stat().st_mode & 0o7777 == 0o755
    assert (site / "lib/deep").stat().st_mode & 0o7777 == 0o755
    assert b"Epilog=/x" in (site / "slurm.conf").read_bytes()
    assert take_back(journal) == []
    assert snapshot(site) == before


def test_also_after_it_was_installed_twice(site: Path) -> None:
    before = snapshot(site)
    journal = site / "lib/installed.json"
    for _ in range(2):
        apply(changes(site), journal)
    assert (site / "slurm.conf").read_bytes().count(b"Epilog=/x") == 1
    assert take_back(journal) == []
    assert snapshot(site) == before


def test_also_when_it_was_killed_half_way(site: Path) -> None:
    before = snapshot(site)
    journal = site / "lib/installed.json"
    blocked = Change(path=site / "slurm.conf/inside", content=b"")
    with pytest.raises(Failed, match="cannot write") as caught:
        apply([changes(site)[0], blocked], journal)
    assert "takes back what was done so far" in caught.value.hint
    assert (site / "lib/deep/program").exists()
    take_back(journal)
    assert snapshot(site) == before


def test_what_the_site_changed_since_stays(site: Path) -> None:
    journal = site / "lib/installed.json"
    apply(changes(site), journal)
    with open(site / "slurm.conf", "ab") as file:
        file.write(b"KillWait=7\n")
    (words,) = take_back(journal)
    assert "was changed since" in words
    assert (site / "slurm.conf").read_bytes() == b"ClusterName=x\r\n# \xff bytes\nKillWait=7\n"


def test_a_file_that_the_site_removed_stays_away(site: Path) -> None:
    journal = site / "lib/installed.json"
    apply(changes(site), journal)
    (site / "slurm.conf").unlink()
    assert "was removed since" in take_back(journal)[0]
    assert not (site / "slurm.conf").exists()


def test_without_a_journal_nothing_is_taken_back(site: Path) -> None:
    with pytest.raises(Missing, match=f"nothing is installed .* no {site}/none") as told:
        take_back(site / "none")
    assert "--programs" in told.value.hint
    for text in ("", "{}", "[]", '{"format": 1, "files": [{}]}'):
        (site / "journal").write_text(text)
        with pytest.raises(Failed, match="cannot read what was installed"):
            read_journal(site / "journal")


def test_the_difference_is_shown_and_nothing_done(site: Path) -> None:
    before = snapshot(site)
    text = "\n".join(difference(changes(site)))
    assert "+Epilog=/x" in text
    assert "+#!/bin/sh" in text
    assert snapshot(site) == before


@given(st.text(alphabet="ab#\n <>may", max_size=60), st.sampled_from(["#", "--"]))
def test_our_lines_come_and_go_and_nothing_else(text: str, comment: str) -> None:
    whole = with_block(text, ["x = 1"], comment=comment)
    assert "x = 1\n" in whole
    assert without_block(whole).removesuffix("\n") == without_block(text).removesuffix("\n")
