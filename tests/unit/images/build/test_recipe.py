"""From a recipe to the command that makes the tree."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from mayfly.errors import Invalid, Missing
from mayfly.images.build.recipe import (
    RECIPES,
    Family,
    Init,
    Mirror,
    Recipe,
    Workplace,
    check_disk_bytes,
    check_packages,
    find_recipe,
    milestone,
    mmdebstrap_argv,
)
from mayfly.units import GIB, MIB

MIRROR = Mirror(main="http://mirror.test/debian", security="http://mirror.test/security")
PLACE = Workplace(tree=Path("/s/tree"), layer=Path("/s/layer.tar"), as_root=True)

INCLUDE = (
    "linux-image-cloud-amd64,systemd-sysv,ca-certificates,e2fsprogs,iproute2,iputils-ping,"
    "kmod,less,login,mount,netbase,passwd,procps,tzdata,udev,vim-tiny,xz-utils"
)


def argv(
    recipe: Recipe, *, as_root: bool = True, apt: Mapping[str, str] | None = None
) -> list[str]:
    place = replace(PLACE, as_root=as_root)
    return mmdebstrap_argv(recipe, MIRROR, place, apt_options=apt or {})


def test_the_whole_command_of_debian_12() -> None:
    assert argv(find_recipe("debian-12")) == [
        "mmdebstrap",
        "--mode=root",
        "--variant=minbase",
        "--format=directory",
        "--architectures=amd64",
        f"--include={INCLUDE}",
        "--skip=cleanup/apt/lists",
        "--dpkgopt=path-exclude=/usr/share/doc/*",
        "--dpkgopt=path-exclude=/usr/share/info/*",
        "--dpkgopt=path-exclude=/usr/share/locale/*",
        "--dpkgopt=path-exclude=/usr/share/man/*",
        "--dpkgopt=path-include=/usr/share/doc/*/copyright",
        "--essential-hook=tar-in /s/layer.tar /",
        '--customize-hook=rm -f "$1"/etc/apt/apt.conf.d/99mmdebstrap "$1"/etc/ssh/ssh_host_*',
        "bookworm",
        "/s/tree",
        "deb http://mirror.test/debian bookworm main",
        "deb http://mirror.test/debian bookworm-updates main",
        "deb http://mirror.test/security bookworm-security main",
    ]


def test_an_ordinary_user_builds_in_a_user_namespace() -> None:
    assert "--mode=unshare" in argv(find_recipe("debian-13"), as_root=False)


def test_further_packages_come_after_the_base_and_once() -> None:
    recipe = replace(find_recipe("debian-12"), packages=("make", "less", "g++"))
    (include,) = [word for word in argv(recipe) if word.startswith("--include=")]
    assert include.endswith(",make,g++")
    assert include.count("less") == 1


def test_sysvinit_replaces_systemd_and_enables_the_init_script() -> None:
    words = argv(replace(find_recipe("debian-12"), init=Init.SYSVINIT))
    (include,) = [word for word in words if word.startswith("--include=")]
    assert "sysvinit-core" in include
    assert "systemd-sysv" not in include
    assert '--customize-hook=chroot "$1" update-rc.d mayfly-agent defaults' in words


def test_debian_11_takes_the_kernel_of_its_last_point_release() -> None:
    words = argv(find_recipe("debian-11"))
    assert any(word.startswith("--include=linux-image-cloud-amd64/bullseye,") for word in words)
    assert any(word.startswith("--setup-hook=") for word in words)


def test_settings_of_the_hosts_apt_are_handed_on() -> None:
    words = argv(find_recipe("debian-12"), apt={"Acquire::http::Proxy": "http://proxy:3128"})
    assert '--aptopt=Acquire::http::Proxy "http://proxy:3128"' in words


def test_there_are_these_recipes_and_no_others() -> None:
    debians = ["debian-11", "debian-12", "debian-13", "minimal"]
    assert list(RECIPES) == [*debians, "ubuntu-24.04", "el9", "fedora-42"]
    assert [name for name in RECIPES if RECIPES[name].archive is None] == debians
    with pytest.raises(Missing) as caught:
        find_recipe("debian-10")
    assert "debian-12" in caught.value.hint
    assert "import" in caught.value.hint


@pytest.mark.parametrize("name", ["", "a", "-y", "--purge", "x;y", "Make", "a b", "a,b", "./x.deb"])
def test_what_is_no_package_name_is_refused(name: str) -> None:
    with pytest.raises(Invalid):
        check_packages((name,))


def test_package_names_are_accepted() -> None:
    check_packages(("g++", "python3.11", "libc6-dev", "0ad"))


def test_rpms_have_names_of_their_own_kind() -> None:
    check_packages(("NetworkManager", "gcc-c++", "python3.11", "perl-Text_CSV"), Family.RPM)
    for name in ("", "-y", "@core", "*", "x;y", "a b", "./x.rpm", "http://x/y.rpm"):
        with pytest.raises(Invalid, match="RPM package"):
            check_packages((name,), Family.RPM)


@pytest.mark.parametrize("size", [0, 512 * MIB, 2049 * GIB])
def test_impossible_disks_are_refused(size: int) -> None:
    with pytest.raises(Invalid):
        check_disk_bytes(size)


def test_disks_are_rounded_up_to_whole_mib() -> None:
    assert check_disk_bytes(2 * GIB) == 2 * GIB
    assert check_disk_bytes(2 * GIB + 1) == 2 * GIB + MIB


def test_progress_is_read_from_what_mmdebstrap_says() -> None:
    lines = [
        "I: automatically chosen format: directory",
        "I: running apt-get update...",
        "I: downloading packages with apt...",
        "I: extracting archives...",
        "I: installing essential packages...",
        "I: installing remaining packages inside the chroot...",
        "I: cleaning package lists and apt cache...",
    ]
    first, *fractions = [milestone(line) for line in lines]
    assert first is None
    shares = [fraction for fraction in fractions if fraction is not None]
    assert len(shares) == len(fractions)
    assert shares == sorted(shares)
    assert shares[-1] < 1
