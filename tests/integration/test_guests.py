"""Guests that differ: old and new, with and without Python, another init, somebody else's image.

Images are made once and kept in the test cache; the first run on a new computer takes minutes.
"""

from __future__ import annotations

import fcntl
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from mayfly.images.build.builder import build
from mayfly.images.build.farm.blueprint import Blueprint
from mayfly.images.build.recipe import Recipe, find_recipe
from mayfly.images.catalogue import Catalogue
from tests.conftest import BUILD_LIMIT_S, CACHE, REPOSITORY, Cli
from tests.material.recipes import PYTHON2_ONLY, SYSVINIT

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(1500)]

SAME_IN_NO_TWO = (
    "cat /proc/sys/kernel/random/boot_id /etc/machine-id; hostname; "
    "head -c16 /dev/urandom | od -An -tx1 | tr -d ' \\n'; echo; date +%s; uname -r"
)
QEMU_10_TREE = CACHE / "trixie-qemu"


def make_recipe(recipe: Recipe) -> Callable[[Cli], None]:
    """Give what builds a recipe into a home."""

    def make(cli: Cli) -> None:
        images = cli.home / "state/images"
        build(Blueprint(recipe=recipe), Catalogue(own=images, dirs=(images,)))

    return make


def make_stock(cli: Cli) -> None:
    """Make a stock cloud image and import it, as a user would a download."""
    disk = cli.home / "stock-12.qcow2"
    subprocess.run(
        [sys.executable, "-m", "tests.material.stock_cloud_image", str(disk)],
        check=True,
        cwd=REPOSITORY,
        timeout=BUILD_LIMIT_S,
    )
    cli("image", "import", str(disk), "--name", "stock-12", timeout_s=BUILD_LIMIT_S, check=True)
    disk.unlink()


NO_PYTHON = "command -v python3 || echo none"
GUESTS: dict[str, tuple[Callable[[Cli], None], str, str]] = {
    "debian-11": (
        make_recipe(find_recipe("debian-11")),
        "5.10.",
        NO_PYTHON,
    ),
    "debian-13": (
        make_recipe(find_recipe("debian-13")),
        "6.12.",
        NO_PYTHON,
    ),
    "debian-11-py2": (make_recipe(PYTHON2_ONLY), "5.10.", "python -c 'print(\"py2\")'"),
    "debian-12-sysv": (make_recipe(SYSVINIT), "6.1.", "cat /proc/1/comm"),
    "stock-12": (make_stock, "6.1.", "test -e /run/cloud-init/result.json && echo cloud"),
}
ANSWERS = {
    "debian-11": "none",
    "debian-13": "none",
    "debian-11-py2": "py2",
    "debian-12-sysv": "init",
    "stock-12": "cloud",
}


def require_image(cli: Cli, name: str) -> None:
    """Make the image of this name, once for all test runs."""
    with open(cli.home / f".{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (cli.home / "state/images" / name).is_dir():
            GUESTS[name][0](cli)


@pytest.mark.parametrize("name", GUESTS)
def test_a_guest_becomes_machines_of_their_own(cli: Cli, name: str) -> None:
    require_image(cli, name)
    _, kernel, question = GUESTS[name]
    seen = []
    for _ in range(3):
        done = cli(
            *("run", "-q", name, "--no-workdir", "--"),
            *("sh", "-c", f"{SAME_IN_NO_TWO}; {question}"),
            timeout_s=400,
            check=True,
        )
        lines = done.stdout.decode().splitlines()
        assert abs(int(lines[4]) - time.time()) < 3, "the clock"
        assert lines[5].startswith(kernel)
        assert lines[6] == ANSWERS[name]
        seen.append(lines)
    for position in range(4):
        assert len({lines[position] for lines in seen}) == 3, seen


def test_clones_do_not_share_ssh_host_keys(cli: Cli) -> None:
    require_image(cli, "stock-12")
    question = "command -v sshd; cat /etc/ssh/ssh_host_*_key.pub 2>/dev/null | head -c 100"
    words = ("run", "-q", "stock-12", "--no-workdir", "--", "sh", "-c", question)
    first, second = (cli(*words, check=True, timeout_s=400).stdout for _ in range(2))
    assert first.startswith(b"/usr/sbin/sshd"), "the image has an ssh server"
    assert not first.partition(b"ssh-")[2] or first != second


def test_the_recipe_holds_on_qemu_10(cli: Cli) -> None:
    """The same clones, with the QEMU of Debian 13 run from a tree of its own."""
    if not QEMU_10_TREE.is_dir():
        fresh = QEMU_10_TREE.with_suffix(".new")
        shutil.rmtree(fresh, ignore_errors=True)
        packages = "--include=qemu-system-x86"
        subprocess.run(
            ["mmdebstrap", "--quiet", "--variant=apt", packages, "trixie", str(fresh)],
            check=True,
            timeout=BUILD_LIMIT_S,
        )
        fresh.rename(QEMU_10_TREE)
    home = CACHE / "home-qemu10"
    images = home / "state/images"
    images.mkdir(parents=True, exist_ok=True)
    if not (images / "debian-12").is_dir():
        subprocess.run(
            ["cp", "-a", str(cli.home / "state/images/debian-12"), str(images)], check=True
        )
    program = f"{QEMU_10_TREE}:/usr/bin/qemu-system-x86_64"
    (home / "config.toml").write_text(f'qemu = "{program}"\n')
    other = Cli(home=home)
    found = {item["name"]: item for item in json.loads(other("doctor", "--json").stdout)}
    assert " 10." in found["QEMU"]["detail"]
    seen = set()
    for _ in range(2):
        words = ("run", "-q", "debian-12", "--no-workdir", "--", "sh", "-c", SAME_IN_NO_TWO)
        done = other(*words, timeout_s=400, check=True)
        seen |= set(done.stdout.decode().split()[:4])
    assert len(seen) == 8
