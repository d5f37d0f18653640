"""``mayfly image serve`` as root starts it: what its process may do, and what it gives."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path

import pytest

from mayfly.images.catalogue import Catalogue
from mayfly.images.chunks.shelf import Shelf
from mayfly.images.hostile import NOBODY
from tests.conftest import Cli
from tests.integration.waiting import wait_until
from tests.unit.images.disks import raw_disk

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(os.geteuid() != 0, reason="gives up root's rights"),
]


@pytest.fixture
def site() -> Iterator[Cli]:
    """A home that others can read, as the site's own directories are."""
    home = Path(tempfile.mkdtemp(prefix="mayfly-serve-", dir="/var/tmp"))
    home.chmod(0o755)
    yield Cli(home=home)
    shutil.rmtree(home)


def asked(port: int, path: str) -> tuple[int, bytes]:
    connection = HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_what_serves_chunks_has_no_rights_of_root(site: Cli) -> None:
    site("image", "import", str(raw_disk(site.home / "d.raw")), "--name", "el9", check=True)
    images = site.home / "state/images"
    catalogue = Catalogue(own=images, dirs=(images,))
    index = Shelf(catalogue=catalogue).ensure(catalogue.find("el9"))
    secret = site.home / "secret"
    secret.write_text("secret")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with site.start("image", "serve", "--listen", f"127.0.0.1:{port}") as served:
        try:
            assert served.stdout is not None
            assert served.stdout.readline() == f"serving at 127.0.0.1:{port}\n".encode()
            status = Path(f"/proc/{served.pid}/status").read_text()
            fields = dict(line.split(":", 1) for line in status.splitlines())
            assert fields["Uid"].split() == [str(NOBODY)] * 4
            assert fields["Gid"].split() == [str(NOBODY)] * 4
            assert fields["Groups"].split() in ([], [str(NOBODY)])
            assert int(fields["CapEff"], 16) == int(fields["CapPrm"], 16) == 0
            wait_until(lambda: asked(port, f"/v1/{index.key}/have")[0] == 200, "an answer")
            code, chunk = asked(port, f"/v1/{index.key}/chunks/0-0")
            assert (code, len(chunk)) == (200, index.chunks[0].size)
            for path in ("/secret", f"/v1/../..{secret}", f"/v1/{'0' * 64}/have"):
                assert asked(port, path) == (404, b"")
        finally:
            served.terminate()
            assert served.wait(20) in (0, 143, -15)
