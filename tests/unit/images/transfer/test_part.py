"""What this host does to a file on its way: full disks, kills, many who want it."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from mayfly.errors import Invalid, Quota, Unavailable
from mayfly.images.transfer import part as part_module
from mayfly.images.transfer import whole as whole_module
from mayfly.images.transfer.part import Downloads, State
from mayfly.images.transfer.source import WebSource
from mayfly.images.transfer.whole import fetched
from tests.unit.images.transfer.fetching import BODY, INNER, Fetching, digest_of, wanted
from tests.unit.images.web import File, Server, reply


def test_a_full_disk_leaves_nothing(
    server: Server, fetch: Fetching, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, answers = server
    answers["/a"] = reply(body=BODY)
    real = whole_module._write

    class Full:
        def __init__(self, file: Any) -> None:
            self.file = file

        def write(self, data: memoryview) -> int:
            if self.file.tell() + len(data) > 500_000:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return int(self.file.write(data))

    def write(part: Any, file: Any, data: bytes) -> None:
        real(part, Full(file), data)

    monkeypatch.setattr(whole_module, "_write", write)
    with pytest.raises(Quota, match="No space left") as caught:
        fetch(f"{url}/a", wanted())
    assert str(fetch.directory) in caught.value.message
    assert list(fetch.directory.iterdir()) == []


def test_a_file_without_room_for_it_is_not_begun(server: Server, fetch: Fetching) -> None:
    url, answers = server
    answers["/a"] = reply(body=BODY[:10], length=1 << 58)
    with pytest.raises(Quota, match="are needed"):
        fetch(f"{url}/a", wanted(digest=None, most_bytes=1 << 59))


def test_many_who_wait_have_it_fetched_once(server: Server, fetch: Fetching) -> None:
    url, answers = server
    go = threading.Event()
    file = File(body=BODY)

    def wait(request: BaseHTTPRequestHandler) -> None:
        go.wait(10)
        file(request)

    answers["/a"] = wait
    came: list[bytes] = []
    here = [Fetching(directory=fetch.directory) for _ in range(8)]

    def ask(each: Fetching) -> None:
        came.append(each(f"{url}/a", wanted()))

    threads = [threading.Thread(target=ask, args=(each,)) for each in here]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 10
    place = fetch.directory / f"sha512-{digest_of(BODY).hex[:64]}" / "users"
    while not (place.exists() and _openers(place) == 8) and time.monotonic() < deadline:
        time.sleep(0.01)
    go.set()
    for thread in threads:
        thread.join()
    assert came == [BODY] * 8
    assert file.ranges == [""]
    assert list(fetch.directory.iterdir()) == []


def _openers(file: Path) -> int:
    """Count the descriptors of this process that have the file open."""
    found = 0
    for link in Path("/proc/self/fd").iterdir():
        try:
            found += link.readlink() == file
        except OSError:
            continue
    return found


KILLED = """
import sys
from pathlib import Path
from mayfly.images.lists.uris import UriRules
from mayfly.images.transfer.part import Downloads
from mayfly.images.transfer.source import WebSource
from mayfly.images.transfer.whole import Wanted, fetched
from mayfly.images.transfer.digest import parse_sha512
source = WebSource(uri=sys.argv[1], rules=UriRules(inner=True))
wanted = Wanted(name="a", digest=parse_sha512(sys.argv[3]))
with fetched(wanted, source, Downloads(directory=Path(sys.argv[2]))):
    pass
"""


def test_a_kill_leaves_what_the_next_goes_on_with(server: Server, fetch: Fetching) -> None:
    url, answers = server
    half = len(BODY) // 2
    go = threading.Event()

    def stop_half_way(request: BaseHTTPRequestHandler) -> None:
        File(body=BODY, breaks=[half])(request)
        request.wfile.flush()
        go.wait(20)

    answers["/a"] = stop_half_way
    words = [sys.executable, "-c", KILLED, f"{url}/a", str(fetch.directory), digest_of(BODY).hex]
    child = subprocess.Popen(words)
    file = fetch.directory / f"sha512-{digest_of(BODY).hex[:64]}" / "part"
    deadline = time.monotonic() + 20
    while not (file.exists() and file.stat().st_size == half) and time.monotonic() < deadline:
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.wait()
    go.set()
    assert file.stat().st_size == half
    rest = answers["/a"] = File(body=BODY)
    assert fetch(f"{url}/a", wanted()) == BODY
    assert rest.ranges == [f"bytes={half}-"]


def test_bytes_that_a_crash_spoilt_are_fetched_again(server: Server, fetch: Fetching) -> None:
    url, answers = server
    file = answers["/a"] = File(body=BODY, breaks=[1000, 0, 0, 0])
    with pytest.raises(Unavailable):
        fetch(f"{url}/a", wanted())
    (name,) = [name for name in fetch.left if name.endswith("part")]
    (fetch.directory / name).write_bytes(bytes(1000))
    assert fetch(f"{url}/a", wanted()) == BODY
    assert file.ranges[-2:] == ["bytes=1000-", ""]


@pytest.mark.parametrize("text", [b"", b"[]", b"{", b'{"total_bytes": "x"}', b"\xff", b"[" * 9999])
def test_a_state_that_cannot_be_read_is_no_state(
    server: Server, fetch: Fetching, text: bytes
) -> None:
    url, answers = server
    answers["/a"] = File(body=BODY, breaks=[1000, 0, 0, 0])
    with pytest.raises(Unavailable):
        fetch(f"{url}/a", wanted())
    (name,) = [name for name in fetch.left if name.endswith("state.json")]
    (fetch.directory / name).write_bytes(text)
    assert fetch(f"{url}/a", wanted()) == BODY


def test_a_file_that_is_wanted_no_more_goes_and_one_in_use_stays(fetch: Fetching) -> None:
    downloads = fetch.downloads
    with contextlib.suppress(Unavailable), downloads.claim("old") as old:
        old.file.write_bytes(b"x")
        old.note(State(source="s", validator="", total_bytes=2))
        raise Unavailable("broken")
    assert (fetch.directory / "old/part").exists()
    with downloads.claim("mine") as mine:
        mine.file.write_bytes(b"y")
        for path in fetch.directory.glob("*/*"):
            os.utime(path, (1, 1))
        with Downloads(directory=fetch.directory).claim("other"):
            assert sorted(path.name for path in fetch.directory.iterdir()) == ["mine", "other"]
    assert list(fetch.directory.iterdir()) == []
    assert part_module.STALE_S > 86400


def test_a_file_that_its_user_refuses_is_not_kept(server: Server, fetch: Fetching) -> None:
    url, answers = server
    answers["/a"] = File(body=BODY)
    source = WebSource(uri=f"{url}/a", rules=INNER)
    with pytest.raises(Invalid), fetched(wanted(), source, fetch.downloads):
        raise Invalid("no disk")
    assert list(fetch.directory.iterdir()) == []
    with pytest.raises(Quota), fetched(wanted(), source, fetch.downloads):
        raise Quota("no room")
    assert [name for name in fetch.left if name.endswith("part")]
