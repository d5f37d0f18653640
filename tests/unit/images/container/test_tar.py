"""The reader of tar archives, against Python's own writer and against nonsense."""

from __future__ import annotations

import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mayfly.errors import Invalid
from mayfly.images.container import tar
from mayfly.images.container.tar import Member, Tar
from tests.unit.images.container.making import Entry, hard_link, layer, symlink


def members(data: bytes) -> list[Member]:
    return list(Tar(io.BytesIO(data)))


def test_members_come_as_they_were_written() -> None:
    long = "d/" + "n" * 200
    data = layer(
        Entry(name="d/", mode=0o750, owner=(5, 3_000_000)),
        Entry(name=long, data=b"x" * 1000, mode=0o4755),
        symlink("s", "t" * 150),
        hard_link("h", long),
        Entry(name="ö", pax={"SCHILY.xattr.user.a": "b"}),
    )
    found = members(data)
    assert [each.name.decode() for each in found] == ["d/", long, "s", "h", "ö"]
    assert [each.kind for each in found] == [
        tar.DIRECTORY,
        tar.FILE,
        tar.SYMLINK,
        tar.LINK,
        tar.FILE,
    ]
    assert (found[0].mode, found[0].uid, found[0].gid) == (0o750, 5, 3_000_000)
    assert (found[1].mode, found[1].size) == (0o4755, 1000)
    assert data[found[1].offset :][:1000] == b"x" * 1000
    assert found[2].target == b"t" * 150
    assert found[4].xattrs == {b"user.a": b"b"}


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_all_forms_are_read(form: int) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        info = tarfile.TarInfo("a" * 90 + "/" + "b" * 90)
        info.size = 3
        archive.addfile(info, io.BytesIO(b"abc"))
    (found,) = members(buffer.getvalue())
    assert (found.name, found.size) == (b"a" * 90 + b"/" + b"b" * 90, 3)


def test_content_can_be_read_in_part_or_not_at_all() -> None:
    archive = Tar(io.BytesIO(layer(*(Entry(name=str(n), data=b"%d" % n * 700) for n in range(3)))))
    seen = [archive.read(5) for member in archive if member.name != b"1"]
    assert seen == [b"00000", b"22222"]


def checked(header: bytes) -> bytes:
    total = sum(header[:148]) + 8 * 32 + sum(header[156:])
    return header[:148] + b"%06o\0 " % total + header[156:]


ONE = layer(Entry(name="a", data=b"x" * 600))
BAD = [
    (ONE[:100], "truncated"),
    (ONE[:600], "truncated"),
    (ONE[:1100], "truncated"),
    (b"x" * 512, "damaged"),
    (checked(ONE[:124] + b"9" * 11 + b"\0" + ONE[136:512]), "its size is"),
    (checked(ONE[:124] + b"\x80" + b"\xff" * 11 + ONE[136:512]), "its size is"),
    (checked(ONE[:156] + b"S" + ONE[157:512]), "sparse"),
    (checked(ONE[:156] + b"Z" + ONE[157:512]), "not known"),
    (checked(ONE[:124] + b"77777777777\0" + ONE[136:156] + b"x" + ONE[157:512]), "a header of"),
    (checked(ONE[:156] + b"x" + ONE[157:512]) + ONE[512:], "extended header"),
    (layer(Entry(name="a", pax={"size": "-5", "uid": "x"})), "its uid"),
]


@pytest.mark.parametrize(("data", "said"), BAD)
def test_what_is_damaged_is_refused(data: bytes, said: str) -> None:
    with pytest.raises(Invalid, match=said):
        members(data)


@given(st.binary(max_size=2000), st.integers(min_value=0, max_value=len(ONE)))
def test_no_bytes_bring_it_down(noise: bytes, at: int) -> None:
    try:
        found = members(ONE[:at] + noise + ONE[at + len(noise) :])
    except Invalid:
        return
    assert all(member.size >= 0 for member in found)
