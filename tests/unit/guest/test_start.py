"""Jobs that cannot start, and conversations that are lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mayfly.guest.framing import Kind, Stream, pack
from tests.unit.guest.host import Agent, Peer, alive, assert_soon, exited, sh

# --- failures to start ---


@pytest.mark.parametrize(
    ("argv", "fields", "code", "reason"),
    [
        (("nosuch-program",), {}, 127, "nosuch-program: not found in PATH"),
        (("/nosuch/program",), {}, 127, "/nosuch/program: No such file or directory"),
        (("/etc/passwd",), {}, 126, "/etc/passwd: Permission denied"),
        (("/etc",), {}, 126, "/etc: Permission denied"),
        (("true",), {"cwd": "/nosuch"}, 125, "cannot enter /nosuch: No such file or directory"),
        (("true",), {"cwd": "relative"}, 125, "'cwd' must be an absolute path"),
        (("true",), {"root": True}, 125, "jobs may not run as root in this machine"),
        ((), {}, 125, "'argv' is empty"),
        (("a\0b",), {}, 125, "'argv' holds a zero byte"),
        (("\ud800",), {}, 125, "'argv' holds what stands for no bytes"),
        (("true",), {"env": {"A=B": "c"}}, 125, "'A=B' cannot be the name of a variable"),
        (("true",), {"env": {"A": 1}}, 125, "'env' must be text"),
        (("true",), {"umask": 512}, 125, "'umask' must be a whole number from 0 to 511"),
        (("true",), {"limits": {"core": 1}}, 125, "the limit 'core' must be a pair"),
        (("true",), {"tty": {"rows": 1}}, 125, "'cols' must be a whole number from 0 to 65535"),
    ],
)
def test_a_job_that_cannot_start_says_why(
    session: Peer, argv: tuple[str, ...], fields: dict[str, Any], code: int, reason: str
) -> None:
    failed = session.run(*argv, **fields)
    assert failed["type"] == "failed"
    assert failed["code"] == code
    assert reason in failed["reason"]
    assert not session.ended


def test_a_script_for_nobody_is_not_executable(session: Peer, tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_bytes(b"\x7fELF nonsense")
    program.chmod(0o755)
    failed = session.run(str(program))
    assert (failed["code"], failed["reason"]) == (126, f"{program}: Exec format error")


def test_path_is_searched_as_a_shell_does(session: Peer, tmp_path: Path) -> None:
    for name, mode in (("first", 0o644), ("second", 0o755)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "tool").write_text(f"#!/bin/sh\necho {name}\n")
        (tmp_path / name / "tool").chmod(mode)
    path = f"/nosuch:{tmp_path}/first:{tmp_path}/second"
    assert session.run("tool", env={"PATH": path}) == exited(0)
    assert session.text() == "second\n"
    failed = session.run("tool", env={"PATH": f"/nosuch:{tmp_path}/first"})
    assert failed["code"] == 126


# --- conversations ---


def test_a_signal_may_come_before_the_job(session: Peer, tmp_path: Path) -> None:
    files = {"path": str(tmp_path), "in": True, "out": False}
    session.start("sleep", "60", workdir=files)
    session.say("signal", signal="TERM")
    session.idle(0.05)
    assert not session.messages
    session.write(Stream.FILES_IN, b'\x00\x00\x00\x14["e","",0,0,0,""]   ')
    session.until(session.over)
    assert session.messages[-2] == {"type": "exit", "code": None, "signal": "TERM"}


def test_a_lost_host_hangs_up_the_job(session: Peer, agent: Agent) -> None:
    session.start(*sh("trap 'exit 0' HUP; echo ready; while :; do sleep 0.02; done"))
    pid = session.message("started")["pid"]
    session.until(lambda: b"ready" in session.received[Stream.STDOUT])
    session.sync()
    assert_soon(lambda: not alive(pid))
    assert_soon(lambda: not agent.children())


def test_a_job_that_ignores_the_hang_up_is_killed(session: Peer) -> None:
    session.start(*sh("trap '' HUP; echo ready; while :; do sleep 0.02; done"))
    pid = session.message("started")["pid"]
    session.until(lambda: b"ready" in session.received[Stream.STDOUT])
    session.sync()
    assert session.run("echo", "next") == exited(0)
    assert session.text() == "next\n"
    assert alive(pid)
    assert_soon(lambda: not alive(pid))


def test_one_conversation_is_one_job(session: Peer) -> None:
    session.start("true")
    session.until(session.over)
    session.start("true")
    session.idle(0.1)
    assert session.messages[-1]["type"] == "bye"


@pytest.mark.parametrize(
    "nonsense",
    [
        pack(Kind.DATA, Stream.STDOUT, b"wrong way"),
        pack(Kind.EOF, 77),
        pack(Kind.MESSAGE, 0, b'{"type":"nosuch"}'),
        pack(Kind.MESSAGE, 0, b'{"type":"signal","signal":9}'),
        pack(Kind.MESSAGE, 0, b'{"type":"resize","rows":"x"}'),
        pack(Kind.MESSAGE, 0, b"{"),
        b"\xff" * 100,
    ],
)
def test_nonsense_ends_the_conversation_only(session: Peer, nonsense: bytes) -> None:
    session.start("sleep", "60")
    pid = session.message("started")["pid"]
    session.raw(nonsense)
    session.idle(0.02)
    assert_soon(lambda: not alive(pid))
    assert session.run("echo", "next") == exited(0)
