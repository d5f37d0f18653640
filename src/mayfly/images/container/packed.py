"""A part of a file as a stream of bytes: hashed as it stands, unpacked, hashed again, bounded."""

from __future__ import annotations

import bz2
import contextlib
import hashlib
import lzma
import os
import subprocess
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from mayfly.errors import Invalid, Missing, Quota, Untrusted
from mayfly.units import MIB, show_size

_CHUNK = 1 << 18
_XZ_MEMORY = 512 * MIB
_DIGESTS = {"sha256": 64, "sha512": 128}

_MAGIC = {
    b"\x1f\x8b": "gzip",
    b"\xfd7zXZ\0": "xz",
    b"BZh": "bzip2",
    b"\x28\xb5\x2f\xfd": "zstd",
}


def check_digest(digest: object) -> str:
    """Give back a digest such as ``sha256:…``, or refuse it: it becomes the name of a file."""
    kind, _, value = str(digest).partition(":")
    if len(value) != _DIGESTS.get(kind) or value.strip("0123456789abcdef"):
        raise Invalid(f"'{str(digest)[:100]}' is not a digest", hint="sha256:… and sha512:… are")
    return f"{kind}:{value}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Where bytes lie in an open file, and what they must be."""

    fd: int
    offset: int
    size: int
    digest: str = ""
    """Of the bytes as they stand; empty: nobody says."""
    unpacked_digest: str = ""
    squashfs: bool = False
    """A file system instead of a tar."""


class Source:
    """The bytes of a part as they stand."""

    def __init__(self, part: Part) -> None:
        self._part = part
        self._at = 0
        self._hash = _hasher(part.digest)

    def read(self, size: int) -> bytes:
        """Give up to ``size`` bytes; none at the end."""
        wanted = min(size, self._part.size - self._at)
        data = os.pread(self._part.fd, wanted, self._part.offset + self._at)
        self._at += len(data)
        self._hash.update(data)
        return data

    def check(self, what: str) -> None:
        """Read the rest; refuse when the bytes are not those that were announced."""
        while self.read(_CHUNK):
            pass
        if self._at < self._part.size:
            raise Invalid(f"{what} is truncated: {self._at} of {self._part.size} bytes are there")
        _compare(self._part.digest, self._hash, what)


class Unpacked:
    """The bytes that a part holds, whatever they are packed with."""

    def __init__(self, read: Callable[[int], bytes], part: Part, limit: int, what: str) -> None:
        self._read = read
        self._part = part
        self._limit = limit
        self._what = what
        self._hash = _hasher(part.unpacked_digest)
        self.bytes = 0

    def read(self, size: int) -> bytes:
        """Give up to ``size`` bytes; none at the end."""
        data = self._read(min(size, _CHUNK))
        self.bytes += len(data)
        if self.bytes > self._limit:
            raise Quota(
                f"{self._what} unpacks to more than the {show_size(self._limit)} that are left"
                " for it",
                hint="give a larger --size, if you trust it",
            )
        self._hash.update(data)
        return data

    def finish(self) -> str:
        """Read the rest, check the digest, and give it."""
        while self.read(_CHUNK):
            pass
        _compare(self._part.unpacked_digest, self._hash, f"{self._what}, unpacked,")
        return str(self._hash.hexdigest())


@contextmanager
def unpacked(part: Part, *, limit: int, what: str) -> Iterator[Unpacked]:
    """Open a part for reading; at the end of the block it has been read and checked as a whole."""
    source = Source(part)
    with contextlib.ExitStack() as stack:
        if part.squashfs:
            reader = stack.enter_context(_program(["sqfs2tar", _path(part)], part.fd, None, what))
        else:
            reader = stack.enter_context(_reader(source, part, what))
        stream = Unpacked(reader, part, limit, what)
        yield stream
        stream.finish()
        source.check(what)


@contextmanager
def _reader(source: Source, part: Part, what: str) -> Iterator[Callable[[int], bytes]]:
    kind = packing(os.pread(part.fd, min(8, part.size), part.offset))
    if kind == "zstd":
        with _program(["zstd", "-dcq", "--memory=512MB"], -1, source, what) as read:
            yield read
    elif kind:
        yield _Inflater(source, kind, what).read
    else:
        yield source.read


