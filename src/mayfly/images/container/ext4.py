"""Write files straight into an ext4 in a disk file: no mount, no root, no tree on this host.

The work is done by libext2fs, the library that mke2fs stands on. It is called with numbers and
names that were checked before, and the only thing it reads is the file system that mke2fs has just
made: what comes from outside is content, which it copies.
"""

from __future__ import annotations

import ctypes
import errno
import stat
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from ctypes import byref, c_char_p, c_int, c_long, c_uint, c_void_p

from mayfly.errors import Failed, Missing, Quota
from mayfly.images.room import MORE_ROOM

ROOT = 2
_RW, _64BITS = 0x01, 0x20000
_WRITE = 0x01
_EXTENTS = 0x80000
_FIFO = stat.S_IFIFO
_TYPES = {stat.S_IFREG: 1, stat.S_IFDIR: 2, stat.S_IFIFO: 5}
_INODE = struct.Struct("<HHIIIIIHHIII60sIIIIHHHHHH")
"""``struct ext2_inode`` of Linux, as it stands on the disk."""
_MOST_LINKS = 65000


class _Library:
    """libext2fs, its functions declared."""

    def __init__(self) -> None:
        try:
            self.lib = ctypes.CDLL("libext2fs.so.2")
            self._texts = ctypes.CDLL("libcom_err.so.2")
        except OSError as error:
            raise Missing(f"there is no libext2fs: {error}", hint="install e2fsprogs") from error
        pointer, number = c_void_p, c_uint
        for name, kinds in {
            "ext2fs_open2": [c_char_p, c_char_p, c_int, c_int, number, pointer, pointer],
            "ext2fs_read_bitmaps": [pointer],
            "ext2fs_new_inode": [pointer, number, c_int, pointer, pointer],
            "ext2fs_write_new_inode": [pointer, number, pointer],
            "ext2fs_read_inode": [pointer, number, pointer],
            "ext2fs_write_inode": [pointer, number, pointer],
            "ext2fs_mkdir": [pointer, number, number, c_char_p],
            "ext2fs_expand_dir": [pointer, number],
            "ext2fs_link": [pointer, number, c_char_p, number, c_int],
            "ext2fs_symlink": [pointer, number, number, c_char_p, c_char_p],
            "ext2fs_extent_open2": [pointer, number, pointer, pointer],
            "ext2fs_file_open": [pointer, number, c_int, pointer],
            "ext2fs_file_write": [pointer, c_char_p, number, pointer],
            "ext2fs_file_close": [pointer],
            "ext2fs_xattrs_open": [pointer, number, pointer],
            "ext2fs_xattr_set": [pointer, c_char_p, c_char_p, ctypes.c_size_t],
            "ext2fs_xattrs_close": [pointer],
            "ext2fs_close": [pointer],
        }.items():
            function = getattr(self.lib, name)
            function.argtypes, function.restype = kinds, c_long
        self.lib.ext2fs_inode_alloc_stats2.argtypes = [pointer, number, c_int, c_int]
        self.lib.ext2fs_inode_alloc_stats2.restype = None
        self.lib.ext2fs_extent_free.argtypes = [pointer]
        self.lib.ext2fs_extent_free.restype = None
        self.lib.initialize_ext2_error_table()
        self._texts.error_message.argtypes = [c_long]
        self._texts.error_message.restype = c_char_p

    def text(self, code: int) -> str:
        """Give an error's words."""
        return (self._texts.error_message(code) or b"").decode("utf-8", "replace")


