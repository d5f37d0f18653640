"""The memory of a template: read from disk once, held by one process, gone with the template."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from mayfly.engine import memory, template
from mayfly.engine.template import (
    MEMORY,
    Engine,
    open_memory,
    remove_template,
    sweep_templates,
    template_lock,
)
from tests.unit.engine.templates import engine_in, ignore, made


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Engine:
    monkeypatch.setattr(template, "disk_key", lambda: "agent")
    return engine_in(tmp_path)


def end_of(path: Path) -> None:
    holder = memory.read_holder(path)
    if holder is not None:
        os.kill(holder.pid, signal.SIGKILL)
        os.waitpid(holder.pid, 0)


def test_memory_is_read_from_disk_once_and_then_held(engine: Engine) -> None:
    written = made(engine)
    said: list[str] = []
    first = open_memory(engine, written, said.append)
    again = open_memory(engine, written, said.append)
    try:
        assert memory.is_sealed(first)
        assert os.fstat(first).st_size == 1 << 20
        assert os.path.sameopenfile(first, again)
        assert len(said) == 1
    finally:
        end_of(written.path)
        os.close(first)
        os.close(again)


def test_memory_that_is_soon_let_go_is_held_anew_and_only_once(engine: Engine) -> None:
    written = made(engine)
    fd = memory.load("x", written.path / MEMORY, 1 << 20)
    memory.hold(written.path, fd, title="old", hours=1)
    old = memory.read_holder(written.path)
    assert old is not None
    again = open_memory(engine, written, ignore)
    new = memory.read_holder(written.path)
    try:
        assert os.waitpid(old.pid, 0)[1] == signal.SIGKILL
        assert new is not None
        assert new.until > time.time() + 3600 * (engine.settings.template_hours - 1)
        assert os.path.sameopenfile(fd, again)
    finally:
        end_of(written.path)
        os.close(fd)
        os.close(again)


def test_those_who_come_at_once_have_one_holder(engine: Engine) -> None:
    written = made(engine)
    fds: list[int] = []
    threads = [
        threading.Thread(target=lambda: fds.append(open_memory(engine, written, ignore)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    try:
        assert len(fds) == 4
        assert all(os.path.sameopenfile(fds[0], fd) for fd in fds)
    finally:
        end_of(written.path)
        for fd in fds:
            os.close(fd)


def test_a_removed_template_leaves_nothing_not_even_its_memory(engine: Engine) -> None:
    written = made(engine)
    with template_lock(engine, written.key, ignore):
        pass
    os.close(open_memory(engine, written, ignore))
    holder = memory.read_holder(written.path)
    assert holder is not None
    remove_template(written.path)
    assert os.waitpid(holder.pid, 0)[1] == signal.SIGKILL
    assert not list(engine.paths.templates.iterdir())


def test_the_memory_of_what_a_killed_command_left_goes_too(engine: Engine) -> None:
    debris = engine.paths.templates / ".key"
    debris.mkdir(parents=True)
    fd = memory.new_memory("x", 1 << 20)
    memory.hold(debris, fd, title="x", hours=1)
    os.close(fd)
    holder = memory.read_holder(debris)
    assert holder is not None
    sweep_templates(engine.paths.templates)
    assert os.waitpid(holder.pid, 0)[1] == signal.SIGKILL
    assert not debris.exists()
