"""``mayfly image pull`` and ``import URL`` as typed, from a web server into a catalogue."""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from mayfly.cli.endorse import lists
from mayfly.cli.image import image as group
from mayfly.cli.image import make, pull
from mayfly.config import Paths
from mayfly.errors import Conflict, Invalid, Missing, Quota, Untrusted
from mayfly.images.catalogue import Catalogue
from mayfly.images.lists.store import TrustStore
from mayfly.images.pull import Puller, find_place, name_of, of_url
from mayfly.images.transfer.digest import parse_sha512
from mayfly.images.transfer.part import Downloads
from mayfly.images.transfer.source import DirectorySource, WebSource
from tests.unit.cli.endorsing import command
from tests.unit.images.disks import content, raw_disk
from tests.unit.images.lists.samples import listed
from tests.unit.images.lists.test_admission import accepted, subscription
from tests.unit.images.web import File, Server, reply, serving

pytestmark = pytest.mark.skipif(shutil.which("qemu-img") is None, reason="needs qemu-img")


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as running:
        yield running


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MAYFLY_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(tmp_path / "none"))
    for module in (pull, make, lists):
        monkeypatch.setattr(module, "tidy_on_signals", lambda: None)
    return tmp_path / "home"


@pytest.fixture
def disk(tmp_path: Path) -> bytes:
    return raw_disk(tmp_path / "disk.raw").read_bytes()


def mayfly_image(*words: str) -> Result:
    return CliRunner().invoke(group, words, catch_exceptions=False, standalone_mode=False)


def shown(name: str) -> dict[str, object]:
    table = json.loads(mayfly_image("show", name, "--json").stdout)
    assert isinstance(table, dict)
    return table


def sha512(body: bytes) -> str:
    return hashlib.sha512(body).hexdigest()


def left(home: Path) -> list[Path]:
    return list((home / "cache/downloads").iterdir())


def test_a_url_with_its_sha512_becomes_an_image(
    server: Server, home: Path, disk: bytes, tmp_path: Path
) -> None:
    url, answers = server
    file = answers["/x/el9.qcow2"] = File(body=disk, breaks=[1 << 20])
    words = ("pull", f"{url}/x/el9.qcow2", "--sha512", sha512(disk).upper(), "--os", "el 9")
    result = mayfly_image(*words)
    assert "pulled el9" in result.stderr
    found = shown("el9")
    assert found["endorsed_sha512"] == sha512(disk)
    assert (found["os"], found["source"], found["tags"]) == (
        "el 9",
        f"{url}/x/el9.qcow2",
        ["pulled"],
    )
    assert content(home / "state/images/el9/disk.qcow2", tmp_path) == disk
    assert left(home) == []
    # It is here already: nobody is asked.
    mayfly_image(*words)
    assert file.ranges == ["", "bytes=1048576-"]


@pytest.mark.usefixtures("home")
def test_another_file_is_refused(server: Server, disk: bytes) -> None:
    url, answers = server
    answers["/el9.raw"] = File(body=disk)
    with pytest.raises(Untrusted, match="is another file"):
        mayfly_image("pull", f"{url}/el9.raw", "--sha512", "0" * 128)
    assert json.loads(mayfly_image("list", "--json").stdout) == []


def test_a_file_that_is_no_disk_is_refused_and_not_kept(server: Server, home: Path) -> None:
    url, answers = server
    body = b"<html>not here</html>"
    answers["/el9"] = reply(body=body)
    with pytest.raises(Invalid, match="not a disk that Mayfly knows"):
        mayfly_image("pull", f"{url}/el9", "--sha512", sha512(body))
    assert left(home) == []


def test_a_url_that_nothing_vouches_for_is_imported_and_said_so(
    server: Server, home: Path, disk: bytes
) -> None:
    url, answers = server
    answers["/el9"] = File(body=disk)
    result = mayfly_image("import", f"{url}/el9", "--name", "el9")
    assert f"nothing vouches for {url}/el9" in result.stderr
    assert f"its sha512 was {sha512(disk)}" in result.stderr
    assert shown("el9")["endorsed_sha512"] == sha512(disk)
    words = ("import", f"{url}/el9", "--name", "checked", "--sha512", sha512(disk))
    assert "nothing vouches" not in mayfly_image(*words).stderr
    assert left(home) == []


@pytest.mark.parametrize(
    "words",
    [
        ("pull", "https://x.example.org/el9.qcow2"),
        ("pull", "el9", "--sha512", "0" * 128),
        ("pull", "https://x.example.org/a", "--sha512", "0" * 128, "--from", "/mnt"),
        ("import", "/tmp/disk", "--name", "a", "--sha512", "0" * 128),
        ("push", "el9", f"docker://localhost/a@sha256:{'0' * 64}"),
    ],
)
@pytest.mark.usefixtures("home")
def test_options_that_do_not_fit_are_refused(words: tuple[str, ...]) -> None:
    with pytest.raises(click.UsageError):
        mayfly_image(*words)


