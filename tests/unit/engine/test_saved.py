"""What is written down of a suspended machine: read again, or refused with the reason."""

from __future__ import annotations

import errno
import json
import os
import tempfile
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mayfly.engine.saved import (
    LOWER,
    META,
    META_BYTES,
    SAVED_FORMAT,
    Saved,
    bring,
    files_of,
    layer,
    locked,
    lower,
    read_saved,
    write_saved,
)
from mayfly.errors import Conflict, Failed, MayflyError, Missing, Unavailable
from mayfly.model import Shape

LAYERS = 2
SIZES = {name: number for number, name in enumerate(files_of(LAYERS), start=1)}
SAVED = Saved(
    machine="abcdefgh",
    image="debian-12",
    image_sha512="5" * 128,
    template="t",
    shape=Shape(cpus=1, memory_mib=512),
    network="open",
    command="make",
    machine_type="pc-q35-7.2",
    accelerator="tcg",
    cpu_model="max",
    cpu={"sse2": True, "family": 6},
    qemu="7.2.22",
    vmgenid=True,
    layers=LAYERS,
    ports=31,
    sizes=SIZES,
    created_at=1_800_000_000.5,
    notes={"owner": 7, "allow": ["a:1"]},
)


def put(directory: Path, text: str | None = None) -> Path:
    """Make a directory as a suspended machine has it."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, size in SIZES.items():
        (directory / name).write_bytes(bytes(size))
    write_saved(SAVED, directory)
    if text is not None:
        (directory / META).write_text(text)
    return directory


def stored(**changes: object) -> str:
    return json.dumps({"format": SAVED_FORMAT, **asdict(SAVED), **changes})


def test_what_was_written_is_read(tmp_path: Path) -> None:
    assert read_saved(put(tmp_path / "s")) == SAVED


def test_what_a_later_minor_version_adds_is_left_out(tmp_path: Path) -> None:
    assert read_saved(put(tmp_path / "s", stored(more=[1]))) == SAVED


def test_what_an_earlier_version_saved_has_the_ports_that_it_had(tmp_path: Path) -> None:
    values = json.loads(stored(format=1))
    del values["ports"]
    assert read_saved(put(tmp_path / "s", json.dumps(values))) == replace(SAVED, ports=8)


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(Missing, match="no saved machine"):
        read_saved(tmp_path / "nowhere")
    with pytest.raises(Missing):
        read_saved(tmp_path)


def test_another_format_is_not_guessed_at(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="another version"):
        read_saved(put(tmp_path / "s", stored(format=3)))


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", "17", '"x"', "{}", '{"format": 1}', "[" * 100_000, "\udcff"],
)
def test_what_is_no_description(tmp_path: Path, text: str) -> None:
    directory = put(tmp_path / "s")
    (directory / META).write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(Failed, match="cannot read") as caught:
        read_saved(directory)
    assert "delete it" in caught.value.hint


@pytest.mark.parametrize(
    "changes",
    [
        {"machine": 1},
        {"image_sha512": None},
        {"shape": {"cpus": "1", "memory_mib": 512}},
        {"shape": {"cpus": True, "memory_mib": 512}},
        {"shape": []},
        {"cpu": [1]},
        {"vmgenid": 1},
        {"layers": 0},
        {"layers": -1},
        {"layers": 10**9},
        {"layers": 1},
        {"sizes": {}},
        {"sizes": {**SIZES, "../record.json": 1}},
        {"sizes": {**SIZES, "memory": "1"}},
        {"created_at": "now"},
        {"notes": None},
    ],
)
def test_a_description_that_cannot_be(tmp_path: Path, changes: dict[str, object]) -> None:
    with pytest.raises(Failed):
        read_saved(put(tmp_path / "s", stored(**changes)))


def test_a_description_without_end(tmp_path: Path) -> None:
    with pytest.raises(Failed, match="cannot read"):
        read_saved(put(tmp_path / "s", stored(notes={"x": "y" * META_BYTES})))


@given(
    name=st.sampled_from(sorted(Saved.__slots__)),
    value=st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner),
        max_leaves=4,
    ),
)
def test_any_value_is_taken_or_refused(name: str, value: object) -> None:
    with tempfile.TemporaryDirectory() as top:
        directory = put(Path(top), stored(**{name: value}))
        try:
            found = read_saved(directory)
        except MayflyError:
            return
        assert isinstance(found, Saved)


@pytest.mark.parametrize("name", sorted(SIZES))
def test_every_file_must_be_there_and_whole(tmp_path: Path, name: str) -> None:
    directory = put(tmp_path / "s")
    with open(directory / name, "ab") as file:
        file.write(b"x")
    with pytest.raises(Failed, match=f"{name} has {SIZES[name] + 1} bytes, not {SIZES[name]}"):
        read_saved(directory)
    (directory / name).unlink()
    with pytest.raises(Failed, match=name):
        read_saved(directory)


def test_names_sort_as_they_are_stacked() -> None:
    assert [layer(0), layer(1)] == ["disk-0.qcow2", "disk-1.qcow2"]
    names = [lower(index) for index in range(1, 12)]
    assert names == sorted(names)
    assert all(Path(name).match(LOWER) for name in names)


def test_only_one_holds_it(tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(Conflict, match="just being resumed"), locked(tmp_path):
        pass
    with locked(tmp_path):
        pass
    with pytest.raises(Missing), locked(tmp_path / "nowhere"):
        pass


@pytest.mark.parametrize("reason", [None, errno.EXDEV, errno.EMLINK, errno.EPERM])
def test_a_file_is_linked_or_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: int | None
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(reason, "no")

    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(b"\0" * 100_000 + b"end")
    if reason is not None:
        monkeypatch.setattr(os, "link", refuse)
    bring(source, target)
    assert target.read_bytes() == source.read_bytes()
    assert (target.stat().st_ino == source.stat().st_ino) is (reason is None)


def test_a_disk_that_is_full_is_not_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no")

    (tmp_path / "source").write_bytes(b"x")
    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(OSError, match="no"):
        bring(tmp_path / "source", tmp_path / "target")
    assert not (tmp_path / "target").exists()


def test_the_layers_are_among_the_files() -> None:
    assert replace(SAVED, layers=3) != SAVED
    assert files_of(1) == ["memory", "empty.qcow2", "agent.iso", "disk-0.qcow2"]
