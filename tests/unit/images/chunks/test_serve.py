"""Neighbours give each other chunks over real connections, and answer nothing else."""

from __future__ import annotations

import http.client
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from mayfly.errors import Missing, Unavailable, Untrusted
from mayfly.images.catalogue import Catalogue
from mayfly.images.catalogue.record import Facts
from mayfly.images.chunks.content import content_of
from mayfly.images.chunks.gather import Crowd, gather, take_local
from mayfly.images.chunks.givers import Neighbour, neighbours_of, web_giver
from mayfly.images.chunks.have import DISK, INDEX, open_have
from mayfly.images.chunks.holdings import Holdings
from mayfly.images.chunks.index import Index, render
from mayfly.images.chunks.serve import ChunkServer
from mayfly.images.chunks.shelf import Shelf
from mayfly.images.lists.uris import UriRules
from mayfly.images.transfer.pace import Meter
from tests.unit.images.chunks.disks import blocks, disk_of, index_of, qcow2_of
from tests.unit.images.web import File, reply, serving

DATA = disk_of(2, blocks(1, 700), 30, blocks(2, 20), 7)
pytestmark = pytest.mark.skipif(shutil.which("qemu-img") is None, reason="needs qemu-img")


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """A host with an image that it gives to neighbours."""

    index: Index
    port: int
    holdings: Holdings
    catalogue: Catalogue
    asked: list[Neighbour] = field(default_factory=list)

    def neighbour(self, index: Index | None = None, port: int = 0) -> Neighbour:
        """Give one that is closed at the end of the test."""
        made = Neighbour(index=index or self.index, host="127.0.0.1", port=port or self.port)
        self.asked.append(made)
        return made

    def raw(self, path: str, method: str = "GET") -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request(method, path)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()


@contextmanager
def serve(holdings: Holdings) -> Iterator[int]:
    with ChunkServer(("127.0.0.1", 0), holdings) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    raw = tmp_path / "disk.raw"
    raw.write_bytes(DATA)
    catalogue = Catalogue(own=tmp_path / "images", dirs=(tmp_path / "images",))
    with catalogue.draft("el9", work="test") as draft:
        qcow2_of(raw).rename(draft.disk)
        image = draft.admit(Facts(os="x", source="a test", disk_bytes=len(DATA)))
    index = Shelf(catalogue=catalogue).ensure(image)
    holdings = Holdings(images=catalogue.dirs, downloads=tmp_path / "downloads")
    with serve(holdings) as port:
        made = Host(index=index, port=port, holdings=holdings, catalogue=catalogue)
        yield made
        for each in made.asked:
            each.close()


def test_an_image_comes_from_a_neighbour(host: Host, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    with open_have(host.index, tmp_path / "d") as have:
        crowd = Crowd(source=host.neighbour(), neighbours=(host.neighbour(),))
        gather(have, crowd, Meter("x", None))
    assert (tmp_path / "d" / DISK).read_bytes() == DATA


def test_a_disk_that_is_put_together_is_given_meanwhile(host: Host, tmp_path: Path) -> None:
    index = index_of(tmp_path / "disk.raw", sha512="cd" * 64)
    place = tmp_path / "downloads" / f"index-{index.key}"
    place.mkdir(parents=True)
    neighbour = host.neighbour(index)
    with pytest.raises(Missing):
        neighbour.has()
    (place / INDEX).write_text(render(index))
    with open_have(index, place) as have:
        assert set(neighbour.has()) == {0}
        with content_of(tmp_path / "disk.raw") as content:
            take_local(have, [(index, content)])
        assert neighbour.has() == have.bits()
        chunk = index.chunks[0]
        assert neighbour.give(0, 0) == DATA[chunk.at : chunk.at + chunk.size]
        have._bits[0] &= ~1
        with pytest.raises(Missing):
            neighbour.give(0, 0)
    shutil.rmtree(place)
    with pytest.raises(Missing):
        neighbour.has()


def test_an_image_that_was_removed_is_given_no_more(host: Host) -> None:
    assert host.neighbour().has()
    host.catalogue.remove("el9")
    with pytest.raises(Missing):
        host.neighbour().has()


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/v1/",
        "/v1/../../etc/passwd/have",
        f"/v1/{'0' * 64}/have",
        f"/v1/{'0' * 63}/have",
        "/v1/KEY/chunks/1-0",
        "/v1/KEY/chunks/0-9999999",
        "/v1/KEY/chunks/0-100000000000",
        "/v1/KEY/chunks/-1-0",
        "/v1/KEY/chunks/0-ALL",
        "/v1/KEY/have?x=1",
        "/v1/KEY/%68ave",
    ],
)
def test_nothing_else_is_answered(host: Host, path: str) -> None:
    last = len(host.index.chunks) - 1
    path = path.replace("KEY", host.index.key).replace("ALL", str(last))
    assert host.raw(path) == (404, b"")
    assert host.raw(f"/v1/{host.index.key}/have")[0] == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "HEAD", "DELETE", "X" * 100])
