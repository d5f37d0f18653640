"""What ``mayfly image show`` says of an image's standing is what a run would go by."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mayfly.cli.image.whereabouts import admission_of, container_of, endorsed_of
from mayfly.config import Paths
from mayfly.errors import Untrusted
from mayfly.images.catalogue import Catalogue
from mayfly.images.catalogue.record import Facts
from mayfly.images.container.oci import Config
from mayfly.images.container.said import write_said
from mayfly.model import Image
from tests.unit.host.trusting import vouch


@pytest.mark.parametrize("which", ["disk", "file"])
def test_a_list_may_have_the_disk_or_the_file_that_it_was_made_of(
    tmp_path: Path, which: str
) -> None:
    paths = Paths.for_user({"MAYFLY_HOME": str(tmp_path)})
    facts = Facts(os="debian 12", source="a test", disk_bytes=1 << 30, endorsed_sha512="ab" * 64)
    with Catalogue(own=paths.images, dirs=paths.image_dirs).draft("el9", work="test") as draft:
        draft.disk.write_bytes(b"x" * 100)
        image = draft.admit(facts)
    assert admission_of(image, paths) is None
    listed = image if which == "disk" else replace(image, sha512=image.endorsed_sha512)
    vouch(paths.trust, listed)
    other = replace(image, sha512="0" * 128, endorsed_sha512="")
    assert endorsed_of([image, other], paths) == {image.sha512: True, other.sha512: False}


def admitted(tmp_path: Path) -> Image:
    paths = Paths.for_user({"MAYFLY_HOME": str(tmp_path)})
    facts = Facts(os="debian 12", source="a test", disk_bytes=1 << 30)
    with Catalogue(own=paths.images, dirs=paths.image_dirs).draft("c", work="test") as draft:
        draft.disk.write_bytes(b"x")
        return draft.admit(facts)


def test_what_a_container_image_said_is_told(tmp_path: Path) -> None:
    image = admitted(tmp_path)
    assert container_of(image) == {}
    said = Config(diff_ids=(), env=("A=b",), entrypoint=("/bin/a", "b"), user="jo")
    write_said(image.disk.parent, said)
    assert container_of(image) == {
        "container_entrypoint": ["/bin/a", "b"],
        "container_cmd": [],
        "container_env": ["A=b"],
        "container_working_dir": "",
        "container_user": "jo",
    }


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"diff_ids": 3}', "[" * 100_000])
def test_what_is_damaged_is_not_told(tmp_path: Path, text: str) -> None:
    image = admitted(tmp_path)
    (image.disk.parent / "container.json").write_text(text)
    with pytest.raises(Untrusted, match="is damaged"):
        container_of(image)
