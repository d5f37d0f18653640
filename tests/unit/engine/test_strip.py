"""A machine becomes an image only when its agent says that nothing of its own is left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mayfly.engine.strip import check_stripped, layers_of, stripped_machine
from mayfly.errors import Conflict, Failed, Missing


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"left": []},
        {"left": "", "trimmed": True},
        {"left": None, "trimmed": True},
        {"left": [], "trimmed": "yes"},
    ],
)
def test_what_proves_nothing_is_refused(answer: dict[str, Any]) -> None:
    with pytest.raises(Failed, match="cannot prove"):
        check_stripped("7c2kq9xv", answer)


def test_what_is_left_is_named_without_control_characters() -> None:
    with pytest.raises(Failed, match="this is left in it: /etc/machine-id") as caught:
        check_stripped("7c2kq9xv", {"left": ["/etc/machine-id\x1b[2J", 7], "trimmed": True})
    assert "\x1b" not in caught.value.message


def test_a_machine_that_is_clean_is_taken() -> None:
    check_stripped("7c2kq9xv", {"left": [], "trimmed": True})


def test_what_was_deleted_must_be_gone_from_the_disk_too() -> None:
    with pytest.raises(Failed, match="could be read yet"):
        check_stripped("7c2kq9xv", {"left": [], "trimmed": False})


def test_the_files_of_a_clone_and_of_one_that_was_resumed(tmp_path: Path) -> None:
    place, template = tmp_path / "7c2kq9xv", tmp_path / "template"
    place.mkdir()
    with pytest.raises(Conflict, match="the template that machine '7c2kq9xv' was cloned from"):
        layers_of(place, template)
    template.mkdir()
    (template / "disk.qcow2").touch()
    assert layers_of(place, template) == (place / "disk.qcow2", template / "disk.qcow2")
    for name in ("agent.iso", "layer-02.qcow2", "layer-01.qcow2"):
        (place / name).touch()
    assert [path.name for path in layers_of(place, template)] == [
        "disk.qcow2",
        "layer-01.qcow2",
        "layer-02.qcow2",
    ]


def test_a_machine_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(Missing), stripped_machine(tmp_path, tmp_path, "7c2kq9xv"):
        pass
