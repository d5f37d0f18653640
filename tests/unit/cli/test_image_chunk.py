"""An image is published in chunks with a signed index; others fetch only what is new of it."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from mayfly.cli.image import image as group
from mayfly.cli.image import pull
from mayfly.config import Paths
from mayfly.errors import Conflict, Invalid, Quota
from mayfly.images.catalogue import Catalogue
from mayfly.images.chunks.have import Have
from mayfly.images.importer import import_image
from mayfly.images.lists.authorities import Anchor, Kind, Role
from mayfly.images.lists.check import Principal
from mayfly.images.lists.openssl import Signer, read_certificate
from mayfly.images.lists.store import TrustStore
from tests.unit.images.chunks.disks import blocks, disk_of
from tests.unit.images.disks import content
from tests.unit.images.lists.pki import make_self_signed
from tests.unit.images.lists.samples import listed
from tests.unit.images.lists.test_admission import accepted, subscription
from tests.unit.images.web import File, Server, serving

pytestmark = pytest.mark.skipif(shutil.which("qemu-img") is None, reason="needs qemu-img")
BOOT = b"\xeb".ljust(446, b"\x90") + bytes(64) + b"\x55\xaa" + bytes(4096 - 512)
ONE = disk_of(BOOT, blocks(1, 500), 600, blocks(2, 500), 100)
TWO = disk_of(BOOT, blocks(1, 500), 600, blocks(3, 40), blocks(2, 500), 60)


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """An endorser, his web server, and a site that believes him."""

    home: Path
    server: Server
    jo: Signer
    work: Path

    def offer(self, data: bytes, *, signer: Signer | None = None) -> Catalogue:
        """Publish a disk at /el9.raw, in chunks and as a whole, and in a list."""
        raw = self.work / "el9.raw"
        raw.write_bytes(data)
        shutil.rmtree(self.work / "endorser", ignore_errors=True)
        own = self.work / "endorser"
        catalogue = Catalogue(own=own, dirs=(own,))
        made = import_image(raw, "el9", catalogue)
        self.chunk(own, signer or self.jo)
        url, answers = self.server
        for ending in ("", ".chunks", ".content"):
            answers[f"/el9.raw{ending}"] = File(body=Path(f"{raw}{ending}").read_bytes())
        entry = listed(
            9, title="el9", uri=f"{url}/el9.raw", sha512=made.endorsed_sha512, size_bytes=len(data)
        )
        dn = read_certificate(self.jo.certificate).subject.slash
        store = TrustStore(directory=Paths.for_user().trust)
        with store.changing():
            store.save(subscription(accepted(entry, signer=Principal(dn=dn, ca=dn))))
        return catalogue

    def chunk(self, own: Path, signer: Signer) -> None:
        """Publish with the real command, in the endorser's home."""
        shutil.rmtree(self.work / "endorser-home", ignore_errors=True)
        (self.work / "endorser-home/state").mkdir(parents=True)
        (self.work / "endorser-home/state/images").symlink_to(own)
        words = ["chunk", "el9", str(self.work / "el9.raw"), "--key", str(signer.key)]
        words += ["--cert", str(signer.certificate)]
        done = CliRunner(env={"MAYFLY_HOME": str(self.work / "endorser-home")}).invoke(
            group, words, catch_exceptions=False, standalone_mode=False
        )
        assert "chunks, " in done.stderr

    def asked(self, ending: str = "") -> list[str]:
        """Give what was asked for of a file."""
        answer = self.server[1][f"/el9.raw{ending}"]
        assert isinstance(answer, File)
        return answer.ranges


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setenv("MAYFLY_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(pull, "tidy_on_signals", lambda: None)
    jo = make_self_signed(tmp_path / "jo", "jo", "/CN=Jo")
    store = TrustStore(directory=Paths.for_user().trust)
    store.directory.parent.mkdir(parents=True)
    anchor = Anchor(
        name="jo",
        kind=Kind.KEY,
        certificate=read_certificate(jo.certificate),
        roles=frozenset({Role.LIST}),
    )
    store.add_anchor(anchor)
    (tmp_path / "home/config.toml").write_text("trust_local_urls = true\n")
    with serving() as server:
        yield World(home=tmp_path / "home", server=server, jo=jo, work=tmp_path)


def mayfly_image(*words: str) -> Result:
    return CliRunner().invoke(group, words, catch_exceptions=False, standalone_mode=False)


def disk(world: World) -> bytes:
    return content(world.home / "state/images/el9/disk.qcow2", world.work)


def fetched(world: World) -> int:
    """Count the bytes of chunks that were asked for."""
    total = 0
    for words in world.asked(".content"):
        first, _, last = words.removeprefix("bytes=").partition("-")
        if last:  # without an end: whether parts are given at all
            total += int(last) - int(first) + 1
    return total


def test_a_new_version_is_fetched_as_far_as_it_is_new(world: World) -> None:
    world.offer(ONE)
    result = mayfly_image("pull", "el9")
    assert disk(world) == ONE
    assert "0 B of" in result.stderr
    assert fetched(world) == 1001 * 4096
    world.offer(TWO)
    result = mayfly_image("pull", "el9", "--force")
    assert disk(world) == TWO
    assert 40 * 4096 <= fetched(world) <= 120 * 4096
    assert world.asked() == []
    assert list((world.home / "cache/chunks").iterdir()) == []
    (step, _) = (
        Catalogue(own=world.home / "state/images", dirs=(world.home / "state/images",))
        .find("el9")
        .derived
    )
    assert step.startswith("put together from index ")


def test_an_old_version_without_an_index_is_cut_first(world: World) -> None:
    world.offer(ONE)
    mayfly_image("pull", "el9", "--whole")
    assert world.asked(".chunks") == []
    world.offer(TWO)
    mayfly_image("pull", "el9", "--force")
    assert disk(world) == TWO
    assert fetched(world) <= 120 * 4096


def test_without_an_index_the_whole_file_is_fetched(world: World) -> None:
    world.offer(ONE)
    del world.server[1]["/el9.raw.chunks"]
    world.server[1]["/el9.raw.chunks"] = lambda request: request.send_error(404)
    mayfly_image("pull", "el9")
    assert disk(world) == ONE
    assert world.asked() == [""]


def test_a_server_that_gives_no_parts_gives_the_whole_file(world: World) -> None:
    world.offer(ONE)
    for ending in ("", ".chunks", ".content"):
        answer = world.server[1][f"/el9.raw{ending}"]
        assert isinstance(answer, File)
        answer.whole = True
    result = mayfly_image("pull", "el9")
    assert "there are no parts of files: the whole file is fetched" in result.stderr
    assert disk(world) == ONE
    assert world.asked() == [""]


def test_an_index_of_somebody_else_is_refused(world: World) -> None:
    eve = make_self_signed(world.work / "eve", "eve", "/CN=Eve")
    world.offer(ONE, signer=eve)
    result = mayfly_image("pull", "el9")
    assert "signed by /CN=Eve, who vouches neither" in result.stderr
    assert world.asked(".content") == []
    assert disk(world) == ONE


def test_an_index_of_somebody_with_the_same_name_is_refused(world: World) -> None:
    false = make_self_signed(world.work / "false", "false", "/CN=Jo")
    world.offer(ONE, signer=false)
    result = mayfly_image("pull", "el9")
    assert "index of the image" in result.stderr
    assert world.asked(".content") == []


@pytest.mark.parametrize("change", ["spoilt", "cut", "other"])
def test_a_bad_index_is_refused(world: World, change: str) -> None:
    world.offer(TWO)
    other = world.server[1]["/el9.raw.chunks"]
    world.offer(ONE)
    answers = world.server[1]
    good = answers["/el9.raw.chunks"]
    assert isinstance(good, File)
    if change == "spoilt":
        good.body = good.body.replace(b"zeros 2457600", b"zeros 2457601")
    elif change == "cut":
        good.body = good.body[: len(good.body) // 2]
    else:
        answers["/el9.raw.chunks"] = other
    result = mayfly_image("pull", "el9")
    assert "the whole file is fetched" in result.stderr
    assert disk(world) == ONE


def test_bad_content_is_refused_and_leaves_no_image(world: World) -> None:
    world.offer(ONE)
    answer = world.server[1]["/el9.raw.content"]
    assert isinstance(answer, File)
    answer.body = answer.body[:-10] + b"0123456789"
    with pytest.raises(Exception, match="sent a bad chunk"):
        mayfly_image("pull", "el9")
    assert not (world.home / "state/images/el9").exists()


def test_a_full_disk_leaves_nothing_half(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.offer(ONE)

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(Have, "put_all", full)
        with pytest.raises(Quota, match="No space left"):
            mayfly_image("pull", "el9")
    assert list((world.home / "cache/chunks").iterdir()) == []
    mayfly_image("pull", "el9")
    assert disk(world) == ONE


@pytest.mark.parametrize("address", ["x", "1.2.3.4", "1.2.3.4:99999", ":80", "a b:1"])
@pytest.mark.usefixtures("world")
def test_nonsense_is_no_address(address: str) -> None:
    with pytest.raises(Invalid):
        mayfly_image("serve", "--listen", address)


@pytest.mark.usefixtures("world")
def test_an_address_of_another_host_cannot_be_served() -> None:
    with pytest.raises(Conflict, match="cannot listen"):
        mayfly_image("serve", "--listen", "192.0.2.77:7575")
