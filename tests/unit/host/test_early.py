"""What is asked before the command line is read is what the whole command line asks for."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mayfly.cli import run as run_module
from mayfly.cli.output import Progress
from mayfly.config import Settings
from mayfly.errors import Invalid
from mayfly.host import client, protocol
from mayfly.host.early import ask_early, request_of
from mayfly.host.run import claim_fields

PLAIN = [
    ["debian-12", "true"],
    ["debian-12", "--", "ls", "-l"],
    ["--cpus", "2", "--memory=1G", "debian-12", "--", "sh", "-c", "echo $HOME"],
    ["--no-workdir", "debian-12", "--network", "open", "--root", "--", "id"],
    ["-q", "--timings", "--job", "c/1/0", "debian-12", "--", "true"],
    ["--job=c/1/0", "--cpus=2", "debian-12", "--", "true"],
    ["--env", "A=--memory=2G", "--for", "1h", "debian-12", "--", "--memory", "3G"],
]
NOT_PLAIN = [
    [],
    ["debian-12"],
    ["--help"],
    ["debian-12", "ls", "-l"],
    ["--detach", "debian-12"],
    ["--share", "/data", "debian-12", "true"],
    ["--allow", "a:1", "--network", "restricted", "debian-12", "true"],
    ["--disk", "4G", "debian-12", "true"],
    ["--cpus", "many", "debian-12", "true"],
    ["--cpus", "0", "debian-12", "true"],
    ["--memory", "lots", "debian-12", "true"],
    ["--network", "none-such", "debian-12", "true"],
    ["--no-wait", "debian-12", "true"],
]


def asked_in_full(words: list[str]) -> dict[str, Any] | None:
    """Give what the real command asks for, or None when it refuses the words."""
    try:
        context = run_module.run.make_context("run", list(words))
        options = run_module.Options(**context.params)
        job = run_module._job(options, Settings(), Progress(quiet=True))
    except (click.ClickException, click.exceptions.Exit, Invalid):
        return None
    return claim_fields(job, key=options.job or "", wait=not options.no_wait)


@pytest.mark.parametrize("words", PLAIN)
def test_a_plain_line_is_asked_for_early_and_alike(words: list[str]) -> None:
    early = request_of(words)
    assert early is not None
    assert early == asked_in_full(words)


@pytest.mark.parametrize("words", NOT_PLAIN)
def test_everything_else_waits_for_the_whole_line(words: list[str]) -> None:
    assert request_of(words) is None


WORDS = (
    "--cpus 2 --memory 1G --memory=300M --network open none --root -q --env A=1 debian-12 -- true "
    "--timings --workdir / --job c/1/0"
)
word = st.sampled_from(WORDS.split())


@settings(max_examples=300, deadline=None)
@given(st.lists(word, max_size=8))
def test_no_line_is_asked_for_otherwise_than_in_full(words: list[str]) -> None:
    early, full = request_of(words), asked_in_full(words)
    if early is not None and full is not None:
        assert early == full
    else:
        assert early is None or full is None


def listening(tmp_path: Path) -> tuple[socket.socket, Mapping[str, str]]:
    door = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    door.bind(str(tmp_path / "sock"))
    door.listen()
    return door, {"MAYFLY_HOST_SOCKET": str(tmp_path / "sock"), "HOME": str(tmp_path)}


def test_it_asks_the_service_at_once(tmp_path: Path) -> None:
    door, environ = listening(tmp_path)
    with door:
        early = ask_early(["debian-12", "true"], environ)
        assert early is not None
        with door.accept()[0] as other:
            got = protocol.receive(other)
            assert got is not None
            assert got[0]["op"] == "claim"
            taken = early.take(request_of(["debian-12", "true"]) or {})
            assert taken is not None
            assert early.take(request_of(["debian-12", "true"]) or {}) is None
            taken.close()


def test_a_request_that_was_not_meant_is_taken_back(tmp_path: Path) -> None:
    door, environ = listening(tmp_path)
    with door:
        early = ask_early(["debian-12", "true"], environ)
        assert early is not None
        with door.accept()[0] as other:
            assert protocol.receive(other) is not None
            assert early.take({}) is None
            assert protocol.receive(other) is None


def test_settings_of_ones_own_are_waited_for(tmp_path: Path) -> None:
    door, environ = listening(tmp_path)
    with door:
        assert ask_early(["debian-12", "true"], {**environ, "MAYFLY_RUN_CPUS": "2"}) is None
        own = tmp_path / ".config/mayfly/config.toml"
        own.parent.mkdir(parents=True)
        own.write_text("cpus = 2")
        assert ask_early(["debian-12", "true"], environ) is None


def test_without_a_service_nothing_is_asked(tmp_path: Path) -> None:
    environ = {"MAYFLY_HOST_SOCKET": str(tmp_path / "none"), "HOME": str(tmp_path)}
    assert ask_early(["debian-12", "true"], environ) is None
    assert client.connect(client.socket_path(environ)) is None
