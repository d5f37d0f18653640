"""Images of other distributions: the real builders, from small archives that are made here.

None of the real archives need be in reach. What stands in for Enterprise Linux is one RPM with a
busybox, for Ubuntu Debian's own packages under another key and another suite's name.
"""

from __future__ import annotations

import functools
import hashlib
import json
import lzma
import os
import shutil
import subprocess
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from mayfly.engine.memory import end_holder
from mayfly.images.build.mirror import host_mirror
from mayfly.images.build.recipe import RECIPES, find_recipe
from tests.conftest import Cli

TOOLS = ("dnf", "rpmbuild", "rpmsign", "createrepo_c", "gpg", "mmdebstrap")
BUSYBOX = Path("/bin/busybox")
pytestmark = [
    pytest.mark.integration,
    pytest.mark.slow,
    pytest.mark.skipif(not all(map(shutil.which, TOOLS)), reason=f"needs {', '.join(TOOLS)}"),
    pytest.mark.skipif(os.geteuid() != 0, reason="makes machines of root's"),
]

NOBLE = find_recipe("ubuntu-24.04")
EL9 = find_recipe("el9")
SPEC = f"""\
Name: bash
Version: 5.1
Release: 1
Summary: A stand-in
License: none
Provides: {" ".join(name for name in EL9.base if name != "bash")}
AutoReqProv: no
%description
All that the recipe asks for, in one.
%install
mkdir -p %{{buildroot}}/usr/bin %{{buildroot}}/etc
cp {BUSYBOX} %{{buildroot}}/usr/bin/busybox
for name in sh ls cat id uname rm chown; do ln -s busybox %{{buildroot}}/usr/bin/$name; done
ln -s usr/bin %{{buildroot}}/bin
printf 'ID=almalinux\\nVERSION_ID="9"\\n' > %{{buildroot}}/etc/os-release
printf 'root:x:0:0:root:/root:/bin/sh\\n' > %{{buildroot}}/etc/passwd
printf 'root:x:0:\\n' > %{{buildroot}}/etc/group
%files
/usr/bin/*
/bin
/etc/*
"""


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Say nothing."""


class _Redirecting(_Quiet):
    """Has what is in its directory, and sends for the rest to Debian's mirror."""

    def send_head(self) -> object:  # type: ignore[override]  # as loose as what it replaces
        if Path(self.translate_path(self.path)).exists() or self.path.startswith("/dists"):
            return super().send_head()
        self.send_response(302)
        self.send_header("Location", host_mirror().main + self.path)
        self.send_header("Content-Length", "0")
        self.end_headers()
        return None


@contextmanager
def served(place: Path, handler: type[_Quiet] = _Quiet) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(handler, directory=str(place)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def do(*argv: object, cwd: Path | None = None) -> bytes:
    words = [str(each) for each in argv]
    done = subprocess.run(words, check=False, capture_output=True, cwd=cwd, timeout=120)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


class Signer:
    """A key of a test's own."""

    def __init__(self, place: Path) -> None:
        # A socket's path is short: pytest's directories are not.
        self.home = place
        place.mkdir(mode=0o700)
        words = ("--batch", "--quiet", "--passphrase", "", "--quick-gen-key", "Test <t@test>")
        self.gpg(*words, "rsa2048", "sign", "0")

    def gpg(self, *words: object) -> bytes:
        return do("gpg", "--homedir", self.home, *words)

    def public(self, file: Path, *options: str) -> Path:
        file.write_bytes(self.gpg(*options, "--export"))
        return file

    def end(self) -> None:
        subprocess.run(["gpgconf", "--homedir", str(self.home), "--kill", "all"], check=False)


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Signer]:
    one = Signer(tmp_path_factory.mktemp("s") / "gpg")
    yield one
    one.end()


