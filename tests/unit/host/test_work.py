"""Children that do what would keep the service from listening."""

from __future__ import annotations

import os
import select
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mayfly.errors import Failed, MayflyError, Quota, Unavailable
from mayfly.host.loop import Loop, Task
from mayfly.host.work import Channel, Done, work

PATIENCE_S = 20.0


class Doing:
    """Some work, and what came of it."""

    def __init__(
        self, body: Callable[[Channel], None], loop: Loop | None = None, **more: object
    ) -> None:
        self.loop = loop or Loop()
        self.heard: list[str] = []
        self.done: Done | None = None
        self.error: MayflyError | None = None
        self.loop.spawn(self._task(body, more))

    def _task(self, body: Callable[[Channel], None], more: dict[str, object]) -> Task:
        try:
            self.done = yield from work(body, name="the work", heard=self.heard.append, **more)  # type: ignore[arg-type]
        except MayflyError as error:
            self.error = error

    def finish(self) -> Doing:
        deadline = time.monotonic() + PATIENCE_S
        while self.done is None and self.error is None:
            assert time.monotonic() < deadline
            self.loop.run_once(0.1)
        return self


def test_words_and_descriptors_come_back(tmp_path: Path) -> None:
    def body(channel: Channel) -> None:
        channel.report("half of it")
        fd = os.open(tmp_path / "made", os.O_CREAT | os.O_RDWR)
        os.write(fd, b"hello")
        channel.done({"size": 5}, [fd])

    doing = Doing(body).finish()
    assert doing.done is not None
    assert doing.done.words["size"] == 5
    (fd,) = doing.done.fds
    assert os.pread(fd, 9, 0) == b"hello"
    assert not os.get_inheritable(fd)
    os.close(fd)
    assert doing.heard == ["half of it"]


def test_what_it_raises_is_raised_here() -> None:
    def body(_: Channel) -> None:
        raise Quota("no room", hint="make some")

    doing = Doing(body).finish()
    assert isinstance(doing.error, Quota)
    assert (doing.error.message, doing.error.hint) == ("no room", "make some")


def test_what_the_system_refuses_it_is_raised_here() -> None:
    def body(_: Channel) -> None:
        os.open("/no/such/file", os.O_RDONLY)

    doing = Doing(body).finish()
    assert isinstance(doing.error, Failed)
    assert "/no/such/file" in doing.error.message


def test_one_that_is_killed_has_failed() -> None:
    def body(_: Channel) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    doing = Doing(body).finish()
    assert isinstance(doing.error, Failed)
    assert "ended without a word" in doing.error.message


def test_one_that_takes_too_long_is_ended() -> None:
    pids, tell = os.pipe()

    def body(channel: Channel) -> None:
        channel.socket.recv(1 << 16)
        signal.pause()

    doing = Doing(body, keep=[tell], limit_s=0.2).finish()
    os.close(tell)
    assert isinstance(doing.error, Unavailable)
    assert "not done within 0.2 s" in doing.error.message
    # The child holds the other end for as long as it lives.
    assert select.select([pids], [], [], PATIENCE_S)[0] == [pids]
    assert os.read(pids, 1) == b""
    os.close(pids)


def target_of(fd: str) -> str:
    """Give what a descriptor is; nothing of the one by which they are listed."""
    link = Path(f"/proc/self/fd/{fd}")
    return os.readlink(link) if link.is_symlink() else ""


def test_it_has_nothing_but_what_it_was_given(tmp_path: Path) -> None:
    with open(tmp_path / "secret", "w") as secret, open(tmp_path / "given", "w") as given:
        kept = given.fileno()

        def body(channel: Channel) -> None:
            names = [target_of(fd) for fd in os.listdir("/proc/self/fd")]
            channel.done({"names": names, "kept": target_of(str(kept))})

        doing = Doing(body, keep=[kept]).finish()
        assert doing.done is not None
        assert str(tmp_path / "secret") not in doing.done.words["names"]
        assert doing.done.words["kept"] == str(tmp_path / "given")
        assert not secret.closed


def test_nonsense_is_a_failure() -> None:
    def body(channel: Channel) -> None:
        channel.socket.send(b"not JSON")

    doing = Doing(body).finish()
    assert isinstance(doing.error, Failed)
    assert "cannot be read" in doing.error.message


def test_one_whose_service_is_gone_is_told_when_it_hands_over() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.close()
    channel = Channel(socket=theirs)
    channel.report("nobody hears this")
    with pytest.raises(OSError, match="Broken pipe"):
        channel.done({})
    theirs.close()


def test_nothing_is_left_of_it() -> None:
    def body(channel: Channel) -> None:
        channel.done({"pid": os.getpid()})

    loop = Loop()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        doing = Doing(body, loop).finish()
        assert doing.done is not None
        with pytest.raises(ProcessLookupError):
            os.kill(doing.done.words["pid"], 0)
    assert len(os.listdir("/proc/self/fd")) == before
