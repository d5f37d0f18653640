"""A bell beside the server's socket: who wrote something down for the loop rings, and it looks.

A socket of datagrams; what a datagram says is not read. Only the server's own user may ring. A ring
that nobody hears costs time and nothing else: the loop looks every ``interval`` by itself.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from mayfly.errors import Denied


def bell_of(server_socket: Path) -> Path:
    """Give where the bell of the server that listens at a socket is."""
    return server_socket.with_name(f"{server_socket.name}.bell")


def ring(path: Path) -> None:
    """Ring; never waits, and never fails: nobody may be there, or have heard it already."""
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as rope,
        contextlib.suppress(OSError),
    ):
        rope.sendto(b"", str(path))


@contextlib.contextmanager
def hung(path: Path, heard: Callable[[], None]) -> Iterator[None]:
    """Call ``heard`` for each ring while the body runs; raises ``Denied`` if it cannot be hung."""
    bell = _hang(path)
    stop = threading.Event()
    thread = threading.Thread(target=_listen, args=(bell, heard, stop), name="bell")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        bell.shutdown(socket.SHUT_RD)
        thread.join()
        bell.close()
        path.unlink(missing_ok=True)


def _hang(path: Path) -> socket.socket:
    bell = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        fresh.unlink(missing_ok=True)
        bell.bind(str(fresh))
        fresh.chmod(0o600)
        # One that a killed server left is replaced; who serves here holds the server's socket.
        fresh.rename(path)
    except OSError as error:
        bell.close()
        raise Denied(f"cannot hang the server's bell at {path}: {error.strerror}") from error
    return bell


def _listen(bell: socket.socket, heard: Callable[[], None], stop: threading.Event) -> None:
    while not stop.is_set():
        bell.recv(1)
        if not stop.is_set():
            heard()