def packing(head: bytes) -> str:
    """Tell what a stream that begins so is packed with; nothing: it is not."""
    return next((kind for magic, kind in _MAGIC.items() if head.startswith(magic)), "")


class _Inflater:
    """Unpacks gzip, xz and bzip2: also several streams after one another."""

    def __init__(self, source: Source, kind: str, what: str) -> None:
        self._source, self._kind, self._what = source, kind, what
        self._unpacker: Any = None
        self._pending = b""

    def read(self, size: int) -> bytes:
        """Give up to ``size`` bytes; none at the end."""
        try:
            while self._unpacker is not None or self._begins():
                data = self._step(size)
                if data:
                    return data
        except (zlib.error, lzma.LZMAError, OSError, EOFError) as error:
            raise Invalid(f"{self._what} is damaged: {error}") from error
        return b""

    def _begins(self) -> bool:
        """Begin the next stream; false at the end. Zeros may follow one, to fill a block."""
        while not (pending := self._pending.lstrip(b"\0")):
            self._pending = self._source.read(_CHUNK)
            if not self._pending:
                return False
        self._pending = pending
        self._unpacker = _new_unpacker(self._kind)
        return True

    def _step(self, size: int) -> bytes:
        unpacker, more = self._unpacker, True
        if not self._pending and getattr(unpacker, "needs_input", True):
            self._pending = self._source.read(_CHUNK)
            more = bool(self._pending)
        data: bytes = unpacker.decompress(self._pending, size)
        self._pending = getattr(unpacker, "unconsumed_tail", b"")
        if unpacker.eof:
            self._pending, self._unpacker = unpacker.unused_data, None
        elif not data and not more:
            raise EOFError("it ends too early")
        return data


def _new_unpacker(kind: str) -> Any:
    if kind == "gzip":
        return zlib.decompressobj(31)
    if kind == "xz":
        return lzma.LZMADecompressor(memlimit=_XZ_MEMORY)
    return bz2.BZ2Decompressor()


@contextmanager
def _program(
    argv: list[str], fd: int, source: Source | None, what: str
) -> Iterator[Callable[[int], bytes]]:
    """Run a program whose output is wanted, fed with ``source`` if that is given."""
    stdin = subprocess.DEVNULL if source is None else subprocess.PIPE
    keep = () if fd < 0 else (fd,)
    try:
        child = subprocess.Popen(
            argv, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, pass_fds=keep
        )
    except FileNotFoundError as error:
        raise Missing(
            f"cannot read {what}: there is no {argv[0]}",
            hint="'mayfly doctor' says which package has it",
        ) from error
    assert child.stdout is not None
    with child:
        feeder = threading.Thread(target=_feed, args=(source, child), daemon=True)
        feeder.start()
        output = child.stdout
        try:
            yield lambda size: os.read(output.fileno(), size)
            complaint = child.stderr.read(4096) if child.stderr else b""
            code = child.wait()
        finally:
            child.kill()
        feeder.join()
    if code != 0:
        said = complaint.decode("utf-8", "replace").strip().splitlines() or [f"status {code}"]
        raise Invalid(f"{what} is damaged: {argv[0]}: {said[-1]}")


def _feed(source: Source | None, child: subprocess.Popen[bytes]) -> None:
    if source is None or child.stdin is None:
        return
    with contextlib.suppress(BrokenPipeError), child.stdin as pipe:
        while data := source.read(_CHUNK):
            pipe.write(data)


def _path(part: Part) -> str:
    return f"/proc/self/fd/{part.fd}"


def _hasher(digest: str) -> Any:
    return hashlib.new(digest.partition(":")[0] or "sha256")


def _compare(digest: str, found: Any, what: str) -> None:
    if digest and digest.partition(":")[2] != found.hexdigest():
        raise Untrusted(
            f"{what} is not what its digest says: {found.hexdigest()[:16]}…"
            f" instead of {digest.partition(':')[2][:16]}…",
            hint="fetch or copy it again; if that does not help, it was tampered with",
        )
