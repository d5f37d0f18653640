"""Templates as they lie on disk: their names, when they count, who may make them."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from mayfly.engine import template
from mayfly.engine.memory import HOLDER
from mayfly.engine.template import (
    FILES,
    MEMORY,
    META,
    Engine,
    find_template,
    open_file,
    remove_stale,
    remove_template,
    stamp,
    sweep_templates,
    template_key,
    template_lock,
)
from mayfly.errors import Conflict, Missing
from mayfly.model import Image, Shape
from tests.unit.engine.machines import QEMU
from tests.unit.engine.templates import IMAGE, SHAPE, engine_in, ignore, made


@pytest.fixture(autouse=True)
def agent(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What the agent disk is named; a test may change it."""
    named = {"key": "agent-1"}
    monkeypatch.setattr(template, "disk_key", lambda: named["key"])
    return named


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return engine_in(tmp_path)


# --- names ---------------------------------------------------------------------------------------

CHANGES: dict[str, Callable[[Engine], tuple[Engine, Image, Shape]]] = {
    "image": lambda e: (e, replace(IMAGE, sha512="b" * 128), SHAPE),
    "qemu": lambda e: (replace(e, qemu=replace(QEMU, identity="f" * 16)), IMAGE, SHAPE),
    "machine": lambda e: (replace(e, qemu=replace(QEMU, machine_type="q35-8")), IMAGE, SHAPE),
    "accelerator": lambda e: (replace(e, accelerator="kvm"), IMAGE, SHAPE),
    "cpus": lambda e: (e, IMAGE, replace(SHAPE, cpus=2)),
    "memory": lambda e: (e, IMAGE, replace(SHAPE, memory_mib=2)),
}


@pytest.mark.parametrize("what", sorted(CHANGES))
def test_what_must_be_the_same_to_restore_is_in_the_name(engine: Engine, what: str) -> None:
    key = template_key(engine, IMAGE, SHAPE)
    assert template_key(engine, IMAGE, SHAPE) == key
    assert template_key(*CHANGES[what](engine)) != key


def test_another_agent_is_another_template(engine: Engine, agent: dict[str, str]) -> None:
    key = template_key(engine, IMAGE, SHAPE)
    agent["key"] = "agent-2"
    assert template_key(engine, IMAGE, SHAPE) != key


@pytest.mark.parametrize(("accelerator", "matters"), [("kvm", True), ("tcg", False)])
def test_the_hosts_cpu_matters_where_the_guest_sees_it(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, accelerator: str, matters: bool
) -> None:
    engine = replace(engine, accelerator=accelerator)
    keys = set()
    for flags in ("fpu sse", "fpu sse avx"):
        monkeypatch.setattr(template, "_host_cpu", lambda flags=flags: flags)
        keys.add(template_key(engine, IMAGE, SHAPE))
    assert (len(keys) == 2) is matters


def test_a_name_is_a_file_name(engine: Engine) -> None:
    key = template_key(engine, IMAGE, SHAPE)
    assert key.isalnum()
    assert 16 <= len(key) <= 64


def test_neither_name_nor_place_of_an_image_matter(engine: Engine) -> None:
    moved = replace(IMAGE, name="other", disk=Path("/else/where"), mtime_ns=5)
    assert template_key(engine, moved, SHAPE) == template_key(engine, IMAGE, SHAPE)


# --- finding -------------------------------------------------------------------------------------


def test_a_template_is_found_as_it_was_written(engine: Engine) -> None:
    assert find_template(engine, IMAGE, SHAPE) is None
    written = made(engine)
    assert find_template(engine, IMAGE, SHAPE) == written
    assert find_template(engine, replace(IMAGE, sha512="b" * 128), SHAPE) is None
    assert find_template(engine, IMAGE, replace(SHAPE, cpus=2)) is None


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("how", ["gone", "longer", "later", "replaced"])
def test_a_spoilt_template_is_not_found(engine: Engine, name: str, how: str) -> None:
    file = made(engine).path / name
    status = file.stat()
    if how in ("gone", "replaced"):
        file.unlink()
    if how == "replaced":
        file.write_bytes(b"x" * status.st_size)
        os.utime(file, ns=(0, status.st_mtime_ns + 1))
    if how == "longer":
        os.truncate(file, status.st_size + 1)
        os.utime(file, ns=(0, status.st_mtime_ns))
    if how == "later":
        os.utime(file, ns=(0, status.st_mtime_ns + 1))
    assert find_template(engine, IMAGE, SHAPE) is None


@pytest.mark.parametrize("text", ["", "null", "[]", "7", '"x"', "{}", '{"format": 1}'])
def test_without_a_good_description_it_does_not_count(engine: Engine, text: str) -> None:
    file = made(engine).path / META
    file.write_text(text)
    assert find_template(engine, IMAGE, SHAPE) is None
    file.unlink()
    assert find_template(engine, IMAGE, SHAPE) is None


