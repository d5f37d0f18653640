"""Ports of a real agent: whatever comes in, and hosts that come and go."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from mayfly.guest.framing import (
    DATA_LIMIT,
    SYNC_HEADER,
    Kind,
    Stream,
    pack,
    pack_message,
    pack_sync,
)
from mayfly.guest.lines import Sort, line_at
from mayfly.guest.linux import run_tool
from tests.unit.guest.host import (
    Agent,
    Peer,
    alive,
    assert_soon,
    command,
    environment,
    running_agent,
)

START = {
    "type": "start",
    "argv": ["true"],
    "env": {},
    "cwd": "/",
    "umask": 18,
    "limits": {},
    "tty": None,
    "root": False,
    "stdin": True,
    "workdir": None,
}
values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)
# Not "renew": one that fails is meant to spoil the machine.
types = st.sampled_from(["start", "resize", "signal", "sample", "claim", "settle", "no"])
keys = st.sampled_from(
    ["id", "env", "umask", "limits", "tty", "root", "stdin", "rows", "cols", "signal", "account"]
)
messages = st.builds(
    lambda sort, rest: pack_message({**START, **rest, "type": sort}),
    types,
    st.dictionaries(keys, values, max_size=4),
)
frames = st.builds(
    pack,
    st.sampled_from([Kind.MESSAGE, Kind.DATA, Kind.EOF, Kind.CREDIT, Kind.CLOSE]),
    st.integers(0, 6),
    st.one_of(st.binary(max_size=8), st.just(b"\0\0\0\1"), st.just(b'{"type":"start"}')),
)
pieces = st.one_of(
    st.binary(max_size=100),
    frames,
    messages,
    st.just(pack_sync(b"0123456789abcdef")),
    st.just(SYNC_HEADER),
)


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(pieces, max_size=6).map(b"".join), st.booleans())
@example(pack(Kind.MESSAGE, 1, b"{" * 100_000) + pack(Kind.MESSAGE, 0, b""), True)
@example(pack(Kind.MESSAGE, 0, b"[" * 100_000), False)
@example(SYNC_HEADER[:5] + pack_sync(b"0123456789abcdef") + SYNC_HEADER, True)
def test_whatever_comes_the_agent_goes_on(agent: Agent, data: bytes, known: bool) -> None:
    for peer in (agent.session, agent.control):
        if known:
            peer.sync()
        peer.raw(data)
        # A frame that was announced, and not sent, must not swallow the next SYNC.
        peer.raw(bytes(DATA_LIMIT + 8))
        peer.sync()
    assert agent.session.run("echo", "well")["code"] == 0
    assert agent.control.ask("sample")["type"] == "ok"
    assert agent.process.poll() is None


def test_nothing_is_left_of_all_that(agent: Agent) -> None:
    agent.session.sync()
    assert_soon(lambda: not agent.children())


def test_a_sync_may_be_cut_anywhere(agent: Agent) -> None:
    whole = pack_sync(b"A" * 16)
    for at in range(1, len(whole)):
        agent.control.fresh()
        agent.control.raw(b"noise" + whole[:at])
        agent.control.idle(0)
        agent.control.raw(whole[at:])
        agent.control.until(lambda: agent.control.answered == b"A" * 16)
        assert agent.control.message("hello")["protocol"] == 1


# --- hosts that come and go ---


@contextmanager
def listening(path: Path) -> Iterator[socket.socket]:
    """Give a socket that the agent connects to, as if it were a port."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.settimeout(20)
        listener.bind(str(path))
        listener.listen(1)
        yield listener


def test_a_host_may_come_back(tmp_path: Path) -> None:
    paths = [tmp_path / "control", tmp_path / "session"]
    words = [f"--control={paths[0]}", f"--session={paths[1]}", "--test-unclaimed"]
    with ExitStack() as stack:
        control, session = (stack.enter_context(listening(path)) for path in paths)
        process = subprocess.Popen(command(tmp_path, *words), env=environment())
        stack.callback(process.wait)
        stack.callback(process.kill)
        Peer(stack.enter_context(control.accept()[0])).sync()
        first = Peer(session.accept()[0])
        first.sync()
        first.start("sh", "-c", "trap '' HUP; echo ready; exec sleep 60")
        pid = first.message("started")["pid"]
        first.until(lambda: bool(first.text()))
        first.raw(pack(Kind.DATA, Stream.STDIN, bytes(1000))[:500])
        first.step(0)
        first.socket.close()
        second = Peer(stack.enter_context(session.accept()[0]))
        assert second.run("echo", "again")["code"] == 0
        assert second.text() == "again\n"
        assert_soon(lambda: not alive(pid))


def test_both_ports_gone_is_the_end_even_of_a_stubborn_job(tmp_path: Path) -> None:
    with running_agent(tmp_path, "--test-unclaimed") as agent:
        agent.session.sync()
        agent.session.start("sh", "-c", "trap '' HUP; echo ready; sleep 60")
        agent.session.until(lambda: bool(agent.session.text()))
        pid = agent.session.messages[0]["pid"]
        assert alive(pid)
    assert_soon(lambda: not alive(pid))


# --- safety ---


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--control-fd=0", "--session-fd=0"], "a port that is no device needs --test-root"),
        (["extra"], "unexpected argument 'extra'"),
    ],
)
def test_outside_of_a_machine_the_agent_needs_to_be_told(words: list[str], complaint: str) -> None:
    start = command(Path("/"), *words)
    start = start[:4] + words
    done = subprocess.run(start, check=False, capture_output=True, text=True, env=environment())
    assert done.returncode == 1
    assert complaint in done.stderr


def test_a_path_is_a_socket_or_a_device(tmp_path: Path) -> None:
    with listening(tmp_path / "port"):
        assert line_at(str(tmp_path / "port")).sort is Sort.SOCKET
    assert line_at("/dev/null").sort is Sort.DEVICE


def test_tools_have_their_time() -> None:
    assert run_tool(["sh", "-c", "echo out; echo err >&2; exit 3"], timeout_s=20) == (3, b"out\n")
    assert run_tool(["nosuch-tool"], timeout_s=1) == (127, b"")
    assert run_tool(["sleep", "60"], timeout_s=0.05) == (124, b"")
    assert run_tool(["sh", "-c", "sleep 60 & echo $!"], timeout_s=20)[0] == 0
