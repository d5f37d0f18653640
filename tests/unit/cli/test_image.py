"""``mayfly image`` as typed, without the long work behind it."""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from mayfly.cli.image import image as group
from mayfly.cli.image import make as command
from mayfly.errors import Denied, Failed, Invalid, MayflyError, Missing, Quota
from mayfly.images.build.farm.blueprint import Blueprint
from mayfly.images.build.recipe import Init, Mirror
from mayfly.images.catalogue import Catalogue
from mayfly.images.catalogue.record import Facts
from mayfly.images.follow import Report
from mayfly.model import Image

FACTS = Facts(os="debian 12", source="a test", disk_bytes=8 << 30)


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MAYFLY_HOME", str(tmp_path))
    monkeypatch.setattr(command, "tidy_on_signals", lambda: None)
    return tmp_path / "state" / "images"


def admit(images: Path, name: str) -> Image:
    with Catalogue(own=images, dirs=(images,)).draft(name, work="test") as draft:
        draft.disk.write_bytes(b"x" * 500)
        return draft.admit(FACTS)


def mayfly_image(*words: str, answer: str = "") -> Result:
    return CliRunner().invoke(
        group, words, input=answer, catch_exceptions=False, standalone_mode=False
    )


def test_the_list_is_a_table_or_json(images: Path) -> None:
    made = admit(images, "debian-12")
    lines = mayfly_image("list").stdout.splitlines()
    head = ["NAME", "VERSION", "OS", "SIZE", "DISK", "CREATED", "TESTED", "SOURCE"]
    assert lines[0].split() == head
    assert lines[1].split()[:6] == ["debian-12", made.version, "debian", "12", "500", "B"]
    (entry,) = json.loads(mayfly_image("list", "--json").stdout)
    assert entry["sha512"] == made.sha512
    assert entry["disk"] == str(made.disk)


def test_show_gives_all_facts(images: Path) -> None:
    made = admit(images, "debian-12")
    assert made.sha512 in mayfly_image("show", "debian-12").stdout
    assert json.loads(mayfly_image("show", "debian-12", "--json").stdout)["os"] == "debian 12"


def test_show_checks_the_disk(images: Path) -> None:
    admit(images, "debian-12").disk.unlink()
    with pytest.raises(Missing, match="gone"):
        mayfly_image("show", "debian-12")


def test_remove_asks_first(images: Path) -> None:
    admit(images, "a")
    assert mayfly_image("remove", "a", answer="n\n").return_value == 1
    assert (images / "a").is_dir()
    mayfly_image("remove", "a", answer="y\n")
    assert not (images / "a").exists()
    admit(images, "a")
    mayfly_image("remove", "a", "--yes")
    assert not (images / "a").exists()


def test_build_hands_its_options_on(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Blueprint, bool, bool]] = []

    def fake_build(
        wanted: Blueprint,
        catalogue: Catalogue,
        *,
        force: bool,
        keep: bool,
        report: Report,
        say: Callable[[str], None],
    ) -> Image:
        assert catalogue.own == images
        asked.append((wanted, force, keep))
        report("packages", 0.5)
        say("a line of a script")
        return replace(admit(images, "tools"), size_bytes=3 << 20)

    monkeypatch.setattr(command, "build", fake_build)
    words = ["debian-11", "--package", "make", "--package", "python2.7", "--size", "20G"]
    words += ["--name", "tools", "--init", "sysvinit", "--force"]
    words += ["--mirror", "http://m.test/debian"]
    result = mayfly_image("build", *words)
    ((wanted, force, keep),) = asked
    recipe = wanted.recipe
    assert (recipe.suite, recipe.packages) == ("bullseye", ("make", "python2.7"))
    assert (recipe.disk_bytes, recipe.init) == (20 << 30, Init.SYSVINIT)
    assert (wanted.name, force, keep) == ("tools", True, False)
    assert wanted.mirror == Mirror(
        main="http://m.test/debian", security="http://m.test/debian-security"
    )
    assert "| a line of a script" in result.stderr
    assert "install packages" in result.stderr
    assert "built tools, 3.0 MiB" in result.stderr


@pytest.mark.parametrize(
    "words",
    [
        ("build", "debian-12", "--size", "1M"),
        ("build", "debian-12", "--size", "much"),
        ("build", "debian-12", "--package", "-y"),
        ("build", "debian-12", "--mirror", "ftp://x"),
        ("build", "debian-12", "--name", "No"),
        ("show", "No"),
    ],
)
@pytest.mark.usefixtures("images")
def test_bad_input_is_invalid(words: tuple[str, ...]) -> None:
    with pytest.raises(Invalid):
        mayfly_image(*words)


@pytest.mark.usefixtures("images")
def test_an_unknown_recipe_is_missing() -> None:
    with pytest.raises(Missing, match="no recipe 'centos-7'"):
        mayfly_image("build", "centos-7")


@pytest.mark.parametrize("name", ["build", "import", "list", "show", "remove"])
def test_every_command_explains_itself(name: str) -> None:
    assert "Usage:" in mayfly_image(name, "--help").stdout


@pytest.mark.parametrize("name", ["build", "import"])
def test_help_teaches_by_example(name: str) -> None:
    assert f"  mayfly image {name} debian-12" in mayfly_image(name, "--help").stdout


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (errno.ENOSPC, Quota),
        (errno.EDQUOT, Quota),
        (errno.EACCES, Denied),
        (errno.EPERM, Denied),
        (errno.EROFS, Denied),
        (errno.EIO, Failed),
    ],
)
def test_what_the_host_refuses_is_said_with_its_path_and_a_hint(
    images: Path, monkeypatch: pytest.MonkeyPatch, code: int, kind: type[MayflyError]
) -> None:
    def refuse(*args: object, **_: object) -> Image:
        raise OSError(code, os.strerror(code), *args[2:])

    monkeypatch.setattr(command, "build", refuse)
    with pytest.raises(kind, match=re.escape(f"{images}: {os.strerror(code)}")) as caught:
        mayfly_image("build", "debian-12")
    assert caught.value.hint
    monkeypatch.setattr(Catalogue, "remove", lambda *_: refuse(0, 0, "/the/file"))
    with pytest.raises(kind, match="/the/file"):
        mayfly_image("remove", "a", "--yes")


def test_other_errors_of_the_host_stay_what_they_are(
    images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: Catalogue) -> list[Image]:
        raise OSError(errno.EXDEV, str(images))

    monkeypatch.setattr(Catalogue, "list", refuse)
    with pytest.raises(OSError, match=str(images)):
        mayfly_image("list")