class FileSystem:
    """An ext4 that is being filled; inodes are named by their numbers."""

    def __init__(self, library: _Library, handle: c_void_p) -> None:
        self._all = library
        self._lib = library.lib
        self._fs = handle

    def describe(self, inode: int, mode: int, owner: tuple[int, int], mtime: int) -> None:
        """Set permissions, user and group, and time of what is there."""
        fields = self._read(inode)
        fields[0] = stat.S_IFMT(fields[0]) | mode
        self._write(inode, _owned(fields, owner, mtime))

    def make_directory(self, above: int, name: bytes) -> int:
        """Make an empty directory; give its inode."""
        inode = self._new(above, stat.S_IFDIR)
        self._in_directory(above, lambda: self._lib.ext2fs_mkdir(self._fs, above, inode, name))
        return inode

    def make_file(self, above: int, name: bytes, size: int) -> int:
        """Make a regular file of a size, its content still to be written; give its inode."""
        inode = self._new(above, stat.S_IFREG)
        fields = _fresh(stat.S_IFREG)
        fields[2], fields[15] = size & 0xFFFFFFFF, size >> 32
        raw = ctypes.create_string_buffer(_INODE.pack(*fields), _INODE.size)
        self._lib.ext2fs_inode_alloc_stats2(self._fs, inode, 1, 0)
        extents = c_void_p()
        self._check(self._lib.ext2fs_extent_open2(self._fs, inode, raw, byref(extents)))
        self._lib.ext2fs_extent_free(extents)
        self._check(self._lib.ext2fs_write_new_inode(self._fs, inode, raw))
        self.link(above, name, inode, stat.S_IFREG)
        return inode

    def make_fifo(self, above: int, name: bytes) -> int:
        """Make a named pipe; give its inode."""
        inode = self._new(above, _FIFO)
        raw = ctypes.create_string_buffer(_INODE.pack(*_fresh(_FIFO)), _INODE.size)
        self._lib.ext2fs_inode_alloc_stats2(self._fs, inode, 1, 0)
        self._check(self._lib.ext2fs_write_new_inode(self._fs, inode, raw))
        self.link(above, name, inode, _FIFO)
        return inode

    def make_symlink(self, above: int, name: bytes, target: bytes) -> int:
        """Make a symbolic link; give its inode."""
        inode = self._new(above, stat.S_IFLNK)
        self._in_directory(
            above, lambda: self._lib.ext2fs_symlink(self._fs, above, inode, name, target)
        )
        return inode

    def add_name(self, above: int, name: bytes, inode: int) -> None:
        """Give a file one more name."""
        fields = self._read(inode)
        fields[8] += 1
        if fields[8] > _MOST_LINKS:
            raise Quota(f"a file has more than {_MOST_LINKS} names")
        self._write(inode, fields)
        self.link(above, name, inode, stat.S_IFMT(fields[0]))

    def link(self, above: int, name: bytes, inode: int, kind: int) -> None:
        """Enter a name into a directory."""
        number = _TYPES.get(kind, 7)
        self._in_directory(
            above, lambda: self._lib.ext2fs_link(self._fs, above, name, inode, number)
        )

    def write(self, inode: int, pieces: Iterator[bytes]) -> None:
        """Write the content of a file."""
        file = c_void_p()
        self._check(self._lib.ext2fs_file_open(self._fs, inode, _WRITE, byref(file)))
        written = c_uint()
        try:
            for piece in pieces:
                code = self._lib.ext2fs_file_write(file, piece, len(piece), byref(written))
                self._check(code)
        finally:
            code = self._lib.ext2fs_file_close(file)
        self._check(code)

    def set_xattrs(self, inode: int, xattrs: Mapping[bytes, bytes]) -> None:
        """Give a file extended attributes."""
        handle = c_void_p()
        self._check(self._lib.ext2fs_xattrs_open(self._fs, inode, byref(handle)))
        for name, value in xattrs.items():
            self._check(self._lib.ext2fs_xattr_set(handle, name, value, len(value)))
        self._check(self._lib.ext2fs_xattrs_close(byref(handle)))

    def _new(self, above: int, kind: int) -> int:
        inode = c_uint()
        self._check(self._lib.ext2fs_new_inode(self._fs, above, kind, None, byref(inode)))
        return inode.value

    def _in_directory(self, above: int, enter: Callable[[], int]) -> None:
        code = enter()
        if code and self._all.text(code).startswith("No free space in the directory"):
            self._check(self._lib.ext2fs_expand_dir(self._fs, above))
            code = enter()
        self._check(code)

    def _read(self, inode: int) -> list[int]:
        raw = ctypes.create_string_buffer(_INODE.size)
        self._check(self._lib.ext2fs_read_inode(self._fs, inode, raw))
        return list(_INODE.unpack(raw.raw))

    def _write(self, inode: int, fields: list[int]) -> None:
        raw = ctypes.create_string_buffer(_INODE.pack(*fields), _INODE.size)
        self._check(self._lib.ext2fs_write_inode(self._fs, inode, raw))

    def _check(self, code: int) -> None:
        if not code:
            return
        text = self._all.text(code)
        if code in (errno.ENOSPC, errno.EDQUOT):
            raise Quota(f"cannot write the file system of the image: {text}", hint=MORE_ROOM)
        if "allocate" in text:
            raise Quota(
                f"the disk of the image is too small for what goes into it: {text}",
                hint="give a larger --size",
            )
        raise Failed(f"cannot write the file system of the image: {text}")


@contextmanager
def opened(path: str, *, offset: int) -> Iterator[FileSystem]:
    """Open the ext4 at ``offset`` of a disk file; at the end of the block it is whole."""
    library = _Library()
    handle = c_void_p()
    manager = c_void_p.in_dll(library.lib, "unix_io_manager")
    code = library.lib.ext2fs_open2(
        path.encode(), b"offset=%d" % offset, _RW | _64BITS, 0, 0, manager, byref(handle)
    )
    system = FileSystem(library, handle)
    system._check(code)
    system._check(library.lib.ext2fs_read_bitmaps(handle))
    yield system
    system._check(library.lib.ext2fs_close(handle))


def _fresh(kind: int) -> list[int | bytes]:
    fields: list[int | bytes] = [0] * len(_INODE.unpack(bytes(_INODE.size)))
    fields[0], fields[8], fields[12] = kind, 1, bytes(60)
    return fields


def _owned(fields: list[int], owner: tuple[int, int], mtime: int) -> list[int]:
    uid, gid = owner
    fields[1], fields[7] = uid & 0xFFFF, gid & 0xFFFF
    fields[19], fields[20] = uid >> 16, gid >> 16
    fields[3] = fields[4] = fields[5] = mtime
    return fields