@pytest.mark.parametrize(
    "changes", [{"format": 1}, {"shape": {"cpus": 1}}, {"files": [["state"]]}, {"colour": 1}]
)
def test_a_description_of_another_version_does_not_count(
    engine: Engine, changes: dict[str, object]
) -> None:
    file = made(engine).path / META
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    assert find_template(engine, IMAGE, SHAPE) is None


def test_a_template_that_lacks_a_file_has_no_stamp(tmp_path: Path) -> None:
    assert stamp(tmp_path) == ()
    # And so nothing that lacks a file can be found by an equally empty stamp.
    for name in FILES:
        (tmp_path / name).write_text("x")
    assert [name for name, _, _ in stamp(tmp_path)] == list(FILES)


def test_nothing_that_has_no_files_is_found(engine: Engine) -> None:
    written = made(engine, files=())
    (written.path / MEMORY).unlink()
    assert find_template(engine, IMAGE, SHAPE) is None


# --- one at a time -------------------------------------------------------------------------------


def test_one_makes_it_and_the_others_wait(engine: Engine) -> None:
    order: list[str] = []
    said = threading.Event()

    def report(text: str) -> None:
        order.append(text)
        said.set()

    def second() -> None:
        with template_lock(engine, "key", report):
            order.append("second")

    with template_lock(engine, "key", ignore):
        with template_lock(engine, "another", ignore):
            order.append("another is free")
        thread = threading.Thread(target=second)
        thread.start()
        assert said.wait(20)
        order.append("first")
    thread.join()
    assert order[0] == "another is free"
    assert "waiting" in order[1]
    assert order[2:] == ["first", "second"]


def test_a_template_in_the_making_is_not_removed(engine: Engine) -> None:
    written = made(engine)
    with template_lock(engine, written.key, ignore), pytest.raises(Conflict, match="being made"):
        remove_template(written.path)
    assert find_template(engine, IMAGE, SHAPE) == written
    remove_template(written.path)
    assert find_template(engine, IMAGE, SHAPE) is None


# --- removing ------------------------------------------------------------------------------------


def test_what_an_older_image_left_is_removed(engine: Engine) -> None:
    older = made(engine, replace(IMAGE, sha512="b" * 128))
    other_shape = made(engine, shape=replace(SHAPE, cpus=2))
    other_image = made(engine, replace(IMAGE, sha512="c" * 128, name="debian-11"))
    fresh = made(engine)
    remove_stale(engine, fresh)
    left = {path for path in engine.paths.templates.iterdir() if path.is_dir()}
    assert left == {other_shape.path, other_image.path, fresh.path}
    assert older.path not in left


def test_debris_is_removed_but_not_what_is_in_the_making(engine: Engine) -> None:
    for key in ("dead", "living"):
        (engine.paths.templates / f".{key}").mkdir(parents=True)
        (engine.paths.templates / f".{key}/memory").write_text("x")
    with template_lock(engine, "living", ignore):
        sweep_templates(engine.paths.templates)
    assert not (engine.paths.templates / ".dead").exists()
    assert (engine.paths.templates / ".living").exists()


def test_what_was_not_used_for_long_is_removed(engine: Engine) -> None:
    long_unused = made(engine, shape=replace(SHAPE, cpus=2))
    os.utime(long_unused.path / META, (time.time() - 8 * 86400,) * 2)
    used = made(engine, shape=replace(SHAPE, cpus=3))
    os.utime(used.path / META, (time.time() - 8 * 86400,) * 2)
    (used.path / HOLDER).write_text("{}")
    fresh = made(engine)
    remove_stale(engine, fresh)
    left = {path for path in engine.paths.templates.iterdir() if path.is_dir()}
    assert left == {used.path, fresh.path}


@pytest.mark.parametrize("text", ["", "null", "[]", "7", '"x"', "{}"])
def test_what_cannot_be_read_stops_nobody(engine: Engine, text: str) -> None:
    fresh = made(engine)
    other = engine.paths.templates / ("f" * 24)
    other.mkdir()
    (other / META).write_text(text)
    remove_stale(engine, fresh)
    assert find_template(engine, IMAGE, SHAPE) == fresh


def test_a_file_that_is_not_there_is_missing(tmp_path: Path) -> None:
    with pytest.raises(Missing, match=str(tmp_path / "disk")):
        open_file(tmp_path / "disk")
    (tmp_path / "disk").write_bytes(b"abc")
    fd = open_file(tmp_path / "disk")
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.write(fd, b"x")
    assert not os.get_inheritable(fd)
    os.close(fd)
    fd = open_file(tmp_path / "disk", write=True)
    assert os.write(fd, b"x") == 1
    os.close(fd)
