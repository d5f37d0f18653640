"""Where things lie, and the settings that may be given in TOML."""

from __future__ import annotations

import os
import re
from dataclasses import fields, replace
from pathlib import Path

import pytest

from mayfly.config import SYSTEM_CONFIG, SYSTEM_IMAGES, Paths, Settings, load_settings
from mayfly.errors import Invalid

REPOSITORY = Path(__file__).parents[2]


def written(folder: Path, text: str, name: str = "config.toml") -> Path:
    file = folder / name
    file.write_text(text)
    return file


def refused(folder: Path, text: str) -> str:
    file = written(folder, text)
    with pytest.raises(Invalid) as caught:
        load_settings((file,))
    assert str(file) in caught.value.message
    return caught.value.message


# --- directories ---------------------------------------------------------------------------------


def as_user(monkeypatch: pytest.MonkeyPatch, uid: int, home: str = "/home/ada") -> None:
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    monkeypatch.setenv("HOME", home)


def test_root_has_the_directories_of_the_site(monkeypatch: pytest.MonkeyPatch) -> None:
    as_user(monkeypatch, 0)
    paths = Paths.for_user({"XDG_STATE_HOME": "/elsewhere"})
    assert (paths.state, paths.cache) == (Path("/var/lib/mayfly"), Path("/var/cache/mayfly"))
    assert paths.images == SYSTEM_IMAGES
    assert paths.image_dirs == (SYSTEM_IMAGES,)
    assert paths.config_files == (SYSTEM_CONFIG,)


def test_a_user_has_directories_at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    as_user(monkeypatch, 1000)
    paths = Paths.for_user({})
    state = Path("/home/ada/.local/state/mayfly")
    assert (paths.state, paths.cache) == (state, Path("/home/ada/.cache/mayfly"))
    assert paths.image_dirs == (state / "images", SYSTEM_IMAGES)
    own = Path("/home/ada/.config/mayfly/config.toml")
    assert paths.config_files == (SYSTEM_CONFIG, own)


def test_a_user_may_have_directories_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    as_user(monkeypatch, 1000)
    names = ("STATE", "CACHE", "CONFIG")
    paths = Paths.for_user({f"XDG_{name}_HOME": f"/x/{name}" for name in names})
    assert (paths.state, paths.cache) == (Path("/x/STATE/mayfly"), Path("/x/CACHE/mayfly"))
    assert paths.config_files[-1] == Path("/x/CONFIG/mayfly/config.toml")


@pytest.mark.parametrize("uid", [0, 1000])
def test_everything_can_be_beneath_one_directory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, uid: int
) -> None:
    as_user(monkeypatch, uid)
    paths = Paths.for_user({"MAYFLY_HOME": str(tmp_path), "XDG_CACHE_HOME": "/elsewhere"})
    places = (paths.state, paths.cache, paths.images, paths.machines, paths.templates)
    assert len({*places, *paths.image_dirs, *paths.config_files}) == 6
    for place in (*places, *paths.image_dirs, *paths.config_files):
        assert tmp_path in place.parents
    assert not list(tmp_path.iterdir()), "nothing is created"


def test_a_relative_home_is_made_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert Paths.for_user({"MAYFLY_HOME": "here"}).state == tmp_path / "here/state"


# --- settings ------------------------------------------------------------------------------------


def test_files_that_do_not_exist_change_nothing(tmp_path: Path) -> None:
    assert load_settings((tmp_path / "one", tmp_path / "two/three")) == Settings()


def test_the_later_file_wins(tmp_path: Path) -> None:
    first = written(tmp_path, "cpus = 2\nkeep_hours = 5\n", "first")
    second = written(tmp_path, "cpus = 4\n", "second")
    expected = replace(Settings(), cpus=4, keep_hours=5)
    assert load_settings((first, second)) == expected
    assert load_settings((second, first)).cpus == 2