def test_only_get_is_known(host: Host, method: str) -> None:
    assert host.raw("/", method)[0] == 501


def test_too_many_connections_are_turned_away(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mayfly.images.chunks.serve.CONNECTIONS_MOST", 2)
    with serve(host.holdings) as port:
        held = [http.client.HTTPConnection("127.0.0.1", port, timeout=10) for _ in range(2)]
        for each in held:
            each.request("GET", "/")
            each.getresponse().read()
        turned = host.neighbour(port=port)
        with pytest.raises(Unavailable):
            turned.has()
        for each in held:
            each.close()


def test_a_neighbour_that_lies_is_found_out(host: Host) -> None:
    with serving() as (url, answers):
        port = int(url.rpartition(":")[2])
        liar = host.neighbour(port=port)
        place = f"/v1/{host.index.key}"
        answers[f"{place}/have"] = reply(body=b"")
        answers[f"{place}/chunks/0-0"] = reply(body=b"x" * 5_000_000)
        with pytest.raises(Untrusted, match="sent 0 bytes where"):
            liar.has()
        with pytest.raises(Unavailable):
            liar.give(0, 0)
        answers[f"{place}/have"] = reply(302, Location=f"/v1/{'0' * 64}/have")
        with pytest.raises(Unavailable, match="302"):
            liar.has()


def test_the_file_of_a_web_server_gives_chunks(host: Host) -> None:
    content = b"".join(DATA[chunk.at : chunk.at + chunk.size] for chunk in host.index.chunks)
    with serving() as (url, answers):
        giver = web_giver(host.index, f"{url}/c", UriRules(inner=True))
        answers["/c"] = File(body=content)
        last = len(host.index.chunks) - 1
        for first, end in ((0, 0), (0, 5), (7, 9), (last, last), (0, last)):
            starts = host.index.starts
            assert giver.give(first, end) == content[starts[first] : starts[end + 1]]
        answers["/c"] = File(body=content + b"x")
        with pytest.raises(Untrusted, match="as the index has"):
            giver.give(3, 4)
        answers["/c"] = reply(body=content)
        with pytest.raises(Unavailable, match="gives no parts"):
            giver.give(3, 4)
        del answers["/c"]
        assert giver.has() is None


def test_addresses_of_neighbours_are_read(host: Host) -> None:
    found = neighbours_of(host.index, ("a.example.org:7575", "192.0.2.1:80", "none"))
    assert [each.name for each in found] == ["a.example.org:7575", "192.0.2.1:80"]


def test_an_index_is_cut_once_and_goes_with_its_image(host: Host) -> None:
    shelf = Shelf(catalogue=host.catalogue)
    image = host.catalogue.find("el9")
    assert shelf.find(image) == host.index == shelf.ensure(image)
    (host.catalogue.own / ".chunks" / image.sha512).write_bytes(b"spoilt")
    assert shelf.find(image) is None
    assert shelf.ensure(image) == host.index
    with shelf.seeds("other") as seeds:
        assert [index for index, _ in seeds] == [host.index]
    host.catalogue.remove("el9")
    shelf.sweep()
    assert os.listdir(host.catalogue.own / ".chunks") == []