@pytest.mark.parametrize(
    "words",
    [
        ("pull", "https://x.example.org/a", "--sha512", "12"),
        ("pull", "ftp://x.example.org/a", "--sha512", "0" * 128),
        ("pull", "https://x.example.org/", "--sha512", "0" * 128),
        ("pull", "https://x.example.org/a", "--sha512", "0" * 128, "--name", "../a"),
        ("pull", "https://x.example.org/a", "--sha512", "0" * 128, "--limit", "much"),
        ("pull", "docker://x.example.org/A"),
        ("push", "el9", "docker://x y/a"),
    ],
)
@pytest.mark.usefixtures("home")
def test_nonsense_is_invalid(words: tuple[str, ...]) -> None:
    with pytest.raises(Invalid):
        mayfly_image(*words)


def test_a_name_in_use_is_refused_before_anything_is_fetched(
    server: Server, home: Path, disk: bytes
) -> None:
    url, answers = server
    file = answers["/a"] = File(body=disk)
    mayfly_image("pull", f"{url}/a", "--sha512", sha512(disk))
    other = answers["/b/a"] = File(body=disk[:-512])
    words = ("pull", f"{url}/b/a", "--sha512", sha512(other.body))
    with pytest.raises(Conflict, match="another one"):
        mayfly_image(*words)
    assert (file.ranges, other.ranges) == ([""], [])
    mayfly_image(*words, "--force")
    assert shown("a")["endorsed_sha512"] == sha512(other.body)
    assert home.exists()


def test_the_limit_holds(server: Server, home: Path, disk: bytes) -> None:
    url, answers = server
    answers["/a"] = File(body=disk)
    with pytest.raises(Untrusted, match=r"more than 1\.0 MiB"):
        mayfly_image("pull", f"{url}/a", "--sha512", sha512(disk), "--limit", "1M")
    assert left(home) == []


# --- lists ---------------------------------------------------------------------------------------


def subscribed(home: Path, uri: str, disk: bytes) -> None:
    """Have a list that vouches for a disk, and a site that lets this host be asked."""
    entry = listed(9, title="EL 9", uri=uri, sha512=sha512(disk), size_bytes=len(disk))
    store = TrustStore(directory=Paths.for_user().trust)
    store.directory.parent.mkdir(parents=True)
    with store.changing():
        store.save(subscription(accepted(entry)))
    (home / "config.toml").write_text("trust_local_urls = true\n")


def test_a_name_of_a_list_is_fetched_as_the_list_says(
    server: Server, home: Path, disk: bytes
) -> None:
    url, answers = server
    answers["/images/9.img"] = File(body=disk)
    subscribed(home, f"{url}/images/9.img", disk)
    result = mayfly_image("pull", "EL 9")
    assert "endorsed by /CN=Jo" in result.stderr
    found = shown("el-9")
    assert (found["version"], found["os"]) == ("1.0", "centos 7")
    assert "of list" in str(found["source"])
    assert found["endorsed_sha512"] == sha512(disk)


def test_a_list_cannot_have_this_host_asked(server: Server, home: Path, disk: bytes) -> None:
    url, answers = server
    file = answers["/9"] = File(body=disk)
    subscribed(home, f"{url}/9", disk)
    (home / "config.toml").unlink()
    with pytest.raises(Invalid, match="an address of this host"):
        mayfly_image("pull", "el-9")
    assert file.ranges == []


def test_what_no_list_has_is_untrusted(server: Server, home: Path, disk: bytes) -> None:
    url, _ = server
    subscribed(home, f"{url}/9", disk)
    with pytest.raises(Untrusted, match="no subscribed list has"):
        mayfly_image("pull", "el10")


def test_a_listed_image_comes_from_a_directory_of_the_site(
    server: Server, home: Path, disk: bytes, tmp_path: Path
) -> None:
    url, _ = server
    subscribed(home, f"{url}/images/el9.img", disk)
    shared = tmp_path / "shared"
    shared.mkdir()
    with pytest.raises(Missing, match="has no file"):
        mayfly_image("pull", "el-9", "--from", str(shared))
    (shared / "el9.img").write_bytes(disk[::-1])
    with pytest.raises(Untrusted, match="another file"):
        mayfly_image("pull", "el-9", "--from", str(shared))
    (shared / "el9.img").write_bytes(disk)
    mayfly_image("pull", "el-9", "--from", str(shared))
    assert shown("el-9")["endorsed_sha512"] == sha512(disk)