@pytest.fixture(scope="module")
def rpm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An RPM that nobody has signed."""
    place = tmp_path_factory.mktemp("rpm")
    (place / "bash.spec").write_text(SPEC)
    top = f"_topdir {place / 'top'}"
    do("rpmbuild", "-bb", "--target", "x86_64", "--define", top, place / "bash.spec")
    (made,) = (place / "top/RPMS").glob("*/*.rpm")
    return made


def repository(place: Path, rpm: Path, signer: Signer | None) -> Path:
    """Make the repositories of the recipe, with one package in the first."""
    assert EL9.archive is not None
    for number, name in enumerate(EL9.archive.repositories):
        directory = place / name
        directory.mkdir(parents=True)
        if number == 0:
            shutil.copy(rpm, directory)
        if number == 0 and signer is not None:
            defined = ("_gpg_name Test", f"_gpg_path {signer.home}", "__gpg /usr/bin/gpg")
            options = [word for each in defined for word in ("--define", each)]
            do("rpmsign", *options, "--addsign", directory / rpm.name)
        do("createrepo_c", "--quiet", directory)
    return place


@pytest.fixture
def site(warm_home: Path, tmp_path: Path) -> Iterator[Cli]:
    """A home of its own that shares the kernel of the tests' one."""
    home = tmp_path / "home"
    (home / "cache").mkdir(parents=True)
    for name in ("kernels", "probe"):
        if (warm_home / "cache" / name).is_dir():
            shutil.copytree(warm_home / "cache" / name, home / "cache" / name)
    yield Cli(home=home)
    for template in home.glob("cache/templates/*"):
        end_holder(template)


RECIPE = """\
base = "el9"
mirror = "{mirror}"
keyring = "KEY"
version = "9.1"
tags = ["lab"]

[[file]]
path = "/etc/motd"
content = "of the lab"

[[check]]
command = "cat /etc/motd /etc/os-release"
output = "of the lab"
"""


def test_a_tree_of_rpms_becomes_a_machine(
    site: Cli, rpm: Path, signer: Signer, tmp_path: Path
) -> None:
    place = repository(tmp_path / "repo", rpm, signer)
    signer.public(tmp_path / "KEY", "--armor")
    with served(place) as mirror:
        (tmp_path / "lab.toml").write_text(RECIPE.format(mirror=mirror))
        site("image", "build", str(tmp_path / "lab.toml"), check=True)
    shown = json.loads(site("image", "show", "lab", "--json", check=True).stdout)
    assert (shown["os"], shown["version"], shown["tags"]) == ("almalinux 9", "9.1", ["lab"])
    manifest = json.loads((Path(shown["disk"]).parent / "manifest.json").read_text())
    (package,) = manifest["packages"]
    assert (package["name"], package["version"]) == ("bash", "5.1-1")
    assert manifest["builders"]["dnf"]
    done = site("image", "test", "lab", timeout_s=300)
    assert done.returncode == 0, done.stdout + done.stderr
    ran = site("run", "lab", "--no-workdir", "--", "cat", "/etc/os-release", timeout_s=300)
    assert b"ID=almalinux" in ran.stdout, ran.stderr


def assert_no_image(site: Cli) -> None:
    assert json.loads(site("image", "list", "--json").stdout) == []
    assert list(site.home.glob("state/images/[!.]*")) == []


def test_rpms_that_nobody_has_signed_are_not_installed(
    site: Cli, rpm: Path, signer: Signer, tmp_path: Path
) -> None:
    place = repository(tmp_path / "repo", rpm, None)
    key = signer.public(tmp_path / "KEY", "--armor")
    with served(place) as mirror:
        done = site("image", "build", "el9", "--mirror", mirror, "--keyring", str(key))
    assert done.returncode == 8
    assert b"is not signed with one of the keys" in done.stderr
    assert_no_image(site)


def test_rpms_that_another_has_signed_are_not_installed(
    site: Cli, rpm: Path, signer: Signer, tmp_path: Path
) -> None:
    place = repository(tmp_path / "repo", rpm, signer)
    other = Signer(tmp_path / "g")
    try:
        key = other.public(tmp_path / "KEY", "--armor")
        with served(place) as mirror:
            done = site("image", "build", "el9", "--mirror", mirror, "--keyring", str(key))
    finally:
        other.end()
    assert done.returncode == 8
    assert b"is not signed with one of the keys" in done.stderr
    assert_no_image(site)


