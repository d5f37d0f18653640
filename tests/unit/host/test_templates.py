"""Memory of templates is counted where it is held, and let go where nothing needs it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from mayfly.engine import memory
from mayfly.engine.template import META
from mayfly.host.templates import Templates, held_templates
from mayfly.model import Shape
from tests.integration.waiting import wait_until

SMALL, LARGE = Shape(cpus=1, memory_mib=1), Shape(cpus=2, memory_mib=2)


def hold(directory: Path, image: str, shape: Shape) -> Path:
    """Have a template whose memory a process holds."""
    path = directory / f"{image}-{shape.memory_mib}"
    path.mkdir(parents=True)
    kept = {"image": image, "shape": {"cpus": shape.cpus, "memory_mib": shape.memory_mib}}
    (path / META).write_text(json.dumps(kept))
    fd = memory.new_memory(image, shape.memory_mib << 20)
    memory.seal(fd)
    memory.hold(path, fd, title=image, hours=1)
    os.close(fd)
    return path


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    for path in tmp_path.iterdir():
        memory.end_holder(path)


def test_what_is_held_is_seen(directory: Path) -> None:
    hold(directory, "a", SMALL)
    path = hold(directory, "b", LARGE)
    assert [(one.image, one.shape) for one in held_templates(directory)] == [
        ("a", SMALL),
        ("b", LARGE),
    ]
    memory.end_holder(path)
    wait_until(lambda: len(held_templates(directory)) == 1, "the holder's end")
    assert [one.image for one in held_templates(directory)] == ["a"]


def test_what_cannot_be_read_is_left_out(directory: Path) -> None:
    path = hold(directory, "a", SMALL)
    (path / META).write_text("nonsense")
    (directory / "stray").mkdir()
    assert held_templates(directory) == []
    assert held_templates(directory / "none") == []


def test_each_is_counted_once(directory: Path) -> None:
    hold(directory, "a", SMALL)
    templates = Templates(directory)
    assert templates.memory_mib(frozenset()) == 1
    assert templates.memory_mib(frozenset({("a", SMALL)})) == 1
    assert templates.memory_mib(frozenset({("a", SMALL), ("b", LARGE)})) == 3


def test_only_what_nothing_uses_is_let_go(directory: Path) -> None:
    hold(directory, "a", SMALL)
    hold(directory, "b", LARGE)
    templates = Templates(directory)
    assert templates.let_go(frozenset({("a", SMALL)})) == 2
    wait_until(lambda: len(held_templates(directory)) == 1, "the holder's end")
    assert [one.image for one in held_templates(directory)] == ["a"]
    assert templates.let_go(frozenset({("a", SMALL)})) == 0
