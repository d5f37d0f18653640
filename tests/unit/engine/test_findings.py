"""What ``mayfly doctor`` finds out about this host."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from mayfly.config import Paths
from mayfly.engine import findings
from mayfly.engine.findings import NEEDED_FREE, TOOLS, look_at_host
from mayfly.engine.share import SERVERS
from mayfly.model import Finding


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths.for_user({"MAYFLY_HOME": str(tmp_path / "not" / "there" / "yet")})


def look(paths: Paths) -> dict[str, Finding]:
    found = list(look_at_host(paths))
    assert len({item.name for item in found}) == len(found)
    return {item.name: item for item in found}


def test_what_is_missing_names_the_command_that_mends_it(
    paths: Paths, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found = look(paths)
    for tool in TOOLS:
        item = found[tool.program]
        assert (item.ok, item.needed) == (False, tool.needed)
        assert item.mend == f"apt-get install {tool.package}"
        assert tool.purpose in item.detail


def test_what_is_there_says_where(
    paths: Paths, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for tool in TOOLS:
        (tmp_path / tool.program).write_text("#!/bin/sh\n")
        (tmp_path / tool.program).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    found = look(paths)
    for tool in TOOLS:
        assert found[tool.program].ok
        assert found[tool.program].detail == str(tmp_path / tool.program)


def test_every_finding_that_may_fail_says_what_to_do(paths: Paths) -> None:
    for item in look(paths).values():
        assert item.detail
        assert item.mend


def test_room_is_looked_at_where_things_will_lie(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    for free, ok in ((NEEDED_FREE, True), (NEEDED_FREE - 1, False)):
        usage = SimpleNamespace(free=free)
        monkeypatch.setattr(shutil, "disk_usage", lambda path, usage=usage: usage)
        found = look(paths)
        for directory in (paths.state, paths.cache):
            item = found[str(directory)]
            assert (item.ok, item.needed) == (ok, True)
            assert "free" in item.detail
    assert not paths.state.exists(), "nothing is created"


def test_a_directory_that_may_not_be_written_to(
    paths: Paths, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path and real(path, mode))
    item = look(paths)[str(paths.state)]
    assert not item.ok
    assert f"{tmp_path} may not be written to" in item.detail
    assert "MAYFLY_HOME" in item.mend


@pytest.mark.parametrize(
    ("uid", "work", "words"),
    [
        (0, True, "each with its own uid"),
        (1000, True, "run as your own uid"),
        (1000, False, "has all your rights"),
    ],
)
def test_how_far_machines_are_shut_in_is_said(
    paths: Paths, monkeypatch: pytest.MonkeyPatch, uid: int, work: bool, words: str
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    monkeypatch.setattr(findings, "namespaces_work", lambda: work)
    item = look(paths)["namespaces"]
    assert (item.ok, item.needed) == (work, False)
    assert words in item.detail


def test_memory_and_processors_are_told(paths: Paths) -> None:
    item = look(paths)["memory"]
    assert f"{len(os.sched_getaffinity(0))} CPUs" in item.detail
    assert "available of" in item.detail


def test_the_mend_of_namespaces_is_the_one_for_this_kernel(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(findings, "namespaces_work", lambda: False)
    monkeypatch.setattr(findings, "namespace_hint", lambda sysctls: f"mended by {sysctls}")
    assert look(paths)["namespaces"].mend == "mended by /proc/sys"


def test_the_server_of_shares_is_looked_for_where_shares_find_it(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: path == SERVERS[-2])
    assert look(paths)["sftp-server"].detail == SERVERS[-2]
