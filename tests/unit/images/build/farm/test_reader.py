"""A recipe is read whole or refused, and each refusal names the file, the line and the key."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mayfly.errors import Invalid, MayflyError, Missing
from mayfly.images.build.farm.blueprint import Blueprint, Check, NewUser, PlacedFile, Script
from mayfly.images.build.farm.reader import is_file, read_blueprint, read_script
from mayfly.images.build.farm.table import TEXT_MOST
from mayfly.images.build.recipe import DISK_BYTES, Init, Mirror, find_recipe

WHOLE = """\
name = "tools"
base = "debian-12"
version = "2026.1"
tags = ["ci", "small"]
packages = ["python3-minimal", "make"]
scripts = ["setup.sh"]
script_limit = "5m"
size = "4G"
init = "sysvinit"
mirror = "http://mirror.test/debian"
documentation = true

[[file]]
path = "/etc/motd"
source = "motd"
mode = "0600"
owner = "builder"
group = "builder"

[[file]]
path = "/opt/empty"
content = ""

[[user]]
name = "builder"
uid = 1500
groups = ["audio", "tools"]
shell = "/bin/sh"
home = "/srv/builder"

[[check]]
name = "python runs"
command = "python3 --version"
output = "Python 3"

[[check]]
command = '''
exit 3
'''
code = 3
user = "user"
limit = "5s"
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "setup.sh").write_bytes(b"#!/bin/sh\ntrue\n")
    (tmp_path / "motd").write_bytes(b"hello\n")
    return tmp_path


def read(place: Path, text: str | bytes, name: str = "my-image.toml") -> Blueprint:
    file = place / name
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return read_blueprint(file)


def test_a_whole_recipe(place: Path) -> None:
    made = read(place, WHOLE)
    assert (made.name, made.version, made.tags) == ("tools", "2026.1", ("ci", "small"))
    assert made.recipe.packages == ("python3-minimal", "make")
    assert (made.recipe.disk_bytes, made.recipe.init) == (4 << 30, Init.SYSVINIT)
    assert not made.recipe.lean
    assert made.scripts == (Script(name="setup.sh", content=b"#!/bin/sh\ntrue\n"),)
    assert made.script_limit_s == 300
    motd = PlacedFile(
        path="etc/motd", content=b"hello\n", mode=0o600, owner="builder", group="builder"
    )
    assert made.files == (motd, PlacedFile(path="opt/empty", content=b""))
    assert made.users == (
        NewUser(
            name="builder",
            uid=1500,
            groups=("audio", "tools"),
            shell="/bin/sh",
            home="/srv/builder",
        ),
    )
    assert made.checks == (
        Check(name="python runs", command="python3 --version", output="Python 3"),
        Check(name="exit 3", command="exit 3\n", code=3, user="user", limit_s=5),
    )
    assert made.mirror == Mirror(
        main="http://mirror.test/debian", security="http://mirror.test/debian-security"
    )


def test_the_least_that_a_recipe_has(place: Path) -> None:
    made = read(place, 'base = "minimal"\n')
    assert (made.name, made.title) == ("my-image", "my-image")
    assert made.recipe == find_recipe("minimal")
    assert made.recipe.disk_bytes == DISK_BYTES
    assert not made.has_setup