def test_every_setting_can_be_given(tmp_path: Path) -> None:
    text = """
        cpus = 3
        memory_mib = 1024
        network = "open"
        site_networks = ["192.0.2.0/24", "2001:db8::/32"]
        plain_registries = ["registry.example.org:5000"]
        workdir_limit_mib = 5
        workdir_files = 6
        keep_hours = 7
        accelerator = "tcg"
        qemu = "/opt/qemu"
        uid_first = 100000
        template_hours = 8
    """
    settings = load_settings((written(tmp_path, text),))
    assert settings == Settings(
        cpus=3,
        memory_mib=1024,
        network="open",
        site_networks=("192.0.2.0/24", "2001:db8::/32"),
        plain_registries=("registry.example.org:5000",),
        workdir_limit_mib=5,
        workdir_files=6,
        keep_hours=7,
        accelerator="tcg",
        qemu="/opt/qemu",
        uid_first=100000,
        template_hours=8,
    )


def test_memory_may_be_written_as_a_size(tmp_path: Path) -> None:
    assert load_settings((written(tmp_path, 'memory = "1G"'),)).memory_mib == 1024


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("colour = 1", "colour"),
        ("cpus = '2'", "cpus"),
        ("cpus = 2.0", "cpus"),
        ("cpus = true", "cpus"),
        ("cpus = 0", "cpus"),
        ("keep_hours = -1", "keep_hours"),
        ("memory_mib = 99999999999", "memory_mib"),
        ("memory = 'much'", "memory"),
        ("memory = '0'", "memory"),
        ("memory = 5", "memory"),
        ("network = 1", "network"),
        ("network = 'everything'", "network"),
        ("accelerator = 'fast'", "accelerator"),
        ("site_networks = '10.0.0.0/8'", "site_networks"),
        ("site_networks = ['10.0.0.0/99']", "site_networks"),
        ("site_networks = ['10.0.0.1/8']", "site_networks"),
        ("site_networks = [5]", "site_networks"),
        ("plain_registries = ['a b']", "plain_registries"),
        ("image_quota = 'much'", "image_quota"),
        ("image_quota = 5", "image_quota"),
        ("neighbours = ['a']", "neighbours"),
        ("neighbours = ['a:b']", "neighbours"),
        ("plain_registries = [5.5]", "plain_registries"),
        ("plain_registries = ['https://a']", "plain_registries"),
        ("trust_sha1 = 1", "trust_sha1"),
        ("trust_local_urls = 'yes'", "trust_local_urls"),
        ("grid_certificates = 'certificates'", "grid_certificates"),
        ("event_handler = 'handler --now'", "event_handler"),
        ("event_handler = ['/bin/true']", "event_handler"),
        ("[cpus]\na = 1", "cpus"),
    ],
)
def test_a_wrong_value_names_file_and_key(tmp_path: Path, text: str, key: str) -> None:
    assert f"'{key}'" in refused(tmp_path, text)


def test_an_unknown_key_gets_the_list_of_known_ones(tmp_path: Path) -> None:
    with pytest.raises(Invalid) as caught:
        load_settings((written(tmp_path, "colour = 1"),))
    assert all(field.name in caught.value.hint for field in fields(Settings))


def test_what_is_no_toml_is_refused(tmp_path: Path) -> None:
    assert "TOML" in refused(tmp_path, "cpus: 2")
    (tmp_path / "config.toml").write_bytes(b"qemu = '\xff'")
    with pytest.raises(Invalid, match="TOML"):
        load_settings((tmp_path / "config.toml",))


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match=f"cannot read {tmp_path}"):
        load_settings((tmp_path,))


def test_the_page_of_settings_has_a_line_for_each() -> None:
    page = (REPOSITORY / "docs/reference/settings.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)` \| `([^`]*)` \|", page, re.MULTILINE))
    shown = {"()": "[]", "True": "true", "False": "false"}
    texts = {field.name: str(getattr(Settings(), field.name)) for field in fields(Settings)}
    defaults = {name: shown.get(text, text) for name, text in texts.items()}
    assert {key: value.strip('"') for key, value in rows.items()} == defaults
