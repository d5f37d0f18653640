"""``mayfly image pin|unpin|prune`` as typed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from mayfly.cli.image import image as group
from mayfly.cli.image import pull
from mayfly.config import Paths
from mayfly.engine.template import META
from mayfly.errors import Invalid, Missing, Quota
from mayfly.images.catalogue import Catalogue
from mayfly.images.catalogue.record import Facts
from mayfly.images.pull import PULLED
from mayfly.wiring import image_users
from tests.unit.images.catalogue.test_keeping import age
from tests.unit.images.disks import raw_disk
from tests.unit.images.web import File, Server, serving


@pytest.fixture
def catalogue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Catalogue:
    monkeypatch.setenv("MAYFLY_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(pull, "tidy_on_signals", lambda: None)
    own = tmp_path / "home/state/images"
    made = Catalogue(own=own, dirs=(own,))
    for name, days in (("old", 50), ("new", 20)):
        with made.draft(name, work="test") as draft:
            draft.disk.write_bytes(b"x" * (1 << 20))
            draft.admit(Facts(os="x", source="a test", disk_bytes=1 << 20, tags=(PULLED,)))
        age(made.find(name), days)
    return made


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as running:
        yield running


def mayfly_image(*words: str, answer: str = "") -> Result:
    return CliRunner().invoke(
        group, words, input=answer, catch_exceptions=False, standalone_mode=False
    )


def there(catalogue: Catalogue) -> list[str]:
    return [image.name for image in catalogue.list()]


def test_what_was_not_used_for_long_goes_when_that_is_said(catalogue: Catalogue) -> None:
    words = ("prune", "--unused-for", "30d")
    shown = mayfly_image(*words, "--dry-run").stdout.splitlines()
    assert [line.split()[0] for line in shown] == ["NAME", "old", "new"]
    assert "would go" in shown[1]
    assert "fits" in shown[2]
    assert mayfly_image(*words, answer="n\n").return_value == 1
    assert there(catalogue) == ["new", "old"]
    assert "removed old (1.0 MiB)" in mayfly_image(*words, "--yes").stdout
    assert there(catalogue) == ["new"]
    assert mayfly_image(*words, "--yes").stdout == ""


def test_a_pin_keeps(catalogue: Catalogue) -> None:
    mayfly_image("pin", "old", "new")
    mayfly_image("unpin", "new")
    table = json.loads(mayfly_image("prune", "--to", "0", "--yes", "--json").stdout)
    found = {each["name"]: (each["gone"], each["kept_because"]) for each in table}
    assert found == {"old": (False, "pinned"), "new": (True, "")}
    assert there(catalogue) == ["old"]
    with pytest.raises(Missing):
        mayfly_image("pin", "new")


def test_the_image_of_a_template_stays(catalogue: Catalogue) -> None:
    template = Paths.for_user().templates / "0123456789abcdef"
    template.mkdir(parents=True)
    (template / META).write_text(json.dumps({"image": "old"}))
    (template.parent / "damaged").mkdir()
    (template.parent / "damaged" / META).write_text("[]")
    assert image_users(Paths.for_user()) == {"old": "template 0123456789ab"}
    mayfly_image("prune", "--to", "0", "--yes")
    assert there(catalogue) == ["old"]


@pytest.mark.usefixtures("catalogue")
def test_how_far_must_be_said() -> None:
    with pytest.raises(click.UsageError, match="say how far"):
        mayfly_image("prune", "--yes")
    with pytest.raises(Invalid):
        mayfly_image("prune", "--unused-for", "long")


@pytest.mark.skipif(shutil.which("qemu-img") is None, reason="needs qemu-img")
def test_a_pull_stays_within_the_quota(
    catalogue: Catalogue, server: Server, tmp_path: Path
) -> None:
    url, answers = server
    disk = raw_disk(tmp_path / "disk.raw").read_bytes()
    file = answers["/a"] = File(body=disk)
    words = ("pull", f"{url}/a", "--sha512", hashlib.sha512(disk).hexdigest())
    config = tmp_path / "home/config.toml"
    config.write_text('image_quota = "9M"\n')
    result = mayfly_image(*words)
    assert "removed old, the least recently used, for room" in result.stderr
    assert there(catalogue) == ["a", "new"]
    os.utime(catalogue.find("a").disk.parent, (time.time(), time.time()))
    config.write_text('image_quota = "2M"\n')
    answers["/b"] = other = File(body=disk)
    with pytest.raises(Quota, match="images may take"):
        mayfly_image("pull", f"{url}/b", *words[2:])
    assert there(catalogue) == ["a", "new"]
    assert (len(file.ranges), len(other.ranges)) == (1, 1)