def test_another_distribution_has_a_mirror_and_keys(place: Path) -> None:
    made = read(place, 'base = "el9"\nmirror = "http://m.test/9/"\nkeyring = "KEY"\n')
    assert made.mirror == Mirror(main="http://m.test/9", security="http://m.test/9")
    assert made.keyring == str(place / "KEY")
    assert read(place, 'base = "el9"\n').keyring == ""


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("", 1, "'base': must be given"),
        ('base = "ubuntu-18.04"', 1, "'base': there is no recipe 'ubuntu-18.04'"),
        ('base = "el9"\n\ninit = "sysvinit"', 3, "'init': has no meaning with base 'el9'"),
        ('base = "el9"\ndocumentation = true', 2, "'documentation': has no meaning"),
        ('base = "el9"\npackages = ["@core"]', 2, "'@core' is not the name of an RPM package"),
        ('base = "debian-12"\nkeyring = "x"', 2, "'keyring': has no meaning with base"),
        ("base = 12", 1, "'base': must be a text, not 12"),
        ('base = "debian-12"\nsizes = "1G"', 2, "'sizes': there is no such key"),
        ('base = "debian-12"\n\nsize = "much"', 3, "'size': 'much' is not a size"),
        ('base = "debian-12"\nsize = "1M"', 2, "'size': a disk of 1.0 MiB is not possible"),
        ('base = "debian-12"\nname = "No"', 2, "'name': 'No' is not a name"),
        ('base = "debian-12"\nversion = "a b"', 2, "'version': 'a b' is not a version"),
        ('base = "debian-12"\ntags = ["-"]', 2, "'tags': '-' is not a tag"),
        ('base = "debian-12"\ntags = "ci"', 2, "'tags': must be a list of texts"),
        ('base = "debian-12"\npackages = ["-y"]', 2, "'packages': '-y' is not the name"),
        ('base = "debian-12"\npackages = [1]', 2, "'packages': must be a list of texts"),
        ('base = "debian-12"\ninit = "runit"', 2, "'init': must be one of"),
        ('base = "debian-12"\nscripts = ["none.sh"]', 2, "'scripts': there is no file"),
        ('base = "debian-12"\nscripts = ["/dev/zero"]', 2, "'scripts': there is no file"),
        ('base = "debian-12"\nscript_limit = "0s"', 2, "'script_limit': '0s' must be longer"),
        ('base = "debian-12"\nmirror = "ftp://x"', 2, "'mirror': 'ftp://x' is not the address"),
        ('base = "debian-12"\nsecurity_mirror = "http://x"', 2, "no meaning without 'mirror'"),
        ('base = "debian-12"\nmanifest = "none.json"', 2, "'manifest': there is no file"),
        ('base = "debian-12"\nmanifest = "motd"', 2, "'manifest': "),
        ('base = "debian-12"\nfile = "x"', 2, "'file': must be written as [[file]]"),
        ('base = "debian-12"\n[[file]]\ncontent = ""', 2, "'path': must be given"),
        ('base = "debian-12"\n[[file]]\npath = "/a"', 3, "either 'source', a file, or 'content'"),
        (
            'base = "debian-12"\n[[file]]\npath = "/a"\nsource = "x"\ncontent = "y"',
            3,
            "either 'source', a file, or 'content'",
        ),
        (
            'base = "debian-12"\n[[file]]\npath = "/a"\nsource = "none"',
            4,
            "'source': there is no file",
        ),
        (
            'base = "debian-12"\n[[file]]\npath = "/a"\ncontent = ""\nmode = "999"',
            5,
            "'mode': '999' is not a mode",
        ),
        (
            'base = "debian-12"\n[[user]]\nname = "a"\n[[user]]\nname = "B; rm -rf /"',
            5,
            "'name': 'B; rm -rf /' is not the name of an account",
        ),
        ('base = "debian-12"\n[[user]]\nname = "a"\nuid = 0', 4, "'uid': must be from 100"),
        ('base = "debian-12"\n[[user]]\nname = "a"\nuid = true', 4, "'uid': must be a whole"),
        ('base = "debian-12"\n[[user]]\nname = "a"\nshell = "sh"', 4, "'shell': 'sh' is not"),
        ('base = "debian-12"\n[[user]]\nname = "a"\nhome = "/a/../b"', 4, "'home': "),
        ('base = "debian-12"\n[[check]]\ncommand = " "', 3, "'command': must not be empty"),
        (
            'base = "debian-12"\n[[check]]\ncommand = "x"\nuser = "me"',
            4,
            "'user': must be 'root' or 'user'",
        ),
        ('base = "debian-12"\n[[check]]\ncommand = "x"\ncode = 256', 4, "'code': must be from 0"),
    ],
)
def test_every_refusal_names_file_line_and_key(
    place: Path, text: str, line: int, words: str
) -> None:
    with pytest.raises(Invalid) as caught:
        read(place, text)
    assert caught.value.message.startswith(f"{place}/my-image.toml:{line}: ")
    assert words in caught.value.message


@pytest.mark.parametrize(
    "path", ["etc/x", "/", "/../x", "/etc/../../x", "/proc/x", "/dev/sda", "/.mayfly/run", "/a/"]
)
def test_a_file_is_put_beneath_the_root_only(place: Path, path: str) -> None:
    with pytest.raises(Invalid, match="'path': "):
        read(place, f'base = "debian-12"\n[[file]]\npath = "{path}"\ncontent = ""')


@pytest.mark.parametrize(
    "data", [b"\xff\xfe", b"a = [" * 50_000, b"x" * (TEXT_MOST + 1), b'base = "a', b"\0"]
)
def test_what_is_no_recipe_is_refused(place: Path, data: bytes) -> None:
    with pytest.raises(Invalid, match=r"my-image\.toml"):
        read(place, data)


def test_a_recipe_that_is_not_there(place: Path) -> None:
    with pytest.raises(Missing):
        read_blueprint(place / "none.toml")
    with pytest.raises(MayflyError):
        read_blueprint(place)
    with pytest.raises(Invalid):
        read_script(place / "none.sh")


def test_a_file_name_that_is_no_image_name_needs_a_name(place: Path) -> None:
    with pytest.raises(Invalid, match="'name'"):
        read(place, 'base = "debian-12"', "My Image.toml")
    assert read(place, 'base = "debian-12"\nname = "mine"', "My Image.toml").name == "mine"


def test_a_pipe_for_a_script_does_not_hang(place: Path) -> None:
    os.mkfifo(place / "pipe")
    with pytest.raises(Invalid):
        read(place, 'base = "debian-12"\nscripts = ["pipe"]')


def test_a_recipe_file_is_told_from_a_recipe_of_ours() -> None:
    assert [is_file(text) for text in ("x.toml", "./x", "debian-12")] == [True, True, False]


def test_what_decides_the_content_decides_the_digest(place: Path) -> None:
    one = read(place, WHOLE)
    assert one.digest() == read(place, WHOLE, "other.toml").digest()
    same = WHOLE.replace('version = "2026.1"', 'version = "2"').replace("mirror.test", "m.test")
    assert read(place, same).digest() == one.digest()
    assert read(place, WHOLE.replace("1500", "1501")).digest() != one.digest()
    (place / "setup.sh").write_bytes(b"#!/bin/sh\nfalse\n")
    assert read(place, WHOLE).digest() != one.digest()
