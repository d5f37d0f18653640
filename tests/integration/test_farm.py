"""A recipe from file to machine: built twice to the same bytes, tested, given its site, saved."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from mayfly.engine.memory import end_holder
from mayfly.images.catalogue import Catalogue
from mayfly.model import Image
from tests.conftest import BUILD_LIMIT_S, Cli

pytestmark = [
    pytest.mark.integration,
    pytest.mark.slow,
    pytest.mark.timeout(BUILD_LIMIT_S),
    pytest.mark.skipif(os.geteuid() != 0, reason="looks into disks and machines as root"),
]

RECIPE = """\
base = "minimal"
name = "farm"
version = "1"
tags = ["test"]
packages = ["file"]
scripts = ["setup.sh"]

[[user]]
name = "builder"
uid = 1500
groups = ["farmers"]

[[file]]
path = "/etc/farm"
content = "grown here\\n"
mode = "0640"
owner = "builder"
group = "farmers"

[[check]]
name = "owner"
command = "stat -c '%U %G %a' /etc/farm"
output = "builder farmers 640"

[[check]]
command = "id -u"
user = "user"
output = "59000"

[[check]]
name = "status"
command = "exit 3"
code = 3
"""
SETUP = """\
#!/bin/sh
set -e
echo "in the tree: $(cat /etc/farm)"
date > /srv/built
dpkg-query -W file > /srv/has-file
"""
PROLOG = 'cp site.conf /etc/site.conf; echo "prolog as $(id -u)" > /srv/context\n'
EPILOG = "echo epilog >> /srv/context\n"


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="mayfly-farm-", dir="/var/tmp") as name:
        top = Path(name)
        (top / "farm.toml").write_text(RECIPE)
        (top / "setup.sh").write_text(SETUP)
        yield top
        for template in top.glob("cache/templates/*/"):
            end_holder(template)


@pytest.fixture(scope="module")
def cli(home: Path) -> Cli:
    return Cli(home=home)


def build(cli: Cli, name: str, *words: str) -> str:
    recipe = str(cli.home / "farm.toml")
    done = cli(
        *("image", "build", recipe, "--name", name, *words), timeout_s=BUILD_LIMIT_S, check=True
    )
    return done.stderr.decode()


@pytest.fixture(scope="module")
def built(cli: Cli) -> str:
    """What the build of image ``farm`` said."""
    return build(cli, "farm")


def find(home: Path, name: str) -> Image:
    images = home / "state/images"
    return Catalogue(own=images, dirs=(images,)).find(name)


def inside(cli: Cli, image: str, script: str) -> str:
    words = ("run", image, "--root", "--no-workdir", "--", "sh", "-c", script)
    return cli(*words, timeout_s=BUILD_LIMIT_S, check=True).stdout.decode()


def _root_offset(raw: Path) -> int:
    """Give where the root file system begins: its partition is the first in the table."""
    done = subprocess.run(["/sbin/sfdisk", "--json", raw], check=True, capture_output=True)
    table = json.loads(done.stdout)["partitiontable"]
    return int(table["partitions"][0]["start"]) * int(table["sectorsize"])


def on_disk(image: Image, path: str, scratch: Path) -> str:
    """Read a file of an image that does not run."""
    raw = scratch / "raw"
    subprocess.run(["qemu-img", "convert", "-O", "raw", image.disk, raw], check=True)
    words = ["/sbin/debugfs", "-R", f"cat {path}", f"{raw}?offset={_root_offset(raw)}"]
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    raw.unlink()
    return done.stdout + done.stderr.partition("\n")[2]


@pytest.mark.usefixtures("built")
def test_the_same_recipe_gives_the_same_bytes(cli: Cli, home: Path, built: str) -> None:
    assert "| in the tree: grown here" in built
    (home / "setup.sh").write_text(SETUP.replace("date > /srv/built", "true"))
    try:
        build(cli, "farm-a")
        # Held to what the first one was made of.
        manifest = home / "state/images/farm-a/manifest.json"
        build(cli, "farm-b", "--manifest", str(manifest))
    finally:
        (home / "setup.sh").write_text(SETUP)
    one, other = find(home, "farm-a"), find(home, "farm-b")
    assert one.sha512 == other.sha512
    # And a clock that a script reads is in the image.
    assert find(home, "farm").sha512 != one.sha512
    stored = json.loads(manifest.read_text())
    kernel = [each for each in stored["packages"] if each["name"] == "linux-image-cloud-amd64"]
    assert [len(each["sha256"]) for each in kernel] == [64]


@pytest.mark.usefixtures("built")
def test_its_checks_are_run_in_a_machine_and_recorded(cli: Cli, home: Path) -> None:
    done = cli("image", "test", "farm", timeout_s=BUILD_LIMIT_S, check=True)
    lines = done.stdout.decode().splitlines()
    assert [line.split()[0] for line in lines[:3]] == ["ok", "ok", "ok"]
    failed = cli("image", "test", "farm", "--check", "echo no; false")
    assert failed.returncode == 1
    assert b"exit status 1, not 0" in failed.stdout
    assert b"| no" in failed.stdout
    shown = json.loads(cli("image", "show", "farm", "--json", check=True).stdout)
    assert shown["tested"].startswith("failed ")
    assert len(shown["templates"]) == 1
    assert list((home / "state/machines").glob("*/*")) == []


@pytest.mark.usefixtures("built")
def test_a_run_says_which_disk_it_used(cli: Cli, home: Path) -> None:
    status = home / "status.json"
    pin = find(home, "farm").pin
    words = ("run", pin, "--no-workdir", "--status-file", str(status), "--", "true")
    cli(*words, timeout_s=BUILD_LIMIT_S, check=True)
    assert json.loads(status.read_text())["image"] == pin
    other = cli("run", f"farm@sha512:{'0' * 128}", "--no-workdir", "--", "true")
    assert other.returncode == 125
    assert b"there is no image" in other.stderr


@pytest.mark.usefixtures("built")
def test_a_site_gives_the_image_its_context(cli: Cli, home: Path) -> None:
    context = home / "context" / "farm"
    context.mkdir(parents=True)
    (context / "site.conf").write_text("proxy = here\n")
    (context / "prolog.sh").write_text(PROLOG)
    (context / "epilog.sh").write_text(EPILOG)
    said = inside(cli, "farm", "cat /etc/site.conf /srv/context")
    assert said.splitlines() == ["proxy = here", "prolog as 0", "epilog"]
    (context / "epilog.sh").write_text("echo no proxy; exit 4\n")
    failed = cli("run", "farm", "--no-workdir", "--", "true", timeout_s=BUILD_LIMIT_S)
    assert failed.returncode == 125
    assert b"epilog.sh ended with status 4: no proxy" in failed.stderr
    for file in context.iterdir():
        file.unlink()
    context.rmdir()
    assert inside(cli, "farm", "ls /srv/context || echo none") == "none\n"


@pytest.mark.usefixtures("built")
def test_a_prepared_machine_becomes_an_image(cli: Cli, home: Path, tmp_path: Path) -> None:
    script = "echo made > /srv/made; echo x > /etc/ssh_host; echo log > /var/log/own; exit 1"
    status = home / "status.json"
    words = ("run", "farm", "--root", "--no-workdir", "--keep-on-failure")
    cli(*words, "--status-file", str(status), "--", "sh", "-c", script, timeout_s=BUILD_LIMIT_S)
    machine = json.loads(status.read_text())["machine"]
    taken = cli("image", "save", machine, "farm", "--yes")
    assert b"there is an image 'farm' already" in taken.stderr
    cli("image", "save", machine, "saved", "--version", "7", "--yes", check=True)
    assert list((home / "state/machines").glob("*/*")) == []
    made = find(home, "saved")
    assert (made.version, made.os) == ("7", "debian 12")
    assert made.derived[0] == f"made of {find(home, 'farm').pin}"
    assert on_disk(made, "/srv/made", tmp_path) == "made\n"
    assert on_disk(made, "/etc/machine-id", tmp_path) == ""
    assert on_disk(made, "/var/log/own", tmp_path) == ""
    assert inside(cli, "saved", "cat /srv/made; hostname").startswith("made\nmayfly-")


def test_a_script_that_fails_leaves_nothing(home: Path) -> None:
    scratch = home / "scratch"
    scratch.mkdir(mode=0o755)
    (home / "bad.sh").write_text("echo almost; exit 9")
    own = Cli(home=home, env={"TMPDIR": str(scratch)})
    words = ("image", "build", "minimal", "--name", "bad", "--script", str(home / "bad.sh"))
    done = own(*words, timeout_s=BUILD_LIMIT_S)
    assert done.returncode != 0
    assert b"script bad.sh: exit status 9; the last that it printed: almost" in done.stderr
    assert list(scratch.iterdir()) == []
    assert not (home / "state/images/bad").exists()
    assert list((home / "state/images/.work").iterdir()) == []
