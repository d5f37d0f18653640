"""What the builders of other distributions are told, and what is said when they fail."""

from __future__ import annotations

import configparser
from pathlib import Path

import pytest

from mayfly.errors import Failed, Invalid, MayflyError, Missing, Quota, Unavailable, Untrusted
from mayfly.images.build.farm.blueprint import Blueprint, Pinned
from mayfly.images.build.recipe import Family, Mirror, find_recipe
from mayfly.images.build.scratch import Scratch
from mayfly.images.catalogue import Catalogue
from mayfly.images.container import foreign
from mayfly.images.container.foreign import (
    archive_of,
    build_foreign,
    check_builder,
    dnf_argv,
    dnf_config,
    failed,
    installed_rpms,
    mmdebstrap_argv,
)
from mayfly.images.follow import Ended

PLACE = Scratch(top=Path("/s"), lock=3)


def wanted(place: Path, base: str) -> Blueprint:
    key = place / "a key"
    key.write_text("a key")
    mirror = Mirror(main="http://m.test/x", security="http://m.test/x")
    return Blueprint(recipe=find_recipe(base), mirror=mirror, keyring=str(key))


def test_dnf_takes_signed_packages_of_these_repositories_only(tmp_path: Path) -> None:
    archive = archive_of(wanted(tmp_path, "el9"))
    settings = configparser.ConfigParser(interpolation=None)
    settings.read_string(dnf_config(archive))
    main, *repositories = settings.sections()
    assert dict(settings[main])["gpgcheck"] == "1"
    assert [settings[each]["baseurl"] for each in repositories] == [
        "http://m.test/x/BaseOS/x86_64/os",
        "http://m.test/x/AppStream/x86_64/os",
    ]
    for each in repositories:
        assert settings[each]["gpgkey"] == f"{tmp_path.as_uri()}/a%20key"
        assert "gpgcheck" not in settings[each]
    words = dnf_argv(wanted(tmp_path, "el9"), Path("/s/dnf.conf"), PLACE)
    assert words[:3] == ["dnf", "--config=/s/dnf.conf", "--installroot=/s/tree"]
    assert "--nogpgcheck" not in words


def test_mmdebstrap_takes_the_suite_and_the_keys_of_ubuntu(tmp_path: Path) -> None:
    made = wanted(tmp_path, "ubuntu-24.04")
    words = mmdebstrap_argv(made, archive_of(made), PLACE)
    assert f"--keyring={tmp_path}/a key" in words
    assert words[-5:] == [
        "noble",
        "/s/tree",
        "deb http://m.test/x noble main universe",
        "deb http://m.test/x noble-updates main universe",
        "deb http://m.test/x noble-security main universe",
    ]


@pytest.mark.parametrize("base", ["ubuntu-24.04", "el9", "fedora-42"])
def test_each_has_an_archive_by_itself_and_never_goes_without_keys(
    base: str, tmp_path: Path
) -> None:
    lacking = Blueprint(recipe=find_recipe(base), keyring=str(tmp_path / "none"))
    with pytest.raises(Missing, match="with the keys that sign") as caught:
        archive_of(lacking)
    assert "--keyring" in caught.value.hint
    (tmp_path / "none").touch()
    found = archive_of(lacking)
    assert found.mirror.main.startswith("http")
    assert found.keyring == str(tmp_path / "none")


def test_a_host_without_the_builder_is_told_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(foreign, "_PATH", "/nonexistent")
    for family, package in ((Family.RPM, "dnf"), (Family.UBUNTU, "mmdebstrap")):
        with pytest.raises(Failed, match=f"without {package}") as caught:
            check_builder(family)
        assert f"apt install {package}" in caught.value.hint


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("Error: GPG check FAILED", Untrusted),
        ("W: GPG error: http://m.test/x noble InRelease: NO_PUBKEY 871920D1991BC93C", Untrusted),
        ("E: The repository 'http://m.test/x noble InRelease' is not signed.", Untrusted),
        ("Error: Failed to download metadata for repo 'mayfly-1'", Unavailable),
        ("E: Failed to fetch http://m.test/x/dists/noble/InRelease", Unavailable),
        ("cp: No space left on device", Quota),
        ("Error: Unable to find a match: nosuch", Failed),
    ],
)
def test_a_bad_end_is_told_by_what_can_be_done(
    said: str, kind: type[MayflyError], tmp_path: Path
) -> None:
    archive = archive_of(wanted(tmp_path, "el9"))
    error = failed("dnf", Ended(code=1, lines=("Updating", said)), archive)
    assert type(error) is kind
    if kind in (Untrusted, Unavailable):
        assert "http://m.test/x" in error.message
        assert error.hint


def test_what_is_installed_is_read_without_the_keys() -> None:
    text = (
        "zlib\t1.2.11-40.el9\tx86_64\tbb\n"
        "gpg-pubkey\tb86b3716-61e69f29\t(none)\t(none)\n"
        "bash\t1:5.1-1\tx86_64\taa\n"
        "a line of a warning\n"
    )
    assert installed_rpms(text) == (
        Pinned(name="bash", version="1:5.1-1", architecture="x86_64", sha256="aa"),
        Pinned(name="zlib", version="1.2.11-40.el9", architecture="x86_64", sha256="bb"),
    )


def test_what_would_be_left_out_is_refused(tmp_path: Path) -> None:
    pin = Pinned(name="bash", version="1", architecture="x86_64")
    catalogue = Catalogue(own=tmp_path / "images", dirs=(tmp_path / "images",))
    for made, words in (
        (Blueprint(recipe=find_recipe("el9"), pins=(pin,)), "a manifest has no meaning"),
        (Blueprint(recipe=find_recipe("debian-12")), "is Debian's own"),
    ):
        with pytest.raises(Invalid, match=words):
            build_foreign(made, catalogue, cache=tmp_path)
    assert not (tmp_path / "images").exists()