@pytest.mark.parametrize("base", [name for name in RECIPES if RECIPES[name].archive is not None])
def test_a_mirror_that_is_not_there_is_named(
    base: str, site: Cli, signer: Signer, tmp_path: Path
) -> None:
    key = signer.public(tmp_path / "KEY.gpg")
    done = site("image", "build", base, "--mirror", "http://127.0.0.1:1", "--keyring", str(key))
    assert done.returncode not in (0, 1)
    assert b"cannot get packages from http://127.0.0.1:1" in done.stderr
    assert b"--mirror" in done.stderr
    assert_no_image(site)


# --- Ubuntu --------------------------------------------------------------------------------------


def posing_as_ubuntu(place: Path, signer: Signer) -> Path:
    """Make package lists of Ubuntu's form, with Debian's packages, signed with the test's key."""
    assert NOBLE.archive is not None
    lists = f"{host_mirror().main}/dists/bookworm/main/binary-amd64/Packages.xz"
    with urllib.request.urlopen(lists, timeout=120) as got:
        packages = got.read()
    for suite in (NOBLE.suite, f"{NOBLE.suite}-updates", f"{NOBLE.suite}-security"):
        top = place / "dists" / suite
        sums = []
        for component in NOBLE.archive.components.split():
            file = top / component / "binary-amd64/Packages.xz"
            file.parent.mkdir(parents=True)
            full = (suite, component) == (NOBLE.suite, "main")
            file.write_bytes(packages if full else do("xz", "--stdout", "/dev/null"))
            packed = file.read_bytes()
            for name, data in ((file, packed), (file.with_suffix(""), lzma.decompress(packed))):
                digest = hashlib.sha256(data).hexdigest()
                sums.append(f" {digest} {len(data)} {name.relative_to(top)}\n")
        (top / "Release").write_text(
            f"Origin: Ubuntu\nSuite: {suite}\nCodename: {suite}\nArchitectures: amd64\n"
            f"Components: {NOBLE.archive.components}\n"
            f"Date: Sat, 28 Nov 2026 12:00:00 UTC\nSHA256:\n{''.join(sums)}"
        )
        signer.gpg("--batch", "--clearsign", "--output", top / "InRelease", top / "Release")
        (top / "Release").unlink()
    return place


def test_ubuntu_comes_from_an_archive_of_its_own_under_its_own_key(
    site: Cli, signer: Signer, tmp_path: Path
) -> None:
    place = posing_as_ubuntu(tmp_path / "repo", signer)
    key = signer.public(tmp_path / "KEY.gpg")
    script = tmp_path / "setup.sh"
    script.write_text("echo done by a script > /etc/motd\n")
    words = ("image", "build", "ubuntu-24.04", "--package", "file", "--script", str(script))
    debians = "/usr/share/keyrings/debian-archive-keyring.gpg"
    with served(place, _Redirecting) as mirror:
        done = site(*words, "--mirror", mirror, "--keyring", debians, timeout_s=600)
        assert done.returncode == 8, done.stderr
        assert b"is not signed with one of the keys" in done.stderr
        assert_no_image(site)
        site(*words, "--mirror", mirror, "--keyring", str(key), check=True, timeout_s=600)
    shown = json.loads(site("image", "show", "ubuntu-24.04", "--json", check=True).stdout)
    assert shown["os"] == "ubuntu 24.04"
    manifest = json.loads((Path(shown["disk"]).parent / "manifest.json").read_text())
    assert {"apt", "file", "less"} <= {each["name"] for each in manifest["packages"]}
    ran = site("run", "ubuntu-24.04", "--no-workdir", "--", "cat", "/etc/motd", timeout_s=300)
    assert ran.stdout == b"done by a script\n", ran.stderr
