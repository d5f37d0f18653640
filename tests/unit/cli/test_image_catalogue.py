"""``mayfly image search|alias|list|show|test|verify`` as typed, on a catalogue of small files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from mayfly.cli.image import image as group
from mayfly.cli.image import trial
from mayfly.cli.image.trial import judge
from mayfly.cli.run import whose_image
from mayfly.config import Paths
from mayfly.engine.checks import Command, Said
from mayfly.errors import Conflict, Invalid, Missing, Untrusted
from mayfly.images.build.farm.blueprint import Check
from mayfly.images.catalogue import Catalogue
from mayfly.images.catalogue.record import Facts
from mayfly.images.catalogue.tested import read_tests
from mayfly.model import Image


@pytest.fixture
def catalogue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Catalogue:
    monkeypatch.setenv("MAYFLY_HOME", str(tmp_path))
    monkeypatch.setattr(trial, "tidy_on_signals", lambda: None)
    images = tmp_path / "state" / "images"
    return Catalogue(own=images, dirs=(images,))


def admit(catalogue: Catalogue, name: str, version: str, *tags: str) -> Image:
    facts = Facts(os=f"{name} os", source="a test", disk_bytes=1 << 30, version=version, tags=tags)
    with catalogue.draft(name, work="test", keep=True) as draft:
        draft.disk.write_bytes(f"{name} {version}".encode())
        return draft.admit(facts)


def mayfly_image(*words: str) -> Result:
    return CliRunner().invoke(group, words, catch_exceptions=False, standalone_mode=False)


def names(result: Result) -> list[str]:
    return [line.split()[0] for line in result.stdout.splitlines()[1:]]


def test_search_finds_images_and_older_versions(catalogue: Catalogue) -> None:
    admit(catalogue, "el9", "1", "old")
    admit(catalogue, "el9", "2", "ci")
    admit(catalogue, "debian", "2026", "ci")
    assert names(mayfly_image("search")) == ["debian", "el9", "el9@1"]
    assert names(mayfly_image("search", "el")) == ["el9", "el9@1"]
    assert names(mayfly_image("search", "--tag", "ci")) == ["debian", "el9"]
    assert names(mayfly_image("search", "--version", "20*")) == ["debian"]
    assert names(mayfly_image("search", "--os", "el9 os", "--arch", "x86_64")) == ["el9", "el9@1"]
    assert names(mayfly_image("search", "--endorsed")) == []
    assert len(names(mayfly_image("search", "--not-endorsed"))) == 3
    (entry,) = json.loads(mayfly_image("search", "debian", "--json").stdout)
    assert (entry["name"], entry["endorsed"]) == ("debian", False)


def test_list_shows_older_versions_when_asked(catalogue: Catalogue) -> None:
    admit(catalogue, "el9", "1")
    admit(catalogue, "el9", "2")
    assert names(mayfly_image("list")) == ["el9"]
    assert names(mayfly_image("list", "--all")) == ["el9", "el9@1"]


def test_list_speaks_glue(catalogue: Catalogue) -> None:
    admit(catalogue, "el9", "1")
    catalogue.set_alias("newest", "el9")
    assert mayfly_image("list", "--glue", "1.3").stdout == "vm_el9\nvm_newest\n"
    words = ("list", "--glue", "1.3", "--glue-prefix", "VO-x-")
    assert mayfly_image(*words).stdout == "VO-x-el9\nVO-x-newest\n"
    told = json.loads(mayfly_image("list", "--glue", "2.1").stdout)
    assert [each["Name"] for each in told["CloudComputingImage"]] == ["el9"]


def test_an_alias_is_made_listed_changed_and_removed(catalogue: Catalogue) -> None:
    made = admit(catalogue, "el9", "1")
    admit(catalogue, "el9", "2")
    assert mayfly_image("alias", "newest", "el9").stdout == "newest stands for el9, now version 2\n"
    assert mayfly_image("alias").stdout.splitlines()[1].split() == ["newest", "el9"]
    with pytest.raises(Conflict):
        mayfly_image("alias", "newest", "el9@1")
    mayfly_image("alias", "newest", made.pin, "--force")
    assert json.loads(mayfly_image("alias", "--json").stdout) == {"newest": made.pin}
    assert json.loads(mayfly_image("show", "newest", "--json").stdout)["aliases"] == ["newest"]
    mayfly_image("alias", "newest", "--remove")
    assert names(mayfly_image("alias")) == []


def test_show_tells_what_surrounds_an_image(catalogue: Catalogue, tmp_path: Path) -> None:
    made = admit(catalogue, "el9", "1")
    template = tmp_path / "cache/templates/abc"
    template.mkdir(parents=True)
    (template / "template.json").write_text(
        json.dumps(
            {
                "image_sha512": made.sha512,
                "key": "abcdef0123456789",
                "shape": {"cpus": 2, "memory_mib": 512},
            }
        )
    )
    (tmp_path / "cache/templates/bad").mkdir()
    (tmp_path / "cache/templates/bad/template.json").write_text("[]")
    told = json.loads(mayfly_image("show", "el9", "--json").stdout)
    assert told["templates"] == ["abcdef012345 (2 CPUs, 512 MiB)"]
    assert told["pin"] == made.pin
    assert (told["versions"], told["stored"]) == (["1"], str(made.disk.parent))
    assert (told["endorsed"], told["expires"], told["tested"]) == ("", "", "")


def test_a_version_can_be_removed_alone(catalogue: Catalogue) -> None:
    admit(catalogue, "el9", "1")
    admit(catalogue, "el9", "2")
    mayfly_image("remove", "el9@1", "--yes")
    assert [each.version for each in catalogue.versions()] == ["2"]


# --- test and verify -----------------------------------------------------------------------------


CHECKS = (
    Check(name="good", command="true"),
    Check(name="output", command="echo x", output="y"),
    Check(name="code", command="exit 3", code=4),
    Check(name="late", command="sleep 9", limit_s=1),
    Check(name="expected", command="exit 124", code=124),
    Check(name="broken", command="x"),
)
SAID = (
    Said(code=0, seconds=0.1, output="", reason=""),
    Said(code=0, seconds=0.1, output="x\n", reason=""),
    Said(code=3, seconds=0.1, output="", reason=""),
    Said(code=124, seconds=1, output="", reason=""),
    Said(code=124, seconds=0.1, output="", reason=""),
    Said(code=125, seconds=0.1, output="", reason="the machine ended"),
)


def test_checks_are_judged(catalogue: Catalogue) -> None:
    verdict = judge(admit(catalogue, "el9", "1"), CHECKS, SAID)
    assert [each.why for each in verdict.results] == [
        "",
        "its output does not have 'y'",
        "exit status 3, not 4",
        "no end within 1 s",
        "",
        "the machine ended",
    ]
    assert not verdict.passed


@pytest.mark.parametrize(("code", "status", "word"), [(0, 0, "passed"), (1, 1, "failed")])
def test_a_test_is_recorded_and_shown(
    catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch, code: int, status: int, word: str
) -> None:
    made = admit(catalogue, "el9", "1")

    def fake(_engine: object, image: Image, *more: object) -> list[Said]:
        assert image == made
        commands = more[1]
        assert isinstance(commands, Sequence)
        assert commands[0] == Command(text="true", root=True, limit_s=60.0)
        return [Said(code=code, seconds=0.1, output="a\x1b[1m line\n", reason="")]

    monkeypatch.setattr(trial, "run_commands", fake)
    monkeypatch.setattr(trial, "engine_for", lambda *_: (None, None))
    result = CliRunner().invoke(group, ["test", "el9", "--check", "true"])
    assert result.exit_code == status
    assert f"el9: {word} " in result.stdout
    assert "\x1b" not in result.stdout
    assert read_tests(made.disk.parent, made.sha512).summary.startswith(word)
    assert mayfly_image("list").stdout.splitlines()[1].split()[-3] == word
    catalogue.find("el9")


def test_an_image_without_checks_says_so(catalogue: Catalogue) -> None:
    admit(catalogue, "el9", "1")
    with pytest.raises(Missing, match="has no checks"):
        mayfly_image("test", "el9")


def test_verify_tells_what_it_found(catalogue: Catalogue) -> None:
    made = admit(catalogue, "el9", "1")
    assert made.pin in mayfly_image("verify", "el9").stdout
    told = json.loads(mayfly_image("verify", "el9@1", "--json").stdout)
    assert (told["unchanged"], told["endorsed"]) == (True, False)
    made.disk.chmod(0o600)
    made.disk.write_bytes(b"other bytes, other size")
    with pytest.raises(Untrusted):
        mayfly_image("verify", "el9")


# --- whose image a run means ---------------------------------------------------------------------


def test_an_image_of_ones_own_is_told_from_the_sites(
    catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = admit(catalogue, "el9", "1")
    catalogue.set_alias("mine", "el9@1")
    paths = Paths.for_user()
    assert whose_image(paths, "el9") == ("el9", False)  # root's are the site's
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert whose_image(paths, "el9") == ("el9", True)
    assert whose_image(paths, made.pin) == (made.pin, True)
    assert whose_image(paths, "mine") == ("el9@1", True)
    assert whose_image(paths, "debian-12@1") == ("debian-12@1", False)
    assert whose_image(paths, "other") == ("other", False)
    with pytest.raises(Invalid):
        whose_image(paths, "No")