def test_a_place_is_a_directory_a_file_or_a_url(tmp_path: Path) -> None:
    (tmp_path / "a.img").touch()
    (tmp_path / ("0" * 128)).touch()
    uri = "https://x.example.org/b/a.img?x=1"
    wanted = DirectorySource(path=tmp_path / "a.img")
    assert find_place(str(tmp_path), uri, "0" * 128) == wanted
    assert find_place(f"file://{tmp_path}", uri, "0" * 128) == wanted
    assert find_place(str(tmp_path / "a.img"), uri, "0" * 128) == wanted
    by_sum = find_place(str(tmp_path), "https://x.example.org/%2e%2e%2f%00", "0" * 128)
    assert by_sum == DirectorySource(path=tmp_path / ("0" * 128))
    assert isinstance(find_place("https://mirror.example.org/a", uri, "0" * 128), WebSource)


@pytest.mark.parametrize(
    ("path", "name"),
    [("/x/el9.qcow2", "el9"), ("/El9-2026.raw", "el9-2026"), ("a/b", "b"), ("/%41", "a")],
)
def test_a_name_is_made_from_a_path(path: str, name: str) -> None:
    assert name_of(path) == name


@pytest.mark.parametrize("path", ["", "/", "/a%20b", "/..", "/x/%2f%2e%2e", "/.qcow2"])
def test_a_path_that_gives_no_name_is_refused(path: str) -> None:
    with pytest.raises(Invalid, match="gives no name"):
        name_of(path)


def test_many_who_pull_the_same_fetch_it_once(server: Server, home: Path, disk: bytes) -> None:
    url, answers = server
    file = answers["/el9"] = File(body=disk)
    own = home / "images"
    puller = Puller(
        catalogue=Catalogue(own=own, dirs=(own,)), downloads=Downloads(directory=home / "downloads")
    )
    wanted = of_url(f"{url}/el9", digest=parse_sha512(sha512(disk)))
    made: list[str] = []
    threads = [
        threading.Thread(target=lambda: made.append(puller.pull(wanted).name)) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == ["el9"] * 4
    assert file.ranges == [""]


def test_without_room_for_the_image_what_was_fetched_is_kept(
    server: Server, home: Path, disk: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, answers = server
    file = answers["/el9"] = File(body=disk)

    def full(*_: object) -> None:
        raise Quota("no room")

    with monkeypatch.context() as patch:
        patch.setattr("mayfly.images.importer.check_room", full)
        with pytest.raises(Quota, match="no room"):
            mayfly_image("pull", f"{url}/el9", "--sha512", sha512(disk))
    mayfly_image("pull", f"{url}/el9", "--sha512", sha512(disk))
    assert file.ranges == [""]
    assert left(home) == []


@pytest.mark.parametrize("name", ["pull", "push"])
def test_help_teaches_by_example(name: str) -> None:
    assert f"  mayfly image {name} el9" in mayfly_image(name, "--help").stdout


def test_what_is_published_with_its_images_is_pulled(
    server: Server, home: Path, tmp_path: Path
) -> None:
    """An endorser's commands, a server, and a site's: nobody copies anything by hand."""
    www = tmp_path / "www"
    www.mkdir()
    home.mkdir()
    (home / "config.toml").write_text("trust_local_urls = true\n")
    url, answers = server
    for name in ("site.list", "theirs.qcow2"):
        answers[f"/{name}"] = lambda asked: reply(body=(www / asked.path[1:]).read_bytes())(asked)
    raw = str(raw_disk(tmp_path / "theirs.raw"))
    for words in (
        ("image", "import", raw, "--name", "theirs"),
        ("endorse", "key", "create", "--subject", "/CN=Jo"),
        ("endorse", "image", "theirs"),
        ("endorse", "list", "create", "site", "--title", "Ours", "--uri", f"{url}/site.list"),
        ("endorse", "list", "add", "site", "theirs"),
        ("endorse", "list", "sign", "site"),
        ("endorse", "list", "publish", "site", www / "site.list", "--with-images"),
        ("trust", "add", home / "state/endorse/cert.pem"),
        ("trust", "subscribe", f"{url}/site.list", "--endorser", "/CN=Jo"),
        ("image", "pull", "theirs", "--name", "ours"),
    ):
        command(*words)
    assert sorted(each.name for each in www.glob("[!.]*")) == ["site.list", "theirs.qcow2"]
    assert shown("ours")["endorsed_sha512"] == shown("theirs")["sha512"]
    with pytest.raises(click.UsageError, match="exclude"):
        mayfly_image("pull", "theirs", "--force", "--new-version")
