"""What ``mayfly image show`` says of an image's standing is what a run would go by."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mayfly.cli.image.whereabouts import admission_of, is_endorsed
from mayfly.config import Paths
from mayfly.images.catalogue import Catalogue
from mayfly.images.record import Facts
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
    assert is_endorsed(image, paths)
    assert not is_endorsed(replace(image, sha512="0" * 128, endorsed_sha512=""), paths)
