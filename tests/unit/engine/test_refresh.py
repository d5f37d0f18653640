"""A machine whose memory is that of an earlier moment, and the proof that it is no repetition."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from mayfly.engine.control import Control
from mayfly.engine.machine import Machine
from mayfly.engine.monitor import Monitor
from mayfly.engine.process import Process
from mayfly.engine.records import new_place
from mayfly.engine.refresh import (
    DRAWN,
    DRAWN_LIMIT,
    begin_refresh,
    end_refresh,
    read_drawn,
    refresh,
)
from mayfly.errors import Failed, Quota
from mayfly.guest.framing import Kind, Parser, pack_message, pack_sync
from tests.unit.engine.machines import a_record

Answer = Callable[[dict[str, Any]], dict[str, Any]]


def honest(request: dict[str, Any]) -> dict[str, Any]:
    """Answer as an agent does that took its seed and the time."""
    return {"type": "ok", "random": request["seed"][:32], "time_ns": request["time_ns"]}


@contextmanager
def answering(place: Path, answer: Answer, *features: str) -> Iterator[tuple[Machine, list[str]]]:
    """Give a machine whose agent answers so, and what it was asked for."""
    ours, theirs = socket.socketpair()
    qmp, other = socket.socketpair()
    asked: list[str] = []

    def serve() -> None:
        # Whoever asked may have gone before the answer.
        with contextlib.suppress(OSError):
            parser = Parser()
            while data := theirs.recv(65536):
                for frame in parser.feed(data):
                    if frame.kind is Kind.SYNC:
                        hello = {"type": "hello", "protocol": 1, "protocol_min": 1}
                        theirs.sendall(pack_sync(frame.payload))
                        theirs.sendall(pack_message({**hello, "features": list(features)}))
                    else:
                        asked.append(frame.message["type"])
                        said = {**answer(frame.message), "id": frame.message["id"]}
                        theirs.sendall(pack_message(said))

    _, held = new_place(place)
    gone = os.eventfd(0)
    process = Process(pid=0, handle=gone, monitor=Monitor(qmp), place=held.path, output=-1)
    thread = threading.Thread(target=serve)
    thread.start()
    with theirs, other, qmp, ours:
        yield Machine(process, Control(ours, gone), a_record(), held), asked
        ours.shutdown(socket.SHUT_RDWR)
        thread.join()
    os.close(gone)
    held.remove()


def test_each_refresh_draws_other_numbers_and_they_are_remembered(tmp_path: Path) -> None:
    with answering(tmp_path / "m", honest, "refresh") as (machine, asked):
        for number in range(1, 4):
            refresh(machine, tmp_path)
            assert len(set(read_drawn(tmp_path))) == number
    assert asked == ["refresh"] * 3


def test_both_halves_may_be_done_apart(tmp_path: Path) -> None:
    with answering(tmp_path / "m", honest, "refresh") as (machine, _):
        underway = begin_refresh(machine)
        deadline = time.monotonic() + 20
        while not machine.control.arrived(underway.number):
            assert time.monotonic() < deadline
        assert read_drawn(tmp_path) == []
        end_refresh(machine, underway, tmp_path)
    assert len(read_drawn(tmp_path)) == 1


def test_a_machine_that_repeats_itself(tmp_path: Path) -> None:
    def deaf(request: dict[str, Any]) -> dict[str, Any]:
        return {**honest(request), "random": "5" * 32}

    with answering(tmp_path / "m", deaf, "refresh") as (machine, _):
        refresh(machine, tmp_path)
        with pytest.raises(Failed, match="random numbers repeat"):
            refresh(machine, tmp_path)
    assert read_drawn(tmp_path) == ["5" * 32]


@pytest.mark.parametrize("off_s", [-3, 60])
def test_a_machine_that_lives_at_another_time(tmp_path: Path, off_s: int) -> None:
    def late(request: dict[str, Any]) -> dict[str, Any]:
        return {**honest(request), "time_ns": request["time_ns"] + off_s * 10**9}

    with (
        answering(tmp_path / "m", late, "refresh") as (machine, _),
        pytest.raises(Failed, match="clock"),
    ):
        refresh(machine, tmp_path)


def test_an_agent_that_cannot(tmp_path: Path) -> None:
    def refuse(_: dict[str, Any]) -> dict[str, Any]:
        return {"type": "error", "reason": "no such request"}

    with (
        answering(tmp_path / "a", refuse, "sshd") as (machine, _),
        pytest.raises(Failed, match="knows no 'refresh'"),
    ):
        refresh(machine, tmp_path)
    with (
        answering(tmp_path / "b", refuse, "refresh") as (machine, _),
        pytest.raises(Failed, match="no such request"),
    ):
        refresh(machine, tmp_path)


@pytest.mark.parametrize("text", ["", "{", "{}", "7", "[" * 100_000])
def test_a_memory_of_them_that_is_spoilt_counts_for_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / DRAWN).write_text(text)
    assert read_drawn(tmp_path) == []
    with answering(tmp_path / "m", honest, "refresh") as (machine, _):
        refresh(machine, tmp_path)
    assert len(read_drawn(tmp_path)) == 1


def test_it_does_not_grow_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mayfly.engine.refresh.DRAWN_LIMIT", 3)
    with answering(tmp_path / "m", honest, "refresh") as (machine, _):
        for _ in range(5):
            refresh(machine, tmp_path)
    assert len(read_drawn(tmp_path)) == 3 < DRAWN_LIMIT


def test_a_place_that_cannot_be_written_to(tmp_path: Path) -> None:
    with (
        answering(tmp_path / "m", honest, "refresh") as (machine, _),
        pytest.raises(Quota, match="cannot make the files"),
    ):
        refresh(machine, tmp_path / "nowhere")
